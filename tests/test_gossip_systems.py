"""Learning systems of a user's own, in both engines; what a system is asked, and what it may not answer."""

import dataclasses
import inspect

import networkx as nx
import pytest
import torch

from lib import gossip, tasks
from lib.augmentation import AUGMENTATIONS
from lib.errors import InputError
from lib.gossip import topology
from lib.gossip.algorithms import LearningSystem
from lib.gossip.mailbox import Mailbox

OPTIONS = dict(ticks=21, seed=0, batch=8, record_every=20)


@pytest.fixture(scope="module")
def digits():
    """Digits in float64, so that different orders of sums show in the last digits only."""
    small = tasks.load("digits", size=16, device="cpu").subset(300, 40)
    exact = [dataclasses.replace(split, x=split.x.double()) for split in (small.train, small.test)]
    return dataclasses.replace(small, train=exact[0], test=exact[1])


@pytest.fixture(scope="module")
def graph():
    """Six nodes, four neighbours each."""
    return topology.random_regular(6, 4, seed=0)


class Shrinking(gossip.Average):
    """Plain gossip whose average is halved."""

    def mix(self, own, mean, received, layout):
        return super().mix(own, mean, received, layout) * 0.5


class OwnHead(gossip.VarianceCorrected):
    """Corrected gossip in which the last layer stays the node's own."""

    def mix(self, own, mean, received, layout):
        head = layout.slices["fc3.weight"]
        before = own[:, head].clone()
        mixed = super().mix(own, mean, received, layout)
        mixed[:, head] = before
        return mixed


class EvenOnly(gossip.VarianceCorrected):
    """Odd nodes never train."""

    def due(self, tick, schedule):
        return [node for node in super().due(tick, schedule).tolist() if node % 2 == 0]


class Hasty(gossip.Average):
    """A node averages as soon as it holds one model, and takes three steps at a time."""

    local_steps = 3
    interval = (2, 4)

    def average(self, tick, schedule, nodes):
        ready = schedule.received.nonzero()[:, 0]
        nodes.average(ready, self)
        schedule.received[ready] = 0


class Cautious(gossip.Federated):
    """A client goes only half of the way to the server's model."""

    def mix(self, own, mean, received, layout):
        return super().mix(own, mean, received, layout).lerp_(own, 0.5)


class OnceOnly(gossip.Isolated):
    """Every node trains once."""

    def due(self, tick, schedule):
        return torch.arange(6) if tick == 3 else torch.zeros(0, dtype=torch.int64)


class Pairs(LearningSystem):
    """No mailboxes: every 5 ticks, all take the mean of two nodes."""

    def average(self, tick, schedule, nodes):
        if tick % 5 == 4:
            pair = torch.tensor([tick % 6, (tick + 1) % 6])
            nodes.gather(pair, torch.arange(6), self)


OWN = (Shrinking, OwnHead, EvenOnly, Hasty, Cautious, OnceOnly, Pairs)


@pytest.mark.parametrize("system", OWN)
def test_a_system_of_the_users_own_counts_in_both_engines(digits, graph, system):
    stacked, looped = (
        gossip.simulate(digits, "lenet5", graph, averaging=system(), backend=backend, **OPTIONS)
        for backend in ("stacked", "loop")
    )
    torch.testing.assert_close(stacked.weights, looped.weights, rtol=1e-7, atol=1e-10)
    parent = system.__base__()
    plain = gossip.simulate(digits, "lenet5", graph, averaging=parent, **OPTIONS).weights
    assert (stacked.weights - plain).norm() > 1e-5 * plain.norm()


def test_what_the_systems_say_happens(digits, graph):
    first, last = (
        gossip.simulate(digits, "lenet5", graph, averaging=OnceOnly(), **OPTIONS | {"ticks": ticks}).weights
        for ticks in (5, 21)
    )
    assert torch.equal(first, last)
    heads, alone = (
        gossip.simulate(digits, "lenet5", graph, averaging=system, **OPTIONS | {"ticks": 1}).state(0)
        for system in (OwnHead(), gossip.Isolated())
    )
    assert torch.equal(heads["fc3.weight"], alone["fc3.weight"])
    assert not torch.equal(heads["fc1.weight"], alone["fc1.weight"])


