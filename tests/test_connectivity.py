"""Paths: what they promise (ends, largest loss, spheres), the tick by the paper's formulas, resume, bad input."""

import copy
import math
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib import batchnorm, models, sphere, tasks, training
from lib.checkpoint import Checkpoint
from lib.connectivity import M2M, Adaptive, Fixed, Path, connect
from lib.connectivity.walker import Connection, layer_order
from lib.errors import InputError
from lib.weights import Layout, flatten

digits = tasks.load("digits", size=12, device="cpu").subset(200, 60)


@pytest.fixture(scope="module")
def modes():
    recipe = training.Recipe(epochs=60, lr=0.03, momentum=0.9, batch=50)
    return [
        training.train_mode(models.create("lenet5", digits, seed=seed), digits, recipe, seed=seed) for seed in (1, 2)
    ]


adaptive = M2M(order="all", lr=0.05, batch=50, driver=Adaptive(max_sgd_steps=3000, judge_images=200))
fixed = M2M(order="all", moving_spheres=False, batch=50, driver=Fixed(ticks=6, step_a=0.1, record_every=2))


def test_adaptive_path_ends_exactly_in_d_with_low_loss_everywhere(modes):
    start, end = modes
    before = flatten(start), flatten(end)
    path = connect(start, end, digits, adaptive)
    assert path.reached(end) and torch.equal(path.anchors[0], flatten(start))
    assert Path.linear(start, end).max_loss(digits) > 10 * path.max_loss(digits, interior_points=3)
    assert path.max_loss(digits, interior_points=3) < 0.1
    assert torch.equal(before[0], flatten(start)) and torch.equal(before[1], flatten(end))


def test_accepted_anchors_passed_the_threshold_as_stored_points(modes):
    driver = replace(adaptive.driver, interior_points=3)
    path = connect(*modes, digits, replace(adaptive, driver=driver))
    losses = path.evaluate(digits, interior_points=3, splits=("train",)).train_loss.to_numpy()
    # judged on all 200 training images, so the log holds the largest loss of the anchor and the points before it
    np.testing.assert_allclose(losses[1:].reshape(-1, 4).max(axis=1), path.log.loss, rtol=1e-4)
    assert (path.log.loss <= driver.max_loss).all()


def test_few_images_look_first_and_all_only_where_those_pass(modes):
    driver = replace(adaptive.driver, first_images=20, max_sgd_steps=200)
    walk = Connection(*modes, digits, order="all", moving_spheres=True, seed=0, batch=50, lr=0.05,
                      judge_images=200, first_images=20)  # fmt: skip
    assert [len(sample) for sample in walk.samples] == [20, 200]
    path = connect(*modes, digits, replace(adaptive, driver=driver))
    seen = path.log.judged.diff().dropna()
    # Two points on both samples for an anchor, and more for what was refused before it.
    assert (seen >= 2 * 220).all() and path.log.judged.iloc[-1] % 20 == 0
    losses = path.evaluate(digits, interior_points=1, splits=("train",)).train_loss.to_numpy()
    np.testing.assert_allclose(losses[1:].reshape(-1, 2).max(axis=1), path.log.loss, rtol=1e-4)


def test_momentum_starts_afresh_with_every_move_and_leaves_arrived_layers(modes, tmp_path, interrupted_after):
    config = replace(adaptive, order="fdf", momentum=0.9, lr=0.01, driver=replace(adaptive.driver, max_sgd_steps=400))
    path = connect(*modes, digits, config)
    assert path.log.stage.max() > 0 and torch.equal(path.anchors[-1][:50], flatten(modes[1])[:50])
    with pytest.raises(KeyboardInterrupt):
        connect(*modes, digits, config, checkpoint=interrupted_after(3))
    continued = connect(*modes, digits, config, checkpoint=Checkpoint(tmp_path))
    assert torch.equal(path.anchors, continued.anchors)


def test_evaluation_from_coarse_to_fine_finds_the_highest_points(modes):
    line = Path.linear(*modes)
    whole, coarse = line.evaluate(digits, interior_points=20), line.evaluate(digits, interior_points=20, images=50)
    fine = coarse.train_images == len(digits.train)
    assert fine.sum() == 8 and (coarse.train_images[~fine] == 50).all() and (coarse.test_images == 50).all()
    pd.testing.assert_series_equal(coarse.train_loss[fine], whole.train_loss[fine])
    assert coarse.train_loss.idxmax() in set(whole.train_loss.nlargest(3).index)


