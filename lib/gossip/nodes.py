"""All nodes of a simulation at once: one matrix of weights, one of momentum, one mailbox.

A tick of training gathers the rows of the due nodes, runs them as one network, makes the SGD step on whole
rows and scatters them back; nothing loops over nodes in Python and nothing waits for the device. Mailboxes
hold running sums, not models, so that memory is three times nodes x weights. The plain loop that this must
equal is :class:`lib.gossip.loop.LoopNodes`.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lib.batched.fallback import network, running_statistics
from lib.batched.gradients import gradients
from lib.batched.layout import Layout
from lib.gossip.mailbox import Mailbox, write_rows


class StackedNodes:
    """N nodes of one architecture.

    Parameters
    ----------
    models : iterable of torch.nn.Module
        The nodes' initial models, all of one architecture.
    count : int
        How many there are, N.
    task : lib.tasks.Task
        For the device, the number type, a trial run and how networks are trained.

    Attributes
    ----------
    weights, momentum : tensor (N, D)
    statistics : tensor (N, S)
        Running mean and variance of all batch norms of a node; S is 0 without batch norm.
    layout : Layout
    chunk : int
        Nodes that are best trained at once.
    """

    def __init__(self, models, count, task, *, mixes_momentum=False, mixes_statistics=False):
        images = task.train.x
        like = {"device": images.device, "dtype": images.dtype}
        for i, model in enumerate(models):
            running = running_statistics(model)
            if i == 0:
                self.layout = Layout.of(model)
                self.moments = Layout(tuple(running), tuple(tuple(each.shape) for each in running.values()))
                self.weights = torch.empty(count, self.layout.size, **like)
                self.statistics = torch.empty(count, self.moments.size, **like)
                norms = {name: model.get_submodule(name.rpartition(".")[0]) for name in running}
                self.rates = {name: norm.momentum for name, norm in norms.items()}
                self.network = network(model.to(**like), images[:2])
                self.trained = task.prepared(self.network)
            self.weights[i] = nn.utils.parameters_to_vector(model.parameters()).detach()
            for name, view in self.moments.views(self.statistics[i : i + 1]).items():
                view[0] = running[name]
        self.momentum = torch.zeros_like(self.weights)
        self.models = Mailbox(count, self.layout.size, len(self.layout.layers), **like)
        self.others = {
            "momentum": Mailbox(count, self.layout.size, 0, **like) if mixes_momentum else None,
            "statistics": Mailbox(count, self.moments.size, 0, **like) if mixes_statistics else None,
        }
        # Activations of a few million numbers stay in the cache of a CPU; a GPU wants all nodes at once.
        self.chunk = 8 if images.device.type == "cpu" else 512

    def train(self, due, x, y, *, lr, momentum):
        """One SGD step of the due nodes.

        Parameters
        ----------
        due : tensor (k,), int64
        x : tensor (B, k, C, H, W)
        y : tensor (B, k)

        Returns
        -------
        tensor (k, D)
            What the step added to the weights.
        """
        rows = self.weights.index_select(0, due)
        statistics = self.statistics[due]
        step, _ = gradients(self.trained, self.layout, rows, self.moments.views(statistics), x, y)
        step.add_(self.momentum.index_select(0, due), alpha=momentum)
        write_rows(self.momentum, due, step)
        self.weights.index_add_(0, due, step, alpha=-lr)
        self.statistics[due] = statistics
        return step.mul_(-lr)

    def send(self, senders, edges, shares, mask=None):
        """Put the senders' models into the mailboxes of others.

        Parameters
        ----------
        senders : tensor (k,), int64
        edges : (tensor (e,), tensor (e,)), int64
            Position in ``senders``, and receiver, of each message; on the CPU, like the shares.
        shares : tensor (e,)
            Weight of each message in the receiver's mean.
        mask : tensor (k, D), bool, optional
            The weights that the messages hold; default all.
        """
        rows = self.weights.index_select(0, senders)
        self.models.put(edges, rows, shares, variance=self.layout.variance(rows), mask=mask)
        for name, box in self.others.items():
            if box is not None:
                box.put(edges, getattr(self, name)[senders], shares)

    def average(self, ready, averaging, beta, kept):
        """Let the ready nodes (k,) mix in what they received, by a learning system.

        Parameters
        ----------
        beta : tensor (k, 1)
            Weight of the own model in the mixture.
        kept : tensor (k, 1) or None
            Weight of the own model in the mean of what was received; None for none.
        """
        for part in torch.arange(len(ready), device=ready.device).split(self.chunk):
            nodes, own_share, in_mean = ready[part], beta[part], None if kept is None else kept[part]
            own = self.weights.index_select(0, nodes)
            mean, variance = self.models.take(nodes, own, in_mean)
            write_rows(self.weights, nodes, averaging.mix(own, mean, variance, own_share, self.layout))
            for name, box in self.others.items():
                if box is not None:
                    mine = getattr(self, name)
                    mine[nodes] = box.take(nodes, mine[nodes], in_mean)[0].lerp_(mine[nodes], own_share)

    def replace(self, reported, *, corrected=False):
        """Give every node the mean of the reported models (k,), as a federated server does."""
        rows = self.weights[reported]
        mean = rows.mean(0, keepdim=True)
        if corrected:
            self.layout.correct_(mean, self.layout.variance(rows).mean(0, keepdim=True))
        self.weights[:] = mean

    def variance(self):
        """Variance of each layer of each node, (N, layers)."""
        return self.layout.variance(self.weights)

    def distance(self):
        """L1 and L2 distance of each node's weights from the mean model, (N, 2)."""
        mean, found = self.weights.mean(0), self.weights.new_empty(len(self.weights), 2)
        for part, into in zip(self.weights.split(16), found.split(16), strict=True):
            difference = part - mean
            for number, order in enumerate((1, 2)):
                into[:, number] = difference.norm(order, dim=1)
        return found

    @torch.no_grad()
    def evaluate(self, split, *, batch=64, calibration=None):
        """Loss and accuracy of every node over a split, (N, 2).

        Parameters
        ----------
        split : lib.tasks.Split
        calibration : tensor (m, C, H, W), optional
            Images for which batch-norm statistics are computed first, instead of the running ones.
        """
        scores = []
        for nodes in torch.arange(len(self.weights), device=split.x.device).split(self.chunk):
            parameters = self.layout.views(self.weights[nodes])
            moments = self.moments.views(self.statistics[nodes])
            if calibration is not None:
                moments = self._calibrate(parameters, moments, calibration)
            total = torch.zeros(len(nodes), 2, dtype=torch.float64, device=split.x.device)
            for x, y in zip(split.x.split(batch), split.y.split(batch), strict=True):
                logits = self.network(parameters, moments, x, training=False)
                labels = y.expand(len(nodes), -1)
                loss = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
                total[:, 0] += loss.sum(1)
                total[:, 1] += (logits.argmax(2) == labels).sum(1)
            scores.append(total / len(split))
        return torch.cat(scores)

    def _calibrate(self, parameters, moments, images):
        """Running statistics of one batch: from zeros, one pass leaves each module's momentum times them."""
        fresh = {name: torch.zeros_like(value) for name, value in moments.items()}
        self.network(parameters, fresh, images, training=True)
        return {name: value / self.rates[name] for name, value in fresh.items()}

    def state(self):
        """Everything that changes, as a nested dict of tensors."""
        boxes = {"models": self.models, **self.others}
        own = {name: getattr(self, name) for name in ("weights", "momentum", "statistics")}
        return own | {f"box {name}": box.state() for name, box in boxes.items() if box is not None}

    def load(self, state):
        """Take over a state."""
        for name in ("weights", "momentum", "statistics"):
            getattr(self, name).copy_(state[name])
        for name, box in {"models": self.models, **self.others}.items():
            if box is not None:
                box.load(state[f"box {name}"])
