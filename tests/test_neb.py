"""AutoNEB: against a valley and an XOR network whose answers are known; pivots, tangents, resume, bad input."""

import pandas as pd
import pytest
import torch
from connect_cases import Hill, Surface, dummy, valley_ends, xor_modes, xor_task
from hypothesis import given
from hypothesis import strategies as st

from lib import models, tasks
from lib.checkpoint import Checkpoint
from lib.connectivity import Path
from lib.connectivity.baselines import neb
from lib.connectivity.baselines.neb import AutoNEB, redistribute, tangents
from lib.errors import InputError
from lib.weights import flatten

digits = tasks.load("digits", size=12, device="cpu").subset(100, 40)


def test_the_band_settles_in_the_valley_and_finds_its_saddle():
    config = AutoNEB(cycles=((0.02, 100, 3), (0.002, 100, 1)), batch=4, excess=0.05)
    path = neb.connect(*valley_ends(), dummy, config)
    assert path.max_loss(dummy) == pytest.approx(Surface.saddle, rel=0.03)
    x, y = path.anchors.T
    # redistribution cuts corners: pivots lie a little inside the bend
    torch.testing.assert_close(y, 1 - x**2, atol=0.1, rtol=0)
    lengths = path.lengths().diff()
    torch.testing.assert_close(lengths, lengths.mean().expand_as(lengths), rtol=1e-3, atol=0)


def test_xor_networks_are_connected_at_low_loss():
    a, b = xor_modes()
    straight = Path.linear(a, b).max_loss(xor_task)
    path = neb.connect(a, b, xor_task, AutoNEB(cycles=((0.02, 60, 4), (0.002, 60, 1)), batch=4))
    assert straight > 0.3 > 0.1 > path.max_loss(xor_task)
    assert path.reached(b) and torch.equal(path.anchors[0], flatten(a))


def test_pivots_are_added_as_published_and_gradients_counted():
    """Where every segment is bad enough, as on a hill, 1, 3, 7 and 11 pivots."""
    config = AutoNEB(cycles=((1e-9, 2, 5),), batch=4, excess=0)
    path = neb.connect(Hill(-1), Hill(1), dummy, config)
    assert path.log.pivots.tolist() == [1, 3, 7, 11, 11]
    assert path.log.sgd_steps.iloc[-1] == 2 * (1 + 3 + 7 + 11 + 11)


def test_a_budget_is_shared_among_the_cycles_and_their_pivots():
    config = AutoNEB(cycles=((1e-9, 1, 2), (1e-9, 2, 1)), batch=4, excess=0, budget=100)
    path = neb.connect(Hill(-1), Hill(1), dummy, config)
    # a quarter of 100 for one pivot, a third of the 75 left for three, and the 51 left by seven
    assert path.log.sgd_steps.tolist() == [25, 25 + 8 * 3, 25 + 8 * 3 + 7 * 7]
    assert AutoNEB().steps(4, pivots=11, spent=0) == 2000


def test_a_band_without_excess_keeps_one_pivot():
    path = neb.connect(*valley_ends(), dummy, AutoNEB(cycles=((1e-3, 2, 3),), batch=4, excess=1e9))
    assert path.log.pivots.tolist() == [1, 1, 1]


@given(st.integers(0, 99), st.integers(3, 9))
def test_redistributed_points_lie_on_the_line_at_even_arc_length(seed, count):
    points = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = redistribute(points)
    assert torch.equal(moved[[0, -1]], points[[0, -1]]) and moved.shape == points.shape
    arcs = torch.cat([torch.zeros(1), (points[1:] - points[:-1]).norm(dim=1).cumsum(0)])
    for number, point in enumerate(moved):
        arc = arcs[-1] * number / (count - 1)
        segment = min(int((arcs <= arc).sum()) - 1, count - 2)
        fraction = (arc - arcs[segment]) / (arcs[segment + 1] - arcs[segment])
        torch.testing.assert_close(point, torch.lerp(points[segment], points[segment + 1], fraction), atol=1e-5, rtol=0)


def test_tangents_point_along_the_segment_to_the_higher_neighbour():
    points = torch.tensor([[0.0, 0], [1, 0], [1, 2], [4, 2]])
    found = tangents(points, torch.tensor([0.0, 1, 3, 2]))
    assert found.tolist() == [[0, 1], [1, 0]]
    assert tangents(points, torch.tensor([4.0, 1, 3, 0])).tolist() == [[1, 0], [0, 1]]


short = AutoNEB(cycles=((0.01, 3, 3),), batch=20, judge_images=50)


def lenets():
    return [models.create("lenet5", digits, seed=seed) for seed in (1, 2)]


def test_a_seed_repeats_and_another_differs():
    one, same, other = (neb.connect(*lenets(), digits, short, seed=seed).anchors for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert one.shape != other.shape or not torch.equal(one, other)


def test_an_interrupted_search_continues_to_the_same_bytes(interrupted_after, tmp_path):
    whole = neb.connect(*lenets(), digits, short)
    with pytest.raises(KeyboardInterrupt):
        neb.connect(*lenets(), digits, short, checkpoint=interrupted_after(3))
    continued = neb.connect(*lenets(), digits, short, checkpoint=Checkpoint(tmp_path))
    assert torch.equal(whole.anchors, continued.anchors)
    pd.testing.assert_frame_equal(whole.log, continued.log)


def test_divergence_names_the_cycle():
    with pytest.raises(FloatingPointError, match="band diverged in cycle 1: loss"):
        neb.connect(*lenets(), digits, AutoNEB(cycles=((1e30, 3, 2),), batch=20))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AutoNEB(cycles=()), r"cycles=\(\): needs \(learning rate, steps, number\), all larger than 0"),
        (lambda: AutoNEB(cycles=((0.1, 0, 1),)), r"cycles=\(\(0.1, 0, 1\),\): needs"),
        (lambda: AutoNEB(excess=-1), "excess=-1, inserts=4, budget=0: must be 0 or larger"),
        (lambda: AutoNEB(test_points=0), "test_points=0: must be larger than 0"),
        (lambda: neb.connect(lenets()[0], torch.nn.Linear(2, 2), digits), "modes of different shape"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
