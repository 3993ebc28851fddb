"""The simulation of paper 2: discrete ticks in which nodes train, send, and average (section 2 of its code).

In each tick, in this order: every due node trains on one mini-batch and draws its next training tick; it
sends its model to all its neighbours at once; every node with enough models in its mailbox averages them,
replaces its model and empties the mailbox. All learning systems share this one loop.
"""

from dataclasses import asdict, dataclass, fields

import pandas as pd
import torch

from lib import models, seeds
from lib.batched.layout import Layout
from lib.checkpoint import NoCheckpoint
from lib.errors import InputError
from lib.gossip import topology
from lib.gossip.averaging import Average
from lib.gossip.exchange import exchange_of
from lib.gossip.labels import IID, Sampler
from lib.gossip.loop import LoopNodes
from lib.gossip.nodes import StackedNodes
from lib.gossip.recorder import Recorder
from lib.progress import bar

BACKENDS = {"stacked": StackedNodes, "loop": LoopNodes}
STATISTICS = ("kept", "averaged", "reestimated")


@dataclass(frozen=True)
class Settings:
    """Everything about a simulation that is not its data, model, graph or learning system.

    Parameters
    ----------
    lr, momentum, batch : float, float, int
        SGD of every node. Momentum is per node.
    augment : bool
        Whether images are augmented as the task says; the rewrite of the reference code does (MNIST: rotation
        by up to 5 degrees, shift by up to 2 pixels).
    interval : (int, int), optional
        Smallest and largest number of ticks from one training of a node to its next; default (8, 12) for
        gossip, (10, 10) for isolated and federated learning.
    min_received : float
        R of the paper: a node averages when it holds at least ``R * degree`` models.
    mixing : {"uniform", "metropolis"}
        How received models are weighted, :func:`lib.gossip.topology.mixing_matrix`.
    same_start : bool
        Whether all nodes start from the same initial weights.
    gain : float
        Factor on the initial weights; :func:`lib.gossip.topology.steady_gain` is the remedy of Badie-Modiri
        et al.
    mix_momentum : bool
        Whether momentum is averaged as the weights are; the paper keeps it.
    statistics : {"kept", "averaged", "reestimated"}
        Running statistics of batch norm: each node's own, averaged as the weights are, or computed from 512
        training images before an evaluation.
    message_loss : float
        Probability that a message is lost.
    absent : float
        Share of the nodes that are away, drawn anew every ``absence`` ticks; they neither train nor receive.
    absence : int
    record_every : int
        Ticks between two records (tick 0 and the last tick are always recorded).
    eval_images : int
        Size of the fixed class-balanced part of the test split that is evaluated; 0 for all of it.
    model_size : {"laptop", "paper"}
        Member of the model's family.
    """

    lr: float = 0.01
    momentum: float = 0.9
    batch: int = 64
    augment: bool = False
    interval: tuple[int, int] | None = None
    min_received: float = 1.0
    mixing: str = "uniform"
    same_start: bool = False
    gain: float = 1.0
    mix_momentum: bool = False
    statistics: str = "kept"
    message_loss: float = 0.0
    absent: float = 0.0
    absence: int = 50
    record_every: int = 10
    eval_images: int = 500
    model_size: str = "laptop"

    def __post_init__(self):
        for name in ("lr", "min_received", "gain"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)}: must be larger than 0")
        for name in ("momentum", "message_loss", "absent"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be in [0, 1)")
        for name, least in (("batch", 1), ("absence", 1), ("record_every", 1), ("eval_images", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.interval is not None and not 1 <= self.interval[0] <= self.interval[1]:
            raise InputError(f"interval={self.interval}: needs 1 <= smallest <= largest")
        for name, allowed in (("statistics", STATISTICS), ("mixing", topology.MIXINGS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}='{getattr(self, name)}': choose one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Simulation:
    """What came out of a simulation.

    Attributes
    ----------
    history : DataFrame
        tick, node, accuracy, loss (on the images that ``settings["evaluated_on"]`` names).
    variance : DataFrame
        tick, layer, start, trained, averaged: mean over nodes of the layer's variance at the start of the
        tick, after training, after averaging.
    difference : DataFrame
        tick, l1, l2: mean over nodes of the distance from the mean model.
    nodes : tuple
        Their names in the graph, in the order of rows here.
    weights : tensor (N, D)
        At the end.
    layout : lib.batched.layout.Layout
    labels : tensor (N, classes)
        Label distribution of each node, as drawn.
    settings : dict
    """

    history: pd.DataFrame
    variance: pd.DataFrame
    difference: pd.DataFrame
    nodes: tuple
    weights: torch.Tensor
    layout: Layout
    labels: torch.Tensor
    settings: dict

    def state(self, node):
        """Parameters by name of a node, which is named as in the graph."""
        if node not in self.nodes:
            raise InputError(f"node={node!r}: no such node in the graph")
        return self.layout.state(self.weights[self.nodes.index(node)])

    @property
    def accuracy(self):
        """Mean accuracy over nodes, by tick."""
        return self.history.groupby("tick").accuracy.mean()


def simulate(
    task, model, graph, *, averaging=Average(), ticks, seed, labels=IID(),
    checkpoint=NoCheckpoint(), backend="stacked", progress=None, **settings,
):  # fmt: skip
    """Simulate decentralised (or federated, or isolated) learning.

    Parameters
    ----------
    task : lib.tasks.Task
    model : str or callable
        A family of ``lib.models.FAMILIES``, or ``model(seed)`` that returns an initialised module.
    graph : networkx.Graph, networkx.DiGraph or lib.gossip.topology.Rewired
        Who sends to whom, with which weight (:func:`lib.gossip.topology.mixing_matrix`); nodes of any names. In the
        mean that a node takes, a self loop is its own model with the weight of one neighbour. A node that hears
        nobody trains alone. Federated and isolated learning use the nodes only.
    averaging : Average, VarianceCorrected, TransferLike, Isolated or Federated
        The learning system.
    ticks : int
        Ticks 0 .. ticks-1.
    seed : int
        Of initial weights, label distributions, batches and training intervals.
    labels : IID, Dirichlet, Shards or Halves
    checkpoint : lib.checkpoint.Checkpoint, optional
        With one, an interrupted simulation continues with the same bits.
    backend : {"stacked", "loop"}
        loop is the slow reference for tests.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.
    **settings
        Fields of :class:`Settings`.

    Returns
    -------
    Simulation

    Raises
    ------
    InputError
        For settings outside their range.
    FloatingPointError
        When a node's weights are not finite any more; the message names tick, layer and node.
    """
    settings = _checked(settings, ticks, backend)
    names = topology.nodes_of(graph.at(0) if isinstance(graph, topology.Rewired) else graph)
    count = len(names)
    distribution = labels.distribution(count, task.classes, seed=seeds.derive(seed, "labels"))
    nodes = BACKENDS[backend](
        _initial_models(task, model, count, seed, averaging, settings), count, task,
        mixes_momentum=settings.mix_momentum, mixes_statistics=settings.statistics == "averaged",
    )  # fmt: skip
    exchange = exchange_of(averaging, graph, names, nodes, settings, seed)
    split = task.test.subset(settings.eval_images or len(task.test))
    calibration = task.train.subset(512).x if settings.statistics == "reestimated" else None
    recorder = Recorder(nodes, split, calibration, names)
    checkpoint = checkpoint.of(
        task=task, model=(model, nodes.layout, nodes.weights[0]), graph=topology.content(graph), averaging=averaging,
        seed=seed, labels=labels, settings=settings,
    )  # fmt: skip
    start = _resume(checkpoint, nodes, exchange, recorder)
    if start > ticks:
        raise InputError(f"ticks={ticks}: the simulation in the checkpoint is at tick {start} already")
    sampler = Sampler(task.train.y, distribution)
    with bar("simulate", ticks, progress) as tell:
        for tick in range(start, ticks):
            record = tick % settings.record_every == 0 or tick == ticks - 1
            recorder.begin(tick, record)
            _train(task, nodes, exchange, sampler, settings, seed, tick)
            recorder.trained()
            exchange.average(tick)
            recorder.end()
            tell(tick + 1, recorder.last)
            if checkpoint.due():
                checkpoint.save(_state(tick + 1, nodes, exchange, recorder))
    history, variance, difference = recorder.tables()
    described = asdict(settings) | {
        "averaging": repr(averaging), "labels": repr(labels), "seed": seed, "ticks": ticks, "nodes": count,
        "evaluated_on": f"{len(split)} of {len(task.test)} test images"
        + ("" if len(split) == len(task.test) else ", classes balanced"),
    }  # fmt: skip
    return Simulation(history, variance, difference, names, nodes.weights, nodes.layout, distribution, described)


def _checked(settings, ticks, backend):
    known = {field.name for field in fields(Settings)}
    for name in settings:
        if name not in known:
            raise InputError(f"{name}: no such setting, choose from {', '.join(sorted(known))}")
    if ticks < 1:
        raise InputError(f"ticks={ticks}: must be at least 1")
    if backend not in BACKENDS:
        raise InputError(f"backend='{backend}': choose one of {', '.join(BACKENDS)}")
    return Settings(**settings)


def _initial_models(task, model, count, seed, averaging, settings):
    """The nodes' models, one after another, so that they need not all be in memory."""
    same = settings.same_start or getattr(averaging, "same_start", False)
    for node in range(count):
        own_seed = seeds.derive(seed, "node", 0 if same else node)
        if isinstance(model, str):
            made = models.create(model, task, size=settings.model_size, seed=own_seed)
        else:
            with seeds.scope(own_seed, "initial weights"):
                made = model(own_seed).to(task.device)
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.ndim >= 2:
                    parameter.mul_(settings.gain)
        yield made


def _train(task, nodes, exchange, sampler, settings, seed, tick):
    """Let the due nodes train, in chunks, and send."""
    due = exchange.due(tick)
    for step in range(exchange.local_steps if len(due) else 0):
        generator = seeds.generator(seed, "batches", tick, step)
        images = sampler.draw(due, settings.batch, generator).t()
        for part in torch.arange(len(due)).split(nodes.chunk):
            index = images[:, part].to(task.device)
            x, y = task.train.x[index], task.train.y[index]
            if settings.augment and task.augmentation is not None:
                x = _augmented(task, x, due[part], seed, tick, step)
            node = due[part].to(task.device)
            change = nodes.train(node, x, y, lr=settings.lr, momentum=settings.momentum)
            if step == exchange.local_steps - 1:
                exchange.send(tick, due[part], change)


def _augmented(task, x, nodes, seed, tick, step):
    """Images (B, k, C, H, W) augmented node by node, so that it does not matter which nodes train together."""
    streams = (seeds.generator(seed, "augment", tick, step, node, device=x.device) for node in nodes.tolist())
    return torch.stack([task.augmentation(own, each) for own, each in zip(x.unbind(1), streams, strict=True)], 1)


def _state(tick, nodes, exchange, recorder):
    return {"tick": tick, "nodes": nodes.state(), "exchange": exchange.state(), "records": recorder.state()}


def _resume(checkpoint, nodes, exchange, recorder):
    state = checkpoint.load()
    if state is None:
        return 0
    nodes.load(state["nodes"])
    exchange.load(state["exchange"])
    recorder.load(state["records"])
    return state["tick"]
