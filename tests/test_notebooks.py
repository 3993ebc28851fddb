"""Every notebook of the bundle: its form, and the smoke profile through the real runner.

One run of all of them serves all tests; unchanged notebooks are reused from an earlier `make test`.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import nbformat
import papermill
import pytest
import survive

from lib import folders
from lib.figures import style
from lib.report import claims, parameters, plan

pytestmark = pytest.mark.xdist_group("notebooks")
NOTEBOOKS = plan.find()
NOT_WORTH_READING = re.compile(r"(?<!\.)tensor\([-[\d]|PosixPath\(|\d+ reused, \d+ to run|\d+/\d+ done")
ITEMS = [row for row in claims.read_rows(folders.DATA / "items.csv") if row["notebook"]]


@pytest.fixture(scope="session")
def smoke():
    """The finished process of a smoke run of everything, with the user's cache of runs."""
    environment = {name: value for name, value in os.environ.items() if name not in ("LIB_CACHE", "DATA_DIR")}
    command = [sys.executable, "-m", "lib.report.notebooks", "--profile", "smoke", "--jobs", "2"]
    # Where tests are spread over processes, the second to ask waits, and finds everything done.
    lock = Path(tempfile.gettempdir()) / f"lib-smoke-{hashlib.sha256(bytes(folders.ROOT)).hexdigest()[:12]}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        return subprocess.run(command, cwd=folders.ROOT, env=environment, capture_output=True, text=True, check=False)


def test_smoke_profile_runs_and_no_claim_fails(smoke):
    assert smoke.returncode == 0, f"{smoke.stdout}\n{smoke.stderr}"
    assert "claims reproduced" in smoke.stdout
    assert "report: " in smoke.stdout


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_was_executed(smoke, name):
    assert f"{name}: reused" in smoke.stdout or (folders.RESULTS / f"smoke/executed/{name}.html").is_file()
    assert (folders.RESULTS / f"smoke/quantities/{name}.json").is_file()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_worth_reading(smoke, name):
    notebook = nbformat.read(folders.RESULTS / f"smoke/executed/{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            texts = [output.get("text", ""), *(t for kind, t in output.get("data", {}).items() if "image" not in kind)]
            assert max(map(len, texts)) <= 20_000, cell.source
            assert NOT_WORTH_READING.findall(" ".join(texts)) == [], cell.source


def test_a_notebook_that_fails_is_named_last_and_its_claims_do_not_count(smoke, tmp_path):
    """In a copy of the tree and its results of a full run, one notebook is made to fail."""
    copy = survive.copy_tree(tmp_path / "copy")
    unused = shutil.ignore_patterns("report*", ".lock")
    shutil.copytree(folders.RESULTS / "smoke", copy / "results/smoke", ignore=unused)
    name = "gossip/10-settings-and-algorithms"
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("raise KeyError('no such thing')"))
    nbformat.write(notebook, copy / f"notebooks/{name}.ipynb")
    environment = {key: value for key, value in os.environ.items() if key not in ("LIB_CACHE", "DATA_DIR")}
    command = [sys.executable, "-m", "lib.report.notebooks", "--profile", "smoke"]
    done = subprocess.run(
        command, cwd=copy, env={**environment, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert sum("reused" in line for line in lines) == len(NOTEBOOKS) - 1, done.stdout
    assert lines[-1].startswith(f"FAILED {name}: cell [")
    assert lines[-1].endswith("KeyError: 'no such thing'")
    verdicts = (copy / "results/smoke/claims.md").read_text()
    (settings,) = (line for line in verdicts.splitlines() if "gossip, T2" in line)
    assert "| failed (cell [" in settings


@pytest.mark.parametrize("row", ITEMS, ids=lambda row: row["item"])
def test_item_has_its_notebook_and_its_files(smoke, row):
    assert set(row["notebook"].split()) <= set(NOTEBOOKS)
    missing = [name for name in row["files"].split() if not (folders.RESULTS / "smoke" / name).is_file()]
    assert missing == []


def test_figures_have_a_caption_a_width_for_print_and_no_text_below_six_points(smoke):
    pictures = sorted((folders.RESULTS / "smoke/figures").glob("*.pdf"))
    assert pictures
    for file in pictures:
        assert file.with_suffix(".md").read_text().startswith("**"), file
        content = file.read_bytes()
        (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", content)
        assert round(float(width) / 72, 2) in (style.COLUMN, style.PAGE), file
        streams = re.findall(rb"FlateDecode[^>]*>>\s*stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
        drawn = b"".join(zlib.decompressobj().decompress(stream) for stream in streams)
        sizes = {float(size) for size in re.findall(rb"/\S+ ([\d.]+) Tf", drawn)}
        assert sizes and min(sizes) >= style.SMALL, (file, sorted(sizes))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_form_of_the_notebook(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    first, second = notebook.cells[:2]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert "parameters" in second.metadata.tags
    assert notebook.metadata.kernelspec.name == "python3"
    long = [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.source.count("\n") > 40]
    assert long == [], "long code belongs in lib"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_papermill_shows_each_parameter_with_its_help(name):
    declared = parameters.declared(nbformat.read(NOTEBOOKS[name], as_version=4), name=name)
    shown = papermill.inspect_notebook(str(NOTEBOOKS[name]))
    assert set(shown) == set(declared)
    assert [parameter for parameter, about in shown.items() if not about["help"]] == []


def test_every_profile_fits_every_notebook():
    profiles = sorted(file.stem for file in (folders.NOTEBOOKS / "profiles").glob("*.yaml"))
    assert profiles == ["cifar", "paper", "smoke"]
    planned = {profile: len(plan.plan(profile, "*", {})) for profile in ("laptop", *profiles)}
    assert set(planned.values()) == {len(NOTEBOOKS)}
