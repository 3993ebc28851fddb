"""Shared by all tests: one thread, an own cache of runs, and nothing of the user's environment."""

import os
import shutil
import tempfile
from functools import partial

# Before anything imports lib.folders, which reads it once.
_cache = tempfile.TemporaryDirectory(prefix="lib-test-cache-")
os.environ["LIB_CACHE"] = _cache.name
for _name in (
    "DASK_SCHEDULER_ADDRESS",
    "DEVICE",
    "LIB_RESULTS",
    "LIB_PROFILE",
    "LIB_NOTEBOOK",
    "LIB_WRITTEN",
):
    os.environ.pop(_name, None)

import nbformat
import pytest
import torch
from hypothesis import settings
from nbformat import v4

from lib import folders
from lib.checkpoint import Checkpoint

# No timed assertions, and the same examples on every machine.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
torch.set_num_threads(1)


class _Interrupted(Checkpoint):
    """Saves at every chance, and Ctrl-C comes with the last of some saves."""

    def __init__(self, folder, saves):
        super().__init__(folder, every=0)
        self.left = saves

    def save(self, state):
        super().save(state)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted_after(tmp_path):
    """A function (saves) that makes a checkpoint in ``tmp_path`` that is interrupted after so many saves."""
    return partial(_Interrupted, tmp_path)


KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.fixture(scope="session")
def write_notebook():
    """A function (path, parameters cell or None, other cells' code) that writes a notebook."""

    def write(path, parameters, *code):
        cells = [v4.new_markdown_cell("# A toy with $v/N$"), *map(v4.new_code_cell, code)]
        if parameters is not None:
            cells.insert(1, v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)

    return write


EXECUTED = "gossip/10-settings-and-algorithms"


@pytest.fixture(scope="session")
def executed_notebook():
    """Name of the one notebook that `report` shows as executed."""
    return EXECUTED


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """Folder of a report that is built from the committed laptop results, and one notebook that has run."""
    from lib.report import plan, site

    folder = tmp_path_factory.mktemp("results") / "laptop"
    shutil.copytree(
        folders.RESULTS / "laptop", folder, ignore=shutil.ignore_patterns("executed", "report", "report-*")
    )
    notebook = nbformat.read(folders.NOTEBOOKS / f"{EXECUTED}.ipynb", as_version=4)
    notebook.cells[-1].outputs = [v4.new_output("stream", text="measured 42\n")]
    run = folder / "executed" / f"{EXECUTED}.ipynb"
    run.parent.mkdir(parents=True)
    nbformat.write(notebook, run)
    return site.build("laptop", states=plan.states([], folder), folder=folder).parent