@pytest.mark.parametrize(("answer", "message"), [
    ([6], r"nodes: needs each once and all in 0\.\.5, got \[6\]"),
    ([-1], r"nodes: needs each once and all in 0\.\.5, got \[-1\]"),
    ([2, 2], r"nodes: needs each once and all in 0\.\.5, got \[2, 2\]"),
    ([True, False], r"nodes: needs a list of them, got \[True, False\]"),
    ([0.5], r"nodes: needs a list of them, got \[0\.5\]"),
    (3, "nodes: needs a list of them, got 3"),
])  # fmt: skip
def test_who_trains_is_checked(digits, graph, answer, message):
    class Wrong(gossip.Isolated):
        def due(self, tick, schedule):
            return answer

    with pytest.raises(InputError, match=message):
        gossip.simulate(digits, "lenet5", graph, averaging=Wrong(), **OPTIONS)


def test_what_is_mixed_is_checked(digits, graph):
    class Wrong(gossip.Average):
        def mix(self, own, mean, received, layout):
            return mean.mean(1)

    with pytest.raises(InputError, match=r"Wrong\.mix: gave \(6,\), needs \(6, \d+\)"):
        gossip.simulate(digits, "lenet5", graph, averaging=Wrong(), **OPTIONS)


def test_who_is_offline_neither_reports_nor_receives_in_federated_learning(digits):
    graph = nx.star_graph(5)
    options = OPTIONS | {"absent": 0.4, "absence": 6, "ticks": 6}
    stacked, looped = (
        gossip.simulate(digits, "lenet5", graph, averaging=gossip.Federated(), backend=backend, **options)
        for backend in ("stacked", "loop")
    )
    torch.testing.assert_close(stacked.weights, looped.weights, rtol=1e-7, atol=1e-10)
    same = (stacked.weights == stacked.weights.mode(0).values).all(1)
    assert 0 < same.sum() < 6, "who was online at tick 5 has the server's model, who was not still the first one"


def test_a_sleeping_node_adopts_what_it_receives(digits):
    """Also where it would keep a part of its own model (Metropolis)."""
    system = gossip.TransferLike(alone=0, beta=0.9)
    graph = nx.path_graph(3)
    options = OPTIONS | {"ticks": 1, "mixing": "metropolis"}
    weights = gossip.simulate(digits, "lenet5", graph, averaging=system, **options).weights
    torch.testing.assert_close(weights[1], weights[0])
    assert not torch.equal(weights[2], weights[0])


def test_every_setting_is_a_keyword_and_arrives(digits, graph):
    fields = dataclasses.fields(gossip.Settings)
    parameters = inspect.signature(gossip.simulate).parameters
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    assert {f.name: f.default for f in fields} == {f.name: parameters[f.name].default for f in fields}
    changed = dict(
        lr=0.02, lr_policy="inv", momentum=0.5, batch=4, augment=True, interval=(3, 4), min_received=0.5,
        mixing="metropolis",
        same_start=True, gain=1.5, mix_momentum=True, statistics="averaged", message_loss=0.1, absent=0.2,
        absence=3, record_every=2, eval_images=10, model_size="paper",
    )  # fmt: skip
    assert set(changed) == {f.name for f in fields}
    augmented = dataclasses.replace(digits, augmentation=AUGMENTATIONS["mnist"])
    one_by_one = gossip.simulate(augmented, "lenet5", graph, ticks=3, seed=0, **changed)
    at_once = gossip.simulate(augmented, "lenet5", graph, ticks=3, seed=0, settings=gossip.Settings(**changed))
    assert {name: one_by_one.settings[name] for name in changed} == changed
    assert one_by_one.settings == at_once.settings and torch.equal(one_by_one.weights, at_once.weights)
    with pytest.raises(TypeError, match="rate"):
        gossip.simulate(digits, "lenet5", graph, ticks=1, seed=0, rate=1)


def test_a_mailbox_takes_whole_messages_and_parts():
    box = Mailbox(1, 4, 0, device="cpu", dtype=torch.float64)
    half = torch.tensor([[True, True, False, False]])
    message = [torch.tensor([0]), torch.tensor([0]), torch.tensor([0.5], dtype=torch.float64)]
    for value, mask in ((1.0, None), (3.0, half), (5.0, None)):
        box.put(message, torch.full((1, 4), value).double(), torch.zeros(1, 0).double(), mask)
    mean, _ = box.take(torch.tensor([0]), torch.full((1, 4), 9.0, dtype=torch.float64))
    torch.testing.assert_close(mean, torch.tensor([[3.0, 3.0, 5.0, 5.0]], dtype=torch.float64))
