"""Alignment: groups found in the data flow, the function kept, a permuted copy recovered exactly, bad input."""

import math

import pytest
import torch
from connect_cases import xor_modes, xor_task
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lib import models, seeds, tasks
from lib.connectivity import Path
from lib.connectivity.baselines import alignment
from lib.connectivity.baselines.symmetry import _runs, groups
from lib.errors import InputError
from lib.weights import flatten

digits = tasks.load("digits", size=12, device="cpu").subset(100, 40)
FAMILIES = ("lenet5", "resnet18", "mobilenetv2", "shufflenet", "regnetx", "cct7")


def network(name, seed=0):
    """A network whose biases, gains and running statistics all differ, so that a wrong permutation shows."""
    model = models.create(name, digits, seed=seed)
    with torch.no_grad(), seeds.scope(seed, "noise"):
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.ndim == 1:
                tensor.add_(torch.rand_like(tensor))
    return model.eval()


def shuffled(model, found, seed=0):
    order = [torch.randperm(g.size, generator=torch.Generator().manual_seed(seed + i)) for i, g in enumerate(found)]
    return alignment.permuted(model, found, order)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_permuted_copy_computes_the_same_and_is_recovered_exactly(name):
    mode = network(name)
    copy = shuffled(mode, groups(mode, digits))
    with torch.no_grad():
        torch.testing.assert_close(copy(digits.test.x), mode(digits.test.x), rtol=1e-4, atol=1e-5)
    away = float((flatten(copy) - flatten(mode)).norm())
    aligned = alignment.align(mode, copy, digits)
    assert away > 1 and float((flatten(aligned) - flatten(mode)).norm()) < 1e-5
    for name, tensor in aligned.named_buffers():
        assert torch.equal(tensor, mode.get_buffer(name)), name


def test_the_path_to_a_recovered_mode_is_flat():
    mode = xor_modes()[0]
    copy = shuffled(mode, groups(mode, xor_task))
    loss = Path.linear(mode, mode).max_loss(xor_task, interior_points=0)
    assert Path.linear(mode, copy).max_loss(xor_task) > loss + 0.05
    aligned = alignment.align(mode, copy, xor_task)
    assert Path.linear(mode, aligned).max_loss(xor_task) == pytest.approx(loss, abs=1e-5)


def test_alignment_of_independent_modes_brings_them_nearer_and_keeps_the_function():
    a, b = network("resnet18", 1), network("resnet18", 2)
    before = flatten(a), flatten(b)
    aligned = alignment.align(a, b, digits)
    assert (flatten(a) - flatten(aligned)).norm() < 0.98 * (flatten(a) - flatten(b)).norm()
    with torch.no_grad():
        torch.testing.assert_close(aligned(digits.test.x), b(digits.test.x), rtol=1e-3, atol=1e-4)
    assert torch.equal(before[0], flatten(a)) and torch.equal(before[1], flatten(b))
    assert torch.equal(flatten(aligned), flatten(alignment.align(a, b, digits)))


def members(model, example):
    return [(g.size, set(g.members)) for g in groups(model, example=example)]


def test_groups_of_a_chain():
    """A convolution flattened into a linear layer is permuted in blocks of its pixels."""
    chain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2))
    assert members(chain, torch.zeros(2, 1, 4, 4)) == [
        (3, {("0.weight", 0, 1), ("0.bias", 0, 1), ("3.weight", 1, 4)}),
        (5, {("3.weight", 0, 1), ("3.bias", 0, 1), ("4.weight", 1, 1)}),
    ]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 4)
        self.norm, self.head, self.unused = nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Linear(7, 7)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.norm(x + self.outer(torch.relu(self.inner(x)))))


def test_groups_of_a_residual_network_with_batch_norm():
    """The two branches of a sum share a group, to which gains, offsets and running statistics belong."""
    norm = {(f"norm.{name}", 0, 1) for name in ("weight", "bias", "running_mean", "running_var")}
    stream = {("stem.weight", 0, 1), ("stem.bias", 0, 1), ("outer.weight", 0, 1), ("outer.bias", 0, 1),
              ("inner.weight", 1, 1), ("head.weight", 1, 1)}  # fmt: skip
    inside = {("inner.weight", 0, 1), ("inner.bias", 0, 1), ("outer.weight", 1, 1)}
    assert members(Residual(), torch.zeros(2, 3)) == [(4, stream | norm), (6, inside)]


class Grouped(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)
        self.middle = nn.Conv2d(4, 4, 3, padding=1, groups=groups)

    def forward(self, x):
        return self.last(self.middle(self.first(x))).mean((2, 3))


@pytest.mark.parametrize(("count", "sizes"), [(1, [4, 4]), (2, []), (4, [4])])
def test_depthwise_convolutions_are_permuted_and_grouped_ones_left_alone(count, sizes):
    assert [g.size for g in groups(Grouped(count), example=torch.zeros(2, 1, 4, 4))] == sizes


class Concatenating(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.last = nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(9, 2)

    def forward(self, x):
        return self.last(torch.cat([self.a(x), self.b(x)], 1))


def test_what_is_not_understood_stays_as_it_is():
    assert groups(Concatenating(), example=torch.zeros(2, 3)) == []


@given(st.lists(st.sampled_from([1, 2, 3]), max_size=5), st.randoms())
def test_runs_hold_the_same_entries(shape, random):
    after = [*shape, 1]
    random.shuffle(after)
    merged = [after[0] * math.prod(after[1:2]), *after[2:]]
    left, right = zip(*_runs(shape, merged), strict=True)
    assert [i for part in left for i in range(len(shape))[part]] == list(range(len(shape)))
    assert [i for part in right for i in range(len(merged))[part]] == list(range(len(merged)))
    assert all(math.prod(shape[a]) == math.prod(merged[b]) for a, b in zip(left, right, strict=True))


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1)) if float(x.sum()) else F.relu(x.flatten(1))


def align_twice(kind):
    return alignment.align(kind(144, 10), kind(144, 10), digits)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: align_twice(Branching), "model: cannot be traced, so its permutations are unknown"),
        (lambda: alignment.align(nn.Linear(2, 3), nn.Linear(2, 4), digits), "modes of different shape"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_permuted_mode_of_another_function_is_refused(monkeypatch):
    a, b, other = (nn.Sequential(nn.Flatten(), nn.Linear(144, 10)) for _ in range(3))
    monkeypatch.setattr(alignment, "permuted", lambda *_: other)
    with pytest.raises(InputError, match=r"alignment: the permuted mode computes something else \(logits differ by"):
        alignment.align(a, b, digits)