@pytest.mark.parametrize("config", [replace(adaptive, driver=Adaptive(max_sgd_steps=40)), fixed])
def test_a_seed_repeats_and_another_differs(modes, config):
    one, same, other = (connect(*modes, digits, config, seed=seed).anchors for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize("config", [replace(adaptive, driver=Adaptive(max_sgd_steps=60)), fixed])
def test_an_interrupted_search_continues_to_the_same_bytes(modes, config, tmp_path, interrupted_after):
    whole = connect(*modes, digits, config)
    with pytest.raises(KeyboardInterrupt):
        connect(*modes, digits, config, checkpoint=interrupted_after(3))
    continued = connect(*modes, digits, config, checkpoint=Checkpoint(tmp_path))
    assert torch.equal(whole.anchors, continued.anchors)
    pd.testing.assert_frame_equal(whole.log, continued.log)


def test_fixed_schedule_stays_on_the_spheres_of_the_start_and_ends_in_d(modes):
    path = connect(*modes, digits, fixed)
    assert path.reached(modes[1]) and len(path) == 5
    wanted = sphere.variance(modes[0])
    for state in path.states()[:-1]:
        for name, value in sphere.variance(state).items():
            torch.testing.assert_close(value, wanted[name].detach(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("options", "fraction"),
    [({"step_a": 0.25}, 0.25), ({"step_a": 0.25, "step_f": 0.1}, None), ({"step_a": 0.0, "step_f": 1e9}, 1.0)],
)
def test_a_move_follows_the_papers_formula(modes, options, fraction):
    """One tick without correction and with a vanishing learning rate leaves the move alone."""
    config = M2M(order="all", correction="none", lr=1e-30, batch=50, driver=Fixed(ticks=1, **options))
    path = connect(*modes, digits, config)
    layout, end = Layout.of(modes[0]), flatten(modes[1])
    for part in layout.slices.values():
        difference = end[part] - path.anchors[0][part]
        n = float(difference.norm())
        step = fraction * n if fraction is not None else 0.25 * n + 0.1
        moved = path.anchors[0][part] + min(step, n) / n * difference
        torch.testing.assert_close(path.anchors[1][part], moved)


def test_max_rule_and_arc_step(modes):
    layout, end = Layout.of(modes[0]), flatten(modes[1])
    config = M2M(order="all", correction="none", lr=1e-30, batch=50,
                 driver=Fixed(ticks=1, step_a=0.1, step_c=0.02, step_f=0.05, rule="max"))  # fmt: skip
    path = connect(*modes, digits, config)
    for part in layout.slices.values():
        p, d = path.anchors[0][part], end[part]
        n, norms = float((d - p).norm()), (float(p.norm()), float(d.norm()))
        arc = sum(norms) / 2 * math.acos(float(p @ d) / (norms[0] * norms[1]))
        step = max(0.05 + 0.02 * arc, 0.1 * n)
        torch.testing.assert_close(path.anchors[1][part], p + min(1, step / n) * (d - p), rtol=1e-4, atol=1e-6)


def test_an_arc_begins_at_the_start_or_where_its_stage_starts(modes, tmp_path, interrupted_after):
    """The paper's text and its code: they differ by what training did to a layer before it moves."""
    driver = Fixed(ticks=5, step_a=0, step_c=0.02, stages=((0, "^conv"), (2, "^fc")), unit="module")
    by_stage = replace(fixed, order="fdf", lr=0.1)
    texts, code = (replace(by_stage, driver=replace(driver, arc_from=each)) for each in ("start", "stage"))
    a, b = modes
    first, second = (connect(a, b, digits, each).anchors for each in (texts, code))
    assert torch.equal(first[:3], second[:3]) and not torch.equal(first[3], second[3])
    with pytest.raises(KeyboardInterrupt):
        connect(a, b, digits, code, checkpoint=interrupted_after(4))
    assert torch.equal(connect(a, b, digits, code, checkpoint=Checkpoint(tmp_path, every=0)).anchors, second)


def test_all_layers_are_corrected_or_those_that_move(modes):
    driver = Fixed(ticks=3, step_a=0.1, stages=((0, "^conv"), (9, "^fc")))
    config = replace(fixed, order="fdf", lr=0.1, driver=driver)
    before = sphere.variance(modes[0])
    for corrected, layers in (("all", before), ("moving", [name for name in before if name.startswith("conv")])):
        after = sphere.variance(connect(*modes, digits, replace(config, corrected=corrected)).states()[-2])
        kept = {name for name in before if torch.isclose(after[name], before[name], rtol=1e-5)}
        assert kept == set(layers)


def test_stages_start_when_the_schedule_says(modes):
    driver = Fixed(ticks=4, step_a=0.5, stages=((0, "^conv"), (2, "^fc")))
    path = connect(*modes, digits, M2M(correction="none", lr=1e-30, batch=50, driver=driver))
    distances = path.distances(modes[1])
    moved = distances.lt(distances.iloc[0] * 0.99)
    assert moved["conv1.weight"].tolist() == [False, True, True, True, True, True]
    assert moved["fc1.weight"].tolist() == [False, False, False, True, True, True]


def test_layer_orders():
    model = models.create("lenet5", digits, seed=0)
    flow = layer_order(model, digits, "fdf", 0)
    assert layer_order(model, digits, "reversed", 0) == flow[::-1]
    assert [len(layer) for layer in layer_order(model, digits, "all", 0)] == [10]
    shuffled = {tuple(layer_order(model, digits, "random", seed)) for seed in range(6)}
    assert len(shuffled) > 1 and all(sorted(order) == sorted(flow) for order in shuffled)


@given(st.floats(0, 3))
def test_points_lie_on_segments(position):
    anchors = torch.tensor([[0.0], [1.0], [5.0], [-1.0]])
    path = Path(nn.Linear(1, 1, bias=False), anchors)
    low, fraction = min(int(position), 2), position - min(int(position), 2)
    expected = anchors[low] * (1 - fraction) + anchors[low + 1] * fraction
    torch.testing.assert_close(path.point(position), expected, rtol=1e-5, atol=1e-5)


def test_evaluation_covers_both_ends_and_every_segment(modes):
    path = Path(modes[0], torch.stack([flatten(modes[0]), flatten(modes[1]), flatten(modes[0])]))
    points = path.evaluate(digits, interior_points=3)
    assert points.position.tolist() == [i / 4 for i in range(9)]
    assert points.anchor.sum() == 3
    assert points.arc.iloc[-1] == pytest.approx(float(path.lengths()[-1]), rel=1e-6)
    score = training.evaluate(modes[1], digits.train)
    assert points.train_loss[4] == pytest.approx(score.loss, rel=1e-5)
    assert path.max_loss(digits, interior_points=3) == points.train_loss.max()


def test_batch_norm_is_re_estimated_at_every_point():
    model = models.create("resnet18", digits, seed=0)
    spoilt = models.create("resnet18", digits, seed=0)
    for norm in batchnorm.batch_norms(spoilt).values():
        norm.running_mean.fill_(100.0)
    scores = [Path.linear(m, m).evaluate(digits, splits=("train",)).train_loss[0] for m in (model, spoilt)]
    assert scores[0] == scores[1]


def test_a_training_split_of_one_batch_is_evaluated_as_it_is_re_estimated(monkeypatch):
    path, passes = Path.linear(*(models.create("resnet18", digits, seed=seed) for seed in (0, 1))), []
    monkeypatch.setattr(
        "lib.connectivity.path.score", lambda *args: passes.append(args) or training.score(*args)
    )
    at_once = path.evaluate(digits, interior_points=1, splits=("train",)).train_loss
    assert not passes
    monkeypatch.setattr("lib.connectivity.path.NORM_IMAGES", len(digits.train) - 1)
    in_two_passes = path.evaluate(digits, interior_points=1, splits=("train",)).train_loss
    assert len(passes) == 3
    assert at_once.to_numpy() == pytest.approx(in_two_passes.to_numpy(), rel=1e-3)


def test_a_path_is_the_same_after_saving(modes, tmp_path):
    path = connect(*modes, digits, fixed)
    path.save(tmp_path / "path.safetensors")
    loaded = Path.load(tmp_path / "path.safetensors")
    assert torch.equal(loaded.anchors, path.anchors)
    pd.testing.assert_frame_equal(loaded.log, path.log)
    assert loaded.max_loss(digits, interior_points=0) == path.max_loss(digits, interior_points=0)


def test_a_model_from_outside_the_registry_needs_naming(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
    file = tmp_path / "path.safetensors"
    Path.linear(model, model).save(file)
    assert len(Path.load(file, model=model)) == 2
    with pytest.raises(InputError, match="its model is not of the registry, give model="):
        Path.load(file)
    with pytest.raises(InputError, match="holds another architecture"):
        Path.load(file, model=nn.Linear(2, 2))


def test_divergence_names_the_tick(modes):
    wild = M2M(order="all", lr=1e12, batch=50, driver=Fixed(ticks=9, step_a=0.1))
    with pytest.raises(FloatingPointError, match="path diverged at tick"):
        connect(*modes, digits, wild)


def damaged(tmp_path):
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(b"\x00" * 40)
    return Path.load(file)


def not_finite():
    model = models.create("lenet5", digits, seed=0)
    nn.init.constant_(model.fc1.weight, math.nan)
    return connect(model, model, digits)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tmp: connect(nn.Linear(2, 3), nn.Linear(2, 4), digits), "modes of different shape: 'weight'"),
        (lambda tmp: connect(nn.Linear(2, 3), nn.Linear(2, 3, bias=False), digits), "missing in the second"),
        (lambda tmp: not_finite(), "a: returns values that are not finite"),
        (lambda tmp: M2M(order="sideways"), "order='sideways': choose one of fdf, all, reversed, random"),
        (lambda tmp: M2M(correction="twice"), "correction='twice': choose one of none, before, after, both"),
        (lambda tmp: M2M(lr=0), "lr=0: must be larger than 0"),
        (lambda tmp: M2M(momentum=1), r"momentum=1: must be in \[0, 1\)"),
        (lambda tmp: M2M(epsilon=-1), "epsilon=-1: must be 0 or larger"),
        (lambda tmp: Adaptive(max_loss=0), "max_loss=0: must be larger than 0"),
        (lambda tmp: Adaptive(sgd_steps=2), "sgd_steps=2: must be at least chunk=5"),
        (lambda tmp: Adaptive(growth=0.5), "growth=0.5: must be 1 or larger"),
        (lambda tmp: Fixed(ticks=0), "ticks=0: must be larger than 0"),
        (lambda tmp: Fixed(rule="min"), "rule='min': choose one of sum, max"),
        (lambda tmp: Fixed(arc_from="end"), "arc_from='end': choose one of start, stage"),
        (lambda tmp: M2M(corrected="some"), "corrected='some': choose one of all, moving"),
        (lambda tmp: Fixed(unit="net"), "unit='net': choose one of tensor, module"),
        (lambda tmp: Fixed(step_a=0), "step_f, step_a, step_c: must not be negative, and one must be larger"),
        (lambda tmp: Fixed(min_sgd_steps=9), "max_sgd_steps=5: must be at least min_sgd_steps=9"),
        (lambda tmp: Path(nn.Linear(1, 1), torch.zeros(3)), r"anchors: shape \(3,\)"),
        (lambda tmp: Path(nn.Linear(1, 1), torch.zeros(3, 2)).point(2.5), "position=2.5: the path runs from 0 to 2"),
        (
            lambda tmp: Path(nn.Linear(1, 1), torch.zeros(3, 2)).evaluate(digits, interior_points=-1),
            "interior_points=-1",
        ),
        (lambda tmp: damaged(tmp), "damaged.safetensors': not a readable path"),
        (lambda tmp: Path.load(tmp / "none"), "not a readable path"),
    ],
)
def test_bad_input_is_one_clear_line(call, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_losses_of_a_path_do_not_depend_on_the_order_of_the_training_images():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(6000) % 6
    x = 2 * torch.randn(6, 1, 8, 8, generator=generator)[y] + torch.randn(6000, 1, 8, 8, generator=generator)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 6))
    ends = [copy.deepcopy(net), net]
    shuffled = tasks.from_tensors(x, y, x[:60], y[:60], name="mixed", device="cpu")
    for seed, end in enumerate(ends):
        training.train_mode(end, shuffled, training.Recipe(epochs=2, lr=0.05), seed=seed)
    order = y.argsort(stable=True)
    by_class = tasks.from_tensors(x[order], y[order], x[:60], y[:60], name="sorted", device="cpu")
    path = Path.linear(*ends)
    losses = [path.evaluate(data, interior_points=1).train_loss.to_numpy() for data in (shuffled, by_class)]
    np.testing.assert_allclose(*losses, atol=1e-3)
    norms = []
    for data in (shuffled, by_class):
        batchnorm.reestimate(net, data.train.x, batch=1000)
        norms.append(net[2].running_var.clone())
    torch.testing.assert_close(*norms, rtol=0.01, atol=0.0)


