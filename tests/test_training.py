"""Modes: training that repeats and resumes, schedules, evaluation, batch norm."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from lib import batchnorm, models, tasks, training
from lib.checkpoint import Checkpoint
from lib.connectivity.walker import Walker
from lib.errors import InputError
from lib.training import Recipe

digits = tasks.load("digits", size=16, device="cpu").subset(300, 60)


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_learns_repeats_and_differs_by_seed():
    recipe = Recipe(epochs=6, lr=0.05, momentum=0.9)
    one, same, other = (
        training.train_mode(models.create("lenet5", digits, seed=0), digits, recipe, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(vector(one), vector(same)) and not torch.equal(vector(one), vector(other))
    assert training.evaluate(one, digits.train).accuracy > 0.8


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_an_interrupted_training_continues_to_the_same_bytes(tmp_path, optimiser, interrupted_after):
    recipe = Recipe(epochs=3, lr=0.003, momentum=0.9, optimiser=optimiser, schedule="onecycle", batch=50)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(784, 10))
    whole, parts = (copy.deepcopy(model) for _ in range(2))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    training.train_mode(whole, digits, recipe, seed=1)
    expected = {name: value.clone() for name, value in whole.state_dict().items()}
    parts.load_state_dict(start)
    with pytest.raises(KeyboardInterrupt):
        training.train_mode(parts, digits, recipe, seed=1, checkpoint=interrupted_after(7))
    parts.load_state_dict(start)
    training.train_mode(parts, digits, recipe, seed=1, checkpoint=Checkpoint(tmp_path))
    for name, value in parts.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_training_in_bfloat16_keeps_float32_weights_and_learns_almost_the_same():
    recipe = Recipe(epochs=6, lr=0.05, momentum=0.9)
    exact, rounded = (
        training.train_mode(models.create("lenet5", data, seed=0), data, recipe, seed=1)
        for data in (digits, replace(digits, precision="bfloat16"))
    )
    assert vector(rounded).dtype == torch.float32
    difference = (vector(rounded) - vector(exact)).norm() / vector(exact).norm()
    assert 1e-4 < difference < 0.2
    assert training.evaluate(rounded, digits.train).accuracy > 0.8


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: no g++ here")
def test_compiled_steps_along_a_path_are_those_of_the_module():
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 6), nn.ReLU(), nn.Linear(6, 10))
    points = []
    for data in (digits, replace(digits, compiled=True)):
        walker = Walker(model, data, batch=20, lr=0.1, seed=0, judge_images=50)
        walker.train(2)
        walker.flat.freeze(["1.weight", "1.bias"])  # as a path does with layers that arrived
        walker.train(2)
        points.append((walker.vector.clone(), walker.loss_at(walker.vector)))
    torch.testing.assert_close(points[0][0], points[1][0], rtol=1e-4, atol=1e-6)
    assert points[0][1] == pytest.approx(points[1][1], rel=1e-5)


def test_one_cycle_is_the_same_as_torchs():
    recipe = Recipe(epochs=4, lr=0.3, schedule="onecycle")
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.3, total_steps=40, cycle_momentum=False)
    for step in range(40):
        assert recipe.rate(step, 10) == pytest.approx(schedule.get_last_lr()[0], rel=0.12, abs=1e-6)
        optimiser.step()
        if step < 39:
            schedule.step()


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [("constant", 29, 1.0), ("cosine", 10, 1.0), ("cosine", 29, 0.0), ("step", 14, 1.0), ("step", 15, 0.1)],
)
def test_schedules(schedule, step, rate):
    recipe = Recipe(epochs=3, lr=1.0, schedule=schedule, warmup=1 if schedule == "cosine" else 0, milestones=(1.5,))
    assert recipe.rate(step, 10) == pytest.approx(rate, abs=1e-9)


def test_divergence_stops_with_the_epoch():
    with pytest.raises(FloatingPointError, match="training diverged in epoch"):
        training.train_mode(models.create("lenet5", digits, seed=0), digits, Recipe(epochs=9, lr=1e9), seed=0)


def test_batch_norm_statistics_are_those_of_the_images():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).double()
    x = digits.train.x[:64].double()
    logits = batchnorm.reestimate(model, x, batch=64)
    made = model[0](x).detach()
    torch.testing.assert_close(model[1].running_mean, made.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, made.var((0, 2, 3)))
    assert model[1].momentum == 0.1 and model.training
    model[1].running_var.copy_(made.var((0, 2, 3), correction=0))
    torch.testing.assert_close(model.eval()(x), logits)


def test_evaluate_in_parts_equals_whole():
    model = models.create("lenet5", digits, seed=0)
    whole, parts = (training.evaluate(model, digits.train, batch=batch) for batch in (300, 7))
    assert parts == pytest.approx(whole, rel=1e-6)
    logits = model(digits.train.x)
    assert whole.loss == pytest.approx(float(nn.functional.cross_entropy(logits, digits.train.y)), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Recipe(epochs=0), "epochs=0: must be at least 1"),
        (lambda: Recipe(batch=0), "batch=0: must be at least 1"),
        (lambda: Recipe(lr=0.0), "lr=0.0: must be larger than 0"),
        (lambda: Recipe(momentum=1.0), r"momentum=1.0: must be in \[0, 1\)"),
        (lambda: Recipe(weight_decay=-1.0), "weight_decay=-1.0: must be 0 or larger"),
        (lambda: Recipe(optimiser="adam"), "optimiser='adam': choose one of sgd, adamw"),
        (lambda: Recipe(schedule="poly"), "schedule='poly': choose one of constant"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
