"""What the gossip notebooks ask for: simulations as pure functions of a config, for ``runs.map``.

A config says everything about a run in plain values, so that it can be the key of the cache; the network is
described there and drawn inside the run.
"""

import inspect
from dataclasses import dataclass

import torch
from torch.func import functional_call

from lib import models, seeds, training
from lib import task as tasks
from lib.errors import InputError
from lib.experiments.small_resnet import SmallResNet
from lib.gossip import measures, topology
from lib.gossip.averaging import Average, Federated, Isolated, TransferLike, VarianceCorrected, average
from lib.gossip.labels import IID
from lib.gossip.messages import Compressed, Partitioned, Sampled
from lib.gossip.simulation import Settings, simulate
from lib.stacked.layout import Layout

BASE, EVEN = Settings(), IID()
SYSTEMS = {
    "isolated": Isolated(),
    "gossip": Average(),
    "corrected gossip": VarianceCorrected(),
    "federated": Federated(),
    "federated, different starts": Federated(same_start=False),
    "federated, different starts, corrected": Federated(same_start=False, corrected=True),
    "sampled": Average(message=Sampled()),
    "compressed": Average(message=Compressed()),
    "partitioned": Average(message=Partitioned()),
    "transfer-like": TransferLike(),
}


@dataclass(frozen=True)
class Network:
    """A family of :mod:`lib.gossip.topology` and its arguments.

    Parameters
    ----------
    kind : str
        Name of the function.
    options : dict
        Its keyword arguments, without the seed.
    rewired_every : int
        Ticks after which the network is drawn anew; 0 for never.
    """

    kind: str
    options: dict
    rewired_every: int = 0

    def __post_init__(self):
        make = getattr(topology, self.kind, None)
        if self.kind.startswith("_") or not inspect.isfunction(make) or inspect.getmodule(make) != topology:
            raise InputError(f"topology='{self.kind}': no such family of networks")

    def make(self, seed):
        """The graph, or the sequence of graphs of a network that is rewired."""
        family = getattr(topology, self.kind)
        if "seed" not in inspect.signature(family).parameters:
            return topology.check(family(**self.options))

        def draw(k):
            return family(**self.options, seed=seeds.derive(seed, "network", k))

        return topology.Rewired(draw, self.rewired_every) if self.rewired_every else topology.check(draw(0))


def regular(nodes, degree, **more):
    """Config of a random regular network."""
    return Network("random_regular", {"nodes": nodes, "degree": degree}, **more)


@dataclass(frozen=True)
class Run:
    """One simulation; see :func:`lib.gossip.simulate`. ``image_size`` 0 keeps the data set's own.

    ``model`` is a family of ``lib.models`` or "small_resnet".
    """

    data: str
    model: str
    network: Network
    averaging: object
    ticks: int
    seed: int
    image_size: int = 0
    labels: object = EVEN
    settings: Settings = BASE


def gossip_run(config, checkpoint):
    """Simulate, and sum up.

    Returns
    -------
    dict
        ``history``: tick; mean accuracy over nodes, lowest, highest, loss. ``variance`` and ``difference``:
        as in :class:`lib.gossip.Simulation`. ``evaluated_on``: how many test images. ``classes_seen``: how many
        classes make up 90 % of a node's data, mean over nodes.
    """
    task = tasks.load(config.data, size=config.image_size or None)
    graph = config.network.make(config.seed)
    result = simulate(
        task, _model(config.model, task), graph, averaging=config.averaging, ticks=config.ticks, seed=config.seed,
        labels=config.labels, checkpoint=checkpoint, **_fields(config.settings),
    )  # fmt: skip
    by_tick = result.history.groupby("tick")
    history = by_tick.agg(accuracy=("accuracy", "mean"), lowest=("accuracy", "min"),
                          highest=("accuracy", "max"), loss=("loss", "mean")).reset_index()  # fmt: skip
    seen = result.labels.sort(descending=True).values.cumsum(1) < 0.9
    return {
        "history": history, "variance": result.variance, "difference": result.difference,
        "evaluated_on": result.settings["evaluated_on"],
        "classes_seen": float(seen.sum(1).double().mean() + 1),
    }  # fmt: skip


