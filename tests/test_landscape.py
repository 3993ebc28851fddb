"""Planes, principal components, singular values and sharpness: against values known in advance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import models, tasks, training
from lib.connectivity import Path
from lib.connectivity.analysis.landscape import Plane, layer_pca, principal_components, sharpness, singular_values
from lib.errors import InputError
from lib.weights import flatten

digits = tasks.load("digits", size=12, device="cpu").subset(100, 40)


def three(seed=0):
    return torch.randn(3, 50, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 99), st.floats(-2, 2), st.floats(-2, 2))
def test_a_plane_holds_its_points_and_keeps_distances(seed, x, y):
    a, b, c = three(seed)
    plane = Plane.through(a, b, c)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2), atol=1e-5, rtol=0)
    found, heights = plane.coordinates(torch.stack([a, b, c, plane.point(x, y)]))
    assert float(heights.max()) < 1e-4 and float(found[2, 1]) > 0
    torch.testing.assert_close(found[1], torch.stack([(b - a).norm(), torch.tensor(0.0)]), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[3], torch.tensor([x, y]), atol=1e-4, rtol=0)


def test_a_surface_gives_the_loss_of_the_models_on_it():
    nets = [models.create("lenet5", digits, seed=seed) for seed in range(3)]
    points = torch.stack([flatten(net) for net in nets])
    grid = Plane.through(*points).surface(nets[0], digits, points[:2], resolution=3, margin=0.0)
    assert list(grid) == ["x", "y", "train_loss", "test_accuracy"] and len(grid) == 9
    assert grid.train_loss[0] == pytest.approx(training.evaluate(nets[0], digits.train).loss, rel=1e-5)
    assert grid.train_loss[8] == pytest.approx(training.evaluate(nets[1], digits.train).loss, rel=1e-4)


def test_principal_components_are_those_of_a_decomposition():
    points = torch.randn(7, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scores, explained = principal_components(points, 3)
    u, s, _ = np.linalg.svd((points - points.mean(0)).numpy(), full_matrices=False)
    np.testing.assert_allclose(np.abs(scores), np.abs(u[:, :3] * s[:3]), atol=1e-8)
    assert explained == pytest.approx((s[:3] ** 2).sum() / (s**2).sum())
    assert (scores[-1] >= 0).all()


def test_layer_pca_has_a_row_for_every_layer_and_anchor():
    nets = [models.create("lenet5", digits, seed=seed) for seed in range(3)]
    paths = {"one": Path.linear(nets[0], nets[1]), "two": Path.linear(nets[0], nets[2])}
    table = layer_pca(paths)
    assert len(table) == 5 * 4 and set(table.path) == {"one", "two"}
    # three points, as both paths start in one: a plane holds them all
    assert table.explained.min() == pytest.approx(1)


def test_singular_values_count_directions():
    same = torch.ones(4, 10)
    one_direction = torch.tensor([2.0, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(singular_values(same), one_direction, atol=1e-6, rtol=0)
    torch.testing.assert_close(singular_values(5 * torch.eye(4)), torch.ones(4, dtype=torch.float64))


def test_sharpness_grows_with_the_radius_and_repeats():
    net = models.create("lenet5", digits, seed=0)
    training.train_mode(net, digits, training.Recipe(epochs=200, lr=0.03, momentum=0.9, batch=50), seed=0)
    before = flatten(net)
    near, far, again, other = (
        sharpness(net, digits, radius=radius, draws=3, seed=seed)
        for radius, seed in ((0.1, 0), (0.5, 0), (0.1, 0), (0.1, 1))
    )
    assert 0 < near < far and near == again != other
    assert torch.equal(before, flatten(net))


def test_sharpness_does_not_depend_on_the_scale_of_a_scale_invariant_layer():
    net = models.create("resnet18", digits, seed=0)
    value = sharpness(net, digits, draws=2)
    with torch.no_grad():
        first = next(p for p in net.parameters() if p.ndim == 4)
        first.mul_(3)
    assert sharpness(net, digits, draws=2) == pytest.approx(value, rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Plane.through(*torch.arange(6.0).view(3, 2)), "plane: the three points lie on one line"),
        (lambda: Plane.through(*torch.zeros(3, 2)), "plane: the three points lie on one line"),
        (lambda: principal_components(torch.zeros(2, 3), 3), "components=3: must be between 1 and the 2 points"),
        (lambda: sharpness(None, digits, radius=0), "radius=0, draws=10: must be larger than 0"),
        (lambda: Plane.through(*three()).surface(None, digits, three(), resolution=1), "resolution=1: must be at"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
