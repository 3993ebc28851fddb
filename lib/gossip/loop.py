"""The plain loop over nodes: what the papers' algorithms say, one model at a time, for tests to compare with.

Every node is a ``torch.nn.Module`` with ``torch.optim.SGD`` of its own and an inbox of whole received models.
Slow; :class:`lib.gossip.nodes.StackedNodes` gives the same numbers. Both ask the same learning system how to mix;
Algorithms 1 to 3 of paper 2 as a short text to read are in :mod:`lib.gossip.reference`.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lib import batchnorm, sphere, training
from lib.batched.layout import Layout


class LoopNodes:
    """N nodes, one after another; the interface of :class:`lib.gossip.nodes.StackedNodes`."""

    chunk = 8

    def __init__(self, models, count, task, *, mixes_momentum=False, mixes_statistics=False):
        self.models = [model.to(device=task.device, dtype=task.train.x.dtype) for model in models]
        self.trained = [task.prepared(model) for model in self.models]
        self.layout = Layout.of(self.models[0])
        self.optimisers = [torch.optim.SGD(model.parameters(), lr=1.0) for model in self.models]
        self.inboxes = [[] for _ in self.models]
        self.mixes_momentum, self.mixes_statistics = mixes_momentum, mixes_statistics

    @property
    def weights(self):
        """Weights of all nodes, (N, D)."""
        return torch.stack([_vector(model) for model in self.models])

    def train(self, due, x, y, *, lr, momentum):
        """One SGD step of each due node on its images ``x[:, k]``."""
        changes = []
        for k, node in enumerate(due.tolist()):
            model, optimiser = self.models[node].train(), self.optimisers[node]
            optimiser.param_groups[0].update(lr=lr, momentum=momentum)
            before = _vector(model)
            optimiser.zero_grad()
            F.cross_entropy(self.trained[node](x[:, k]), y[:, k]).backward()
            optimiser.step()
            changes.append(_vector(model) - before)
        return torch.stack(changes)

    def send(self, senders, edges, shares, mask=None):
        """Append (share, model, momentum, statistics, mask) to the inbox of each receiver."""
        for position, receiver, share in zip(*(e.tolist() for e in edges), shares.tolist(), strict=True):
            node = int(senders[position])
            held = torch.ones(self.layout.size, dtype=torch.bool) if mask is None else mask[position]
            parts = (_vector(self.models[node]), self._momentum(node), _statistics(self.models[node]))
            self.inboxes[receiver].append((share, *parts, held))

    def average(self, ready, averaging, beta, kept):
        """Average, replace, clear, for each ready node; see :meth:`lib.gossip.nodes.StackedNodes.average`."""
        kept = torch.zeros_like(beta) if kept is None else kept
        for node, own_share, in_mean in zip(ready.tolist(), beta, kept[:, 0].tolist(), strict=True):
            inbox, self.inboxes[node] = self.inboxes[node], []
            shares = torch.tensor([message[0] for message in inbox], dtype=torch.float64)
            total = float(shares.sum())
            shares, in_mean = (shares / total).tolist(), in_mean / (in_mean + total)
            own = _vector(self.models[node])
            mean, received = torch.zeros_like(own), 0.0
            for share, (_, sent, _, _, held) in zip(shares, inbox, strict=True):
                mean += share * torch.where(held, sent, own)
                received = received + share * self.layout.variance(sent[None])
            mean = in_mean * own + (1 - in_mean) * mean
            mixed = averaging.mix(own[None], mean[None], received, own_share[None], self.layout)[0]
            nn.utils.vector_to_parameters(mixed.clone(), self.models[node].parameters())
            self._mix_others(node, inbox, shares, float(own_share), in_mean)

    def _correct(self, vector, target, epsilon=0.0):
        state = sphere.correct(self.layout.state(vector), target, epsilon=epsilon)
        return torch.cat([state[name].reshape(-1) for name in self.layout.names])

    def _mix_others(self, node, inbox, shares, beta, in_mean):
        def mix(own, place):
            received = sum(s * message[place] for s, message in zip(shares, inbox, strict=True))
            return beta * own + (1 - beta) * (in_mean * own + (1 - in_mean) * received)

        if self.mixes_momentum:
            self._set_momentum(node, mix(self._momentum(node), 2))
        if self.mixes_statistics:
            _set_statistics(self.models[node], mix(_statistics(self.models[node]), 3))

    def replace(self, reported, *, corrected=False):
        """Give every node the mean of the reported models, as a federated server does."""
        vectors = [_vector(self.models[node]) for node in reported.tolist()]
        mean = sum(vectors) / len(vectors)
        if corrected:
            variances = [sphere.variance(self.layout.state(vector)) for vector in vectors]
            target = {n: sum(v[n] for v in variances) / len(variances) for n in self.layout.layers}
            mean = self._correct(mean, target)
        for model in self.models:
            nn.utils.vector_to_parameters(mean.clone(), model.parameters())  # views: no two may share

    def variance(self):
        """Variance of each layer of each node, (N, layers)."""
        return self.layout.variance(self.weights)

    def distance(self):
        """L1 and L2 distance of each node's weights from the mean model, (N, 2)."""
        away = self.weights - self.weights.mean(0)
        return torch.stack([away.norm(k, dim=1) for k in (1, 2)], 1)

    def evaluate(self, split, *, calibration=None):
        """Loss and accuracy of every node over a split, (N, 2)."""
        scores = []
        for model in self.models:
            kept = _statistics(model)
            if calibration is not None:
                batchnorm.reestimate(model, calibration)
            scores.append(training.evaluate(model, split))
            _set_statistics(model, kept)
        return torch.tensor(scores, dtype=torch.float64)

    def state(self):
        """A loop of tests is not resumed."""
        raise NotImplementedError("backend='loop' keeps no checkpoint")

    def _momentum(self, node):
        state = self.optimisers[node].state
        buffers = [state[p].get("momentum_buffer") for p in self.models[node].parameters()]
        return torch.cat([
            torch.zeros_like(p).detach().reshape(-1) if b is None else b.reshape(-1)
            for p, b in zip(self.models[node].parameters(), buffers, strict=True)
        ])  # fmt: skip

    def _set_momentum(self, node, vector):
        for name, parameter in self.models[node].named_parameters():
            value = self.layout.state(vector)[name].clone()
            self.optimisers[node].state[parameter]["momentum_buffer"] = value


def _vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def _norm_buffers(model):
    return [b for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))]


def _statistics(model):
    buffers = [buffer.reshape(-1) for buffer in _norm_buffers(model)]
    return torch.cat(buffers) if buffers else torch.zeros(0)


def _set_statistics(model, vector):
    start = 0
    for buffer in _norm_buffers(model):
        buffer.copy_(vector[start : start + buffer.numel()].view_as(buffer))
        start += buffer.numel()