def _model(name, task):
    return (lambda seed: SmallResNet(task.image_shape, task.classes)) if name == "small_resnet" else name


def _fields(settings):
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


@dataclass(frozen=True)
class Vectors:
    """``count`` random vectors of ``size`` values, averaged; ``repeats`` draws."""

    count: int
    size: int
    repeats: int
    seed: int


def averaged_vectors(config, checkpoint):
    """Variance of random vectors before and after averaging, by distribution (table T1).

    Returns
    -------
    dict
        By distribution, a list over repeats of the mean variance before and the variance of the mean.
    """
    normal = torch.distributions.Normal(0.0, 0.5)
    families = {"normal": normal, "uniform": torch.distributions.Uniform(0.0, 3**0.5),
                "binomial": torch.distributions.Bernoulli(0.5)}  # fmt: skip
    outcome = {}
    for name, family in families.items():
        with seeds.scope(config.seed, name):
            vectors = family.sample((config.repeats, config.count, config.size)).double()
        outcome[f"{name} before"] = vectors.var(2, correction=0).mean(1).tolist()
        outcome[f"{name} after"] = vectors.mean(1).var(1, correction=0).tolist()
    return outcome


@dataclass(frozen=True)
class OneStep:
    """Initial models of a network of nodes, averaged ``steps`` times without training."""

    data: str
    model: str
    network: Network
    steps: int
    seed: int
    beta: float = 0.5
    image_size: int = 0


def averaging_steps(config, checkpoint):
    """Variance of each layer after averaging steps, as a share of the initial one, plain and corrected.

    Returns
    -------
    dict
        ``layers``: names; ``plain``, ``corrected``: tensors (steps + 1, layers), means over nodes.
    """
    task = tasks.load(config.data, size=config.image_size or None, device="cpu")
    graph = config.network.make(config.seed)
    made = [models.create(config.model, task, seed=seeds.derive(config.seed, i)) for i in range(len(graph))]
    layout = Layout.of(made[0])
    start = torch.stack([torch.nn.utils.parameters_to_vector(m.parameters()).detach() for m in made]).double()
    mixing = (1 - config.beta) * topology.mixing_matrix(graph).to_dense()
    mixing = mixing + config.beta * torch.eye(len(graph), dtype=torch.float64)
    outcome = {"layers": list(layout.layers)}
    for name, target in (("plain", None), ("corrected", "received")):
        states, shares = layout.views(start), []
        for _ in range(config.steps + 1):
            rows = torch.cat([part.flatten(1) for part in states.values()], 1)
            shares.append((layout.variance(rows) / layout.variance(start)).mean(0))
            states = average(states, mixing, target)
        outcome[name] = torch.stack(shares)
    return outcome


@dataclass(frozen=True)
class Removal:
    """A network trained for some steps; then a share of each layer is removed, or all of it scaled."""

    data: str
    model: str
    steps: int
    ratios: tuple[float, ...]
    seed: int
    image_size: int = 0
    lr: float = 0.01
    momentum: float = 0.9
    batch: int = 64


def weight_removal(config, checkpoint):
    """Test accuracy against the share of weights that stay, and against a scale on all weights (figure F10).

    Returns
    -------
    dict
        ``ratio``, ``removed``, ``scaled``: lists of equal length.
    """
    task = tasks.load(config.data, size=config.image_size or None)
    model = models.create(config.model, task, seed=config.seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
    batches = task.batches(config.seed, config.batch, augment=False)
    for step in range(config.steps):
        x, y = batches.get(step)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    state = {name: p.detach() for name, p in model.named_parameters()}
    changes = {
        "removed": lambda ratio: measures.remove_weights(state, ratio, seed=config.seed),
        "scaled": lambda ratio: measures.scale_weights(state, ratio),
    }
    outcome = {"ratio": list(config.ratios)}
    for name, change in changes.items():
        changed = [_Fixed(model, change(ratio)) for ratio in config.ratios]
        outcome[name] = [training.evaluate(network, task.test).accuracy for network in changed]
    return outcome


class _Fixed(torch.nn.Module):
    """A model with a state that is not its own."""

    def __init__(self, model, state):
        super().__init__()
        self.model, self.state = model, state

    def forward(self, x):
        """Logits of images x."""
        return functional_call(self.model, self.state, (x,))
