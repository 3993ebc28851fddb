"""The registry: every family has both members, at the size that its table says, and learns from its seed alone."""

import functools
import math

import pytest
import torch
from torch import nn

from lib import connectivity, gossip, models, tasks, training
from lib.checkpoint import NoCheckpoint
from lib.connectivity import Path
from lib.errors import InputError
from lib.studies import families
from lib.studies import gossip as study
from lib.training import Recipe

digits = tasks.load("digits", size=16, device="cpu").subset(200, 40)
mnist_like = tasks.from_tensors(
    torch.rand(20, 1, 28, 28), torch.arange(20) % 10, torch.rand(4, 1, 28, 28), torch.arange(4), name="mnist-like",
    device="cpu",
)  # fmt: skip
cifar_like = tasks.from_tensors(
    torch.rand(20, 3, 32, 32), torch.arange(20) % 10, torch.rand(2, 3, 32, 32), torch.arange(2), name="cifar-like",
    device="cpu",
)  # fmt: skip


def size(model):
    return sum(p.numel() for p in model.parameters())


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("name", "like", "parameters"),
    [
        ("lenet5", mnist_like, 61_706), ("lenet_caffe", mnist_like, 431_080),
        ("resnet18", cifar_like, 11_173_962), ("cct7", cifar_like, 3_760_139),
    ],
)  # fmt: skip
def test_parameters_are_those_of_the_papers(name, like, parameters):
    model = models.create(name, like, size="paper", seed=0)
    assert size(model) == parameters
    assert model.eval()(like.test.x).shape == (len(like.test), 10)


@pytest.mark.parametrize("name", models.FAMILIES)
def test_the_laptop_member_is_small_and_learns(name):
    model = models.create(name, digits, seed=1)
    assert size(model) < 170_000
    before = Path.linear(model, model).scores(0, digits)["train_loss"]
    recipe = Recipe(epochs=3, lr=0.002, optimiser="adamw", batch=50)
    trained = training.train_mode(model, digits, recipe, seed=1)
    assert Path.linear(trained, trained).scores(0, digits)["train_loss"] < before


@pytest.mark.parametrize("name", [n for n in families.FAMILIES if n not in ("lenet5", "resnet18", "cct7")])
def test_the_paper_member_makes_logits_of_cifar_images(name):
    model = models.create(name, cifar_like, size="paper", seed=0).eval()
    with torch.no_grad():
        assert model(cifar_like.test.x).shape == (2, 10)
    assert size(model) > 1_000_000


def test_a_family_that_a_user_adds_works_like_the_others(monkeypatch, tmp_path):
    """From outside of lib: in connectivity, in gossip, in a study, and read back from a file."""

    def build(image_shape, classes, hidden=24):
        layers = nn.Flatten(), nn.Linear(math.prod(image_shape), hidden), nn.ReLU(), nn.Linear(hidden, classes)
        return nn.Sequential(*layers)

    monkeypatch.setitem(models.FAMILIES, "mine", models.Family(build, functools.partial(build, hidden=48), build))
    assert size(models.create("mine", digits, size="medium", seed=0)) > size(models.create("mine", digits, seed=0))
    recipe = Recipe(epochs=10, batch=25, lr=0.1)
    a, b = (training.train_mode(models.create("mine", digits, seed=s), digits, recipe, seed=s) for s in (1, 2))
    driver = connectivity.Adaptive(max_loss=0.5, step=0.1, max_sgd_steps=400)
    path = connectivity.connect(a, b, digits, connectivity.M2M(lr=0.1, batch=25, driver=driver))
    assert path.reached(b) and path.max_loss(digits) < 0.5
    path.save(tmp_path / "path")
    assert torch.equal(Path.load(tmp_path / "path").anchors, path.anchors)
    run = study.Run("digits", "mine", study.regular(6, 3), gossip.VarianceCorrected(), 3, seed=0, image_size=16)
    assert study.gossip_run(run, NoCheckpoint())["history"].tick.tolist()[-1] == 2


def test_initial_weights_follow_the_seed():
    for name in ("lenet5", "cct7", "resnet18"):
        one, same, other = (vector(models.create(name, digits, seed=seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same) and not torch.equal(one, other)


def test_caffe_filler_has_variance_one_over_fan_in():
    weight = models.create("lenet_caffe", mnist_like, seed=0).fc1.weight
    assert float(weight.detach().var() * weight.shape[1]) == pytest.approx(1, abs=0.02)


def test_cct_draws_only_in_training():
    model, x = models.create("cct7", digits, seed=0), digits.test.x[:4]
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.create("alexnet", digits, seed=0), "model='alexnet': unknown family"),
        (lambda: models.create("lenet5", digits, size="huge", seed=0), "size='huge': choose one of laptop, medium"),
        (lambda: models.create("lenet5", tasks.load("digits", size=8), seed=0), "needs images of 12 pixels or more"),
        (lambda: models.create("lenet_caffe", tasks.load("digits", size=12), seed=0), "images of 16 pixels or more"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
