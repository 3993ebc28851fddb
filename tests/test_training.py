"""Modes: models of the registry, layers in data-flow order, training that repeats and resumes, batch norm."""

import pytest
import torch
from torch import nn

from lib import layers, models, task, training
from lib.checkpoint import Checkpoint
from lib.errors import InputError
from lib.training import Recipe

digits = task.load("digits", size=16, device="cpu").subset(300, 60)
mnist_like = task.from_tensors(
    torch.rand(20, 1, 28, 28), torch.arange(20) % 10, torch.rand(4, 1, 28, 28), torch.arange(4), name="mnist-like",
    device="cpu",
)  # fmt: skip


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(("name", "parameters"), [("lenet5", 61_706), ("lenet_caffe", 431_080)])
def test_parameters_are_those_of_the_papers(name, parameters):
    model = models.create(name, mnist_like, seed=0)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(mnist_like.test.x).shape == (4, 10)


def test_initial_weights_follow_the_seed():
    one, same, other = (vector(models.create("lenet5", digits, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_caffe_filler_has_variance_one_over_fan_in():
    weight = models.create("lenet_caffe", mnist_like, seed=0).fc1.weight
    assert float(weight.detach().var() * weight.shape[1]) == pytest.approx(1, abs=0.02)


def test_lenet5_layers_in_data_flow_order():
    flow = layers.data_flow(models.create("lenet5", digits, seed=0), digits)
    assert flow == [(f"{n}.weight", f"{n}.bias") for n in ("conv1", "conv2", "fc1", "fc2", "fc3")]


class TwoBranches(nn.Module):
    """A token, two branches of unequal length, a normalisation, and a layer that nothing uses."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.left, self.right = nn.Linear(6, 4), nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4))
        self.token, self.unused = nn.Parameter(torch.zeros(1, 6)), nn.Linear(3, 3)

    def forward(self, x):
        x = x.flatten(1) + self.token
        return self.head(torch.relu(self.left(x) + self.right(x)))


def test_parallel_branches_share_a_stage_and_norms_join_their_layer():
    flow = layers.data_flow(TwoBranches(), example=torch.zeros(2, 6))
    first = {"token", "left.weight", "left.bias", "right.0.weight", "right.0.bias", "right.1.weight", "right.1.bias"}
    assert set(flow[0]) == first
    assert flow[1] == ("right.2.weight", "right.2.bias")
    assert set(flow[2]) == {"head.weight", "head.bias", "unused.weight", "unused.bias"}


class Branching(nn.Module):
    """Its path through the layers depends on the data, which no trace can follow."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Linear(3, 2), nn.Linear(3, 3)

    def forward(self, x):
        x = self.first(x)
        return self.second(x if x.sum() > 0 else -x)


def test_untraceable_models_are_ordered_by_their_calls():
    flow = layers.data_flow(Branching(), example=torch.ones(2, 3))
    assert flow == [("first.weight", "first.bias"), ("second.weight", "second.bias")]


def test_every_parameter_of_a_timm_model_is_in_one_layer():
    model = models.create("resnet18", digits, seed=0)
    flow = layers.data_flow(model, digits)
    named = [name for layer in flow for name in layer]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())
    assert flow[-1] == ("fc.weight", "fc.bias")


def test_training_learns_repeats_and_differs_by_seed():
    recipe = Recipe(epochs=6, lr=0.05, momentum=0.9)
    one, same, other = (
        training.train_mode(models.create("lenet5", digits, seed=0), digits, recipe, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(vector(one), vector(same)) and not torch.equal(vector(one), vector(other))
    assert training.evaluate(one, digits.train).accuracy > 0.8


class Interrupted(Exception):
    pass


class StopsAfter(Checkpoint):
    """Saves at every chance and is killed after some saves."""

    left = 7

    def save(self, state):
        super().save(state)
        self.left -= 1
        if not self.left:
            raise Interrupted


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_an_interrupted_training_continues_to_the_same_bytes(tmp_path, optimiser):
    recipe = Recipe(epochs=3, lr=0.003, momentum=0.9, optimiser=optimiser, schedule="onecycle", batch=50)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(784, 10))
    whole, parts = (type(model)(*(m for m in model)) for _ in range(2))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    training.train_mode(whole, digits, recipe, seed=1)
    expected = {name: value.clone() for name, value in whole.state_dict().items()}
    parts.load_state_dict(start)
    with pytest.raises(Interrupted):
        training.train_mode(parts, digits, recipe, seed=1, checkpoint=StopsAfter(tmp_path, every=0))
    parts.load_state_dict(start)
    training.train_mode(parts, digits, recipe, seed=1, checkpoint=Checkpoint(tmp_path))
    for name, value in parts.state_dict().items():
        assert torch.equal(value, expected[name]), name


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
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    x = digits.train.x[:64]
    training.reestimate_batch_norm(model, x, batch=64)
    made = model[0](x)
    torch.testing.assert_close(model[1].running_mean, made.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, made.var((0, 2, 3)))
    assert model[1].momentum == 0.1 and model.training


def test_evaluate_in_parts_equals_whole():
    model = models.create("lenet5", digits, seed=0)
    whole, parts = (training.evaluate(model, digits.train, batch=batch) for batch in (300, 7))
    assert parts == pytest.approx(whole, rel=1e-6)
    logits = model(digits.train.x)
    assert whole.loss == pytest.approx(float(nn.functional.cross_entropy(logits, digits.train.y)), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.create("alexnet", digits, seed=0), "model='alexnet': unknown family"),
        (lambda: models.create("lenet5", digits, size="huge", seed=0), "size='huge': choose one of laptop, paper"),
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
