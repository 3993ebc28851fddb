"""Vanishing variance without gossip: averaged vectors, averaged first models, networks that lose weights.

Pure functions of a config, for ``runs.map``.
"""

from dataclasses import dataclass

import torch
from torch.func import functional_call

from lib import models, seeds, sources, sphere, tasks, training
from lib.gossip import measures, topology
from lib.gossip.algorithms import average
from lib.studies.gossip import GraphConfig
from lib.weights import Layout


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
    families = {"normal": normal, "uniform": torch.distributions.Uniform(0.0, 1.0),
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
    graph: GraphConfig
    steps: int
    seed: int
    beta: float = 0.5
    image_size: int = 0

    def fingerprint(self):
        """Of the data: see :func:`lib.sources.fingerprint`."""
        return sources.fingerprint(self.data)


def averaging_steps(config, checkpoint):
    """Variance of each layer after averaging steps, as a fraction of the initial one, plain and corrected.

    Returns
    -------
    dict
        ``layers``: names; ``plain``, ``corrected``: tensors (steps + 1, layers), means over nodes.
    """
    task = tasks.load(config.data, size=config.image_size or None, device="cpu")
    graph = config.graph.make(config.seed)
    made = [models.create(config.model, task, seed=seeds.derive(config.seed, i)) for i in range(len(graph))]
    layout = Layout.of(made[0])
    start = torch.stack([torch.nn.utils.parameters_to_vector(m.parameters()).detach() for m in made]).double()
    mixing = (1 - config.beta) * topology.mixing_matrix(graph).to_dense()
    mixing = mixing + config.beta * torch.eye(len(graph), dtype=torch.float64)
    outcome = {"layers": list(layout.layers)}
    for name, target in (("plain", None), ("corrected", "received")):
        states, fractions = layout.views(start), []
        for _ in range(config.steps + 1):
            rows = torch.cat([part.flatten(1) for part in states.values()], 1)
            fractions.append((sphere.variances(rows, layout) / sphere.variances(start, layout)).mean(0))
            states = average(states, mixing, target)
        outcome[name] = torch.stack(fractions)
    return outcome


@dataclass(frozen=True)
class Removal:
    """A network trained for some steps; then a part of each layer is removed, or all of it scaled."""

    data: str
    model: str
    steps: int
    ratios: tuple[float, ...]
    seed: int
    image_size: int = 0
    lr: float = 0.01
    momentum: float = 0.9
    batch: int = 64

    def fingerprint(self):
        """Of the data: see :func:`lib.sources.fingerprint`."""
        return sources.fingerprint(self.data)


def weight_removal(config, checkpoint):
    """Test accuracy against the fraction of weights that stay, and against a scale on all weights (figure F10).

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
