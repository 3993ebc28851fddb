"""The comparison of methods: every one connects the same modes, spends no more than its SGD steps, and repeats."""

import pytest
import torch

from lib import training
from lib.checkpoint import Checkpoint, NoCheckpoint
from lib.connectivity import M2M, Adaptive
from lib.connectivity.baselines import curves, neb
from lib.connectivity.path import Path
from lib.figures import methods as draw
from lib.studies import methods, path_tables
from lib.studies.modes import Data, Mode, load_mode
from lib.weights import flatten

data = Data("digits", 12, 60)
start, end = (Mode(data, "lenet5", seed, training.Recipe(epochs=1, batch=20)) for seed in (1, 2))
driver = Adaptive(max_loss=3.0, slack=1.0, step=0.2, growth=5.0, chunk=1, judge_images=20)
search = M2M(order="all", batch=20, driver=driver)
band = neb.AutoNEB(cycles=((1e-3, 1, 2),), judge_images=20)


def trial(method, sgd_steps=20):
    return methods.Trial(start, end, method, sgd_steps, curves.Curve(points=5), band, search, points=5)


@pytest.fixture(scope="module")
def outcomes():
    return {method: methods.trial(trial(method), NoCheckpoint()) for method in methods.METHODS}


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_method_connects_the_modes_within_its_rounds(method, outcomes):
    found, task = outcomes[method], data.load()
    a, b = load_mode(start, task), load_mode(end, task)
    assert torch.equal(found["anchors"][0], flatten(a))
    if not method.startswith("aligned"):
        assert torch.equal(found["anchors"][-1], flatten(b))
    assert found["worst"] == Path(a, found["anchors"]).evaluate(
        task, interior_points=max(1, round(4 / (len(found["anchors"]) - 1)) - 1), splits=("train",)
    )["train_loss"].max()  # fmt: skip
    assert found["mean"] <= found["worst"]
    assert found["length"] >= float(found["anchors"][[0, -1]].diff(dim=0).norm()) - 1e-3
    assert found["samples"] == (0 if method.endswith("line") else found["samples"]) <= 22 * 20


def test_a_trial_repeats_through_its_checkpoint(outcomes, tmp_path):
    again = methods.trial(trial("LLPF"), Checkpoint(tmp_path, every=0))
    assert torch.equal(again["anchors"], outcomes["LLPF"]["anchors"])


def test_where_llpf_does_not_arrive_the_rest_is_straight(outcomes):
    found = methods.trial(trial("LLPF", sgd_steps=1), NoCheckpoint())
    assert not found["arrived"] and torch.equal(found["anchors"][-1], outcomes["LLPF"]["anchors"][-1])
    assert outcomes["LLPF"]["arrived"]


def test_layers_and_planes():
    lines = methods.layer_barriers(methods.Lines(start, end, points=3), NoCheckpoint())["losses"]
    assert len(lines) == 2 * 5 * 3 and set(lines.kind) == {"layer-wise", "cumulative"}
    assert lines[lines.fraction.isin([0, 1])].barrier.abs().max() < 1e-9
    seen = methods.plane(methods.Planes(trial("chain, 1 bend"), (trial("straight line"),), 2), NoCheckpoint())
    heights = seen["curves"].groupby("method").height.max()
    assert len(seen["surface"]) == 4 and heights.max() < 1e-3  # a chain of one bend and its chord are plane


def test_tables_and_figures_have_a_row_and_a_line_each(outcomes):
    trials = [trial(method) for method in outcomes]
    table = path_tables.trials(trials, list(outcomes.values()))
    assert table.method.tolist() == list(methods.METHODS) and set(table.repeat) == {0}
    assert path_tables.trial_summary(table)["worst sd"].eq(0).all()
    points = path_tables.trial_points(table, outcomes.values())
    fig = draw.curves(points)
    labels = fig.axes[0].get_legend_handles_labels()[1]
    assert sorted(labels) == sorted(methods.METHODS) and points.method.nunique() == len(labels)
