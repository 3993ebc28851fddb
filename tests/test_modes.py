"""What a mode consists of beside its parameters, what is frozen in it, and what a caller finds as it was."""

import contextlib
import copy
from dataclasses import replace

import pytest
import torch
from module_kinds import KINDS, OTHERS, chain, conv, dense, norm, task
from torch import nn
from torch.nn import functional as F

from lib import batchnorm, layers, scopes, sphere, tasks, training
from lib.connectivity import M2M, M2O, Adaptive, Fixed, Path, connect, connect_abreast, cross_spheres, to_origin
from lib.connectivity.baselines import curves, neb
from lib.errors import InputError
from lib.weights import copy_of, flatten

data = task()
fixed = M2M(order="all", batch=10, moving_spheres=False, driver=Fixed(ticks=2, min_sgd_steps=1, max_sgd_steps=1))
adaptive = M2M(batch=10, driver=Adaptive(max_loss=9, step=0.5, judge_images=20))
origin = M2O(ticks=2, min_sgd_steps=1, max_sgd_steps=1, batch=10)
WAYS = {
    "straight": lambda a, b: Path.linear(a, b),
    "layer-wise": lambda a, b: curves.layerwise(a, b, layers.data_flow(a, data), cumulative=True)[-1],
    "connect": lambda a, b: connect(a, b, data, adaptive),
    "connect, fixed": lambda a, b: connect(a, b, data, fixed),
    "abreast": lambda a, b: connect_abreast([(a, b)] * 2, data, fixed, seeds=[0, 1])[1],
    "spheres": lambda a, b: cross_spheres(a, b, data, route="moving", m2m=adaptive),
    "spheres by the origin": lambda a, b: cross_spheres(a, b, data, route="origin", m2m=adaptive, m2o=origin),
    "curve": lambda a, b: curves.connect(a, b, data, curves.Curve(sgd_steps=2, batch=10, points=3)),
    "band": lambda a, b: neb.connect(a, b, data, neb.AutoNEB(cycles=((0.01, 1, 1),), batch=10, judge_images=20)),
}


def loss_of(model):
    """Training loss in eval mode, computed here."""
    with torch.no_grad():
        return float(F.cross_entropy(copy_of(model).eval()(data.train.x), data.train.y))


class Frozen(nn.Module):
    """A batch norm of constants, as torchvision's detectors have it."""

    def __init__(self, channels):
        super().__init__()
        for name in ("mean", "scale"):
            self.register_buffer(name, torch.rand(channels))

    def forward(self, x):
        return (x - self.mean.view(-1, 1, 1)) * self.scale.view(-1, 1, 1)


def frozen_norm(seed):
    """A batch norm without gradients, whose statistics are those of other data."""
    net = norm(nn.BatchNorm2d)(seed)
    net[1].requires_grad_(False)
    net[1].running_mean.normal_()
    return net


def norm_in_eval_mode(seed):
    net = norm(nn.BatchNorm2d)(seed).train()
    net[1].running_mean.normal_()
    net[1].eval()
    return net


def still_norm(seed):
    net = norm(nn.BatchNorm2d, momentum=0.0)(seed)
    net[1].running_mean.normal_()
    return net


def instance_norm(seed):
    net = OTHERS["instance norm with statistics"](seed)
    net[1].running_mean.normal_()
    return net


