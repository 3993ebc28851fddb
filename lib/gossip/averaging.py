"""The learning systems: what nodes do with the models they receive (paper 2, Algorithms 1 to 3).

A system is a small frozen dataclass that the one tick loop of :mod:`lib.gossip.simulation` asks. Plain gossip
averages, ``w <- beta w + (1 - beta) mean(received)``, which divides the variance of each layer by up to the
number of nodes (*vanishing variance*). Variance-corrected averaging then puts each layer back on the sphere
of the models that were received. :func:`average` is the same as one synchronous product with a matrix.
"""

from dataclasses import dataclass

import torch

from lib import sphere
from lib.errors import InputError
from lib.gossip.messages import Whole

TARGETS = ("received", "own", "mixed")
ORDERS = ("after", "before")


@dataclass(frozen=True)
class Average:
    """Plain gossip (Algorithm 2): ``w <- beta w + (1 - beta) mean(received)``.

    Parameters
    ----------
    beta : float
        Share of the own model; 1 is isolated training, 0 replaces the own model.
    message : Whole, Sampled, Compressed or Partitioned
        Which weights a message holds; the receiver completes a message with its own weights.
    """

    beta: float = 0.5
    message: object = Whole()

    def __post_init__(self):
        if not 0 <= self.beta <= 1:
            raise InputError(f"beta={self.beta}: must be in [0, 1]")

    def mix(self, own, mean, received, beta, layout):
        """New weights (k, D) of k nodes.

        Parameters
        ----------
        own, mean : tensor (k, D)
            The nodes' weights, and the mean of what each received; may be overwritten.
        received : tensor (k, layers)
            Mean over the received models of their layer variance.
        beta : tensor (k, 1)
            Share of the own model.
        layout : lib.batched.layout.Layout
        """
        return mean.lerp_(own, beta)


@dataclass(frozen=True)
class VarianceCorrected(Average):
    """Variance-corrected gossip (Algorithm 3): after averaging, each layer goes back onto a variance sphere.

    Parameters
    ----------
    beta, message
        As in :class:`Average`.
    target : {"received", "own", "mixed"}
        Variance of the sphere: mean variance of the received models (the paper), the own variance before
        averaging, or ``beta own + (1 - beta) received``.
    order : {"after", "before"}
        Correct after mixing with the own model (as the paper's code), or the mean of the received models
        before (as its text); the same for beta = 0.
    epsilon : float
        As in :func:`lib.sphere.correct`.
    """

    target: str = "received"
    order: str = "after"
    epsilon: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name, allowed in (("target", TARGETS), ("order", ORDERS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}='{getattr(self, name)}': choose one of {', '.join(allowed)}")
        if not self.epsilon >= 0:
            raise InputError(f"epsilon={self.epsilon}: must be 0 or larger")

    def mix(self, own, mean, received, beta, layout):
        """New weights (k, D) of k nodes; see :meth:`Average.mix`."""
        target = received
        if self.target != "received":
            before = layout.variance(own)
            target = before if self.target == "own" else received.lerp(before, beta)
        if self.order == "before":
            layout.correct_(mean, target, epsilon=self.epsilon)
        mixed = mean.lerp_(own, beta)
        if self.order == "after":
            layout.correct_(mixed, target, epsilon=self.epsilon)
        return mixed


@dataclass(frozen=True)
class TransferLike(Average):
    """Gossip after a head start: one node trains alone, then the others start from what it spreads.

    Parameters
    ----------
    alone : int
        Ticks that the source trains before it sends; a node without a model adopts the first it receives.
    source : int
        Its place in the order of the graph's nodes, 0 for the first.
    """

    alone: int = 300
    source: int = 0

    def __post_init__(self):
        super().__post_init__()
        for name in ("alone", "source"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: must be 0 or larger")


@dataclass(frozen=True)
class Isolated:
    """Every node trains alone."""


@dataclass(frozen=True)
class Federated:
    """Federated averaging (Algorithm 1): clients around a server, which averages when all have reported.

    Clients train at ticks 0, 10, 20, ..., the server averages and sends back at 5, 15, ...

    Parameters
    ----------
    fraction : float
        Share of the clients that train in a round, drawn anew each round; at least one.
    local_steps : int
        SGD steps of a client in a round.
    same_start : bool
        Whether all clients start from the server's model, or each from its own initial weights.
    corrected : bool
        Whether the server puts each layer back to the mean variance of the clients' models.
    """

    fraction: float = 1.0
    local_steps: int = 1
    same_start: bool = True
    corrected: bool = False

    def __post_init__(self):
        if not 0 < self.fraction <= 1:
            raise InputError(f"fraction={self.fraction}: must be in (0, 1]")
        if self.local_steps < 1:
            raise InputError(f"local_steps={self.local_steps}: must be at least 1")


def average(stacked, mixing, variance=None, *, epsilon=0.0):
    """One synchronous averaging of N nodes, with or without variance correction.

    Parameters
    ----------
    stacked : tensor (N, ...), or dict of str to tensor (N, ...)
        The same tensor(s) of all nodes. Correction is for stacks of weight tensors, (N, a, b, ...), and for
        stacks of vectors (N, a) that are given alone; vectors in a dict are biases, which are averaged only.
    mixing : tensor (N, N), sparse or dense
        Row-stochastic; row i holds the shares of all models in the new model of node i.
    variance : {None, "received", "own", "mixed"}
        No correction, or the target of :class:`VarianceCorrected`; received: shares without the diagonal,
        mixed: with it.
    epsilon : float
        As in :func:`lib.sphere.correct`.

    Raises
    ------
    InputError
        If the matrix is not row-stochastic, does not fit, or the target is unknown.

    Examples
    --------
    >>> new = average(torch.randn(8, 10_000), torch.full((8, 8), 1 / 8), variance="received")
    """
    if variance is not None and variance not in TARGETS:
        raise InputError(f"variance='{variance}': choose None or one of {', '.join(TARGETS)}")
    alone = not isinstance(stacked, dict)
    parts = {"": stacked} if alone else stacked
    first = next(iter(parts.values()))
    mixing = _check_mixing(mixing, first)
    averaged = {}
    for name, tensor in parts.items():
        rows = tensor.reshape(len(tensor), -1)
        new = torch.mm(mixing, rows)
        if variance is not None and (alone or tensor.ndim >= 3):
            target = _target(variance, mixing.to_dense(), sphere.row_variance(rows))
            sphere.correct_(new, target, stacked=True, epsilon=epsilon)
        averaged[name] = new.view(tensor.shape)
    return averaged[""] if alone else averaged


def _check_mixing(mixing, first):
    if tuple(mixing.shape) != (len(first), len(first)):
        raise InputError(f"mixing: shape {tuple(mixing.shape)}, needs ({len(first)}, {len(first)})")
    dense = mixing.to_dense()
    if (dense < 0).any() or not torch.allclose(dense.sum(1), torch.ones_like(dense[0]), atol=1e-5):
        raise InputError("mixing: rows must be non-negative and sum to 1")
    return mixing.to(dtype=first.dtype, device=first.device)


def _target(kind, mixing, variance):
    if kind == "own":
        return variance
    if kind == "received":
        mixing = mixing - torch.diag(mixing.diagonal())
    total = mixing.sum(1)
    return torch.where(total > 0, mixing @ variance / total.clamp_min(1e-12), variance)
