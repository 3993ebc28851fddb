"""How outputs are judged: the loss that is minimised, and the metric that is reported beside it.

Both are functions ``f(outputs, y)`` of a batch (outputs first, as in ``torch.nn.functional``) that give one number
which does not grow with the batch, such as a mean. A task has both (:func:`lib.tasks.from_tensors`).
"""

import collections
import functools
import keyword

import torch
from torch.nn import functional as F

from lib.errors import InputError


def cross_entropy(outputs, y):
    """Mean cross entropy of classes, the default loss.

    Parameters
    ----------
    outputs : tensor (n, classes), or for many classes an example (n, ..., classes) or (n, classes, ...)
        Logits.
    y : tensor (n,) or (n, ...), int64

    Examples
    --------
    >>> logits = torch.zeros(8, 20, 50)  # 8 texts of 20 characters out of 50
    >>> round(cross_entropy(logits, torch.zeros(8, 20).long()).exp().item(), 4)
    50.0
    """
    return F.cross_entropy(by_class(outputs, y), y)


def accuracy(outputs, y):
    """Fraction of classes that have the largest output, the default metric; shapes as of :func:`cross_entropy`."""
    return (by_class(outputs, y).argmax(1) == y).double().mean()


def by_class(outputs, y):
    """Outputs (n, classes, ...): classes may come last, where that is not ambiguous."""
    if outputs.ndim == 2 and y.ndim == 1:
        return outputs
    first = outputs.ndim == y.ndim + 1 and (outputs.shape[0], *outputs.shape[2:]) == y.shape
    last = outputs.shape[:-1] == y.shape
    if first == last:
        problem = "either of two dimensions may count the classes" if first else "they do not fit each other"
        shapes = f"outputs {tuple(outputs.shape)} and classes {tuple(y.shape)}"
        raise InputError(f"loss: {shapes}: {problem}; give the task a loss= of your own")
    return outputs if first else outputs.movedim(-1, 1)


def name_of(metric):
    """How tables name a metric: its own name, "metric" where that is none."""
    metric = getattr(metric, "func", metric)  # of a functools.partial
    name = getattr(metric, "__name__", type(metric).__name__)
    usable = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
    return name if usable and name not in ("loss", "tick", "node") else "metric"


@functools.cache
def score(name=None):
    """The named tuple of a score: ``loss`` and the metric called ``name``, or the loss alone."""
    return collections.namedtuple("Score", ("loss", name) if name else ("loss",))


def of_networks(split, outputs):
    """Scores of several networks on one split, a tensor (networks, parts of a score), float64.

    Parameters
    ----------
    split : lib.tasks.Split
    outputs : tensor (networks, n, ...)
    """
    if split.loss is cross_entropy and split.metric is accuracy and outputs.ndim == 3:
        y = split.y.expand(len(outputs), -1)
        loss = F.cross_entropy(outputs.transpose(1, 2), y, reduction="none")
        return torch.stack([loss.double().mean(1), (outputs.argmax(2) == y).double().mean(1)], 1)
    return torch.tensor([split.score(own) for own in outputs], dtype=torch.float64, device=outputs.device)


def sum_over_networks(loss, outputs, y):
    """The sum over networks of each one's loss on its own batch: the gradients of different networks do not mix.

    Parameters
    ----------
    loss : callable
    outputs : tensor (networks, n, ...)
    y : tensor (n, networks, ...)
    """
    if loss is cross_entropy and outputs.ndim == 3 and y.ndim == 2:
        return F.cross_entropy(outputs.flatten(0, 1), y.t().reshape(-1), reduction="sum") / len(y)
    return sum(loss(own, targets) for own, targets in zip(outputs, y.unbind(1), strict=True))
