"""Figures and tables: the files, their words, and bytes that repeat."""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.report import context, figures, tables

DRAW = """
import matplotlib.pyplot as plt, pandas as pd
from lib.report import figures, tables
data = pd.DataFrame({"x": [1, 2, 3], "y": [0.1, 1 / 3, 0.2]})
fig, axes = plt.subplots(1, 2)
axes[0].plot(data.x, data.y, label="$v/N$")
axes[0].legend()
axes[1].imshow([[0, 1], [2, 3]])
figures.save(fig, "two", data, source="noise", caption="Two.")
tables.save(data, "two", caption="Two.", source="noise")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIB_RESULTS", str(tmp_path))
    monkeypatch.setenv("LIB_PROFILE", "smoke")
    yield tmp_path
    plt.close("all")


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_bytes_repeat_in_one_process_and_in_another(folder, tmp_path_factory):
    exec(DRAW, {})
    first = contents(folder)
    exec(DRAW, {})
    assert contents(folder) == first
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {**os.environ, "LIB_RESULTS": str(elsewhere), "PYTHONHASHSEED": "7", "MPLBACKEND": "agg"}
    subprocess.run([sys.executable, "-c", DRAW], env=environment, check=True)
    assert contents(elsewhere) == first
    kinds = [f"figures/two.{kind}" for kind in ("csv", "md", "pdf", "png")]
    assert list(first) == kinds + [f"tables/two.{kind}" for kind in ("csv", "md", "tex")]


def test_other_data_other_bytes(folder):
    exec(DRAW, {})
    first = contents(folder)
    exec(DRAW.replace("0.2]", "0.3]"), {})
    changed = {name for name, content in contents(folder).items() if content != first[name]}
    assert changed == {*first} - {"figures/two.md"}, "all but the caption"


@pytest.mark.parametrize("layout", ["constrained", "none"])
def test_footer_says_data_and_profile_once_and_figure_stays_open(layout):
    fig, ax = plt.subplots(layout=layout)
    ax.set_xlabel("tick")
    data = pd.DataFrame({"x": [1.0]}, index=pd.Index([5], name="tick"))
    for _ in range(2):
        figures.save(fig, "footer", data, source="noise", caption="A caption with $v/N$.")
    assert [text.get_text() for text in fig.texts] == ["data: noise · profile: smoke"]
    assert plt.fignum_exists(fig.number)
    path = context.target("figures", "footer")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".csv").read_text() == "tick,x\n5,1\n"
    assert path.with_suffix(".md").read_text() == "A caption with $v/N$.\n"
    fig.draw_without_rendering()
    label = ax.xaxis.label.get_window_extent()
    assert label.y0 > fig.texts[0].get_window_extent().y1, "the footer is below the axis label"


def test_table_in_three_forms(folder):
    frame = pd.DataFrame({"model_name": ["a|b", "50%"], "loss": [1 / 3, 12345.678], "n": [1, 2]})
    shown = tables.save(frame, "forms", caption="Losses.", source="noise")
    assert shown.equals(frame)
    text = {kind: (folder / f"tables/forms.{kind}").read_text() for kind in ("csv", "md", "tex")}
    assert pd.read_csv(folder / "tables/forms.csv").loss.tolist() == pytest.approx([1 / 3, 12345.678])
    assert text["md"].startswith("Losses. (data: noise; profile: smoke)\n\n| model_name")
    assert "a\\|b" in text["md"]
    assert "0.3333" in text["md"]
    for part in (r"\toprule", r"model\_name", r"50\%", r"\label{tab:forms}", r"\begin{tabular}{lrr}"):
        assert part in text["tex"]


def test_named_index_becomes_a_column():
    frame = pd.DataFrame({"loss": [0.5]}, index=pd.Index(["a"], name="model"))
    assert list(tables.save(frame, "indexed", caption="c", source="s")) == ["model", "loss"]


def test_a_failed_write_leaves_the_old_file_and_no_partial(folder, monkeypatch):
    path = folder / "figures" / "kept.csv"
    context.write(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        context.write(path, "new")
    assert contents(folder) == {"figures/kept.csv": b"old"}


def test_without_the_runner_results_are_interactive(monkeypatch):
    monkeypatch.delenv("LIB_RESULTS")
    monkeypatch.delenv("LIB_PROFILE")
    assert context.results().name == context.profile() == context.notebook() == "interactive"
