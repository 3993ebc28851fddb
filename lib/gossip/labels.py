"""Which classes a node sees: every node samples the whole training set through its own label distribution.

The distribution of a node is drawn once and kept for the run (paper 2's simulations); images are drawn with
replacement. The draw is seeded, and a simulation returns it: (nodes, classes) probabilities.
"""

from dataclasses import dataclass

import torch

from lib import seeds
from lib.errors import InputError


@dataclass(frozen=True)
class IID:
    """Every node draws all classes with the same probability."""

    def distribution(self, nodes, classes, *, seed):
        """Probabilities (nodes, classes), float64."""
        return torch.full((nodes, classes), 1 / classes, dtype=torch.float64)


@dataclass(frozen=True)
class Dirichlet:
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
class Shards:
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
class Halves:
    """The first half of the nodes sees the first half of the classes, the second half the others."""

    def distribution(self, nodes, classes, *, seed):
        """Probabilities (nodes, classes), float64."""
        first_node = torch.arange(nodes)[:, None] < nodes / 2
        first_class = torch.arange(classes) < classes / 2
        seen = (first_node == first_class).double()
        return seen / seen.sum(1, keepdim=True)


def label_distributions(labels, nodes, task, *, seed):
    """Each node's label distribution for a task; (nodes, 1) where the task has no classes."""
    if not hasattr(labels, "distribution"):
        raise InputError(f"labels={labels!r}: needs IID(), Dirichlet(), Shards() or Halves()")
    if task.classes is None and not isinstance(labels, IID):
        raise InputError(f"labels={labels}: the task has no classes, only IID() is possible")
    return labels.distribution(nodes, task.classes or 1, seed=seed)


class Sampler:
    """Draws image numbers of a split for many nodes at once, each through its label distribution.

    Parameters
    ----------
    y : tensor (n,)
        Classes of the split.
    distribution : tensor (nodes, classes)

    Raises
    ------
    InputError
        If a class that a node may draw has no image.
    """

    def __init__(self, y, distribution):
        y = y.cpu()
        self.order = torch.argsort(y, stable=True)
        self.count = torch.bincount(y, minlength=distribution.shape[1])
        self.first = self.count.cumsum(0) - self.count
        missing = ((self.count == 0) & (distribution > 0).any(0)).nonzero()
        if len(missing):
            raise InputError(f"labels: the training split has no image of class {int(missing[0])}")
        self.cumulative = distribution.cumsum(1)
        self.cumulative[:, -1] = 1.0

    def draw(self, nodes, batch, generator):
        """Image numbers (len(nodes), batch) for the given nodes."""
        uniform = torch.rand(2, len(nodes), batch, generator=generator, dtype=torch.float64)
        label = torch.searchsorted(self.cumulative[nodes], uniform[0], right=True)
        within = (uniform[1] * self.count[label]).long()
        return self.order[self.first[label] + within]
