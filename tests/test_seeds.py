import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import seeds

names = st.lists(st.one_of(st.text(max_size=5), st.integers(-5, 5)), max_size=4)


@given(st.integers(), names, st.integers(), names)
def test_derived_seeds_are_equal_exactly_when_seed_and_names_are(seed, path, other_seed, other_path):
    def typed(values):
        return [(type(value), value) for value in values]

    one, other = seeds.derive(seed, *path), seeds.derive(other_seed, *other_path)
    assert (one == other) == (typed([seed, *path]) == typed([other_seed, *other_path]))
    assert 0 <= one < 2**63


def test_derived_seeds_never_change_between_versions():
    assert seeds.derive(0, "a") == 2671967653362453091
    assert seeds.derive(0, "a", 1) == 5352727647617221297


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: torch.rand(3, generator=seeds.generator(seed, "x")).tolist(),
        lambda seed: seeds.numpy(seed, "x").random(3).tolist(),
    ],
)
def test_same_seed_equal_other_seed_different(draw):
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_scope_seeds_the_global_generator_and_gives_the_former_state_back():
    before = torch.get_rng_state()
    with seeds.scope(1, "init"):
        first = torch.rand(2)
    with seeds.scope(1, "init"):
        assert torch.equal(torch.rand(2), first)
    with seeds.scope(2, "init"):
        assert not torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_scope_gives_the_former_state_back_after_an_error():
    before = torch.get_rng_state()
    with contextlib.suppress(KeyError), seeds.scope(1):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("seed", "name"), [(1.0, "a"), (True, "a"), ("1", "a"), (1, 0.5), (1, None), (1, True)]
)
def test_what_is_no_seed_and_no_name_is_refused(seed, name):
    with pytest.raises(TypeError, match="seed must be an int and names str or int"):
        seeds.derive(seed, name)


def test_numpy_integers_are_refused_like_other_types():
    with pytest.raises(TypeError, match="seed must be an int"):
        seeds.derive(np.int64(1), "a")
