"""Networks, label distributions, averaging, messages, measures: each on its own."""

import inspect
import math

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import gossip
from lib.errors import InputError
from lib.gossip import measures, topology
from lib.gossip.labels import Sampler
from lib.studies import gossip as study
from lib.studies import vanishing
from lib.studies.graphs import describe, topologies
from lib.weights import Layout


@pytest.mark.parametrize("name", topologies(20, 4))
def test_every_network_is_connected_and_seeded(name):
    network = topologies(20, 4)[name]
    draws = [network.make(seed) for seed in (1, 1, 2)]
    if network.rewired_every:
        assert set(draws[0].at(0).edges) != set(draws[0].at(network.rewired_every).edges)
        draws = [draw.at(0) for draw in draws]
    assert topology.components(draws[0]) == 1
    assert set(draws[0]) == set(range(len(draws[0])))
    assert set(draws[0].edges) == set(draws[1].edges)
    if "seed" in inspect.signature(getattr(topology, network.kind)).parameters:
        assert set(draws[0].edges) != set(draws[2].edges)


@pytest.mark.parametrize("name", ["random regular", "directed regular", "rewired regular", "complete"])
def test_description_of_a_network(name):
    about = describe(topologies(20, 4)[name], 1)
    assert (about["nodes"], about["mean degree"]) == (20, 19 if name == "complete" else 4)
    assert 0 < about["spectral gap"] <= 1 + 1e-9


@pytest.mark.parametrize("graph", [topology.random_regular(10, 3, seed=0), topology.star(9), topology.karate_club()])
def test_mixing_matrices_are_row_stochastic(graph):
    for kind in topology.MIXINGS:
        matrix = topology.mixing_matrix(graph, kind).to_dense()
        torch.testing.assert_close(matrix.sum(1), torch.ones(len(graph), dtype=torch.float64))
    torch.testing.assert_close(matrix, matrix.T)
    assert 0 < topology.spectral_gap(graph) < 1


def test_directed_networks_balance():
    graph = topology.directed_regular(12, 3, seed=4)
    assert {d for _, d in graph.in_degree} == {d for _, d in graph.out_degree} == {3}


def test_steady_gain_is_root_n_for_regular_networks():
    assert topology.steady_gain(topology.random_regular(16, 4, seed=1)) == pytest.approx(4)
    assert topology.steady_gain(topology.star(16)) < 4


