"""Towards the origin and across spheres: AngleConformal, the stop at targets, both routes, resume, bad input."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib import models, sphere, tasks, training
from lib.checkpoint import Checkpoint
from lib.connectivity import M2M, Adaptive
from lib.connectivity.origin import M2O, cross_spheres, to_origin
from lib.errors import InputError
from lib.weights import FlatModel, flatten

digits = tasks.load("digits", size=12, device="cpu").subset(200, 60)
config = M2O(step_a=0.05, stop_loss=0.03, max_sgd_steps=40, batch=50, lr=0.05)


@pytest.fixture(scope="module")
def modes():
    """A large and a small mode: weight decays that differ a hundredfold."""
    recipe = training.Recipe(epochs=60, lr=0.03, momentum=0.9, batch=50)
    return [
        training.train_mode(
            models.create("lenet5", digits, seed=seed), digits, replace(recipe, weight_decay=decay), seed=seed
        )
        for seed, decay in ((1, 5e-5), (2, 5e-3))
    ]


def test_the_path_stops_exactly_on_the_targets_with_low_loss(modes):
    large, small = modes
    targets = sphere.variance(small)
    path = to_origin(large, digits, config, targets=targets)
    assert torch.equal(path.anchors[0], flatten(large))
    for name, value in sphere.variance(path.states()[-1]).items():
        expected = min(value.new_tensor(float(targets[name].detach())), sphere.variance(large)[name].detach())
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)
    assert len(path) < config.ticks and path.log["arrived"].iloc[-1] == 5
    assert path.max_loss(digits, interior_points=3) < 0.1


def test_a_move_shrinks_weights_and_their_biases_by_one_share(modes):
    still = replace(config, ticks=1, lr=1e-30, step_a=0.2)
    path = to_origin(modes[0], digits, still)
    torch.testing.assert_close(path.anchors[1], 0.8 * path.anchors[0])


def test_as_the_published_script_a_layer_moves_towards_its_own_weights_rescaled(modes):
    large, small = modes
    targets = sphere.variance(small)
    still = replace(config, ticks=2, lr=1e-30, step_a=0.5, aim="rescaled", policy="constant")
    path = to_origin(large, digits, still, targets=targets)
    before, first, second = (sphere.variance(state) for state in path.states())
    for name, target in targets.items():
        left = [float(((each[name] / target).sqrt() - 1).detach()) for each in (before, first, second)]
        if left[0] > 0:
            assert left[1:] == pytest.approx([left[0] / 2, left[0] / 4], rel=1e-3)
    moved = to_origin(large, digits, replace(still, ticks=60, lr=0.05), targets=targets)
    ends = sphere.variance(moved.states()[-1])
    assert all(float((ends[name] / target).detach()) == pytest.approx(1, abs=0.2) for name, target in targets.items())


def test_layer_norm_stays_or_grows():
    model = models.create("cct7", digits, seed=0)
    norms = [f"{name}.weight" for name, each in model.named_modules() if isinstance(each, nn.LayerNorm)]
    for choice, factor in (("stays", 1.0), ("grows", 1.2)):
        path = to_origin(model, digits, replace(config, ticks=1, lr=1e-30, step_a=0.2, layer_norm=choice))
        before, after = path.states()
        assert norms
        for name in norms:
            torch.testing.assert_close(after[name], factor * before[name])


def test_normalisation_does_not_move():
    model = models.create("resnet18", digits, seed=0)
    path = to_origin(model, digits, replace(config, ticks=1, lr=1e-30, step_a=0.2))
    norms = {f"{name}.{kind}" for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
             for kind in ("weight", "bias")}  # fmt: skip
    before, after = path.states()
    assert norms
    for name in before:
        factor = 1.0 if name in norms else 0.8
        torch.testing.assert_close(after[name], factor * before[name])


@pytest.mark.parametrize(("policy", "power"), [("variance", 1.0), ("root", 0.5), ("constant", 0.0)])
def test_the_learning_rate_follows_the_variance(modes, policy, power):
    """One round after one move: what the SGD step changed, over its gradient."""
    options = {"policy": policy, "ticks": 1, "step_a": 0.5, "min_sgd_steps": 1, "max_sgd_steps": 1}
    moved, trained = (
        to_origin(modes[0], digits, replace(config, lr=lr, **options)).states()[1]["fc1.weight"] for lr in (1e-30, 0.1)
    )
    constant = to_origin(modes[0], digits, replace(config, lr=0.1, **options | {"policy": "constant"}))
    ratio = (trained - moved).norm() / (constant.states()[1]["fc1.weight"] - moved).norm()
    assert float(ratio) == pytest.approx(0.25**power, rel=1e-3)


def test_angle_conformal_turns_a_scale_invariant_layer_by_the_same_angle():
    """The rule itself, on a layer in front of batch norm without an epsilon that counts, in double precision."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 3, (20,))
    weight = torch.randn(3, 5, dtype=torch.float64)
    angles = []
    for scale in (1.0, 0.3):
        scaled = (scale * weight).requires_grad_()
        F.cross_entropy(F.batch_norm(x @ scaled.T, None, None, training=True, eps=1e-30), y).backward()
        step = 0.1 * scale**2 * scaled.grad
        angles.append(torch.atan(step.norm() / scaled.detach().norm()))
    torch.testing.assert_close(angles[0], angles[1])


