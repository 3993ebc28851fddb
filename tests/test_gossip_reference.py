"""The engine against Algorithms 1 to 3 as they stand in the paper; mixing weights; draws."""

import dataclasses

import networkx as nx
import pytest
import torch

from lib import gossip, models, seeds, tasks
from lib.augmentation import Augmentation
from lib.gossip import reference, topology
from lib.gossip.labels import IID, Sampler

SEED, TICKS, BATCH, SETTINGS = 3, 40, 8, {"lr": 0.01, "momentum": 0.9}


@pytest.fixture(scope="module")
def digits():
    """Digits in float64, so that different orders of sums show in the last digits only."""
    small = tasks.load("digits", size=16, device="cpu").subset(300, 40)
    exact = [dataclasses.replace(split, x=split.x.double()) for split in (small.train, small.test)]
    return dataclasses.replace(small, train=exact[0], test=exact[1])


def made(digits, node):
    return models.create("lenet5", digits, seed=seeds.derive(SEED, "node", node)).double()


class Draws:
    """Who trains when, on which images: as the engine draws it."""

    def __init__(self, digits, num_nodes, interval):
        distribution = IID().distribution(num_nodes, digits.classes, seed=seeds.derive(SEED, "labels"))
        self.split, self.sampler = digits.train, Sampler.by_label(digits.train.y, distribution)
        self.next, self.interval = torch.zeros(num_nodes, dtype=torch.int64), interval

    def due(self, tick):
        due = (self.next <= tick).nonzero()[:, 0]
        low, high = self.interval
        generator = seeds.generator(SEED, "interval", tick)
        self.next[due] = tick + torch.randint(low, high + 1, (len(due),), generator=generator)
        images = self.sampler.draw(due, BATCH, seeds.generator(SEED, "batches", tick, 0))
        self.images = dict(zip(due.tolist(), images, strict=True))
        return due.tolist()

    def batch(self, _, node):
        return self.split.x[self.images[node]], self.split.y[self.images[node]]


@pytest.mark.parametrize("corrected", [False, True])
def test_gossip_is_algorithm_2_and_corrected_gossip_algorithm_3(digits, corrected):
    graph = topology.random_regular(6, 4, seed=0)
    nodes, draws = [made(digits, node) for node in graph], Draws(digits, len(graph), (8, 12))
    reference.gossip(
        nodes, graph, draws.due, draws.batch, ticks=TICKS, beta=0.5, corrected=corrected, **SETTINGS
    )
    system = gossip.VarianceCorrected() if corrected else gossip.Average()
    fast = gossip.simulate(
        digits, "lenet5", graph, averaging=system, ticks=TICKS, seed=SEED, batch=BATCH, record_every=TICKS, **SETTINGS
    )
    slow = torch.stack([torch.nn.utils.parameters_to_vector(node.parameters()) for node in nodes])
    torch.testing.assert_close(fast.weights, slow.detach(), rtol=1e-7, atol=1e-10)


def test_federated_learning_is_algorithm_1(digits):
    server, num_nodes = made(digits, 0), 5
    clients, draws = [made(digits, node) for node in range(num_nodes)], Draws(digits, num_nodes, (10, 10))
    rounds = {}

    def batch(index, client):
        if index not in rounds:
            rounds[index] = draws.due(10 * index)
        return draws.batch(index, client)

    reference.federated(server, clients, batch, rounds=4, **SETTINGS)
    fast = gossip.simulate(
        digits, "lenet5", nx.star_graph(num_nodes - 1), averaging=gossip.Federated(), ticks=40, seed=SEED, batch=BATCH,
        record_every=40, **SETTINGS,
    )  # fmt: skip
    slow = torch.nn.utils.parameters_to_vector(server.parameters()).detach()
    torch.testing.assert_close(fast.weights[0], slow, rtol=1e-7, atol=1e-10)


def test_metropolis_weights_are_those_of_metropolis_and_hastings(digits):
    """Without training, nodes of unequal degree agree on the plain mean of their first models."""
    graph = nx.Graph([(0, 1), (1, 2), (1, 3), (2, 3)])
    ends = {}
    for mixing in ("metropolis", "uniform"):
        result = gossip.simulate(
            digits, "lenet5", graph, averaging=gossip.Average(beta=0.0), ticks=400, seed=0, lr=1e-12, momentum=0.0,
            batch=1, interval=(5, 5), mixing=mixing, record_every=400,
        )  # fmt: skip
        ends[mixing] = result.weights
    start = [models.create("lenet5", digits, seed=seeds.derive(0, "node", node)).double() for node in graph]
    mean = torch.stack([torch.nn.utils.parameters_to_vector(m.parameters()).detach() for m in start]).mean(0)
    assert (ends["metropolis"] - mean).norm(dim=1).max() < 1e-6 * mean.norm()
    assert (ends["uniform"] - mean).norm(dim=1).max() > 0.1 * mean.norm()


@pytest.mark.parametrize(
    "options",
    [
        {"message_loss": 0.5},
        {"averaging": gossip.Average(message=gossip.Sampled())},
        {"averaging": gossip.Average(message=gossip.Partitioned(3))},
        {"augment": True},
    ],
    ids=["message loss", "sampled", "partitioned", "augmented"],
)
def test_draws_do_not_depend_on_which_nodes_are_trained_together(digits, monkeypatch, options):
    augmented = dataclasses.replace(digits, augmentation=Augmentation(padding=1))
    graph, outcomes = topology.random_regular(8, 4, seed=0), []
    for chunk in (2, 512):
        first = gossip.simulation.StackedNodes.__init__

        def init(self, *arguments, chunk=chunk, first=first, **more):
            first(self, *arguments, **more)
            self.chunk = chunk

        with monkeypatch.context() as patch:
            patch.setattr(gossip.simulation.StackedNodes, "__init__", init)
            run = gossip.simulate(augmented, "lenet5", graph, ticks=30, seed=0, batch=BATCH, record_every=30, **options)
        outcomes.append(run.weights)
    torch.testing.assert_close(*outcomes, rtol=1e-7, atol=1e-10)
