"""Models of many kinds in gossip: frozen parameters, buffers of their own, norms, dropout; and the caller's world."""

import contextlib
import copy
import itertools
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from lib import gossip, tasks, training
from lib.checkpoint import Checkpoint
from lib.errors import InputError

OPTIONS = dict(ticks=9, seed=1, batch=6, record_every=4, interval=(2, 2))
SYSTEMS = {"corrected": gossip.VarianceCorrected(), "federated": gossip.Federated(same_start=False, corrected=True)}
STATISTICS = ("kept", "averaged", "reestimated")


def toy(n=60):
    """Images (1, 8, 8) of five prototypes, and noise."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 5
    x = torch.randn(n, 1, 8, 8, generator=generator) + 2 * torch.randn(5, 1, 8, 8, generator=generator)[y]
    return tasks.from_tensors(x, y, x[:20], y[:20], name="toy", device="cpu")


data = toy()


def chain(*makers):
    """``net(seed)``: modules one after another, whose random parts depend on the seed."""
    return lambda seed: nn.Sequential(*[make() for make in makers])


def dense(*between):
    return chain(nn.Flatten, lambda: nn.Linear(64, 12), *between, nn.ReLU, lambda: nn.Linear(12, 5))


def conv(*between):
    return chain(lambda: nn.Conv2d(1, 6, 3), *between, nn.ReLU, nn.Flatten, lambda: nn.Linear(216, 5))


def norm(kind=nn.BatchNorm2d, **options):
    return conv(lambda: kind(6, **options))


def simulate(net, backend="stacked", **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "networks|model .* draws")
        return gossip.simulate(data, net, nx.cycle_graph(3), backend=backend, **OPTIONS | options)


def assert_equals_loop(net, **options):
    """Weights, every entry of every node's state dict, and the scores."""
    stacked, loop = (simulate(net, backend, **options) for backend in ("stacked", "loop"))
    torch.testing.assert_close(stacked.weights, loop.weights, rtol=1e-4, atol=1e-5)
    for node in range(3):
        torch.testing.assert_close(stacked.state(node), loop.state(node), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stacked.history.loss, loop.history.loss, rtol=1e-4)
    return stacked


class Fourier(nn.Module):
    """Random features, which are a buffer."""

    def __init__(self, persistent=True):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(64, 12), persistent=persistent)

    def forward(self, x):
        return torch.cos(x.flatten(1) @ self.frequencies)


class Permuted(nn.Module):
    """Pixels in a random order: a buffer of integers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.randperm(64))

    def forward(self, x):
        return x.flatten(1)[:, self.order]


class Centred(nn.Module):
    """Takes off a running mean, a buffer that is changed in place or replaced."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("center", torch.zeros(12))

    def forward(self, x):
        if self.training and self.in_place:
            self.center.lerp_(x.detach().mean(0), 0.1)
        elif self.training:
            self.center = 0.9 * self.center + 0.1 * x.detach().mean(0)
        return x - self.center


BUFFERS = {
    "spectral norm": dense(nn.ReLU, lambda: parametrizations.spectral_norm(nn.Linear(12, 12))),
    "spectral norm of the old kind": dense(nn.ReLU, lambda: spectral_norm(nn.Linear(12, 12))),
    "pruned": dense(nn.ReLU, lambda: prune.random_unstructured(nn.Linear(12, 12), "weight", 0.5)),
    "random features": chain(Fourier, lambda: nn.Linear(12, 5)),
    "random features that are not saved": chain(lambda: Fourier(False), lambda: nn.Linear(12, 5)),
    "random order": chain(Permuted, lambda: nn.Linear(64, 5)),
    "running centre": dense(lambda: Centred(in_place=True)),
    "running centre, replaced": dense(lambda: Centred(in_place=False)),
    "instance norm": norm(nn.InstanceNorm2d),
    "instance norm with statistics": norm(nn.InstanceNorm2d, track_running_stats=True, affine=True),
}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", BUFFERS)
def test_a_node_keeps_its_own_buffers(kind, system):
    result = assert_equals_loop(BUFFERS[kind], averaging=SYSTEMS[system], statistics="averaged")
    own = {name: values for name, values in result.buffers.items() if not name.endswith("num_batches_tracked")}
    assert all(not torch.equal(values[0], values[1]) for values in own.values())


NORMS = {
    "plain": {}, "momentum None": {"momentum": None}, "momentum 0": {"momentum": 0.0}, "momentum 1": {"momentum": 1.0},
    "no affine": {"affine": False}, "no statistics": {"track_running_stats": False},
    "neither": {"affine": False, "track_running_stats": False}, "None, no affine": {"momentum": None, "affine": False},
}  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("options", NORMS)
def test_batch_norm_of_any_options_equals_the_loop(options, statistics, system):
    net = norm(**NORMS[options])
    result = assert_equals_loop(net, statistics=statistics, averaging=SYSTEMS[system])
    counts = result.buffers.get("1.num_batches_tracked")
    assert counts is None or (counts > 1).all()