CONSTANTS = {
    "random projection": (OTHERS["random projection"], "'c'"),
    "spectral norm": (OTHERS["spectral norm"], "'1.parametrizations.weight.0._"),
    "spectral norm of the old kind": (OTHERS["spectral norm of the old kind"], "'1.weight_"),
    "pruned": (OTHERS["pruned"], "'1.weight_mask'"),
    "norm of constants": (conv(lambda: Frozen(6)), "'1.mean'"),
    "norm without gradients": (frozen_norm, "'1.running_mean'"),
    "norm in eval mode": (norm_in_eval_mode, "'1.running_mean'"),
    "norm of momentum 0": (still_norm, "'1.running_mean'"),
    "instance norm": (instance_norm, "'1.running_mean'"),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_buffers_that_nothing_computes_anew_must_be_equal_at_both_ends(kind):
    net, name = CONSTANTS[kind]
    a, b = net(1), net(2)
    for make in WAYS.values():
        with pytest.raises(InputError, match=f"modes: buffer {name}.* differs, and nothing computes it anew") as caught:
            make(a, b)
        assert "\n" not in str(caught.value)
    assert not Path(a, torch.stack([flatten(b)])).reached(b)


@pytest.mark.parametrize("kind", CONSTANTS)
def test_with_equal_buffers_the_ends_have_their_own_losses(kind):
    a, b = (CONSTANTS[kind][0](seed) for seed in (1, 2))
    for buffer, own in zip(a.buffers(), b.buffers(), strict=True):
        buffer.copy_(own)
    if kind == "norm without gradients":
        b[1].load_state_dict(a[1].state_dict())
    for make in (WAYS["straight"], WAYS["connect"]):
        path = make(a, b)
        losses = path.evaluate(data, splits=("train",)).train_loss
        assert path.reached(b)
        assert [losses.iloc[0], losses.iloc[-1]] == pytest.approx([loss_of(a), loss_of(b)], abs=1e-5)


def test_buffers_are_kept_with_a_path(tmp_path):
    model = OTHERS["random projection"](1)
    Path.linear(model, model).save(tmp_path / "path.safetensors")
    loaded = Path.load(tmp_path / "path.safetensors", model=OTHERS["random projection"](2))
    assert torch.equal(loaded.model.c, model.c) and loaded.max_loss(data) == pytest.approx(loss_of(model), abs=1e-5)


@pytest.mark.parametrize("options", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}, {}])
def test_paths_of_every_batch_norm_do_not_depend_on_the_order_of_the_images(options):
    a, b = (norm(nn.BatchNorm2d, **options)(seed) for seed in (1, 2))
    recipe = training.Recipe(epochs=4, batch=10, lr=0.05)
    ends = [training.train_mode(each, data, recipe, seed=0) for each in (a, b)]
    order = data.train.y.argsort(stable=True)
    by_class = tasks.from_tensors(
        data.train.x[order], data.train.y[order], data.test.x, data.test.y, name="k", device="cpu"
    )
    path = connect(*ends, data, adaptive)
    assert path.reached(b)
    losses = [path.evaluate(each, splits=("train",)).train_loss.to_numpy() for each in (data, by_class)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    # As with the statistics of the whole training split.
    whole = F.cross_entropy(copy.deepcopy(b).train()(data.train.x).detach(), data.train.y)
    assert losses[0][-1] == pytest.approx(float(whole), rel=0.02)


def test_a_split_sorted_by_class_is_evaluated_at_random_where_a_norm_takes_the_batch():
    net = norm(nn.BatchNorm2d, track_running_stats=False)(0)
    y = data.train.y.sort()
    split = tasks.Split(data.train.x[y.indices], y.values)
    whole = float(F.cross_entropy(net(data.train.x).detach(), data.train.y))
    assert training.evaluate(net, split, batch=30).loss == pytest.approx(whole, rel=0.1)


def test_a_norm_of_momentum_0_and_a_frozen_one_are_not_estimated():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1, momentum=0), nn.BatchNorm2d(1, affine=False),
                          nn.BatchNorm2d(1).requires_grad_(False), nn.BatchNorm2d(1).eval(),
                          nn.BatchNorm2d(1, track_running_stats=False))  # fmt: skip
    assert list(batchnorm.batch_norms(model)) == ["0", "2"]
    before = copy.deepcopy(model.state_dict())
    batchnorm.reestimate(model, data.train.x + 3, batch=59)  # 60 images: no batch of one
    changed = {n.partition(".")[0] for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"0", "2"}
    assert [module.training for module in model] == [True] * 4 + [False, True]


def partly_frozen(seed):
    """The first layer is the same whatever the seed, and frozen."""
    return KINDS["frozen layer"](seed)


@pytest.mark.parametrize("recipe", [{"momentum": 0.9}, {"optimiser": "adamw"}], ids=["sgd", "adamw"])
def test_frozen_parameters_stay_in_training(recipe):
    model = partly_frozen(0)
    before = copy.deepcopy(model.state_dict())
    training.train_mode(model, data, training.Recipe(epochs=2, batch=10, weight_decay=0.1, **recipe), seed=0)
    same = {name: torch.equal(value, before[name]) for name, value in model.state_dict().items()}
    assert same == {"1.weight": True, "1.bias": True, "3.weight": False, "3.bias": False}
    with pytest.raises(InputError, match="model: no parameter requires gradients"):
        training.train_mode(model.requires_grad_(False), data, training.Recipe(epochs=1), seed=0)


@pytest.mark.parametrize("way", WAYS)
def test_frozen_parameters_stay_on_paths(way):
    a, b = (partly_frozen(seed) for seed in (1, 2))
    b[1].bias.data = a[1].bias.data.clone()
    path = WAYS[way](a, b)
    assert path.reached(b)
    assert all(torch.equal(state["1.weight"], a[1].weight) for state in path.states())
    assert not torch.equal(path.states()[0]["3.weight"], path.states()[-1]["3.weight"])


def test_frozen_parameters_that_differ_are_refused_by_name():
    a, b = (partly_frozen(seed) for seed in (1, 2))
    for make in WAYS.values():
        with pytest.raises(InputError, match=r"modes: '1.bias' is frozen and differs, call requires_grad_\(\) on it"):
            make(a, b)
    assert Path.linear(a.requires_grad_(), b.requires_grad_()).reached(b)


def test_frozen_weights_do_not_go_to_the_origin():
    model = partly_frozen(0)
    path = to_origin(model, data, replace(origin, step_a=0.3), targets={"1.weight": 1e-3})  # one that is frozen
    assert torch.equal(path.states()[-1]["1.weight"], model[1].weight)
    assert torch.equal(path.states()[-1]["1.bias"], model[1].bias)
    assert path.states()[-1]["3.weight"].norm() < model[3].weight.norm()
    with pytest.raises(InputError, match="a: no weight tensor requires gradients"):
        to_origin(model.requires_grad_(False), data, origin)


