"""All nodes of a simulation at once: one matrix of weights, one of momentum, one mailbox.

A tick of training gathers the rows of the due nodes, runs them as one network, makes the SGD step on whole
rows and scatters them back; nothing loops over nodes in Python and nothing waits for the device. Mailboxes
hold running sums, not models, so that memory is three times nodes x weights. The plain loop that this must
equal is :class:`lib.gossip.loop.LoopNodes`.
"""

import torch
from torch import nn

from lib import scores
from lib.batched.fallback import network
from lib.batched.gradients import gradients
from lib.batched.layout import Layout
from lib.batchnorm import running_statistics
from lib.errors import InputError
from lib.gossip.mailbox import Mailbox, write_rows


class StackedNodes:
    """N nodes of one architecture.

    Parameters
    ----------
    models : iterable of torch.nn.Module
        The nodes' initial models, all of one architecture.
    num_nodes : int
        How many there are, N.
    task : lib.tasks.Task
        For the device, the number type, a trial run and how networks are trained.
    blended : tuple of {"momentum", "statistics"}
        What is averaged beside the weights.

    Attributes
    ----------
    weights, momentum : tensor (N, D)
    statistics : tensor (N, S)
        Running mean and variance of all batch norms of a node; S is 0 without batch norm.
    layout : Layout
    chunk : int
        Nodes that are best trained at once.
    """

    def __init__(self, models, num_nodes, task, blended=()):
        self.loss, like = task.loss, {"device": task.device, "dtype": task.dtype}
        for i, model in enumerate(models):
            running = running_statistics(model)
            if i == 0:
                self.layout = Layout.of(model)
                self.moments = Layout(tuple(running), tuple(tuple(each.shape) for each in running.values()))
                self.weights = torch.empty(num_nodes, self.layout.size, **like)
                self.statistics = torch.empty(num_nodes, self.moments.size, **like)
                norms = {name: model.get_submodule(name.rpartition(".")[0]) for name in running}
                self.rates = {name: norm.momentum for name, norm in norms.items()}
                self.network = network(model, task.train.x[:2])
                self.trained = task.prepared(self.network)
            self.weights[i] = nn.utils.parameters_to_vector(model.parameters()).detach()
            for name, view in self.moments.views(self.statistics[i : i + 1]).items():
                view[0] = running[name]
        self.momentum = torch.zeros_like(self.weights)
        self.boxes = {
            "weights": Mailbox(num_nodes, self.layout.size, len(self.layout.layers), **like),
            **{name: Mailbox(num_nodes, getattr(self, name).shape[1], 0, **like) for name in blended},
        }
        # Activations of a few million numbers stay in the cache of a CPU; a GPU wants all nodes at once.
        self.chunk = 8 if task.device.type == "cpu" else 512

    def train(self, due, x, y, *, lr, momentum):
        """One SGD step of the due nodes.

        Parameters
        ----------
        due : tensor (k,), int64
        x : tensor (B, k, ...)
        y : tensor (B, k, ...)

        Returns
        -------
        tensor (k, D)
            What the step added to the weights.
        """
        due = due.to(self.weights.device)
        rows = self.weights.index_select(0, due)
        statistics = self.statistics[due]
        step, _ = gradients(self.trained, self.layout, rows, self.moments.views(statistics), x, y, self.loss)
        step.add_(self.momentum.index_select(0, due), alpha=momentum)
        write_rows(self.momentum, due, step)
        self.weights.index_add_(0, due, step, alpha=-lr)
        self.statistics[due] = statistics
        return step.mul_(-lr)

    def send(self, senders, messages, mask=None):
        """Put the senders' models into the mailboxes of others.

        Parameters
        ----------
        senders : tensor (k,), int64
        messages : (tensor (e,), tensor (e,), tensor (e,))
            Position in ``senders``, receiver, and weight in the receiver's mean, of each message; on the CPU.
        mask : tensor (k, D), bool, optional
            The weights that the messages hold; default all.
        """
        for name, box in self.boxes.items():
            rows = self._rows(name, senders.to(self.weights.device))
            box.put(messages, rows, self._variance(name, rows), mask if name == "weights" else None)

    def average(self, ready, system, kept=None):
        """Let the ready nodes (k,) mix in what they received, by a learning system.

        Parameters
        ----------
        kept : tensor (N,) or None
            Weight of each node's own model in the mean of what it received; None for none.
        """
        for nodes in ready.split(self.chunk) if len(ready) else ():
            in_mean = None if kept is None else kept[nodes, None].to(self.weights)
            nodes = nodes.to(self.weights.device)
            for name, box in self.boxes.items():
                own = self._rows(name, nodes)
                self._mix(name, nodes, system, own, *box.take(nodes, own, in_mean))

    def gather(self, reported, receivers, system):
        """Let the receivers (k,) mix in the mean of the reported models (r,), as a federated server sends it."""
        reported, receivers = reported.to(self.weights.device), receivers.to(self.weights.device)
        for name in self.boxes if len(reported) else ():
            rows = self._rows(name, reported)
            mean, variance = (each.mean(0, keepdim=True) for each in (rows, self._variance(name, rows)))
            for node in receivers.split(1):
                self._mix(name, node, system, self._rows(name, node), mean.clone(), variance)

    def _rows(self, name, nodes):
        return getattr(self, name).index_select(0, nodes)

    def _variance(self, name, rows):
        """Variance of each layer (k, layers) of rows of the weights; what is averaged beside them has no layers."""
        return self.layout.variance(rows) if name == "weights" else rows[:, :0]

    def _mix(self, name, nodes, system, own, mean, variance):
        """Replace rows of the weights, or of what is averaged beside them, by what a system makes of them."""
        mixed = system.mix(own, mean, variance, self.layout) if name == "weights" else system.blend(own, mean)
        if mixed.shape != own.shape:
            raise InputError(f"{type(system).__name__}.mix: gave {tuple(mixed.shape)}, needs {tuple(own.shape)}")
        write_rows(getattr(self, name), nodes, mixed)

    def variance(self):
        """Variance of each layer of each node, (N, layers)."""
        return self.layout.variance(self.weights)

    def distance(self):
        """L1 and L2 distance of each node's weights from the mean model, (N, 2)."""
        mean, norms = self.weights.mean(0), self.weights.new_empty(len(self.weights), 2)
        for part, into in zip(self.weights.split(16), norms.split(16), strict=True):
            difference = part - mean
            for column, order in enumerate((1, 2)):
                into[:, column] = difference.norm(order, dim=1)
        return norms

    @torch.no_grad()
    def evaluate(self, split, *, batch=64, calibration=None):
        """The score of every node on a split: loss and, if the task has one, metric, (N, 2) or (N, 1).

        Parameters
        ----------
        split : lib.tasks.Split
        calibration : tensor (m, ...), optional
            Inputs for which batch-norm statistics are computed first, instead of the running ones.
        """
        found = []
        for nodes in torch.arange(len(self.weights), device=self.weights.device).split(self.chunk):
            parameters = self.layout.views(self.weights[nodes])
            moments = self.moments.views(self.statistics[nodes])
            if calibration is not None:
                moments = self._calibrate(parameters, moments, calibration)
            outputs = [self.network(parameters, moments, x, training=False) for x in split.x.split(batch)]
            found.append(scores.of_networks(split, torch.cat(outputs, 1)))
        return torch.cat(found)

    def _calibrate(self, parameters, moments, images):
        """Running statistics of one batch: from zeros, one pass leaves each module's momentum times them."""
        fresh = {name: torch.zeros_like(value) for name, value in moments.items()}
        self.network(parameters, fresh, images, training=True)
        return {name: value / self.rates[name] for name, value in fresh.items()}

    def state(self):
        """Everything that changes, as a nested dict of tensors."""
        own = {name: getattr(self, name) for name in ("weights", "momentum", "statistics")}
        return own | {"boxes": {name: box.state() for name, box in self.boxes.items()}}

    def load(self, state):
        """Restore a state."""
        for name in ("weights", "momentum", "statistics"):
            getattr(self, name).copy_(state[name])
        for name, box in self.boxes.items():
            box.load(state["boxes"][name])
