"""The learning systems: who trains, who sends and receives, and how received models are mixed.

Paper 2 (arXiv 2404.04616), Algorithms 1 to 3. Plain gossip averages, ``w <- beta w + (1 - beta) mean(received)``,
which divides the variance of each layer by up to the number of nodes (*vanishing variance*). Variance-corrected
averaging then puts each layer back on the variance sphere of the models that were received.

A system is a small frozen dataclass, whose methods :func:`lib.gossip.simulate` calls in each tick, with both of its
engines. A system of your own is a subclass that overrides some of them:

>>> class Quiet(Average):
...     '''Gossip in which nodes are silent for 100 ticks, and node 0 never trains.'''
...     def due(self, tick, schedule):
...         return [node for node in super().due(tick, schedule) if node != 0]
...     def send(self, tick, senders, change, schedule, nodes):
...         if tick >= 100:
...             super().send(tick, senders, change, schedule, nodes)
>>> class Halved(VarianceCorrected):
...     '''Corrected gossip whose models shrink.'''
...     def mix(self, own, mean, received, layout):
...         return super().mix(own, mean, received, layout) / 2
"""

from dataclasses import dataclass

import torch

from lib import seeds, sphere
from lib.errors import InputError
from lib.gossip.messages import Whole
from lib.gossip.schedule import NEVER
from lib.weights import is_weight

TARGETS = ("received", "own", "mixed")
ORDERS = ("after", "before")


class LearningSystem:
    """What a learning system decides. Each method may be overridden; without any, every node trains alone.

    In each tick the nodes that are ``due`` train and then ``send``, and after that all ``average``.
    ``schedule`` (:class:`lib.gossip.schedule.Schedule`) knows the graph, who is online and how many models each node
    holds; ``nodes`` (:class:`lib.gossip.nodes.StackedNodes` or :class:`lib.gossip.loop.LoopNodes`) holds the models.

    Attributes
    ----------
    interval : (int, int)
        Smallest and largest number of ticks from one training of a node to its next, where the settings name none.
    local_steps : int
        SGD steps of a node that is due.
    same_start : bool
        Whether all nodes start from the same initial weights.
    biases : bool
        Whether biases have a variance to be corrected, as weight tensors have.
    """

    interval = (10, 10)
    local_steps = 1
    same_start = False
    biases = False

    def begin(self, schedule):
        """Before the first tick: check, and prepare, the schedule."""

    def due(self, tick, schedule):
        """Nodes (k,) that train in this tick: those whose time has come and that are online."""
        return schedule.due(tick)

    def send(self, tick, senders, change, schedule, nodes):
        """Send the models of nodes (k,) that just trained; training added ``change`` (k, D) to their weights."""

    def average(self, tick, schedule, nodes):
        """After training and sending: let nodes mix what they received into their models."""

    def mix(self, own, mean, received, layout):
        """New weights (k, D) of k nodes.

        Parameters
        ----------
        own, mean : tensor (k, D)
            The nodes' weights, and the mean of the models that each received; may be overwritten.
        received : tensor (k, layers)
            Mean over the received models of their layer variance.
        layout : lib.weights.Layout
            Where each weight tensor lies in a row.
        """
        return self.blend(own, mean)

    def blend(self, own, mean):
        """Rows (k, ...) of k nodes mixed without regard to variance; also momentum and statistics, where asked for."""
        return mean


def mixed_by(system, own, mean, received, layout):
    """What a system makes of weights by its ``mix``, for both engines; frozen parameters stay the node's own."""
    parts = [layout.slices[name] for name in layout.frozen]
    frozen = [own[:, part].clone() for part in parts]
    mixed = system.mix(own, mean, received, layout)
    if mixed.shape != own.shape:
        raise InputError(f"{type(system).__name__}.mix: gave {tuple(mixed.shape)}, needs {tuple(own.shape)}")
    for part, values in zip(parts, frozen, strict=True):
        mixed[:, part] = values
    return mixed


@dataclass(frozen=True)
class Isolated(LearningSystem):
    """Every node trains alone, every 10 ticks.

    Examples
    --------
    >>> from lib import gossip, tasks
    >>> digits = tasks.load("digits", size=16, device="cpu").subset(200, 20)
    >>> run = gossip.simulate(
    ...     digits, "lenet5", gossip.topology.ring(3), averaging=Isolated(), ticks=31, seed=0, batch=8)
    >>> run.difference.l2.round(1).tolist()  # nodes stay as far from their mean as they started
    [11.9, 11.9, 11.9, 11.9]
    """


