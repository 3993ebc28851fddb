"""Paths that go abreast: each as if it went alone, seeds, resume, bad input."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lib import models, tasks
from lib.checkpoint import Checkpoint
from lib.connectivity import M2M, Adaptive, Fixed, connect, connect_abreast
from lib.errors import InputError
from lib.weights import flatten

digits = tasks.load("digits", size=12, device="cpu").subset(120, 20)
# In float64, for rounding grows along a path: a batch-norm network forgets where it came from.
digits = replace(
    digits, **{n: tasks.Split(s.x.double(), s.y) for n, s in (("train", digits.train), ("test", digits.test))}
)
schedule = Fixed(ticks=6, step_f=0.05, step_a=0.05, step_c=0.01, unit="module", record_every=2)
config = M2M(order="all", moving_spheres=False, batch=20, lr=0.05, driver=schedule)


def pairs(family, count=3):
    return list(pairwise(models.create(family, digits, seed=seed).to(digits.train.x) for seed in range(count + 1)))


@pytest.mark.parametrize("family", ["lenet5", "resnet18"])
@pytest.mark.parametrize("order", ["all", "fdf"])
def test_paths_abreast_are_those_of_each_pair_alone(family, order):
    each = replace(config, order=order)
    together = connect_abreast(pairs(family), digits, each, seeds=[4, 5, 6])
    for path, pair, seed in zip(together, pairs(family), [4, 5, 6], strict=True):
        alone = connect(*pair, digits, each, seed=seed)
        assert path.reached(pair[1]) and torch.equal(path.anchors[0], flatten(pair[0]))
        assert path.log.sgd_steps.tolist() == alone.log.sgd_steps.tolist()
        torch.testing.assert_close(path.anchors, alone.anchors, rtol=0, atol=1e-10)


def test_a_seed_repeats_and_another_differs():
    one, same, other = (
        connect_abreast(pairs("lenet5"), digits, config, seeds=s) for s in ([1, 2, 3], [1, 2, 3], [1, 2, 4])
    )
    equal = [[torch.equal(a.anchors, b.anchors) for a, b in zip(one, paths, strict=True)] for paths in (same, other)]
    assert equal == [[True, True, True], [True, True, False]]


def test_an_interrupted_search_continues_to_the_same_bytes(tmp_path, interrupted_after):
    whole = connect_abreast(pairs("lenet5"), digits, config, seeds=[1, 2, 3])
    with pytest.raises(KeyboardInterrupt):
        connect_abreast(pairs("lenet5"), digits, config, seeds=[1, 2, 3], checkpoint=interrupted_after(3))
    parts = connect_abreast(pairs("lenet5"), digits, config, seeds=[1, 2, 3], checkpoint=Checkpoint(tmp_path))
    assert all(torch.equal(a.anchors, b.anchors) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize(
    ("change", "seeds", "message"),
    [
        (
            {"driver": Adaptive()},
            [0],
            r"driver=Adaptive.*: paths abreast need Fixed with min_sgd_steps equal to max_sgd_steps",
        ),
        (
            {"driver": replace(schedule, max_sgd_steps=9)},
            [0],
            "paths abreast need Fixed with min_sgd_steps equal to max_sgd_steps",
        ),
        ({"moving_spheres": True}, [0], "moving_spheres=True: paths abreast stay on the spheres of their starts"),
        ({"corrected": "moving"}, [0], "corrected='moving': paths abreast correct all layers, give 'all'"),
        ({"order": "random"}, [0], "order='random': paths abreast need an order that they share"),
        ({}, [0, 1], "seeds: 2 for 1 pairs, needs one for each"),
    ],
)
def test_bad_input_is_one_clear_line(change, seeds, message):
    with pytest.raises(InputError, match=message) as caught:
        connect_abreast(pairs("lenet5", 1), digits, replace(config, **change), seeds=seeds)
    assert "\n" not in str(caught.value)


def test_modes_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"shape|parameters"):
        connect_abreast([*pairs("lenet5", 1), *pairs("resnet18", 1)], digits, config, seeds=[0, 1])


def test_divergence_names_the_tick():
    with pytest.raises(FloatingPointError, match="path diverged at tick"):
        connect_abreast(pairs("lenet5", 2), digits, replace(config, lr=1e200), seeds=[0, 1])
