"""The plain loop over nodes, one model at a time, for tests to compare with.

Every node is a ``torch.nn.Module`` with ``torch.optim.SGD`` of its own and an inbox of whole received models.
Slow; :class:`lib.gossip.nodes.StackedNodes` gives the same numbers. Both ask the same learning system how to mix;
Algorithms 1 to 3 of paper 2 as a short text to read are in :mod:`lib.gossip.reference`.
"""

import torch

from lib import batchnorm, sphere
from lib.batched.fallback import contiguous
from lib.gossip.algorithms import mixed_by
from lib.gossip.recorder import score
from lib.weights import Layout


class LoopNodes:
    """N nodes, one after another; the interface of :class:`lib.gossip.nodes.StackedNodes`."""

    chunk = 1

    def __init__(self, models, num_nodes, task, blended=(), *, biases=False):
        self.models, self.loss = list(models), task.loss
        self.model = self.models[0]
        self.trained = [task.prepared(model) for model in self.models]
        self.layout = Layout.of(self.models[0], biases=biases)
        self.optimisers = [torch.optim.SGD(model.parameters(), lr=1.0) for model in self.models]
        self.inboxes = [[] for _ in self.models]
        self.parts = ("weights", *blended)

    @property
    def weights(self):
        """Weights of all nodes, (N, D)."""
        return torch.stack([self._row("weights", node) for node in range(len(self.models))])

    @property
    def buffers(self):
        """All buffers of all nodes, by name, (N, *shape)."""
        named = [dict(model.named_buffers()) for model in self.models]
        return {name: torch.stack([own[name] for own in named]) for name in named[0]}

    def train(self, due, x, y, *, lr, momentum):
        """One SGD step of each due node on its inputs ``x[:, k]``."""
        changes = []
        for k, node in enumerate(due.tolist()):
            optimiser = self.optimisers[node]
            self.models[node].train()
            optimiser.param_groups[0].update(lr=float(lr[k]), momentum=momentum)
            before = self._row("weights", node)
            optimiser.zero_grad()
            self.loss(self.trained[node](contiguous(x[:, k])), y[:, k]).backward()
            optimiser.step()
            changes.append(self._row("weights", node) - before)
        return torch.stack(changes)

    def send(self, senders, messages, mask=None):
        """Append (weight, parts of the sender, mask) to the inbox of each receiver."""
        for position, receiver, weight in zip(*(each.tolist() for each in messages), strict=True):
            sent = {part: self._row(part, int(senders[position])) for part in self.parts}
            self.inboxes[receiver].append((weight, sent, None if mask is None else mask[position]))

    def average(self, ready, system, kept=None):
        """Average, replace, clear, for each ready node; see :meth:`lib.gossip.nodes.StackedNodes.average`."""
        for node in ready.tolist():
            inbox, self.inboxes[node] = self.inboxes[node], []
            self._mix(node, inbox, system, 0.0 if kept is None else float(kept[node]))

    def gather(self, reported, receivers, system):
        """Each receiver mixes in the mean of the reported models; see :meth:`lib.gossip.nodes.StackedNodes.gather`."""
        inbox = [(1.0, {part: self._row(part, node) for part in self.parts}, None) for node in reported.tolist()]
        for node in receivers.tolist() if inbox else ():
            self._mix(node, inbox, system, 0.0)

    def _mix(self, node, inbox, system, kept):
        """Let a node mix in the messages (weight, parts, mask) of an inbox; ``kept``: its own weight in their mean."""
        total = sum(weight for weight, _, _ in inbox)
        kept = kept / (kept + total)
        variances = [sphere.variances(sent["weights"][None], self.layout) for _, sent, _ in inbox]
        variance = sum(weight / total * each for (weight, _, _), each in zip(inbox, variances, strict=True))
        for part in self.parts:
            own, mean = self._row(part, node), 0.0
            for weight, sent, mask in inbox:
                whole = mask is None or part != "weights"
                mean = mean + weight / total * (sent[part] if whole else torch.where(mask, sent[part], own))
            own, mean = own[None], (kept * own + (1 - kept) * mean)[None]
            weights = part == "weights"
            mixed = mixed_by(system, own, mean, variance, self.layout) if weights else system.blend(own, mean)
            self._set_row(part, node, mixed[0])

    def variance(self):
        """Variance of each layer of each node, (N, layers)."""
        return sphere.variances(self.weights, self.layout)

    def distance(self):
        """L1 and L2 distance of each node's weights from the mean model, (N, 2)."""
        away = self.weights - self.weights.mean(0)
        return torch.stack([away.norm(k, dim=1) for k in (1, 2)], 1)

    def evaluate(self, split, *, calibration=None):
        """The score of every node on a split: loss and, if the task has one, metric, (N, 2) or (N, 1)."""
        scores = []
        for model in self.models:
            before = [buffer.clone() for buffer in model.buffers()]
            scores.append(score(model, split, calibration))
            for buffer, values in zip(model.buffers(), before, strict=True):
                buffer.copy_(values)
        return torch.tensor(scores, dtype=torch.float64)

    def state(self):
        """A loop of tests is not resumed."""
        raise NotImplementedError("backend='loop' keeps no checkpoint")

    def _tensors(self, part, node):
        """The tensors of which a node's weights, momentum or running statistics consist."""
        if part == "statistics":
            return list(batchnorm.running_statistics(self.models[node]).values())
        parameters = list(self.models[node].parameters())
        if part == "weights":
            return [parameter.data for parameter in parameters]
        states = [self.optimisers[node].state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)
        return [state["momentum_buffer"] for state in states]

    def _row(self, part, node):
        tensors = self._tensors(part, node)
        return torch.cat([tensor.reshape(-1) for tensor in tensors]) if tensors else torch.zeros(0)

    def _set_row(self, part, node, row):
        tensors = self._tensors(part, node)
        for tensor, values in zip(tensors, row.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(values.view_as(tensor))
