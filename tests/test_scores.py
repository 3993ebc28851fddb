"""Loss and metric: classes in any dimension, names, and many networks at once as one by one."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lib import scores
from lib.errors import InputError
from lib.tasks import Split


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 4), st.lists(st.integers(1, 3), max_size=2), st.integers(5, 7), st.integers(0, 99))
def test_classes_may_come_last_or_first(n, places, classes, seed):
    outputs, y = drawn(n, *places, classes, seed=seed), torch.randint(0, classes, (n, *places))
    flat = outputs.reshape(-1, classes), y.reshape(-1)
    for each in (outputs, outputs.movedim(-1, 1)):
        torch.testing.assert_close(scores.cross_entropy(each, y), F.cross_entropy(*flat))
        assert scores.accuracy(each, y) == (flat[0].argmax(1) == flat[1]).double().mean()


@pytest.mark.parametrize("shapes", [((4, 5, 5), (4, 5)), ((4, 3), (4, 3)), ((4,), (4,)), ((4, 3), (5, 2))])
def test_shapes_that_do_not_fit_or_are_ambiguous_are_refused(shapes):
    outputs, y = torch.zeros(shapes[0]), torch.zeros(shapes[1]).long()
    with pytest.raises(InputError, match=r"loss: outputs \(.*give the task a loss= of your own"):
        scores.cross_entropy(outputs, y)


NAMES = {"l1_loss": F.l1_loss, "mse_loss": functools.partial(F.mse_loss), "L1Loss": nn.L1Loss(), "metric": lambda *_: 0}


@pytest.mark.parametrize(("name", "metric"), NAMES.items())
def test_a_metric_is_called_by_its_own_name(name, metric):
    split = Split(torch.zeros(2, 1), torch.zeros(2, 1), F.mse_loss, metric)
    assert split.score_names == split.score(torch.zeros(2, 1))._fields == ("loss", name)
    assert Split(split.x, split.y, F.mse_loss, None).score(torch.zeros(2, 1))._asdict() == {"loss": 0.0}


def flattened(outputs, y):
    return F.cross_entropy(outputs.flatten(0, -2), y.flatten())


@pytest.mark.parametrize("places", [(), (3,)])
@pytest.mark.parametrize(
    ("loss", "metric"), [(scores.cross_entropy, scores.accuracy), (scores.cross_entropy, None), (flattened, None)]
)
def test_many_networks_score_as_each_alone(places, loss, metric):
    n, batch, classes = 4, 6, 5
    outputs = drawn(n, batch, *places, classes).requires_grad_()
    y = torch.randint(0, classes, (batch, n, *places), generator=torch.Generator().manual_seed(0))
    total = scores.sum_over_networks(loss, outputs, y)
    alone = sum(loss(own, targets) for own, targets in zip(outputs, y.unbind(1), strict=True))
    torch.testing.assert_close(total, alone)
    torch.testing.assert_close(*(torch.autograd.grad(each, outputs)[0] for each in (total, alone)))
    split = Split(torch.zeros(batch, 1), y[:, 0], loss, metric)
    expected = torch.tensor([split.score(own.detach()) for own in outputs], dtype=torch.float64)
    torch.testing.assert_close(scores.of_networks(split, outputs.detach()), expected)