@pytest.mark.parametrize("route", ["moving", "origin"])
def test_paths_cross_spheres_downwards(modes, route):
    large, small = modes
    m2m = M2M(order="all", lr=0.02, batch=50, driver=Adaptive(max_sgd_steps=3000, judge_images=200))
    path = cross_spheres(large, small, digits, route=route, m2m=m2m, m2o=config)
    assert path.reached(small) and torch.equal(path.anchors[0], flatten(large))
    assert path.max_loss(digits, interior_points=3) < 0.1


def test_the_papers_route_upwards_is_the_one_downwards_turned_round(modes):
    large, small = modes
    m2m = M2M(order="all", lr=0.02, batch=50, driver=Adaptive(max_sgd_steps=40, judge_images=200))
    down = cross_spheres(large, small, digits, route="origin", m2m=m2m, m2o=config)
    up = cross_spheres(small, large, digits, route="origin", m2m=m2m, m2o=config)
    assert torch.equal(up.anchors.flip(0), down.anchors)
    assert set(down.log["part"]) == {"M2O", "M2M"} and len(down.log) == len(down) - 1


def test_a_seed_repeats_and_another_differs(modes):
    short = replace(config, ticks=3)
    one, same, other = (to_origin(modes[0], digits, short, seed=seed).anchors for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_an_interrupted_descent_continues_to_the_same_bytes(modes, tmp_path, interrupted_after):
    short = replace(config, ticks=6, record_every=2)
    targets = {"fc1.weight": 0.9 * float(sphere.variance(modes[0])["fc1.weight"])}
    whole = to_origin(modes[0], digits, short, targets=targets)
    with pytest.raises(KeyboardInterrupt):
        to_origin(modes[0], digits, short, targets=targets, checkpoint=interrupted_after(3))
    continued = to_origin(modes[0], digits, short, targets=targets, checkpoint=Checkpoint(tmp_path))
    assert torch.equal(whole.anchors, continued.anchors) and len(whole) == 4
    pd.testing.assert_frame_equal(whole.log, continued.log)


def test_divergence_names_the_tick(modes):
    with pytest.raises(FloatingPointError, match="path to the origin diverged at tick"):
        to_origin(modes[0], digits, replace(config, lr=1e12, min_sgd_steps=9))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: M2O(ticks=0), "ticks=0: must be larger than 0"),
        (lambda m: M2O(policy="angle"), "policy='angle': choose one of variance, root, constant"),
        (lambda m: M2O(step_a=0), "step_f, step_a: must not be negative, and one must be larger than 0"),
        (lambda m: M2O(max_sgd_steps=1), "max_sgd_steps=1: must be at least min_sgd_steps=5"),
        (lambda m: to_origin(m, digits, targets={"fc9.weight": 1}), "targets: 'fc9.weight' is not a weight tensor"),
        (lambda m: to_origin(m, digits, targets={"fc1.weight": 0}), r"targets\['fc1.weight'\]=0.0: a target variance"),
        (lambda m: cross_spheres(m, m, digits, route="up"), "route='up': choose one of moving, origin"),
        (lambda m: cross_spheres(m, nn.Linear(1, 1), digits), "modes of different shape"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(models.create("lenet5", digits, seed=0))
    assert "\n" not in str(caught.value)


def test_units_hold_every_parameter_once_but_normalisation():
    from lib.connectivity.origin import _units

    flat = FlatModel(models.create("lenet5", digits, seed=0))
    units = _units(flat.layout.names, flat.layout.layers)
    assert units["fc1.weight"] == ["fc1.weight", "fc1.bias"]
    assert sorted(name for members in units.values() for name in members) == sorted(flat.layout.names)
