"""The stacked simulation against the plain loop, for every learning system; resume; seeds; messages."""

import dataclasses
import warnings

import networkx as nx
import pytest
import torch
from torch import nn

from lib import gossip, tasks
from lib.augmentation import Augmentation
from lib.checkpoint import Checkpoint
from lib.errors import InputError
from lib.gossip import topology
from lib.gossip.schedule import Schedule
from lib.studies import gossip as study

# Every learning system of the notebooks, and variants of their parameters.
SYSTEMS = study.SYSTEMS | {
    "transfer-like": gossip.TransferLike(alone=15),  # else alone for longer than a test
    "corrected, own, before": gossip.VarianceCorrected(0.3, target="own", order="before", epsilon=1e-4),
    "corrected, mixed": gossip.VarianceCorrected(0.7, target="mixed"),
    "federated, part": gossip.Federated(fraction=0.5, local_steps=2, same_start=False, corrected=True),
    "corrected, also biases": gossip.VarianceCorrected(biases=True),
    "sampled, corrected": gossip.VarianceCorrected(message=gossip.Sampled()),
}


@pytest.fixture(scope="module")
def small():
    """300 digits of 16 pixels: what a loop can do 50 ticks of."""
    digits = tasks.load("digits", size=16, device="cpu").subset(300, 40)
    return dataclasses.replace(digits, augmentation=Augmentation(padding=1))


@pytest.fixture(scope="module")
def graph():
    """Six nodes, four neighbours each."""
    return topology.random_regular(6, 4, seed=0)


def double(of):
    """A task in float64."""
    split = lambda s: dataclasses.replace(s, x=s.x.double())  # noqa: E731
    return dataclasses.replace(of, train=split(of.train), test=split(of.test))


def test_gossip_in_bfloat16_is_close_to_float32_stacked_and_looped(small, graph):
    rounded = dataclasses.replace(small, precision="bfloat16")
    exact, stacked, looped = (
        gossip.simulate(data, "lenet5", graph, ticks=15, seed=0, batch=8, record_every=15, backend=backend).weights
        for data, backend in ((small, "stacked"), (rounded, "stacked"), (rounded, "loop"))
    )
    assert stacked.dtype == torch.float32 and not torch.equal(stacked, exact)
    for weights in (stacked, looped):
        assert (weights - exact).norm() < 0.01 * exact.norm()


class TinyResidual(nn.Module):
    """Batch norm, a shortcut, average pooling: what LeNet5 has not."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4)
        self.block, self.head = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Linear(4, 10)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(torch.flatten(self.pool(x + self.block(x)), 1))


class Normed(nn.Module):
    """Layer norm and a reshape: no grouped counterpart, vmap must do."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.norm(x.reshape(x.shape[0], -1)))


class NormedTwice(TinyResidual):
    """Batch-norm statistics and a reshape: no grouped counterpart either."""

    def forward(self, x):
        return super().forward(x.reshape(x.shape))


def largest_gap(of, graph, averaging, model="lenet5", ticks=50, **settings):
    runs = [
        gossip.simulate(of, model, graph, averaging=averaging, ticks=ticks, seed=3, batch=8, record_every=25,
                        backend=backend, **settings)
        for backend in ("stacked", "loop")
    ]  # fmt: skip
    assert torch.isfinite(runs[0].weights).all()
    torch.testing.assert_close(*(torch.tensor(r.history.loss.tolist()) for r in runs), rtol=1e-3, atol=1e-3)
    return float((runs[0].weights - runs[1].weights).abs().max())


@pytest.mark.parametrize("system", SYSTEMS)
def test_stacked_equals_loop(small, graph, system):
    assert largest_gap(double(small), graph, SYSTEMS[system]) < 1e-10
    assert largest_gap(small, graph, SYSTEMS[system]) < 1e-4


@pytest.mark.parametrize("settings", [
    {"mixing": "metropolis", "message_loss": 0.2, "absent": 0.2, "absence": 7},
    {"mix_momentum": True, "min_received": 2.5, "interval": (1, 5)},
    {"gain": 2.0, "same_start": True, "labels": gossip.Dirichlet(0.3), "augment": True},
])  # fmt: skip
def test_stacked_equals_loop_with_settings(small, settings):
    graph = topology.scale_free(7, smallest=2, seed=1)
    assert largest_gap(double(small), graph, gossip.VarianceCorrected(), **settings) < 1e-10


@pytest.mark.parametrize("statistics", ["kept", "averaged", "reestimated"])
@pytest.mark.parametrize("model", [TinyResidual, Normed, NormedTwice])
def test_other_models_equal_loop(small, graph, model, statistics):
    options = dict(model=lambda seed: model(), ticks=15, statistics=statistics)
    assert largest_gap(double(small), graph, gossip.VarianceCorrected(), **options) < 1e-10


def test_directed_and_rewired_networks(small):
    directed = topology.directed_regular(6, 2, seed=0)
    assert largest_gap(double(small), directed, gossip.Average(), ticks=20) < 1e-10
    rewired = topology.Rewired(lambda k: topology.random_regular(6, 3, seed=k), 5)
    assert largest_gap(double(small), rewired, gossip.VarianceCorrected(), ticks=20) < 1e-10


def test_the_rate_policy_of_the_papers_solver(small, graph):
    """A node's learning rate falls with its own SGD steps, as Caffe's policy "inv" has it."""
    settings = gossip.Settings(lr=0.1, lr_policy="inv")
    schedule = Schedule(graph, list(graph), (10, 10), settings, 0)
    schedule.steps[:2] = torch.tensor([0, 10_000])
    assert schedule.learning_rates(torch.tensor([0, 1])).tolist() == pytest.approx([0.1, 0.1 * 2**-0.75])
    still, falling = (
        gossip.simulate(small, "lenet5", graph, averaging=gossip.Isolated(), ticks=31, seed=0, lr_policy=policy)
        for policy in ("constant", "inv")
    )
    difference = (still.weights - falling.weights).norm() / still.weights.norm()
    assert 0 < difference < 1e-3  # after four steps