@dataclass(frozen=True)
class Average(LearningSystem):
    """Plain gossip (Algorithm 2): ``w <- beta w + (1 - beta) mean(received)``.

    A node trains every 8 to 12 ticks and sends its model to all its neighbours. Who holds ``min_received`` (R) times
    as many models as neighbours averages.

    Parameters
    ----------
    beta : float
        Weight of the own model; 1 is isolated training, 0 replaces the own model.
    message : Whole, Sampled, Compressed or Partitioned
        Which weights a message holds; the receiver completes a message with its own weights.

    Raises
    ------
    InputError
        If ``beta`` does not lie in [0, 1], or ``message`` is no kind of message.

    Examples
    --------
    >>> from lib import gossip, tasks
    >>> digits = tasks.load("digits", size=16, device="cpu").subset(200, 20)
    >>> run = gossip.simulate(
    ...     digits, "lenet5", gossip.topology.complete(9), averaging=Average(), ticks=31, seed=0, batch=8)
    >>> fc1 = run.variance[run.variance.layer == "fc1.weight"]
    >>> f"{fc1.averaged.iloc[-1] / fc1.start.iloc[0]:.1f}"  # of its variance, about a ninth is left
    '0.1'
    """

    beta: float = 0.5
    message: object = Whole()

    interval = (8, 12)

    def __post_init__(self):
        if not 0 <= self.beta <= 1:
            raise InputError(f"beta={self.beta}: must be in [0, 1]")
        if isinstance(self.message, type) or not hasattr(self.message, "mask"):
            raise InputError(f"message={self.message!r}: needs Whole(), Sampled(), Compressed() or Partitioned()")

    def send(self, tick, senders, change, schedule, nodes):
        """To all neighbours, at once; see :meth:`LearningSystem.send`."""
        mask = self.message.mask(
            change, schedule.sent[senders], nodes.layout,
            seeds=[seeds.derive(schedule.seed, "message", tick, sender) for sender in senders.tolist()],
        )  # fmt: skip
        nodes.send(senders, schedule.messages(tick, senders), mask)

    def average(self, tick, schedule, nodes):
        """Every node that holds enough models; see :meth:`LearningSystem.average`."""
        ready = schedule.ready(tick)
        nodes.average(ready, self, schedule.links(tick).kept)
        schedule.received[ready] = 0

    def blend(self, own, mean):
        """``beta own + (1 - beta) mean``."""
        return mean.lerp_(own, self.beta)


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
    biases : bool
        Whether biases and normalisation parameters are corrected too, as in the torch rewrite of the reference code;
        in the paper they are averaged only.
    epsilon : float
        As in :func:`lib.sphere.correct`.

    Raises
    ------
    InputError
        If a parameter is outside its range.

    Examples
    --------
    >>> from lib import gossip, tasks
    >>> digits = tasks.load("digits", size=16, device="cpu").subset(200, 20)
    >>> run = gossip.simulate(
    ...     digits, "lenet5", gossip.topology.complete(9), averaging=VarianceCorrected(), ticks=31, seed=0, batch=8)
    >>> fc1 = run.variance[run.variance.layer == "fc1.weight"]
    >>> f"{fc1.averaged.iloc[-1] / fc1.start.iloc[0]:.1f}"
    '1.0'
    """

    target: str = "received"
    order: str = "after"
    biases: bool = False
    epsilon: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name, allowed in (("target", TARGETS), ("order", ORDERS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}='{getattr(self, name)}': choose one of {', '.join(allowed)}")
        if not self.epsilon >= 0:
            raise InputError(f"epsilon={self.epsilon}: must be 0 or larger")

    def mix(self, own, mean, received, layout):
        """New weights (k, D) of k nodes; see :meth:`LearningSystem.mix`."""
        target = received
        if self.target != "received":
            before = sphere.variances(own, layout)
            target = before if self.target == "own" else received.lerp(before, self.beta)
        if self.order == "before":
            sphere.correct_rows_(mean, target, layout, epsilon=self.epsilon)
        mixed = self.blend(own, mean)
        if self.order == "after":
            sphere.correct_rows_(mixed, target, layout, epsilon=self.epsilon)
        return mixed


@dataclass(frozen=True)
class TransferLike(Average):
    """Gossip after a head start: one node trains alone, then the others start from what it spreads.

    Parameters
    ----------
    beta, message
        As in :class:`Average`.
    alone : int
        Ticks that the source trains before it sends; a node without a model adopts the first it receives.
    source : int
        The node that trains alone: its place in the order of the graph's nodes, 0 for the first.

    Raises
    ------
    InputError
        If ``alone`` or ``source`` is negative; at the start of a simulation if the graph has no such node.

    Examples
    --------
    >>> from lib import gossip, tasks
    >>> digits = tasks.load("digits", size=16, device="cpu").subset(200, 20)
    >>> run = gossip.simulate(
    ...     digits, "lenet5", gossip.topology.ring(3), averaging=TransferLike(alone=20), ticks=31, seed=0, batch=8)
    >>> run.difference.l2.round(1).tolist()  # the others start near the source
    [11.9, 11.9, 11.9, 0.0]
    """

    alone: int = 300
    source: int = 0

    def __post_init__(self):
        super().__post_init__()
        for name in ("alone", "source"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: must be 0 or larger")

    def begin(self, schedule):
        """All but the source sleep."""
        if self.source >= len(schedule.next):
            raise InputError(f"source={self.source}: the graph has {len(schedule.next)} nodes")
        schedule.next[:] = NEVER
        schedule.next[self.source] = 0

    def send(self, tick, senders, change, schedule, nodes):
        """Once the time alone is over; see :meth:`LearningSystem.send`."""
        if tick >= self.alone:
            super().send(tick, senders, change, schedule, nodes)

    def average(self, tick, schedule, nodes):
        """Who sleeps adopts the mean of what came, and wakes; the others average."""
        asleep = schedule.next == NEVER
        woken = (asleep & (schedule.received > 0) & schedule.online(tick)).nonzero()[:, 0]
        nodes.average(woken, Average(beta=0.0))
        schedule.received[woken] = 0
        schedule.plan(woken, tick, "waking")
        super().average(tick, schedule, nodes)


@dataclass(frozen=True)
class Federated(LearningSystem):
    """Federated averaging (Algorithm 1): clients around a server, which averages when all have reported.

    Clients train at ticks 0, 10, 20, ..., the server averages and sends back at 5, 15, ...

    Parameters
    ----------
    fraction : float
        Fraction of the clients that train in a round, drawn anew each round; at least one client.
    local_steps : int
        SGD steps of a client in a round.
    same_start : bool
        Whether all clients start from the server's model, or each from its own initial weights.
    corrected : bool
        Whether the server puts each layer back to the mean variance of the clients' models.

    Raises
    ------
    InputError
        If a parameter is outside its range; at the start of a simulation for settings that rounds do not have
        (``message_loss``, an ``interval`` of two lengths).

    Examples
    --------
    >>> from lib import gossip, tasks
    >>> digits = tasks.load("digits", size=16, device="cpu").subset(200, 20)
    >>> run = gossip.simulate(
    ...     digits, "lenet5", gossip.topology.star(4), averaging=Federated(), ticks=16, seed=0, batch=8, record_every=5)
    >>> run.difference.l2.gt(1e-6).tolist()  # the clients differ between training and averaging, ticks 0 and 10
    [True, False, True, False]
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

    def begin(self, schedule):
        """Refuse settings that would do nothing."""
        if schedule.interval[0] != schedule.interval[1]:
            raise InputError(f"interval={schedule.interval}: rounds of federated learning are of one length")
        if schedule.settings.message_loss:
            raise InputError(f"message_loss={schedule.settings.message_loss}: federated learning loses no messages")

    def due(self, tick, schedule):
        """The clients of the round, in its first tick."""
        index, position = divmod(tick, schedule.interval[0])
        online = schedule.online(tick).nonzero()[:, 0]
        size = 0 if position else max(1, round(self.fraction * len(schedule.next)))
        order = torch.randperm(len(online), generator=seeds.generator(schedule.seed, "clients", index))
        return online[order[:size]].sort().values

    def average(self, tick, schedule, nodes):
        """In the middle of a round, the server averages what was trained in it and sends to all who are online."""
        if tick % schedule.interval[0] == schedule.interval[0] // 2:
            reported = schedule.trained.nonzero()[:, 0]
            nodes.gather(reported, schedule.online(tick).nonzero()[:, 0], self)
            schedule.trained[:] = False

    def mix(self, own, mean, received, layout):
        """The server's model, for each of k clients (k, D); see :meth:`LearningSystem.mix`."""
        return sphere.correct_rows_(mean, received, layout) if self.corrected else mean


