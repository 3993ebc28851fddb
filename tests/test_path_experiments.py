"""What the notebooks on spheres and on a closer look at paths ask for: the tables add up, and a seed repeats."""

from dataclasses import replace

import pytest
import torch

from lib import runs, training
from lib.checkpoint import NoCheckpoint
from lib.connectivity import M2M, M2O, Adaptive, Fixed
from lib.studies import path_views, spheres
from lib.studies.m2m import Connection, m2m
from lib.studies.modes import Data, Mode, load_mode
from lib.weights import Layout, flatten

data = Data("digits", 12, 100)
recipe = training.Recipe(epochs=8, batch=50, lr=0.03, momentum=0.9)
start, end, third = (Mode(data, "lenet5", seed, recipe) for seed in (1, 2, 3))
decayed = replace(end, recipe=replace(recipe, weight_decay=0.1))
search = M2M(order="all", lr=0.05, batch=50, driver=Adaptive(max_loss=2.5, slack=1.0, max_sgd_steps=200))
path = Connection(start, end, search, interior_points=1)
origin = M2O(ticks=60, step_a=0.05, min_sgd_steps=1, max_sgd_steps=2, batch=50)


@pytest.mark.parametrize("route", ["moving", "origin"])
def test_a_crossing_goes_from_the_spheres_of_its_start_to_those_of_its_end(route):
    found = spheres.crossing(spheres.Crossing(start, decayed, route, search, origin, interior_points=1), NoCheckpoint())
    task = data.load()
    ends = [flatten(load_mode(each, task)) for each in (start, decayed)]
    assert found["reached"]
    torch.testing.assert_close(found["anchors"][[0, -1]], torch.stack(ends))
    assert len(found["variances"]) == len(found["anchors"]) and next(iter(found["variances"])) == "conv1.weight"
    assert found["max_loss"] == found["points"].train_loss.max()


def test_a_descent_stops_at_the_variances_of_another_mode():
    free = spheres.descent(spheres.Descent(start, replace(origin, ticks=2)), NoCheckpoint())
    assert len(free["points"]) == len(free["variances"]) == 3
    stopped = spheres.descent(spheres.Descent(start, origin, decayed), NoCheckpoint())["variances"]
    wanted = spheres.descent(spheres.Descent(decayed, replace(origin, ticks=1)), NoCheckpoint())["variances"].iloc[0]
    arrived = wanted < stopped.iloc[0]
    assert arrived.any()
    assert (stopped.iloc[-1] / wanted)[arrived].to_list() == pytest.approx([1.0] * arrived.sum(), rel=1e-3)


@pytest.mark.parametrize("family", ["resnet18", "cct7"])
def test_distances_by_layer_are_those_of_every_weight_tensor(family):
    small = Data("digits", 16, 60)
    a, b = (Mode(small, family, seed, replace(recipe, epochs=1, batch=20)) for seed in (0, 1))
    quick = Connection(a, b, M2M(batch=20, moving_spheres=False, driver=Fixed(ticks=1)), interior_points=0)
    found = m2m(quick, NoCheckpoint())
    model = load_mode(a, small.load())
    tensors = list(Layout.of(model).layers)
    assert found["weights"] == tensors
    assert ("positions" in tensors) == (family == "cct7")
    assert any(name.endswith("weight") and name not in tensors for name in found["distances"].columns)


def test_segments_are_looked_at_between_the_anchors_of_the_found_path():
    found, close = runs.one(m2m, path), path_views.segments(path_views.Segments(path, points=4), NoCheckpoint())
    assert close["reached"] == found["reached"]
    anchors = [each["points"].query("anchor").train_loss.to_list() for each in (found, close)]
    assert anchors[0] == anchors[1] and len(close["points"]) == 5 * (len(anchors[0]) - 1) + 1


def test_a_surface_holds_the_path_its_ends_and_its_middle():
    seen = path_views.surface(path_views.Surface(path, 3), NoCheckpoint())
    assert len(seen["grid"]) == 9 and len(seen["marks"]) == 3
    assert seen["path"].off_plane.iloc[[0, -1]].tolist() == pytest.approx([0, 0], abs=1e-4)


def test_moves_give_as_many_singular_values_a_layer_as_there_are_ends():
    config = path_views.Moves(start, (end, third), sgd_steps=2)
    one, same, other = (
        path_views.moves(each, NoCheckpoint())["values"] for each in (config, config, replace(config, seed=1))
    )
    assert one.groupby("layer").size().tolist() == [2] * 5
    assert (one.groupby("layer").value.apply(lambda v: (v**2).sum()) - 2).abs().max() < 1e-6
    assert one.equals(same) and not one.value.equals(other.value)


def test_simplified_paths_are_below_their_bounds_and_have_no_more_segments():
    config = path_views.Simplification(path, bounds=(3.0, 1e-9), pivots=(1, 999), interior_points=1)
    table = path_views.simplification(config, NoCheckpoint())["table"]
    assert table.choice.tolist() == ["all anchors", "fewest", "evenly"]
    fewest = table.iloc[1]
    assert fewest.max_loss < 3.0 and fewest.segments <= table.segments[0]


def test_sharpness_is_measured_at_both_ends():
    table = path_views.sharpness(path_views.Sharpness(path, points=2, draws=1), NoCheckpoint())["table"]
    assert table.fraction.tolist() == [0.0, 1.0] and (table.sharpness != 0).all()


def test_the_cost_counts_every_multiplication_of_a_lenet():
    """Two operations each, forwards, for the gradient of the weights, and for that of what goes in but the image."""
    cost = path_views.cost(start)
    first, rest = 144 * 6 * 25, 4 * 16 * 6 * 25 + 16 * 120 + 120 * 84 + 84 * 10
    assert cost == {"parameters": len(flatten(load_mode(start, data.load()))), "flops": 4 * first + 6 * rest}
