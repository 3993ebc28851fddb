"""Straight lines, Bezier curves and chains: against a valley and an XOR network whose answers are known."""

import pandas as pd
import pytest
import torch
from connect_cases import Surface, dummy, valley_ends, xor_modes, xor_task
from hypothesis import given
from hypothesis import strategies as st

from lib import models, tasks
from lib.checkpoint import Checkpoint
from lib.connectivity import Path
from lib.connectivity.baselines import curves
from lib.connectivity.baselines.curves import Curve
from lib.errors import InputError
from lib.layers import data_flow
from lib.weights import Layout, flatten

digits = tasks.load("digits", size=12, device="cpu").subset(100, 40)


@given(st.floats(0, 1), st.sampled_from(curves.KINDS), st.integers(1, 4))
def test_shares_sum_to_one_and_end_in_the_modes(t, kind, bends):
    curve = Curve(kind=kind, bends=bends)
    assert sum(curve.fractions(t)) == pytest.approx(1) and min(curve.fractions(t)) >= 0
    assert curve.fractions(0)[0] == 1 and curve.fractions(1)[-1] == 1


def test_the_learning_rate_is_constant_then_falls_to_a_hundredth():
    curve = Curve(sgd_steps=100, lr=2.0)
    rates = [curve.rate(step) for step in range(100)]
    assert rates[:51] == [2.0] * 51 and rates[-1] == pytest.approx(0.02)
    assert rates == sorted(rates, reverse=True) and rates[70] == pytest.approx(2 * (1 - 0.99 / 2))


def test_a_bezier_curve_finds_the_bend_that_follows_the_valley():
    """The valley y = 1 - x^2 from (-1, 0) to (1, 0) is the Bezier curve with the bend (0, 2)."""
    path = curves.connect(*valley_ends(), dummy, Curve(sgd_steps=2000, lr=0.02, batch=4, points=41))
    bend = 2 * path.anchors[20] - (path.anchors[0] + path.anchors[-1]) / 2
    torch.testing.assert_close(bend, torch.tensor([0.0, 2.0]), atol=0.03, rtol=0)
    assert path.max_loss(dummy, interior_points=1) == pytest.approx(Surface.saddle, rel=0.02)


@pytest.mark.parametrize("bends", [1, 3])
def test_a_chain_bends_into_the_valley(bends):
    path = curves.connect(*valley_ends(), dummy, Curve(kind="chain", bends=bends, sgd_steps=1000, lr=0.02, batch=4))
    straight = Path.linear(*valley_ends()).max_loss(dummy, interior_points=9)
    assert len(path) == bends + 2
    assert straight == pytest.approx(Surface.saddle + Surface.stiffness, rel=1e-4)
    assert path.max_loss(dummy) < straight / 2


@pytest.mark.parametrize("curve", [Curve(), Curve(kind="chain", bends=3)])
def test_xor_networks_are_connected_at_low_loss(curve):
    a, b = xor_modes()
    assert Path.linear(a, b).max_loss(xor_task) > 0.3
    path = curves.connect(a, b, xor_task, Curve(curve.kind, curve.bends, sgd_steps=1500, lr=0.1, batch=4))
    assert path.max_loss(xor_task) < 0.05 and path.reached(b) and torch.equal(path.anchors[0], flatten(a))
    assert path.log.loss.iloc[-1] < path.log.loss.iloc[0]


def lenets():
    return [models.create("lenet5", digits, seed=seed) for seed in (1, 2)]


def test_a_seed_repeats_and_another_differs():
    config = Curve(bends=2, sgd_steps=6, batch=20)
    one, same, other = (curves.connect(*lenets(), digits, config, seed=seed).anchors for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_an_interrupted_training_continues_to_the_same_bytes(interrupted_after, tmp_path):
    config = Curve(bends=2, sgd_steps=60, batch=20)
    whole = curves.connect(*lenets(), digits, config)
    with pytest.raises(KeyboardInterrupt):
        curves.connect(*lenets(), digits, config, checkpoint=interrupted_after(3))
    continued = curves.connect(*lenets(), digits, config, checkpoint=Checkpoint(tmp_path))
    assert torch.equal(whole.anchors, continued.anchors)
    pd.testing.assert_frame_equal(whole.log, continued.log)


@pytest.mark.parametrize("cumulative", [False, True])
def test_layerwise_lines_move_their_layers_only(cumulative):
    a, b = lenets()
    layers = data_flow(a, digits)
    paths = curves.layerwise(a, b, layers, cumulative=cumulative)
    layout = Layout.of(a)
    for number, path in enumerate(paths):
        moved = [name for name in layout.names if path.distances(a)[name].iloc[-1] != 0]
        wanted = layers[: number + 1] if cumulative else layers[number : number + 1]
        changed = {name for layer in wanted for name in layer if not name.endswith("bias")}  # biases start at 0
        assert set(moved) == changed
    assert paths[-1].reached(b) == cumulative


def test_divergence_names_the_round():
    with pytest.raises(FloatingPointError, match="curve diverged before round 50: loss"):
        curves.connect(*lenets(), digits, Curve(sgd_steps=60, lr=1e9, batch=20))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Curve(kind="circle"), "kind='circle': choose one of bezier, chain"),
        (lambda: Curve(bends=0), "bends=0: must be larger than 0"),
        (lambda: Curve(lr=-1), "lr=-1: must be larger than 0"),
        (lambda: Curve(points=1), "points=1: must be at least 2"),
        (lambda: Curve(momentum=1), r"momentum=1: must be in \[0, 1\)"),
        (lambda: curves.connect(lenets()[0], torch.nn.Linear(2, 2), digits), "modes of different shape"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
