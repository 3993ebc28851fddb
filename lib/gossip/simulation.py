"""The simulation of paper 2: discrete ticks in which nodes train, send, and average (section 2 of its code).

In each tick, in this order: every due node trains on one mini-batch and draws its next training tick; it
sends its model to all its neighbours at once; every node with enough models in its mailbox averages them,
replaces its model and empties the mailbox. All learning systems (:mod:`lib.gossip.algorithms`) share this one loop.
"""

import itertools
from dataclasses import asdict, dataclass, field

import pandas as pd
import torch
from torch import nn

from lib import models, scopes, seeds, trial
from lib.checkpoint import NoCheckpoint
from lib.errors import InputError
from lib.gossip import topology
from lib.gossip.algorithms import Average, LearningSystem
from lib.gossip.labels import IID
from lib.gossip.loop import LoopNodes
from lib.gossip.nodes import StackedNodes, load_node
from lib.gossip.recorder import Recorder
from lib.gossip.schedule import POLICIES, Schedule
from lib.progress import bar
from lib.weights import Layout, check_same_shape, copy_of, is_weight

BACKENDS = {"stacked": StackedNodes, "loop": LoopNodes}
STATISTICS = ("kept", "averaged", "reestimated")


@dataclass(frozen=True)
class Settings:
    """Everything about a simulation that is not its data, model, graph or learning system.

    Parameters
    ----------
    lr, momentum, batch : float, float, int
        SGD of every node. Momentum is per node.
    lr_policy : {"constant", "inv"}
        "inv" is the policy of the paper's Caffe solver: a node's learning rate is ``lr (1 + 1e-4 t)^-0.75`` after
        ``t`` SGD steps of its own.
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
        Fraction of the nodes that are offline, drawn anew every ``absence`` ticks; they neither train nor receive.
    absence : int
    record_every : int
        Ticks between two records (tick 0 and the last tick are always recorded).
    eval_images : int
        Size of the fixed class-balanced part of the test split that is evaluated; 0 for all of it.
    model_size : {"laptop", "paper"}
        Member of the model's family.

    Raises
    ------
    InputError
        If a setting is outside its range.

    Examples
    --------
    >>> settings = Settings(lr=0.05, min_received=2)
    >>> settings.lr, settings.batch, settings.mixing
    (0.05, 64, 'uniform')
    >>> Settings(lr=0)
    Traceback (most recent call last):
    ...
    lib.errors.InputError: lr=0: must be larger than 0
    """

    lr: float = 0.01
    lr_policy: str = "constant"
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
        for name, allowed in (("statistics", STATISTICS), ("mixing", topology.MIXINGS), ("lr_policy", POLICIES)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}='{getattr(self, name)}': choose one of {', '.join(allowed)}")

    @property
    def blended(self):
        """What is averaged beside the weights, a tuple of "momentum" and "statistics"."""
        chosen = {"momentum": self.mix_momentum, "statistics": self.statistics == "averaged"}
        return tuple(name for name, averaged in chosen.items() if averaged)