@pytest.mark.parametrize("net", [
    dense(lambda: nn.BatchNorm1d(12)), dense(lambda: nn.BatchNorm1d(12, momentum=None)),
    conv(lambda: nn.BatchNorm2d(6), lambda: nn.Dropout(0.3)),
], ids=["rows", "rows, momentum None", "with dropout"])  # fmt: skip
@pytest.mark.parametrize("statistics", STATISTICS)
def test_other_batch_norms_equal_the_loop(net, statistics):
    assert_equals_loop(net, statistics=statistics)


def test_averaged_statistics_and_momentum_are_averaged_in_federated_learning():
    options = dict(averaging=gossip.Federated(), ticks=2, interval=(4, 4))
    for average_all, same in ((True, True), (False, False)):
        chosen = {"statistics": "averaged", "mix_momentum": True} if average_all else {}
        later = dict(averaging=gossip.Federated(), ticks=3, interval=(4, 4), **chosen)
        result = assert_equals_loop(norm(), **later)
        assert torch.equal(result.weights[0], result.weights[1])
        for part in ("running_mean", "running_var"):
            values = result.buffers[f"1.{part}"]
            assert torch.equal(values[0], values[1]) == same
    before = simulate(norm(), **options).buffers["1.running_mean"]
    after = simulate(norm(), **options | {"ticks": 3, "statistics": "averaged"}).buffers["1.running_mean"]
    torch.testing.assert_close(after, before.mean(0).expand_as(before))


def frozen(net, *names):
    """``net(seed)`` with frozen parameters, those whose names start so."""

    def make(seed):
        model = net(seed)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(names))
        return model

    return make


FROZEN = {
    "a weight": (frozen(dense(), "1.weight"), ("1.weight",)),
    "a bias": (frozen(dense(), "3.bias"), ("3.bias",)),
    "a layer": (frozen(conv(), "0"), ("0.weight", "0.bias")),
    "all weights": (frozen(dense(), "1.weight", "3.weight"), ("1.weight", "3.weight")),
    "a norm": (frozen(norm(), "1"), ("1.weight", "1.bias")),
    "features": (frozen(chain(Fourier, lambda: nn.Linear(12, 9), lambda: nn.Linear(9, 5)), "1.w"), ("1.weight",)),
    "a norm's scale": (frozen(norm(), "1.weight"), ("1.weight",)),
}  # fmt: skip


@pytest.mark.parametrize("options", [
    {}, {"averaging": gossip.Average(0.0), "mix_momentum": True, "gain": 2.0},
    {"averaging": gossip.VarianceCorrected(target="own", order="before")},
    {"averaging": gossip.VarianceCorrected(message=gossip.Sampled()), "statistics": "averaged"},
    {"averaging": gossip.Federated(same_start=False, corrected=True)},
    {"averaging": gossip.TransferLike(alone=3)},
], ids=["gossip", "all replaced", "corrected", "sampled", "federated", "transfer-like"])  # fmt: skip
@pytest.mark.parametrize("kind", FROZEN)
def test_what_is_frozen_stays_the_nodes_own(kind, options):
    net, names = FROZEN[kind]
    first = simulate(net, averaging=gossip.Isolated(), ticks=1, lr=1e-30)
    last = assert_equals_loop(net, **options)
    for name in names:
        for node in range(3):
            assert torch.equal(last.state(node)[name], first.state(node)[name]), name
    moved = [n for n in last.layout.names if not torch.equal(last.state(1)[n], first.state(1)[n])]
    assert set(moved) == set(last.layout.names) - set(names), "everything else is trained"


def test_a_norm_in_eval_mode_keeps_its_statistics():
    def net(seed):
        model = norm()(seed)
        model[1].running_mean.fill_(seed % 7)
        model[1].eval()
        return model

    result = assert_equals_loop(net, statistics="averaged")
    means = result.buffers["1.running_mean"][:, 0]
    assert (result.buffers["1.num_batches_tracked"] == 0).all() and means.unique().numel() > 1
    assert (means == means.round()).all()


def test_nothing_to_train_is_refused():
    with pytest.raises(InputError, match="model: no parameter requires gradients, so nothing can be trained"):
        simulate(frozen(dense(), ""))


DROPOUT = {
    "rows": dense(lambda: nn.Dropout(0.3)), "images": conv(lambda: nn.Dropout(0.3)),
    "channels": conv(lambda: nn.Dropout2d(0.3)), "alpha": dense(lambda: nn.AlphaDropout(0.3)),
    "noise": dense(lambda: Noise()),
}  # fmt: skip


class Noise(nn.Module):
    """Draws in training mode without a module of torch."""

    def forward(self, x):
        return x + 0.3 * torch.randn_like(x) if self.training else x


@pytest.mark.parametrize("kind", DROPOUT)
def test_what_a_model_draws_depends_on_the_seed_alone(kind):
    """Not on the caller's random state, nor on who trains together; the caller's state stays."""
    net, results = DROPOUT[kind], []
    for other in (1, 2):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        results.append(assert_equals_loop(net, seed=3))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(results[0].weights, results[1].weights)
    assert not torch.equal(results[0].weights, simulate(net, seed=4).weights)
    always = gossip.Partition([[0]] * 3)  # so that batches do not depend on who trains
    everybody, one = (
        simulate(net, averaging=system, labels=always).weights[1] for system in (gossip.Isolated(), Only())
    )
    assert torch.equal(everybody, one)