def average(stacked, mixing, variance=None, *, epsilon=0.0):
    """One synchronous averaging of N nodes, with or without variance correction.

    Parameters
    ----------
    stacked : tensor or array (N, ...), or dict of str to tensor (N, ...)
        The same tensor(s) of all nodes. Correction is for stacks of weight tensors, (N, a, b, ...), and for
        stacks of vectors (N, a) that are given alone; vectors in a dict are biases, which are averaged only.
    mixing : tensor (N, N), sparse or dense, or array
        Row-stochastic; row i holds the weights of all models in the new model of node i.
    variance : {None, "received", "own", "mixed"}
        No correction, or the target of :class:`VarianceCorrected`; received: weights without the diagonal,
        mixed: with it.
    epsilon : float
        As in :func:`lib.sphere.correct`.

    Raises
    ------
    InputError
        If the matrix is not row-stochastic, does not fit, or the target is unknown.

    Examples
    --------
    >>> vectors = torch.randn(8, 10_000, generator=torch.Generator().manual_seed(0))
    >>> everybody = torch.full((8, 8), 1 / 8)
    >>> [round(float(average(vectors, everybody, target)[0].var()), 2) for target in (None, "received")]
    [0.12, 1.0]
    """
    if variance is not None and variance not in TARGETS:
        raise InputError(f"variance='{variance}': choose None or one of {', '.join(TARGETS)}")
    alone = not isinstance(stacked, dict)
    parts = {name: torch.as_tensor(each) for name, each in ({"": stacked} if alone else stacked).items()}
    first = next(iter(parts.values()))
    mixing = _check_mixing(torch.as_tensor(mixing), first)
    averaged = {}
    for name, tensor in parts.items():
        rows = tensor.reshape(len(tensor), -1)
        new = torch.mm(mixing, rows)
        if variance is not None and (alone or is_weight(tensor[0])):
            target = _target(variance, mixing.to_dense(), sphere.row_variance(rows))
            sphere.correct_blocks_([new], target[:, None], epsilon=epsilon)
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
