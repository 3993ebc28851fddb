"""The page of what is supported, against the tests that it names; a path for each kind of module."""

import importlib
import re

import pytest
from module_kinds import GROUPED, KINDS, OTHERS, task

from lib import connectivity, training
from lib.batchnorm import batch_norms
from lib.folders import ROOT
from lib.weights import same_constants

PAGE = (ROOT / "docs" / "supported.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")]
TEST = r"`(test_\w+)\.py::(test_\w+)(?:\[([^`]*)\])?`"
NAMED = re.findall(TEST, PAGE)
DATA = task()


def values(function):
    """What a test is parametrised by, as words."""
    found = [mark.args[1] for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    return {str(value) for each in found for value in each}


@pytest.mark.parametrize("file", sorted({file for file, _, _ in NAMED}))
def test_the_tests_that_hold_the_page_are_there(file):
    module = importlib.import_module(file)
    for _, name, value in (each for each in NAMED if each[0] == file):
        assert callable(getattr(module, name, None)), name
        assert not value or value in values(getattr(module, name)), f"{name}[{value}]"


def test_every_row_names_a_test_or_says_no():
    for row in ROWS:
        assert len(row) == 3, row
        if row[2] not in ("held by", "---"):
            assert row[1:] == ["no", "not tested"] or re.fullmatch(f"({TEST}(, )?)+", row[2]), row


def test_the_page_names_every_kind_of_module_and_how_it_runs():
    listed = {row[0].split(",")[0]: row[1] for row in ROWS}
    assert listed["all nodes as one network"] == "; ".join(GROUPED)
    assert listed["by `torch.func` or one after another"] == "; ".join(OTHERS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_of_every_kind_ends_with_the_loss_of_its_end(kind):
    a, b = (KINDS[kind](seed) for seed in (1, 2))
    if not same_constants(a, b):  # such as vectors of spectral norm, masks of pruning, frozen weights
        for tensor, own in zip((*b.buffers(), *b.parameters()), (*a.buffers(), *a.parameters()), strict=True):
            if not tensor.requires_grad:
                tensor.copy_(own)
    path = connectivity.connect(a, b, DATA, connectivity.M2M(driver=connectivity.Fixed(ticks=2), batch=20))
    assert path.reached(b)
    found = path.evaluate(DATA, splits=("train",)).train_loss
    if not batch_norms(b):  # their statistics are those of the path's point, not those that the model came with
        ends = [training.evaluate(mode, DATA.train).loss for mode in (a, b)]
        assert [found.iloc[0], found.iloc[-1]] == pytest.approx(ends, rel=1e-4)