@dataclass(frozen=True)
class Simulation:
    """What came out of a simulation.

    Attributes
    ----------
    history : DataFrame
        tick, node, accuracy (or the name of the task's metric), loss, on the inputs that ``settings["evaluated_on"]``
        names.
    variance : DataFrame
        tick, layer, start, trained, averaged: mean over nodes of the layer's variance at the start of the
        tick, after training, after averaging.
    difference : DataFrame
        tick, l1, l2: mean over nodes of the distance from the mean model.
    nodes : tuple
        Their names in the graph, in the order of rows here.
    weights : tensor (N, D)
        All parameters of all nodes at the end, also those that are frozen.
    buffers : dict of str to tensor (N, ...)
        Their buffers, by name.
    layout : lib.weights.Layout
        Which weights are whose.
    labels : tensor (N, classes)
        Label distribution of each node, as drawn, or as its data have it; (N, 1) for a task without classes.
    partition : tuple of N tensors, or None
        Indices of each node's inputs in the training split, where they are its own.
    settings : dict

    Examples
    --------
    >>> from lib import gossip, tasks
    >>> digits = tasks.load("digits", size=16, device="cpu").subset(200, 20)
    >>> run = gossip.simulate(digits, "lenet5", gossip.topology.ring(3), ticks=21, seed=0, batch=8)
    >>> run.history.columns.to_list(), run.accuracy.index.to_list()
    (['tick', 'node', 'accuracy', 'loss'], [0, 10, 20])
    >>> run.state(node=2)["fc3.weight"].shape
    torch.Size([10, 84])
    """

    history: pd.DataFrame
    variance: pd.DataFrame
    difference: pd.DataFrame
    nodes: tuple
    weights: torch.Tensor
    buffers: dict
    layout: Layout
    labels: torch.Tensor
    partition: tuple | None
    settings: dict
    module: torch.nn.Module = field(repr=False)

    def model(self, node):
        """The network of a node, which is named as in the graph; a module of its own."""
        if node not in self.nodes:
            raise InputError(f"node={node!r}: no such node in the graph")
        return load_node(copy_of(self.module), self.weights, self.buffers, self.nodes.index(node))

    def state(self, node):
        """The state dict of a node's network: parameters and buffers by name."""
        return self.model(node).state_dict()

    @property
    def accuracy(self):
        """Mean accuracy over nodes, by tick."""
        return self.history.groupby("tick").accuracy.mean()


