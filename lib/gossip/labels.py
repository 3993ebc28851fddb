"""Which training data a node sees: a distribution of labels for each node, or a partition of the data.

In paper 2 every node samples the whole training split through its own label distribution, which is drawn once and
kept for the run. Or each node has inputs of its own. Either way a batch is drawn with replacement, all draws are
seeded, and a simulation returns who sees what.
"""

from dataclasses import dataclass

import numpy as np
import torch

from lib import seeds
from lib.errors import InputError


class LabelDistribution:
    """A distribution of labels for each node; one of your own is a subclass with a method ``distribution``."""

    def deal(self, task, num_nodes, *, seed):
        """Who sees what of a task, a :class:`Sampler`."""
        if task.classes is None and not isinstance(self, IID):
            raise InputError(f"labels={self}: the task has no classes, only IID() and Partition(...) are possible")
        return Sampler.by_label(task.train.classes, self.distribution(num_nodes, task.classes or 1, seed=seed))


@dataclass(frozen=True)
class IID(LabelDistribution):
    """Every node draws all classes with the same probability."""

    def distribution(self, nodes, classes, *, seed):
        """Probabilities (nodes, classes), float64."""
        return torch.full((nodes, classes), 1 / classes, dtype=torch.float64)


@dataclass(frozen=True)
class Dirichlet(LabelDistribution):
    """Each node's distribution is one draw of Dirichlet(alpha, ..., alpha): the smaller, the more uneven."""

    alpha: float = 0.5

    def __post_init__(self):
        if not self.alpha > 0:
            raise InputError(f"alpha={self.alpha}: must be larger than 0")

    def distribution(self, nodes, classes, *, seed):
        """Probabilities (nodes, classes), float64."""
        draw = seeds.numpy(seed, "dirichlet").dirichlet([self.alpha] * classes, size=nodes)
        # Small alpha underflows: numpy then returns rows of zeros or nan; such a node sees one class.
        drawn = torch.as_tensor(draw)
        broken = ~(drawn.sum(1) > 0.5)
        drawn[broken] = torch.eye(classes, dtype=torch.float64)[torch.arange(int(broken.sum())) % classes]
        return drawn / drawn.sum(1, keepdim=True)


@dataclass(frozen=True)
class Shards(LabelDistribution):
    """Each node sees ``per_node`` classes, equally; classes are dealt out in random order, in turn."""

    per_node: int = 2

    def __post_init__(self):
        if self.per_node < 1:
            raise InputError(f"per_node={self.per_node}: must be at least 1")

    def distribution(self, nodes, classes, *, seed):
        """Probabilities (nodes, classes), float64."""
        if self.per_node > classes:
            raise InputError(f"per_node={self.per_node}: the data have only {classes} classes")
        score = torch.rand(nodes, classes, generator=seeds.generator(seed, "shards"), dtype=torch.float64)
        first = torch.arange(nodes) % classes
        score[torch.arange(nodes), first] = 2  # in turn, so that no class is missing from the network
        chosen = score.topk(self.per_node, dim=1).indices
        return torch.zeros(nodes, classes, dtype=torch.float64).scatter_(1, chosen, 1 / self.per_node)


@dataclass(frozen=True)
class Halves(LabelDistribution):
    """The first half of the nodes sees the first half of the classes, the second half the others."""

    def distribution(self, nodes, classes, *, seed):
        """Probabilities (nodes, classes), float64."""
        first_node = torch.arange(nodes)[:, None] < nodes / 2
        first_class = torch.arange(classes) < classes / 2
        seen = (first_node == first_class).double()
        return seen / seen.sum(1, keepdim=True)


