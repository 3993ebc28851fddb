"""The examples in docstrings of ``lib`` run, and print what they say."""

import doctest
import importlib

import pytest

from lib import paths

WITH_EXAMPLES = sorted(
    ".".join(file.relative_to(paths.ROOT).with_suffix("").parts)
    for file in (paths.ROOT / "lib").rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
