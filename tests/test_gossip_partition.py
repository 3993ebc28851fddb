"""Nodes with data of their own: which forms of indices are taken, what is drawn, what the result says."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import gossip, tasks
from lib.errors import InputError
from lib.gossip import topology
from lib.gossip.labels import LabelDistribution
from lib.runs import config
from lib.studies import gossip as study

PARTS = [[0, 5, 7], [1, 2], [3, 4, 299, 3]]
OPTIONS = dict(ticks=3, seed=0, batch=4, record_every=2)


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits", size=16, device="cpu").subset(300, 40)


def simulate(digits, labels, num_nodes=3, **options):
    return gossip.simulate(digits, "lenet5", topology.ring(num_nodes), labels=labels, **OPTIONS | options)


@pytest.mark.parametrize("form", [
    lambda part: part, tuple, np.array, torch.tensor, lambda part: np.array(part, "uint16"),
], ids=["list", "tuple", "numpy", "torch", "small integers"])  # fmt: skip
def test_indices_of_any_form_are_one_partition(form):
    assert gossip.Partition([form(part) for part in PARTS]) == gossip.Partition(PARTS)
    assert gossip.Partition(iter(PARTS)) == gossip.Partition(PARTS)


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=2, max_size=6), st.integers(0, 99))
def test_a_node_draws_from_its_own_inputs_all_of_them_and_nothing_else(parts, seed):
    x, y = torch.zeros(100, 1, 8, 8), torch.arange(100) % 3
    task = tasks.from_tensors(x + y[:, None, None, None], y, x, y, name="toy", device="cpu")
    sampler = gossip.Partition(parts).deal(task, len(parts), seed=seed)
    nodes = torch.arange(len(parts)).flip(0)
    drawn = sampler.draw(nodes, 200, torch.Generator().manual_seed(seed))
    assert drawn.shape == (len(parts), 200)
    for node, own in zip(nodes.tolist(), drawn.tolist(), strict=True):
        assert set(own) == set(parts[node])


def test_a_node_draws_from_its_inputs_with_equal_probability(digits):
    drawn = gossip.Partition([[7], range(100, 110)]).deal(digits, 2, seed=0).draw(
        torch.tensor([1]), 20_000, torch.Generator().manual_seed(0)
    )  # fmt: skip
    counts = torch.bincount(drawn[0] - 100, minlength=10)
    assert ((counts - 2000).abs() < 250).all()


def test_the_result_says_who_holds_what(digits):
    result = simulate(digits, gossip.Partition(PARTS))
    assert [part.tolist() for part in result.partition] == PARTS
    for part, labels in zip(PARTS, result.labels, strict=True):
        counts = torch.bincount(digits.train.y[part], minlength=10)
        torch.testing.assert_close(labels, counts.double() / len(part))
    assert result.settings["labels"] == "Partition(3 nodes with 2 to 4 inputs)"
    assert simulate(digits, gossip.IID()).partition is None


def test_what_a_node_holds_decides_what_it_learns(digits):
    """Also in the loop, and in federated learning; and other nodes' data do not count."""
    alone = dict(averaging=gossip.Isolated())
    first = simulate(digits, gossip.Partition(PARTS), **alone).weights
    other = simulate(digits, gossip.Partition([PARTS[0], [8, 9], [10]]), **alone).weights
    assert torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
    for system in (gossip.VarianceCorrected(), gossip.Federated()):
        stacked, looped = (
            simulate(digits, gossip.Partition(PARTS), averaging=system, backend=backend).weights
            for backend in ("stacked", "loop")
        )
        torch.testing.assert_close(stacked, looped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("indices", "message"), [
    ([], "indices: needs those of at least one node"),
    ({0: [1]}, "indices: needs a list with the indices of each node, got dict"),
    ("012", "indices: needs a list with the indices of each node, got str"),
    (5, "indices: needs a list with the indices of each node, got int"),
    ([0, 1], r"indices\[0\]=0: needs a list of at least one index"),
    ([[0], []], r"indices\[1\]=\[\]: needs a list of at least one index"),
    ([[0], [1.5]], r"indices\[1\]=\[1\.5\]: needs a list"),
    ([[0], [True, False]], r"indices\[1\]=\[ True False\]: needs a list"),
    ([[0], [-1]], r"indices\[1\]=\[-1\]: needs a list"),
    ([[[0, 1]]], r"indices\[0\]=\[\[0 1\]\]: needs a list"),
    ([["a"]], r"indices\[0\]=\['a'\]: needs a list"),
    ([[0, [1]]], r"indices\[0\]='?\[0, \[1\]\]'?: needs a list"),
    ([None], r"indices\[0\]=None: needs a list"),
])  # fmt: skip
def test_what_is_no_partition_is_refused(indices, message):
    with pytest.raises(InputError, match=message) as caught:
        gossip.Partition(indices)
    assert "\n" not in str(caught.value)


def test_a_partition_that_does_not_fit_is_refused(digits):
    with pytest.raises(InputError, match=r"labels=Partition\(3 nodes .*\): the graph has 4 nodes"):
        simulate(digits, gossip.Partition(PARTS), num_nodes=4)
    with pytest.raises(InputError, match=r"indices\[2\]: holds 300, the training split has 300 inputs"):
        simulate(digits, gossip.Partition([*PARTS[:2], [300]]))
    for labels in (PARTS, "iid", gossip.IID, None):
        with pytest.raises(InputError, match=r"labels=.*: needs gossip\.IID\(\), .* or Partition"):
            simulate(digits, labels)


def test_a_label_distribution_of_the_users_own(digits):
    class First(LabelDistribution):
        def distribution(self, num_nodes, classes, *, seed):
            return torch.eye(classes, dtype=torch.float64)[:num_nodes]

    assert simulate(digits, First()).labels.tolist() == torch.eye(10)[:3].tolist()


def test_a_partition_is_part_of_a_config():
    run = study.Run("digits", "lenet5", study.regular(3, 2), gossip.Average(), 3, 0, labels=gossip.Partition(PARTS))
    other = dataclasses.replace(run, labels=gossip.Partition([*PARTS[:2], [3]]))
    assert json.loads(config.canonical(run))["labels"]["indices"] == PARTS
    assert config.canonical(run) != config.canonical(other)
