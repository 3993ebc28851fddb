"""All nodes of a simulation at once: one matrix of weights, one of momentum, one mailbox.

A tick of training gathers the rows of the due nodes, runs them as one network, makes the SGD step on whole
rows and scatters them back; nothing loops over nodes in Python and nothing waits for the device. Mailboxes
hold running sums, not models, so that memory is three times nodes x weights. The plain loop that this must
equal is :class:`lib.gossip.loop.LoopNodes`.
"""

import warnings

import torch

from lib import batchnorm, scores, sphere
from lib.batched.fallback import WAYS, SerialNetwork, network, reestimated
from lib.batched.gradients import gradients
from lib.gossip.algorithms import mixed_by
from lib.gossip.mailbox import Mailbox, write_rows
from lib.gossip.recorder import score
from lib.weights import Layout, copy_of, flatten


class StackedNodes:
    """N nodes of one architecture.

    Parameters
    ----------
    models : iterable of torch.nn.Module
        The nodes' initial models, all of one architecture, on the task's device.
    num_nodes : int
        How many there are, N.
    task : lib.tasks.Task
        For the device, the number type, a trial run and how networks are trained.
    blended : tuple of {"momentum", "statistics"}
        What is averaged beside the weights.
    biases : bool
        Whether biases have a variance, as weight tensors have.

    Attributes
    ----------
    weights, momentum : tensor (N, D)
    buffers : dict of str to tensor (N, *shape)
        All buffers of all nodes, by name.
    statistics : tensor (N, S)
        Running mean and variance of the batch norms of a node, to which ``buffers`` has views; S is 0 without any.
    layout : Layout
    model : torch.nn.Module
        One for all nodes, see :func:`load_node`.
    chunk : int
        Nodes that are best trained at once.
    """

    def __init__(self, models, num_nodes, task, blended=(), *, biases=False):
        self.loss, like = task.loss, {"device": task.device, "dtype": task.dtype}
        for i, model in enumerate(models):
            if i == 0:
                inputs = task.train.x[:2]
                self.model, self.layout = model, Layout.of(model, biases=biases)
                self.weights = torch.empty(num_nodes, self.layout.size, **like)
                self.buffers = {n: b.expand(num_nodes, *b.shape).clone() for n, b in model.named_buffers()}
                running = batchnorm.running_statistics(model)
                moments = Layout(tuple(running), tuple(tuple(each.shape) for each in running.values()))
                self.statistics = torch.empty(num_nodes, moments.size, **like)
                self.buffers |= moments.views(self.statistics)
                alone = _draws(model, inputs)  # what a node draws must not depend on who is trained with it
                self.network = network(model, inputs, (SerialNetwork,) if alone else WAYS)
                self.trained = task.prepared(self.network)
            self.weights[i] = flatten(model)
            for name, buffer in model.named_buffers():
                self.buffers[name][i] = buffer
        self.momentum = torch.zeros_like(self.weights)
        self.boxes = {
            "weights": Mailbox(num_nodes, self.layout.size, len(self.layout.layers), **like),
            **{name: Mailbox(num_nodes, getattr(self, name).shape[1], 0, **like) for name in blended},
        }
        # Activations of a few million numbers stay in the cache of a CPU; a GPU wants all nodes at once.
        self.chunk = 1 if alone else 8 if task.device.type == "cpu" else 512

    def train(self, due, x, y, *, lr, momentum):
        """One SGD step of the due nodes.

        Parameters
        ----------
        due : tensor (k,), int64
        x : tensor (B, k, ...)
        y : tensor (B, k, ...)
        lr : tensor (k,)

        Returns
        -------
        tensor (k, D)
            What the step added to the weights.
        """
        due = due.to(self.weights.device)
        rows = self.weights.index_select(0, due)
        buffers = self._buffers(due)
        step, _ = gradients(self.trained, self.layout, rows, buffers, x, y, self.loss)
        step.add_(self.momentum.index_select(0, due), alpha=momentum)
        write_rows(self.momentum, due, step)
        change = step.mul_(-lr.to(step)[:, None])
        self.weights.index_add_(0, due, change)
        for name, values in buffers.items():
            self.buffers[name][due] = values
        return change

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
        return sphere.variances(rows, self.layout) if name == "weights" else rows[:, :0]

    def _mix(self, name, nodes, system, own, mean, variance):
        """Replace rows of the weights, or of what is averaged beside them, by what a system makes of them."""
        weights = name == "weights"
        mixed = mixed_by(system, own, mean, variance, self.layout) if weights else system.blend(own, mean)
        write_rows(getattr(self, name), nodes, mixed)

    def variance(self):
        """Variance of each layer of each node, (N, layers)."""
        return sphere.variances(self.weights, self.layout)

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
        everybody = torch.arange(len(self.weights), device=self.weights.device)
        if batchnorm.depends_on_batch(self.model):
            models = (load_node(self.model, self.weights, self.buffers, node) for node in everybody.tolist())
            return torch.tensor([score(model, split, calibration) for model in models], dtype=torch.float64)
        parts = []
        for nodes in everybody.split(self.chunk):
            parameters = self.layout.views(self.weights[nodes])
            buffers = self._buffers(nodes)
            if calibration is not None:
                buffers = reestimated(self.network, parameters, buffers, calibration)
            outputs = [self.network(parameters, buffers, x, training=False) for x in split.x.split(batch)]
            parts.append(scores.of_networks(split, torch.cat(outputs, 1)))
        return torch.cat(parts)

    def _buffers(self, nodes):
        return {name: values[nodes] for name, values in self.buffers.items()}

    def state(self):
        """Everything that changes, as a nested dict of tensors."""
        own = {"weights": self.weights, "momentum": self.momentum, "buffers": self.buffers}
        return own | {"boxes": {name: box.state() for name, box in self.boxes.items()}}

    def load(self, state):
        """Restore a state."""
        for name in ("weights", "momentum"):
            getattr(self, name).copy_(state[name])
        for name, values in self.buffers.items():
            values.copy_(state["buffers"][name])
        for name, box in self.boxes.items():
            box.load(state["boxes"][name])


@torch.no_grad()
def load_node(model, weights, buffers, node):
    """Give a model the weights (N, D) and the buffers, by name (N, *shape), of a node."""
    for name, values in Layout.of(model).state(weights[node]).items():
        model.get_parameter(name).copy_(values)
    for name, values in buffers.items():
        model.get_buffer(name).copy_(values[node])
    return model


@torch.no_grad()
def _draws(model, inputs):
    """Whether a model draws random numbers in training mode, as dropout does."""
    states = torch.get_rng_state, *([torch.cuda.get_rng_state] if inputs.is_cuda else ())
    before = [state() for state in states]
    try:
        copy_of(model).train()(inputs)
    except Exception:  # the model's own code; `network` says what is wrong
        return False
    same = all(map(torch.equal, before, [state() for state in states]))
    if not same:
        name = type(model).__name__
        warnings.warn(f"model {name} draws random numbers, as dropout does: its nodes run one by one", stacklevel=2)
    return not same