@pytest.mark.parametrize("way", ["connect", "connect, fixed", "abreast"])
def test_layers_that_are_equal_at_both_ends_have_arrived(way):
    a = dense(nn.ReLU, lambda: nn.Linear(12, 12), nn.Tanh)(0)
    b = copy.deepcopy(a)
    nn.init.normal_(b[5].weight)
    path = WAYS[way](a, b)
    assert path.reached(b) and len(path) > 2
    for state in path.states():
        assert all(torch.equal(state[name], value) for name, value in a.state_dict().items() if name[0] != "5")


@pytest.mark.parametrize("way", WAYS)
def test_a_mode_is_connected_with_itself(way):
    model = conv(lambda: nn.BatchNorm2d(6), nn.ReLU)(0)
    path = WAYS[way](model, model)
    assert path.reached(model) and len(path) >= 2
    assert len(path.log) == len(path) - 1 or way in ("straight", "layer-wise", "curve", "band")
    assert torch.isfinite(torch.tensor(path.evaluate(data).train_loss)).all()


class Random(nn.Module):
    """Draws in eval mode too."""

    def forward(self, x):
        return F.dropout(x, 0.2)


random_net = chain(nn.Flatten, lambda: nn.Linear(64, 12), lambda: nn.BatchNorm1d(12), Random, lambda: nn.Dropout(0.3),
                   lambda: nn.Linear(12, 5))  # fmt: skip


def trained(model):
    with torch.inference_mode(False):
        own = copy.deepcopy(model)
    return training.train_mode(own, data, training.Recipe(epochs=1, batch=10), seed=1)


ACTIONS = {
    "train_mode": lambda a, b: trained(a).state_dict(),
    "evaluate": lambda a, b: training.evaluate(a, data.test),
    "data_flow": lambda a, b: layers.data_flow(a, data),
    "to_origin": lambda a, b: to_origin(a, data, origin).anchors,
    "max_loss": lambda a, b: Path.linear(a, b).max_loss(data, interior_points=1),
    "model_at": lambda a, b: Path.linear(a, b).model_at(0.5, data).state_dict(),
} | {name: (lambda a, b, make=make: make(a, b).anchors) for name, make in WAYS.items()}


def equal(one, other):
    if isinstance(one, dict):
        return all(equal(value, other[name]) for name, value in one.items())
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


@pytest.mark.parametrize("action", ACTIONS)
def test_what_the_caller_owns_stays_as_it_was_and_decides_nothing(action):
    a, b = (random_net(seed).train() for seed in (1, 2))
    for model in (a, b):
        model[2].running_mean.zero_()
        model[2].eval()  # as one freezes a batch norm
        model[4].eval()
    before = [copy.deepcopy(model.state_dict()) for model in (a, b)]
    found = []
    settings = [contextlib.nullcontext(), torch.no_grad(), torch.inference_mode(),
                torch.autocast("cpu", torch.bfloat16)]  # fmt: skip
    for number, setting in enumerate(settings):
        torch.manual_seed(number)
        state = torch.get_rng_state()
        with setting:
            modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
            found.append(ACTIONS[action](a, b))
            assert modes == (
                torch.is_grad_enabled(),
                torch.is_inference_mode_enabled(),
                torch.is_autocast_enabled("cpu"),
            )
        assert torch.equal(torch.get_rng_state(), state)
    assert all(equal(found[0], each) for each in found[1:])
    for model, kept in zip((a, b), before, strict=True):
        assert [each.training for each in model] == [True, True, False, True, False, True] and model.training
        assert equal(kept, model.state_dict()) and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_training_leaves_a_frozen_norm_in_eval_mode():
    model = norm(nn.BatchNorm2d)(0).train()
    model[1].eval()
    before = model[1].running_mean.clone()
    trained = training.train_mode(model, data, training.Recipe(epochs=1, batch=10), seed=0)
    assert torch.equal(model[1].running_mean, before) and not any(each.training for each in trained.modules())


def test_scopes_give_back_what_they_found_after_an_error():
    model = norm(nn.BatchNorm2d)(0).train()
    model[1].eval()
    for scope in (scopes.evaluation(model), batchnorm.from_batch(model, {"1": model[1]}), scopes.computation()):
        with contextlib.suppress(KeyError), torch.no_grad(), scope:
            raise KeyError
        assert [each.training for each in model] == [True, False, True, True, True]
    assert torch.is_grad_enabled()


def test_correction_takes_the_variance_of_a_model_that_is_trained():
    model = dense(nn.ReLU)(0)
    state = {name: 3 * p for name, p in model.named_parameters()}
    corrected = sphere.correct(state, sphere.variance(model))
    assert not any(value.requires_grad for value in sphere.variance(model).values())
    torch.testing.assert_close(corrected["1.weight"].var(correction=0), model[1].weight.detach().var(correction=0))
    assert not corrected["1.weight"].requires_grad and state["1.weight"].requires_grad
