"""What the gossip notebooks ask for: simulations as pure functions of a config, for ``runs.map``.

A config says everything about a run in plain values, so that it can be the key of the cache; the graph is
described there and drawn inside the run.
"""

import inspect
from dataclasses import dataclass

from lib import seeds, sources, tasks
from lib.errors import InputError
from lib.gossip import topology
from lib.gossip.algorithms import Average, Federated, Isolated, TransferLike, VarianceCorrected
from lib.gossip.labels import IID
from lib.gossip.messages import Compressed, Partitioned, Sampled
from lib.gossip.simulation import Settings, simulate

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
class GraphConfig:
    """A family of :mod:`lib.gossip.topology` and its arguments.

    Parameters
    ----------
    kind : str
        Name of the function.
    options : dict
        Its keyword arguments, without the seed.
    rewired_every : int
        Ticks after which the graph is drawn anew; 0 for never.
    """

    kind: str
    options: dict
    rewired_every: int = 0

    def __post_init__(self):
        make = getattr(topology, self.kind, None)
        if self.kind.startswith("_") or not inspect.isfunction(make) or inspect.getmodule(make) != topology:
            raise InputError(f"topology='{self.kind}': no such family of graphs")

    def make(self, seed):
        """The graph, or the sequence of graphs of one that is rewired."""
        family = getattr(topology, self.kind)
        if "seed" not in inspect.signature(family).parameters:
            return topology.check(family(**self.options))

        def draw(k):
            return family(**self.options, seed=seeds.derive(seed, "network", k))

        return topology.Rewired(draw, self.rewired_every) if self.rewired_every else topology.check(draw(0))


def regular(num_nodes, degree, **more):
    """Config of a random regular graph."""
    return GraphConfig("random_regular", {"num_nodes": num_nodes, "degree": degree}, **more)


@dataclass(frozen=True)
class Run:
    """One simulation; see :func:`lib.gossip.simulate`. ``image_size`` 0 keeps the data set's own.

    ``model`` is a family of ``lib.models``.
    """

    data: str
    model: str
    graph: GraphConfig
    averaging: object
    ticks: int
    seed: int
    image_size: int = 0
    labels: object = EVEN
    settings: Settings = BASE

    def fingerprint(self):
        """Of the data: see :func:`lib.sources.fingerprint`."""
        return sources.fingerprint(self.data)


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
    graph = config.graph.make(config.seed)
    result = simulate(
        task, config.model, graph, averaging=config.averaging, ticks=config.ticks, seed=config.seed,
        labels=config.labels, settings=config.settings, checkpoint=checkpoint,
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
