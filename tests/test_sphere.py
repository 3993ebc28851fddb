"""Variance correction as the papers define it, for any tensor."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import sphere
from lib.errors import InputError
from lib.weights import Layout

shapes = st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple)
seeds = st.integers(0, 2**32)


def tensor(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.3


@given(shapes, seeds, st.floats(1e-8, 1e4))
def test_correction_projects_onto_the_sphere_and_keeps_mean_and_direction(shape, seed, target):
    before = tensor(shape, seed)
    after = sphere.correct({"w": before}, {"w": target})["w"]
    torch.testing.assert_close(after.mean(), before.mean())
    if before.numel() == 1:
        assert torch.equal(after, before)
        return
    torch.testing.assert_close(float(after.var(correction=0)), target, rtol=1e-9, atol=0.0)
    centred = [(t - t.mean()).flatten() for t in (before, after)]
    torch.testing.assert_close(torch.cosine_similarity(*centred, dim=0).item(), 1.0)


@given(shapes, seeds)
def test_correction_to_the_own_variance_changes_nothing(shape, seed):
    before = {"w": tensor(shape, seed)}
    after = sphere.correct(before, sphere.variance(before))
    torch.testing.assert_close(after["w"], before["w"])


layouts = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=5).map(
    lambda found: Layout(tuple(f"p{number}" for number in range(len(found))), tuple(found), frozenset(["p1"]))
)


@given(layouts, st.integers(1, 4), seeds, st.sampled_from([0.0, 1e-4]))
def test_rows_of_networks_are_corrected_as_each_network_is(layout, networks, seed, epsilon):
    rows = tensor((networks, layout.size), seed)
    target = tensor((networks, len(layout.layers)), seed + 1).abs()
    wanted = [
        sphere.correct(
            layout.state(row),
            {name: v for name, v in zip(layout.layers, own, strict=True) if name not in layout.frozen},
            epsilon=epsilon,
        )
        for row, own in zip(rows.clone(), target, strict=True)
    ]
    assert sphere.correct_rows_(rows, target, layout, epsilon=epsilon) is rows
    for row, own in zip(rows, wanted, strict=True):
        torch.testing.assert_close(layout.state(row), own)
    found = [torch.tensor(list(sphere.variance(layout.state(row)).values())) for row in rows]
    torch.testing.assert_close(sphere.variances(rows, layout), torch.stack(found).to(rows))


@pytest.mark.parametrize("mean", [0.0, 0.005, 0.02, -3.0, 100.0])  # standard deviations 0.01: both ways to correct
def test_float32_layers_of_any_mean_reach_the_sphere(mean):
    layer = 0.01 * torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)) + mean
    variances, rounding = torch.tensor([4e-4, 1e-4, 1e-6]), 1e-6 * (abs(mean) + 0.01) / 1e-3
    plain = [sphere.correct({"w": w}, {"w": v})["w"] for w, v in zip(layer, variances, strict=True)]
    fast = layer.clone()
    sphere.correct_blocks_([fast], variances[:, None])
    wanted = torch.tensor([0.02, 0.01, 0.001], dtype=torch.float64)
    for corrected in (fast, torch.stack(plain)):
        torch.testing.assert_close(corrected.double().std(dim=1, correction=0), wanted, rtol=rounding, atol=0)
        torch.testing.assert_close(corrected.double().mean(1), layer.double().mean(1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_tensor_stays(value, dtype):
    constant = torch.full((7, 5), value, dtype=dtype)
    assert torch.equal(sphere.correct({"w": constant}, {"w": 2.0})["w"], constant)
    rows = constant.reshape(1, -1).clone()
    sphere.correct_blocks_([rows], torch.tensor([[2.0]], dtype=dtype))
    assert torch.equal(rows, constant.reshape(1, -1))


def test_epsilon_of_the_reference_restores_only_a_part():
    # v = 1e-3 that shrank to v/4: (v + 1e-4) / (v/4 + 1e-4) of v/4, not v
    before = tensor((400, 400), 0)
    before = sphere.correct({"w": before}, {"w": 0.25e-3})
    after = sphere.variance(sphere.correct(before, {"w": 1e-3}, epsilon=1e-4))["w"]
    torch.testing.assert_close(float(after), 0.25e-3 * 1.1e-3 / 0.35e-3, rtol=1e-6, atol=0.0)


def test_variance_leaves_out_biases():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    assert list(sphere.variance(model)) == ["0.weight"]


def test_targets_are_checked():
    with pytest.raises(InputError, match="'other' is not a tensor of the state"):
        sphere.correct({"w": torch.ones(2, 2)}, {"other": 1.0})
    with pytest.raises(InputError, match=r"target of 'w'=-1\.0: a variance cannot be negative"):
        sphere.correct({"w": torch.ones(2, 2)}, {"w": -1.0})