def test_biases_are_corrected_where_asked(small):
    names = {}
    for biases in (False, True):
        system = gossip.VarianceCorrected(beta=0, biases=biases)
        run = gossip.simulate(small, "lenet5", topology.complete(6), averaging=system, ticks=1, seed=0, batch=8, lr=0.1)
        last = run.variance.set_index("layer")
        names[biases] = set(last.index)
        if biases:  # biases start at 0: what a step gave them has the variance that the received models have
            torch.testing.assert_close(last.averaged["fc3.bias"], last.trained["fc3.bias"], rtol=0.05, atol=0)
    assert names[True] - names[False] == {f"{name}.bias" for name in ("conv1", "conv2", "fc1", "fc2", "fc3")}


def test_seeds(small, graph):
    runs = [gossip.simulate(small, "lenet5", graph, ticks=12, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(runs[0].weights, runs[1].weights)
    assert runs[0].history.equals(runs[1].history)
    assert not torch.equal(runs[0].weights, runs[2].weights)


@pytest.mark.parametrize("system", ["corrected gossip", "sampled", "federated, part", "transfer-like"])
def test_resumed_is_bit_identical(small, graph, system, tmp_path):
    options = dict(averaging=SYSTEMS[system], seed=1, batch=8, mix_momentum=system == "corrected gossip")
    whole = gossip.simulate(small, "lenet5", graph, ticks=40, **options)
    gossip.simulate(small, "lenet5", graph, ticks=23, checkpoint=Checkpoint(tmp_path, every=0), **options)
    resumed = gossip.simulate(small, "lenet5", graph, ticks=40, checkpoint=Checkpoint(tmp_path), **options)
    assert torch.equal(whole.weights, resumed.weights)
    after = resumed.history[resumed.history.tick.isin([30, 39])].reset_index(drop=True)
    assert after.equals(whole.history[whole.history.tick.isin([30, 39])].reset_index(drop=True))


def test_records(small, graph):
    run = gossip.simulate(small, "lenet5", graph, ticks=21, seed=0, eval_images=20)
    assert list(run.accuracy.index) == [0, 10, 20]
    assert run.settings["evaluated_on"] == "20 of 40 test images, classes balanced"
    assert set(run.variance.layer) == {f"{name}.weight" for name in ("conv1", "conv2", "fc1", "fc2", "fc3")}
    assert (run.variance.averaged <= run.variance.trained * 1.001).all()
    assert run.difference.l2.iloc[0] > run.difference.l2.iloc[-1]
    assert set(run.state(2)) == set(run.layout.names)


def test_divergence_names_tick_layer_and_node(small, graph):
    with pytest.raises(FloatingPointError, match=r"by tick \d+: layer \w+\.weight of node 0 is not finite"):
        gossip.simulate(small, "lenet5", graph, ticks=30, seed=0, lr=1e6)


def test_parts_that_never_agree_are_warned_of(small):
    parts = nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))
    with pytest.warns(UserWarning, match="not connected, its 2 components"):
        gossip.simulate(small, "lenet5", parts, ticks=2, seed=0)


@pytest.mark.parametrize(("settings", "message"), [
    ({"lr": 0}, "lr=0: must be larger than 0"),
    ({"min_received": -1}, "min_received=-1: must be larger than 0"),
    ({"message_loss": 1.0}, r"message_loss=1.0: must be in \[0, 1\)"),
    ({"batch": 0}, "batch=0: must be at least 1"),
    ({"interval": (5, 3)}, r"interval=\(5, 3\): needs 1 <= smallest <= largest"),
    ({"statistics": "lost"}, "statistics='lost': choose one of kept, averaged, reestimated"),
    ({"mixing": "hand"}, "mixing='hand': choose one of uniform, metropolis"),
    ({"ticks": 0}, "ticks=0: must be at least 1"),
    ({"backend": "gpu"}, "backend='gpu': choose one of stacked, loop"),
    ({"settings": gossip.Settings(), "lr": 1}, "settings: give one Settings object or single settings, not both"),
    ({"averaging": "mean"}, r"averaging='mean': needs a learning system such as gossip\.Average\(\)"),
    ({"averaging": gossip.Average}, r"averaging=<class .*Average'>: needs a learning system"),
    ({"averaging": gossip.Federated(), "interval": (8, 12)}, r"interval=\(8, 12\): rounds of federated learning are"),
    ({"averaging": gossip.Federated(), "message_loss": 0.1}, "message_loss=0.1: federated learning loses no messages"),
    ({"averaging": gossip.TransferLike(source=9)}, "source=9: the graph has 6 nodes"),
])  # fmt: skip
def test_bad_settings(small, graph, settings, message):
    with pytest.raises(InputError, match=message):
        gossip.simulate(small, "lenet5", graph, **{"ticks": 1, "seed": 0, **settings})


def test_bad_graph(small):
    with pytest.raises(InputError, match=r"graph: needs a networkx graph or topology\.Rewired, got list"):
        gossip.simulate(small, "lenet5", [1], ticks=1, seed=0)


def test_no_warning_without_reason(small, graph):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = gossip.simulate(small, "lenet5", graph, ticks=2, seed=0)
    assert len(result.accuracy) == 2  # ticks 0 and 1: it ran to its end
