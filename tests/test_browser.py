"""The report and JupyterLab in a browser: what a reader sees and does, in a headless Chromium."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import browser
import pytest

from lib import folders

pytestmark = [
    pytest.mark.xdist_group("report"),
    pytest.mark.skipif(browser.find() is None, reason="no Chromium on this machine"),
]
NOTEBOOK = "jupyterapp?.shell.currentWidget"
TOO_WIDE = """(() => {
  const limit = document.scrollingElement.clientWidth;
  return document.scrollingElement.scrollWidth > limit
    ? [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > limit + 1)
        .slice(0, 5).map((each) => `${each.tagName}.${each.className}`) : [];
})()"""
CLIPPED = """[...document.querySelectorAll("article pre")]
  .filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth + 1).map((each) => each.textContent)"""


def texts(selector):
    """JavaScript for the texts of all elements that a selector finds."""
    return f"[...document.querySelectorAll({selector!r})].map((each) => each.textContent)"


def typed(field, value):
    """JavaScript that gives a field of the filter a value, as a reader does."""
    return (
        f"void (() => {{ const field = document.querySelector('form.filter [name={field}]'); field.value = {value!r};"
        "field.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


@pytest.fixture(scope="module")
def tab():
    with browser.launch() as tab:
        yield tab


@pytest.fixture(scope="module")
def pages(report):
    return [page.relative_to(report).as_posix() for page in sorted(report.rglob("*.html"))
            if page.relative_to(report).parts[0] not in ("_static", "notebooks")]  # fmt: skip


def test_every_page_is_whole_on_a_phone_and_a_screen_light_and_dark(report, pages, tab):
    assert len(pages) > 40
    backgrounds = {True: {}, False: {}}
    for number, page in enumerate(pages):
        for width, dark in ((390, number % 2 == 0), (1280, number % 2 == 1)):  # either way round, for half of the pages
            tab.show_as(width=width, dark=dark)
            if width == 390:
                tab.open(f"file://{report}/{page}")
            tab.wait_for(f"document.documentElement.dataset.theme === '{'dark' if dark else 'light'}'")
            assert tab.evaluate(TOO_WIDE) == [], f"{page} at {width} pixels"
            assert tab.evaluate(CLIPPED) == [], f"{page} at {width} pixels"
            backgrounds[dark][page] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert tab.problems == [], page
        assert [request for request in tab.requests if not request.startswith(("file:", "data:"))] == [], page
    dark, light = (set(each.values()) for each in backgrounds.values())
    assert len(dark) == len(light) == 1, backgrounds
    assert dark != light


def test_the_search_finds_a_variance_sphere_with_an_excerpt(report, tab):
    tab.open(f"file://{report}/search.html?q=variance+sphere")
    tab.wait_for("document.querySelector('#search-results').textContent.includes('Search finished')")
    excerpts = tab.wait_for(texts("#search-results p.context"))
    assert any("variance sphere" in excerpt.lower() for excerpt in excerpts)
    assert any("Variance spheres" in title for title in tab.evaluate(texts("#search-results li > a")))
    assert tab.problems == []


def test_the_filter_filters(report, tab):
    tab.open(f"file://{report}/claims.html")
    shown = texts("table.claims tbody tr:not([hidden])")
    every = tab.evaluate(shown)
    tab.evaluate(typed("kind", "fails"))
    failing = tab.evaluate(shown)
    assert 0 < len(failing) < len(every)
    assert all("not reproduced" in row for row in failing)
    tab.evaluate(typed("text", "plateau"))
    fewer = tab.evaluate(shown)
    assert 0 < len(fewer) < len(failing)
    assert all("plateau" in row.lower() for row in fewer)
    assert tab.evaluate("document.querySelector('form.filter output').value") == f"{len(fewer)} of {len(every)} claims"


def test_a_word_of_the_glossary_shows_its_definition(report, tab):
    tab.show_as(width=390)
    tab.open(f"file://{report}/concepts/gossip.html")
    tab.evaluate("document.querySelector('a.term').focus()")
    box = "document.querySelector('#definition')"
    assert tab.evaluate(f"{box}.hidden") is False
    assert tab.evaluate(f"{box}.textContent").startswith("Nodes of a graph train")
    assert tab.evaluate(f"{box}.getBoundingClientRect().right") <= 390


@contextlib.contextmanager
def jupyterlab(folder, log):
    """Address of a JupyterLab that serves a folder."""
    environment = os.environ | {
        "PYTHONPATH": str(folders.ROOT), "OMP_NUM_THREADS": "1", "LIB_RESULTS": str(folder / "results"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "JUPYTER_CONFIG_DIR": str(folder / "config"),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0", f"--notebook-dir={folder}",
        "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
    ]  # fmt: skip
    with open(log, "w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as server:
        try:
            end = time.monotonic() + 60
            while not (found := list((folder / "runtime").glob("jpserver-*.json"))):
                assert server.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.2)
            yield json.loads(found[0].read_text())["url"]
        finally:
            server.terminate()


def test_jupyterlab_starts_an_explore_notebook_runs_all_cells_and_a_slider_moves_its_figure(tmp_path, tab):
    shutil.copyfile(folders.NOTEBOOKS / "explore/why-variance-vanishes.ipynb", tmp_path / "notebook.ipynb")
    with jupyterlab(tmp_path, tmp_path / "log") as address:
        tab.show_as(width=1280)
        tab.open(f"{address}lab/tree/notebook.ipynb")
        tab.wait_for(f"window.{NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'", 90)
        tab.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
        cells = f"{NOTEBOOK}.model.sharedModel.toJSON().cells.filter((each) => each.cell_type === 'code')"
        errors = f"{cells}.flatMap((each) => each.outputs).filter((each) => each.output_type === 'error')"
        tab.wait_for(f"{cells}.every((each) => each.execution_count) || {errors}.length", 180)
        assert tab.evaluate(errors) == []
        figure = "document.querySelector('.jp-OutputArea-output img').src"
        before = tab.wait_for(figure)
        tab.wait_for("!!document.querySelector('.widget-slider .noUi-handle')")
        tab.evaluate("document.querySelector('.widget-slider .noUi-handle').focus()")
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
        tab.wait_for(f"{figure} !== {before!r}", 60)