@given(st.integers(1, 40), st.lists(st.integers(0, 3), min_size=2, max_size=60))
def test_a_sample_holds_each_class_in_its_part_of_the_split(size, labels):
    y = torch.tensor(labels)
    split = tasks.Split(torch.arange(len(y)).float()[:, None, None, None], y)
    sample = split.sample(size)
    assert len(sample) == min(size, len(y)) and len(sample.x.unique()) == len(sample)
    assert (sample.y == y[sample.x.flatten().long()]).all()
    for label in y.unique():
        expected = (y == label).sum() * len(sample) / len(y)
        assert abs((sample.y == label).sum() - expected) <= 1


def test_the_fixed_schedule_moves_the_spheres_where_asked(modes):
    """Half of the way: a layer's variance lies between those of the ends, by the distance it has covered."""
    start, end = modes
    larger = copy.deepcopy(end)
    with torch.no_grad():
        for parameter in larger.parameters():
            parameter.mul_(2)
    driver = Fixed(ticks=1, step_a=0.5)
    for moving in (True, False):
        config = M2M(order="all", lr=1e-30, batch=50, moving_spheres=moving, driver=driver)
        path = connect(start, larger, digits, config)
        ends = [{n: v.detach() for n, v in sphere.variance(each).items()} for each in (start, larger)]
        middle = sphere.variance(path.states()[1])
        for name, value in middle.items():
            halfway = ends[0][name].lerp(ends[1][name], 0.5) if moving else ends[0][name]
            assert float(value) == pytest.approx(float(halfway), rel=1e-4)


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (
            Adaptive(max_sgd_steps=20),
            r"max_sgd_steps=20 are spent \(stage 1 of 1, .* of its distance left, \d+ SGD steps",
        ),
        (Adaptive(max_loss=1e-6), r"the start's own loss, .*, is above the bound max_loss=1e-06: raise max_loss"),
        (Adaptive(smallest_step=0.3, step=0.2), r"the step shrank below smallest_step=0.3"),
    ],
)
def test_a_search_that_does_not_arrive_warns_with_the_reason(modes, driver, reason):
    with pytest.warns(UserWarning, match=f"no path to the destination: {reason}"):
        path = connect(*modes, digits, replace(adaptive, driver=replace(driver, judge_images=200)))
    assert not path.reached(modes[1])


