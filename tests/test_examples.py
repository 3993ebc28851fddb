"""The examples in docstrings of ``lib`` run, and print what they say."""

import doctest
import importlib

import pytest

from lib import folders

WITH_EXAMPLES = sorted(
    ".".join(file.relative_to(folders.ROOT).with_suffix("").parts)
    for file in (folders.ROOT / "lib").rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