def test_parts_warn_or_raise():
    parts = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    with pytest.warns(UserWarning, match="2 components can never agree"):
        topology.check(parts)
    with pytest.raises(InputError, match="2 components can never agree"):
        topology.check(parts, allow_parts=False)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: topology.random_regular(9, 3, seed=0), "degree=3 with num_nodes=9: their product must be even"),
    (lambda: topology.random_regular(4, 4, seed=0), "degree=4: must be smaller than num_nodes=4"),
    (lambda: topology.random_regular(4, 0, seed=0), "degree=0: must be at least 1"),
    (lambda: topology.directed_regular(3, 3, seed=0), "degree=3: must be smaller than num_nodes=3"),
    (lambda: topology.from_edges([]), r"edges=\[\]: needs at least one pair"),
    (lambda: topology.from_edges([(1,)]), r"edges=\[\(1,\)\]: needs at least one pair"),
    (lambda: topology.stochastic_block([], inside=1, between=1, seed=0), r"sizes=\[\]: needs at least two nodes"),
    (lambda: topology.stochastic_block([1], inside=1, between=1, seed=0), r"sizes=\[1\]: needs at least two nodes"),
    (lambda: topology.scale_free(1, seed=0), "num_nodes=1: must be at least 2"),
    (lambda: topology.hyperbolic(5, 40, seed=0), "degree=40: must be smaller than num_nodes=5"),
    (lambda: topology.ring(2), "num_nodes=2: must be at least 3"),
    (lambda: topology.star(1), "num_nodes=1: must be at least 2"),
    (lambda: topology.complete(0), "num_nodes=0: must be at least 2"),
    (lambda: topology.watts_strogatz(4, 8, seed=0), "degree=8: must be smaller than num_nodes=4"),
    (lambda: topology.watts_strogatz(9, 3, seed=0), "degree=3: must be even"),
    (lambda: topology.two_communities(8, 4, seed=0), "degree=4: must be smaller than num_nodes / 2=4"),
    (lambda: topology.watts_strogatz(9, 2, rewiring=2, seed=0), r"rewiring=2: must be in \[0, 1\]"),
    (lambda: topology.scale_free(9, exponent=2, seed=0), "exponent=2: must be larger than 2"),
    (lambda: topology.hyperbolic(9, 3, exponent=1, seed=0), "exponent=1: must be larger than 2"),
    (lambda: topology.two_communities(9, 2, seed=0), "num_nodes=9: two communities of one size need an even number"),
    (lambda: topology.stochastic_block([5, 5], inside=0, between=0, seed=0), "none of 100 draws was connected"),
    (lambda: topology.from_file("nowhere.txt"), "path='nowhere.txt': no such edge file"),
    (lambda: topology.check(nx.empty_graph(3)), "graph: has no edges"),
    (lambda: topology.mixing_matrix(nx.path_graph(3), "hand"), "mixing='hand': choose one of uniform, metropolis"),
    (lambda: topology.mixing_matrix(nx.DiGraph([(0, 1)]), "metropolis"), "needs an undirected graph"),
    (lambda: topology.Rewired(None, 0), "every=0: must be at least 1"),
    (lambda: study.GraphConfig("check", {}).make(0), "missing"),
    (lambda: study.GraphConfig("Rewired", {}), "topology='Rewired': no such family"),
    (lambda: gossip.Average(beta=1.1), r"beta=1.1: must be in \[0, 1\]"),
    (lambda: gossip.Average(message=gossip.Sampled), r"message=<class .*Sampled'>: needs Whole\(\), Sampled\(\)"),
    (lambda: gossip.Average(message="half"), r"message='half': needs Whole\(\), Sampled\(\)"),
    (lambda: gossip.VarianceCorrected(-0.1), r"beta=-0.1: must be in \[0, 1\]"),
    (lambda: gossip.VarianceCorrected(target="all"), "target='all': choose one of received, own, mixed"),
    (lambda: gossip.VarianceCorrected(order="never"), "order='never': choose one of after, before"),
    (lambda: gossip.VarianceCorrected(epsilon=-1), "epsilon=-1: must be 0 or larger"),
    (lambda: gossip.TransferLike(alone=-1), "alone=-1: must be 0 or larger"),
    (lambda: gossip.Federated(fraction=0), r"fraction=0: must be in \(0, 1\]"),
    (lambda: gossip.Federated(local_steps=0), "local_steps=0: must be at least 1"),
    (lambda: gossip.Sampled(0), r"fraction=0: must be in \(0, 1\]"),
    (lambda: gossip.Compressed(1.5), r"fraction=1.5: must be in \(0, 1\]"),
    (lambda: gossip.Partitioned(0), "parts=0: must be at least 1"),
    (lambda: gossip.Dirichlet(0), "alpha=0: must be larger than 0"),
    (lambda: gossip.Shards(0), "per_node=0: must be at least 1"),
    (lambda: gossip.Shards(11).distribution(2, 10, seed=0), "per_node=11: the data have only 10 classes"),
    (lambda: gossip.average(torch.ones(2, 3), torch.ones(2, 2)), "rows must be non-negative and sum to 1"),
    (lambda: gossip.average(torch.ones(2, 3), torch.eye(3)), r"mixing: shape \(3, 3\), needs \(2, 2\)"),
    (lambda: gossip.average(torch.ones(2, 3), torch.eye(2), "some"), "variance='some': choose None or one of"),
    (lambda: Sampler.by_label(torch.zeros(3).long(), torch.ones(1, 2) / 2), "no input of class 1"),
    (lambda: measures.remove_weights({}, 1.2, seed=0), r"keep=1.2: must be in \[0, 1\]"),
    (lambda: measures.scale_weights({}, 2), r"ratio=2: must be in \[0, 1\]"),
])  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises((InputError, TypeError), match=message):
        call()


@pytest.mark.parametrize("labels", [gossip.IID(), gossip.Dirichlet(0.01), gossip.Shards(2), gossip.Halves()])
def test_label_distributions(labels):
    drawn = [labels.distribution(7, 10, seed=seed) for seed in (1, 1, 2)]
    torch.testing.assert_close(drawn[0].sum(1), torch.ones(7, dtype=torch.float64))
    assert torch.equal(drawn[0], drawn[1])
    seeded = isinstance(labels, gossip.Dirichlet | gossip.Shards)
    assert torch.equal(drawn[0], drawn[2]) != seeded


def test_sampler_draws_what_the_distribution_says():
    y = torch.tensor([0, 1, 2, 2, 1, 0, 0, 1])
    distribution = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    sampler = Sampler.by_label(y, distribution)
    images = sampler.draw(torch.tensor([0, 1]), 4000, torch.Generator().manual_seed(0))
    assert set(images[0].tolist()) == {0, 5, 6}
    fractions = torch.bincount(y[images[1]], minlength=3) / 4000
    torch.testing.assert_close(fractions, torch.tensor([0.0, 0.5, 0.5]), atol=0.03, rtol=0)