@dataclass(frozen=True, repr=False)
class Partition:
    """Each node has training inputs of its own; two nodes may have the same ones.

    Parameters
    ----------
    indices : list
        For each node, in the order of the graph's nodes, the indices of its inputs in the training split: a list,
        numpy array or tensor of integers.

    Raises
    ------
    InputError
        If a node has no inputs, or something is no index; at the start of a simulation if the numbers of nodes differ
        or the training split has no such input.

    Examples
    --------
    >>> from lib import gossip, tasks
    >>> digits = tasks.load("digits", size=16, device="cpu")
    >>> parts = Partition([range(100), range(100, 150), np.flatnonzero(digits.train.y == 7)])
    >>> parts
    Partition(3 nodes with 50 to 142 inputs)
    >>> run = gossip.simulate(digits, "lenet5", gossip.topology.ring(3), labels=parts, ticks=1, seed=0, batch=8)
    >>> run.partition[1][:3], run.labels[2].tolist()
    (tensor([100, 101, 102]), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    """

    indices: tuple[tuple[int, ...], ...]

    def __post_init__(self):
        if isinstance(self.indices, dict | str) or not hasattr(self.indices, "__iter__"):
            raise InputError(f"indices: needs a list with the indices of each node, got {type(self.indices).__name__}")
        object.__setattr__(self, "indices", tuple(_indices(node, own) for node, own in enumerate(self.indices)))
        if not self.indices:
            raise InputError("indices: needs those of at least one node")

    def __repr__(self):
        sizes = [len(own) for own in self.indices]
        return f"Partition({len(sizes)} nodes with {min(sizes)} to {max(sizes)} inputs)"

    def deal(self, task, num_nodes, *, seed):
        """Who sees what of a task, a :class:`Sampler`."""
        if len(self.indices) != num_nodes:
            raise InputError(f"labels={self!r}: the graph has {num_nodes} nodes")
        for node, own in enumerate(self.indices):
            if max(own) >= len(task.train):
                raise InputError(f"indices[{node}]: holds {max(own)}, the training split has {len(task.train)} inputs")
        partition, y = tuple(torch.tensor(own) for own in self.indices), task.train.classes.cpu()
        labels = [torch.bincount(y[own], minlength=task.classes or 1).double() / len(own) for own in partition]
        sizes = torch.tensor([len(own) for own in partition])
        return Sampler(torch.cat(partition), sizes, torch.stack(labels), partition)


def _indices(node, own):
    """Indices of a node as a tuple of int, checked."""
    try:
        array = np.asarray(own.cpu() if torch.is_tensor(own) else own)
    except ValueError:  # lists in a list
        array = np.array(str(own))
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu" or array.min() < 0:
        given = np.array2string(array, threshold=4, edgeitems=2).replace("\n", "")
        raise InputError(f"indices[{node}]={given}: needs a list of at least one index 0, 1, ...")
    return tuple(array.tolist())


class Sampler:
    """Draws inputs for many nodes at once, with replacement: from a group of inputs, one of them.

    Parameters
    ----------
    order : tensor
        Indices of inputs, group after group.
    size : tensor (groups,)
        Of each group.
    labels : tensor (nodes, classes)
        Label distribution of each node, float64.
    partition : tuple of tensor, optional
        Inputs of each node, where these are the groups; default the labels are.
    """

    def __init__(self, order, size, labels, partition=None):
        self.order, self.size, self.first = order, size, size.cumsum(0) - size
        self.labels, self.partition = labels, partition
        self.cumulative = labels.cumsum(1)
        self.cumulative[:, -1] = 1.0

    @classmethod
    def by_label(cls, y, labels):
        """Of inputs of classes y (n,), for nodes with a distribution of classes each (nodes, classes).

        Raises
        ------
        InputError
            If a class that a node may draw has no input.
        """
        y = y.cpu()
        size = torch.bincount(y, minlength=labels.shape[1])
        missing = ((size == 0) & (labels > 0).any(0)).nonzero()
        if len(missing):
            raise InputError(f"labels: the training split has no input of class {int(missing[0])}")
        return cls(torch.argsort(y, stable=True), size, labels)

    def draw(self, nodes, batch, generator):
        """Indices (len(nodes), batch) of inputs for the given nodes."""
        uniform = torch.rand(2, len(nodes), batch, generator=generator, dtype=torch.float64)
        group = nodes[:, None]
        if self.partition is None:
            group = torch.searchsorted(self.cumulative[nodes], uniform[0], right=True)
        within = (uniform[1] * self.size[group]).long()
        return self.order[self.first[group] + within]