@scopes.computation()
def simulate(
    task, model, graph, *, averaging=Average(), ticks, seed, labels=IID(), settings=None,
    lr=Settings.lr, lr_policy=Settings.lr_policy, momentum=Settings.momentum, batch=Settings.batch,
    augment=Settings.augment, interval=Settings.interval, min_received=Settings.min_received, mixing=Settings.mixing,
    same_start=Settings.same_start, gain=Settings.gain, mix_momentum=Settings.mix_momentum,
    statistics=Settings.statistics, message_loss=Settings.message_loss, absent=Settings.absent,
    absence=Settings.absence, record_every=Settings.record_every, eval_images=Settings.eval_images,
    model_size=Settings.model_size, checkpoint=NoCheckpoint(), backend="stacked",
    progress=None,
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
    averaging : Average, VarianceCorrected, TransferLike, Isolated, Federated or a system of your own
        The learning system, see :mod:`lib.gossip.algorithms`.
    ticks : int
        Ticks 0 .. ticks-1.
    seed : int
        Of initial weights, label distributions, batches and training intervals.
    labels : IID, Dirichlet, Shards, Halves or Partition
        Which training data each node sees; a task without classes allows IID and Partition.
    lr, lr_policy, momentum, batch, ..., model_size
        As in :class:`Settings`.
    settings : Settings, optional
        All of these in one object, instead of one by one.
    checkpoint : lib.checkpoint.Checkpoint, optional
        With one, an interrupted simulation continues with the same bits.
    backend : {"stacked", "loop"}
        loop is the slow reference for tests.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    Simulation

    Raises
    ------
    InputError
        For settings outside their range, and models that do not fit the task or each other.
    FloatingPointError
        When a node's weights are not finite any more; the message names tick, layer and node.

    Examples
    --------
    >>> from lib import gossip, tasks
    >>> digits = tasks.load("digits", size=16, device="cpu").subset(300, 100)
    >>> graph = gossip.topology.random_regular(8, 4, seed=0)
    >>> for system in (gossip.Average(), gossip.VarianceCorrected()):
    ...     run = gossip.simulate(digits, "lenet5", graph, averaging=system, ticks=151, seed=0, lr=0.05, batch=16)
    ...     print(type(system).__name__, "above chance" if run.accuracy.iloc[-1] > 0.3 else "at chance")
    Average at chance
    VarianceCorrected above chance
    """
    single = Settings(
        lr, lr_policy, momentum, batch, augment, interval, min_received, mixing, same_start, gain, mix_momentum,
        statistics, message_loss, absent, absence, record_every, eval_images, model_size,
    )  # fmt: skip
    if settings is not None and single != Settings():
        raise InputError("settings: give one Settings object or single settings, not both")
    settings = settings or single
    trial.check_task(task)
    _check(model, averaging, labels, ticks, backend)
    names = topology.nodes_of(graph.at(0) if isinstance(graph, topology.Rewired) else graph)
    num_nodes = len(names)
    initial = _initial_models(task, model, num_nodes, seed, settings, settings.same_start or averaging.same_start)
    first = next(initial)
    task = trial.check(first, task)
    if settings.augment and task.augmentation is None:
        raise InputError(f"augment=True: the task '{task.name}' has no augmentation, give it one")
    sampler = labels.deal(task, num_nodes, seed=seeds.derive(seed, "labels"))
    schedule = Schedule(graph, names, settings.interval or averaging.interval, settings, seed)
    averaging.begin(schedule)
    nodes = BACKENDS[backend](
        itertools.chain([first], initial), num_nodes, task, settings.blended, biases=averaging.biases
    )
    split = task.test.subset(settings.eval_images or len(task.test))
    calibration = task.train.subset(512).x[:] if settings.statistics == "reestimated" else None
    recorder = Recorder(nodes, split, calibration, names)
    checkpoint = checkpoint.of(
        task=task, model=(model, nodes.layout, nodes.weights[0]), graph=topology.content(graph), averaging=averaging,
        seed=seed, labels=labels, settings=settings,
    )  # fmt: skip
    start = _resume(checkpoint, nodes=nodes, schedule=schedule, records=recorder)
    if start > ticks:
        raise InputError(f"ticks={ticks}: the simulation in the checkpoint is at tick {start} already")
    with bar("simulate", ticks, progress) as tell:
        for tick in range(start, ticks):
            with seeds.scope(seed, "tick", tick):  # of what draws, in a model or a system of the user's
                recorder.begin(tick, tick % settings.record_every == 0 or tick == ticks - 1)
                _train(task, averaging, schedule, nodes, sampler, tick)
                recorder.trained()
                averaging.average(tick, schedule, nodes)
                recorder.end()
            tell(tick + 1, recorder.last)
            if checkpoint.due():
                parts = {"nodes": nodes, "schedule": schedule, "records": recorder}
                checkpoint.save({"tick": tick + 1} | {name: part.state() for name, part in parts.items()})
    described = asdict(settings) | {
        "averaging": repr(averaging), "labels": repr(labels), "seed": seed, "ticks": ticks, "num_nodes": num_nodes,
        "evaluated_on": f"{len(split)} of {len(task.test)} test {'images' if split.x.ndim == 4 else 'inputs'}"
        + (", classes balanced" if task.classes and len(split) < len(task.test) else ""),
    }  # fmt: skip
    return Simulation(
        *recorder.tables(), names, nodes.weights, nodes.buffers, nodes.layout, sampler.labels, sampler.partition,
        described, nodes.model,
    )  # fmt: skip


def _check(model, averaging, labels, ticks, backend):
    if not isinstance(averaging, LearningSystem):
        raise InputError(f"averaging={averaging!r}: needs a learning system such as gossip.Average()")
    if isinstance(labels, type) or not hasattr(labels, "deal"):
        raise InputError(f"labels={labels!r}: needs gossip.IID(), Dirichlet(), Shards(), Halves() or Partition(...)")
    if isinstance(model, nn.Module) or not (callable(model) or isinstance(model, str)):
        raise InputError(f"model: needs a name or a function of a seed that gives a module, got {type(model).__name__}")
    if ticks < 1:
        raise InputError(f"ticks={ticks}: must be at least 1")
    if backend not in BACKENDS:
        raise InputError(f"backend='{backend}': choose one of {', '.join(BACKENDS)}")


def _initial_models(task, model, num_nodes, seed, settings, same_start):
    """The nodes' models, one after another, so that they need not all be in memory."""
    first = of_first = latest = None
    for node in range(num_nodes):
        own_seed = seeds.derive(seed, "node", 0 if same_start else node)
        if isinstance(model, str):
            made = models.create(model, task, size=settings.model_size, seed=own_seed)
        else:
            with seeds.scope(own_seed, "initial weights"):
                module = model(own_seed)
            trial.check_module(module, "model(seed)")
            if module is latest and not same_start:
                hint = "must make a new one at each call, or say same_start=True"
                raise InputError(f"model: returns the same module for two nodes, {hint}")
            latest, made = module, _own(module)
        made.to(task.device, task.dtype)
        with torch.no_grad():
            for parameter in made.parameters():
                if is_weight(parameter) and parameter.requires_grad:
                    parameter.mul_(settings.gain)
        shapes = _shapes(made)
        first, of_first = (made, shapes) if node == 0 else (first, of_first)
        for name in (*of_first, *shapes):
            if (other := of_first.get(name)) != shapes.get(name):
                raise InputError(f"model: '{name}' is {other} in node 0, {shapes.get(name)} in node {node}")
        check_same_shape(first, made, "nodes")
        yield made


def _own(model):
    """A copy of a user's module, in which the modules that are in eval mode alone stay so (a frozen batch norm)."""
    own = copy_of(model)
    for module in own.modules():
        if own.training and not module.training:
            module.train = lambda mode=True: None
    if not any(parameter.requires_grad for parameter in own.parameters()):
        raise InputError("model: no parameter requires gradients, so nothing can be trained; call requires_grad_()")
    return own


def _shapes(model):
    """The shape of each parameter and buffer of a model, and which are frozen, by name."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: f"{tuple(each.shape)}{' and frozen' * (name in frozen)}"
            for name, each in (*model.named_parameters(), *model.named_buffers())}  # fmt: skip


def _train(task, averaging, schedule, nodes, sampler, tick):
    """Let the due nodes train, in chunks, and send."""
    settings, seed = schedule.settings, schedule.seed
    due = schedule.nodes(averaging.due(tick, schedule))
    schedule.plan(due, tick)
    schedule.trained[due] = True
    for step in range(averaging.local_steps if len(due) else 0):
        generator = seeds.generator(seed, "batches", tick, step)
        images = sampler.draw(due, settings.batch, generator).t()
        for part in torch.arange(len(due)).split(nodes.chunk):
            index = images[:, part].to(task.device)
            x, y = task.train.x[index], task.train.y[index]
            if settings.augment and task.augmentation is not None:
                x = _augmented(task, x, due[part], seed, tick, step)
            with seeds.scope(seed, "forward", tick, step, int(due[part][0])):
                rates = schedule.learning_rates(due[part])
                change = nodes.train(due[part], x, y, lr=rates, momentum=settings.momentum)
            schedule.steps[due[part]] += 1
            if step == averaging.local_steps - 1:
                averaging.send(tick, due[part], change, schedule, nodes)


def _augmented(task, x, nodes, seed, tick, step):
    """Images (B, k, C, H, W) augmented node by node, so that it does not matter which nodes train together."""
    streams = (seeds.generator(seed, "augment", tick, step, node, device=x.device) for node in nodes.tolist())
    return torch.stack([task.augmentation(own, each) for own, each in zip(x.unbind(1), streams, strict=True)], 1)


def _resume(checkpoint, **parts):
    """The tick to go on with, after what a checkpoint holds was given to the parts of the simulation."""
    state = checkpoint.load()
    if state is None:
        return 0
    for name, part in parts.items():
        part.load(state[name])
    return state["tick"]