class Only(gossip.Isolated):
    """Node 1 trains, nobody else."""

    def due(self, tick, schedule):
        return [node for node in super().due(tick, schedule).tolist() if node == 1]


def test_a_model_that_draws_is_resumed_with_the_same_bits(tmp_path):
    net = conv(lambda: nn.BatchNorm2d(6, momentum=None), lambda: nn.Dropout(0.3), nn.Tanh)
    whole = simulate(net)
    simulate(net, ticks=4, checkpoint=Checkpoint(tmp_path, every=0))
    resumed = simulate(net, checkpoint=Checkpoint(tmp_path))
    assert torch.equal(whole.weights, resumed.weights)
    assert all(torch.equal(whole.buffers[name], resumed.buffers[name]) for name in whole.buffers)


def test_drawing_models_are_said_to_run_one_by_one():
    with pytest.warns(UserWarning, match="model Sequential draws random numbers, as dropout does"):
        gossip.simulate(data, dense(lambda: nn.Dropout(0.3)), nx.cycle_graph(3), **OPTIONS | {"ticks": 1})


@pytest.mark.parametrize("world", [
    torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16), contextlib.nullcontext,
], ids=["no_grad", "inference_mode", "autocast", "plain"])  # fmt: skip
@pytest.mark.parametrize("backend", ["stacked", "loop"])
def test_the_callers_world_neither_changes_nor_counts(world, backend):
    net = conv(lambda: nn.BatchNorm2d(6), lambda: nn.Dropout(0.3))
    plain = simulate(net, backend)
    torch.manual_seed(7)
    with world():
        modes = lambda: (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))  # noqa: E731
        before, state = modes(), torch.get_rng_state()
        inside = simulate(net, backend)
        assert modes() == before and torch.equal(state, torch.get_rng_state())
    assert torch.equal(plain.weights, inside.weights) and plain.history.equals(inside.history)


@pytest.mark.parametrize("backend", ["stacked", "loop"])
def test_a_module_of_the_callers_stays_as_it_was(backend):
    """Its parameters, buffers, flags, type: a node trains a copy."""
    module = norm()(0).eval()
    module[0].train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flags = [each.training for each in module.modules()]

    def given():
        """A function that gives the module once, then copies of it."""
        modules = itertools.chain([module], (copy.deepcopy(module) for _ in itertools.count()))
        return lambda seed: next(modules)

    result = simulate(given(), backend, gain=2.0, averaging=gossip.Isolated())
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert [each.training for each in module.modules()] == flags
    assert not torch.equal(result.weights[0], result.weights[1])
    again = simulate(given(), backend, gain=2.0, averaging=gossip.Isolated())
    assert torch.equal(result.weights, again.weights)


def test_the_result_holds_each_nodes_network():
    result = simulate(norm())
    last = result.history[result.history.tick == 8].set_index("node")
    for node in range(3):
        score = training.evaluate(result.model(node), data.test)
        assert score.loss == pytest.approx(last.loss[node], rel=1e-5) and score.accuracy == last.accuracy[node]
        fresh = norm()(0)
        fresh.load_state_dict(result.state(node))
        assert training.evaluate(fresh, data.test) == score
    result.model(0)[0].weight.data.zero_()
    assert result.model(0)[0].weight.abs().sum() > 0


def test_the_state_of_a_node_has_both_names_of_tied_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 5)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.out(torch.relu(self.b(torch.relu(self.a(torch.flatten(x, 1))))))

    result = assert_equals_loop(lambda seed: Tied())
    Tied().load_state_dict(result.state(1))
    assert torch.equal(result.state(1)["a.weight"], result.state(1)["b.weight"])


@pytest.mark.parametrize(("model", "message"), [
    (dense()(0), "model: needs a name or a function of a seed that gives a module, got Sequential"),
    (None, "model: needs a name or a function of a seed that gives a module, got NoneType"),
    (lambda seed: None, r"model\(seed\): needs a torch\.nn\.Module, got NoneType"),
    (lambda seed: dense()(seed).forward, r"model\(seed\): needs a torch\.nn\.Module, got method"),
    (lambda seed: chain(nn.Flatten, lambda: nn.Linear(64, 5 + seed % 2))(seed), r"'1\.weight' is \(\d, 64\) in node 0"),
    (lambda seed: dense(*[lambda: nn.BatchNorm1d(12)] * (seed % 2))(seed), r"model: '\d\.\w+' is .* in node 0, "),
    (lambda seed: frozen(dense(), "13"[seed % 2])(seed), r"model: '\d\.\w+' is \(.*\) and frozen in node \d"),
])  # fmt: skip
def test_models_that_are_none_or_differ_are_refused(model, message):
    with pytest.raises(InputError, match=message):
        gossip.simulate(data, model, nx.cycle_graph(9), **OPTIONS)