def test_a_search_that_arrives_does_not_warn(modes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths_found = [connect(*modes, digits, config) for config in (adaptive, fixed)]
    assert all(path.reached(modes[1]) for path in paths_found)


def test_a_mode_above_the_bound_is_said_before_the_search_starts(modes):
    start, _ = modes
    worse = models.create("lenet5", digits, seed=9)
    with pytest.warns(UserWarning, match=r"the search may not arrive: the end's own loss, 2\.\d+, is above the bound"):
        connect(start, worse, digits, replace(adaptive, driver=replace(adaptive.driver, max_sgd_steps=1)))
    near = replace(adaptive.driver, slack=1e-6, max_sgd_steps=1)
    with pytest.warns(UserWarning, match="may take many steps or not arrive: the start's own loss, .*, too near"):
        connect(*modes, digits, replace(adaptive, driver=near))


def test_a_mode_is_connected_with_itself_and_with_one_that_shares_layers(modes):
    start, _ = modes
    same = connect(start, start, digits, replace(adaptive, order="fdf"))
    assert same.reached(start)
    partly = copy.deepcopy(start)
    partly.fc3.load_state_dict({n: p + 0.01 for n, p in start.fc3.state_dict().items()})
    assert connect(start, partly, digits, replace(adaptive, order="fdf")).reached(partly)
