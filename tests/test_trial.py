"""The trial call: what it leaves as it was, what it finds, and what it must not refuse."""

import warnings

import networkx as nx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib import connectivity, gossip, tasks, training, trial
from lib.errors import InputError

digits = tasks.load("digits", size=8, device="cpu").subset(100, 20)


class Flattening(nn.Module):
    """``view`` behind a convolution, as most tutorials flatten."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        return self.out(x.view(x.size(0), -1))


def test_images_lie_channels_first_for_a_model_that_takes_them_only_so():
    torch.manual_seed(0)
    a, b = Flattening(), Flattening()
    other = nn.Sequential(a.conv, nn.ReLU(), nn.Flatten(), a.out)
    assert training.evaluate(a, digits.test) == pytest.approx(training.evaluate(other, digits.test), rel=1e-5)
    assert trial.check(other, digits) is digits and trial.check(a, digits) is not digits
    training.train_mode(b, digits, training.Recipe(epochs=1), seed=0)
    config = connectivity.M2M(driver=connectivity.Fixed(ticks=2))
    path = connectivity.connect(a, b, digits, config)
    assert path.reached(b) and path.max_loss(digits, interior_points=1) > 0
    gossip.simulate(digits, lambda seed: Flattening(), nx.cycle_graph(3), ticks=2, seed=0)


def test_a_trial_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 10))
    model.train()[2].eval()
    state, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    trial.check(model, digits)
    assert model.training and not model[2].training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())


class Reader(nn.Module):
    def __init__(self, *, batch_first):
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 8, batch_first=batch_first), nn.Linear(8, 10)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


def rows(**options):
    return tasks.from_tensors(torch.randn(40, 5, 8), torch.arange(40) % 10, torch.randn(10, 5, 8), torch.arange(10),
                              name="rows", device="cpu", **options)  # fmt: skip


def test_a_model_that_takes_another_dimension_for_the_batch_is_warned_of():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"depends on the others of a batch: .*batch_first=True"):
        trial.check(Reader(batch_first=False), rows())


@pytest.mark.parametrize("model", [
    lambda: Reader(batch_first=True),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(40, 10), nn.BatchNorm1d(10, track_running_stats=False)),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(40, 10), nn.Dropout(0.9)),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(40, 1000)),
])  # fmt: skip
def test_what_is_right_is_not_warned_of(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial.check(model(), rows())


def needs_every_class(outputs, y):
    if len(y.unique()) < 10:
        raise ValueError("only some classes present")
    return 0.5


@pytest.mark.parametrize("options", [
    {"metric": needs_every_class},
    {"loss": lambda o, y: F.cross_entropy(o, y, label_smoothing=0.1), "metric": tasks.accuracy},
    {"loss": nn.CrossEntropyLoss(weight=torch.arange(1.0, 11)), "metric": lambda o, y: o.numpy().mean()},
    {"loss": lambda o, y: F.binary_cross_entropy_with_logits(o, F.one_hot(y, 10).float())},
])  # fmt: skip
def test_losses_and_metrics_of_many_kinds(options):
    model, task = nn.Sequential(nn.Flatten(), nn.Linear(40, 10)), rows(**options)
    training.train_mode(model, task, training.Recipe(epochs=1, batch=10), seed=0)
    assert training.evaluate(model, task.train).loss > 0


def test_a_metric_is_of_the_whole_split():
    def r2(outputs, y):
        return 1 - (outputs - y).square().sum() / (y - y.mean(0)).square().sum()

    x = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    y = x.sum(1, keepdim=True) + torch.linspace(0, 5, 600)[:, None]
    task = tasks.from_tensors(x, y, x, y, name="line", loss=F.mse_loss, metric=r2, device="cpu")
    model = nn.Linear(3, 1)
    score = training.evaluate(model, task.test, batch=32)
    assert score.r2 == pytest.approx(float(r2(model(x), y).detach()), rel=1e-5)


def test_a_modes_architecture_counts_not_only_its_shape():
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softplus(beta=beta)) for beta in (1, 9))
    with pytest.raises(InputError, match="with the state of b, a computes something else"):
        connectivity.connect(a, b, digits)