@settings(max_examples=20, deadline=None)
@given(num_nodes=st.integers(2, 12), seed=st.integers(0, 10**6))
def test_averaging_divides_variance_and_correction_gives_it_back(num_nodes, seed):
    vectors = torch.randn(num_nodes, 20_000, generator=torch.Generator().manual_seed(seed))
    everybody = torch.full((num_nodes, num_nodes), 1 / num_nodes)
    plain = gossip.average(vectors, everybody).var(1, correction=0) * num_nodes
    corrected = gossip.average(vectors, everybody, "mixed").var(1, correction=0)
    torch.testing.assert_close(plain, torch.ones(num_nodes), atol=0.15, rtol=0)
    torch.testing.assert_close(corrected, vectors.var(1, correction=0).mean().expand(num_nodes), atol=1e-4, rtol=1e-4)


def test_one_step_of_eight_neighbours():
    graph = topology.random_regular(50, 8, seed=0)
    mixing = 0.5 * topology.mixing_matrix(graph) + 0.5 * torch.eye(50).to_sparse().double()
    vectors = torch.randn(50, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert gossip.average(vectors, mixing).var(1).mean() == pytest.approx(0.28125, rel=0.02)
    for target in ("received", "own", "mixed"):
        assert gossip.average(vectors, mixing, target).var(1).mean() == pytest.approx(1, rel=0.01)


def test_only_weight_tensors_of_a_state_are_corrected():
    state = {"weight": torch.randn(4, 30, 30), "bias": torch.randn(4, 30)}
    mixing = torch.full((4, 4), 0.25)
    new = gossip.average(state, mixing, "received")
    torch.testing.assert_close(new["bias"], state["bias"].mean(0).expand(4, 30))
    assert float(new["weight"].var()) == pytest.approx(float(state["weight"].var()), rel=0.1)


def test_messages_hold_what_they_say():
    layout = Layout(("a", "b"), ((4, 5), (4,)))
    change = torch.linspace(-1, 1, 24).expand(2, 24)
    sent = torch.tensor([0, 1])
    options = dict(seeds=[0, 1])
    assert gossip.Whole().mask(change, sent, layout, **options) is None
    sampled = gossip.Sampled(0.5).mask(change, sent, layout, **options)
    assert torch.equal(sampled, gossip.Sampled(0.5).mask(change, sent, layout, **options))
    assert not torch.equal(sampled, gossip.Sampled(0.5).mask(change, sent, layout, seeds=[2, 1]))
    swapped = gossip.Sampled(0.5).mask(change, sent, layout, seeds=[1, 0])
    assert torch.equal(sampled.flip(0), swapped), "a sender's draw does not depend on who sends with it"
    compressed = gossip.Compressed(0.5).mask(change, sent, layout, **options)[0]
    assert compressed[:20].tolist() == [True] * 5 + [False] * 10 + [True] * 5
    parts = torch.stack([gossip.Partitioned(3).mask(change, sent + i, layout, **options)[0] for i in range(3)])
    assert (parts.sum(0) == 1).all()


@settings(max_examples=20)
@given(st.integers(3, 12), st.data())
def test_directed_regular_has_its_degree(nodes, data):
    degree = data.draw(st.integers(1, nodes - 1))
    graph = topology.directed_regular(nodes, degree, seed=data.draw(st.integers(0, 99)))
    assert {d for _, d in graph.out_degree} == {d for _, d in graph.in_degree} == {degree}
    assert not any(a == b for a, b in graph.edges)


def test_measures():
    curve = pd.Series([0.1, 0.1, 0.3, 0.35, 0.9], index=[0, 100, 120, 200, 300])
    assert measures.plateau_delay(curve) == 300
    assert math.isnan(measures.plateau_delay(curve[:2]))
    assert math.isnan(measures.plateau_delay(curve.clip(upper=0.29))), "a curve that never leaves chance has no delay"
    assert measures.plateau_delay(curve.clip(upper=0.32), chance=0.05) == 200
    assert measures.ticks_to(curve, 0.2) == pytest.approx(110)
    assert measures.ticks_to(curve, 0.05) == 0
    assert math.isnan(measures.ticks_to(curve, 0.95))
    state = {"w": torch.ones(50, 50), "b": torch.ones(50)}
    removed = measures.remove_weights(state, 0.3, seed=1)
    assert removed["w"].mean() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(removed["b"], state["b"])
    assert torch.equal(removed["w"], measures.remove_weights(state, 0.3, seed=1)["w"])
    assert not torch.equal(removed["w"], measures.remove_weights(state, 0.3, seed=2)["w"])
    assert measures.scale_weights(state, 0.5)["w"].unique().tolist() == [0.5]


def test_averaged_vectors_experiment():
    drawn = vanishing.averaged_vectors(vanishing.Vectors(8, 10_000, 5, 0), None)
    for name, variance in {"normal": 0.25, "uniform": 1 / 12, "binomial": 0.25}.items():
        assert np.mean(drawn[f"{name} before"]) == pytest.approx(variance, rel=0.02)
        assert np.mean(drawn[f"{name} after"]) == pytest.approx(variance / 8, rel=0.03)
