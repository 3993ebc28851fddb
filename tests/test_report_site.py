"""The report: built from executed notebooks, readable without a network, not built twice."""

import re

import nbformat
import pytest
from nbformat import v4

from lib import paths
from lib.errors import InputError
from lib.report import claims, coverage, site

FETCHED = re.compile(r"<(?:script|link|img)[^>]*(?:src|href)=[\"'](?:https?:)?//[^\"']*")


@pytest.fixture
def folder(tmp_path, write_notebook):
    page = tmp_path / "executed/toys/a.ipynb"
    write_notebook(page, "seed: int = 0", "print(seed)")
    notebook = nbformat.read(page, as_version=4)
    notebook.cells[-1].outputs = [v4.new_output("stream", text="measured 42\n")]
    nbformat.write(notebook, page)
    (tmp_path / "figures").mkdir()
    for kind in ("png", "pdf", "csv"):
        (tmp_path / f"figures/curve.{kind}").write_bytes(b"some")
    return tmp_path


def test_pages_figures_and_no_network(folder):
    first = site.build("smoke", states={}, folder=folder)
    html = first.read_text()
    page = (folder / "report/toys/a.html").read_text()
    assert "Results at" in html
    assert 'href="figures/curve.pdf"' in html
    assert (folder / "report/figures/curve.csv").exists()
    assert "measured 42" in page
    assert re.search(r"<math.*<mi>N</mi>", page, re.DOTALL), "formulas are MathML"
    assert FETCHED.findall(html + page) == []
    built = first.stat().st_mtime_ns
    assert site.build("smoke", states={}, folder=folder).stat().st_mtime_ns == built, "up to date: not built again"
    (folder / "figures/curve.png").write_bytes(b"other")
    assert site.build("smoke", states={}, folder=folder).stat().st_mtime_ns != built
    assert not list(folder.glob("report-*")), "nothing half-built stays"


def test_nothing_executed(tmp_path):
    with pytest.raises(InputError, match="profile=smoke: no executed notebooks; run: make reproduce PROFILE=smoke"):
        site.build("smoke", states={}, folder=tmp_path)


def test_coverage_table_of_the_readme_is_up_to_date():
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert coverage.fill(text) == text, "run: make coverage"


def test_an_item_is_regenerated_only_if_all_its_notebooks_were():
    row = next(row for row in claims.read_rows(paths.DATA / "items.csv") if " " in row["notebook"])
    names = row["notebook"].split()
    last_cells = {}
    for state in ("current", "stale", "failed: cell [3]: KeyError: 'x'", "as committed"):
        table = coverage.table(states={**dict.fromkeys(names, "current"), names[0]: state})
        line = next(line for line in table.splitlines() if f"| {row['item']} |" in line)
        last_cells[state] = line.split("|")[-2].strip()
    assert list(last_cells.values()) == [
        "regenerated", "regenerated, stale", "failed, regenerated", "as committed, regenerated",
    ]  # fmt: skip
