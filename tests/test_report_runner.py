"""The notebook runner on small real notebooks: what it runs, reuses, reports, and leaves behind."""

import functools
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lib.report import claims, notebooks
from lib.report.display import Display
from lib.report.execute import up_to_date

pytestmark = pytest.mark.xdist_group("runner")

PARAMETERS = "seed: int = 0  # random seed\nrates: list[float] = [0.1, 1]  # learning rates"
DRAW = """
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from lib.report import claims, figures, tables
data = pd.DataFrame({"x": range(9), "y": np.random.default_rng(seed).normal(size=9)})
fig, ax = plt.subplots()
ax.plot(data.x, data.y)
figures.save(fig, f"{name}-figure", data, source="noise")
tables.save(data, f"{name}-table", caption="Noise.", source="noise")
claims.record(f"{name}.mean", data.y.mean())
"""
FILES = ("figures/{}-figure.png", "figures/{}-figure.pdf", "figures/{}-figure.csv", "tables/{}-table.csv",
         "tables/{}-table.md", "tables/{}-table.tex", "quantities/toys/{}.json",
         "executed/toys/{}.ipynb", "executed/toys/{}.html")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _no_cluster():
    """An address that nobody asks: toy notebooks have no runs, so the runner need not start a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_notebook):
    root = tmp_path_factory.mktemp("bundle")
    for name in ("good", "other"):
        write_notebook(root / f"notebooks/toys/{name}.ipynb", PARAMETERS, f"name = '{name}'", DRAW)
    failing = "def fail():\n    raise ValueError('first line\\nlast line')\nfail()"
    write_notebook(root / "notebooks/toys/failing.ipynb", PARAMETERS, "x = 1", failing)
    write_notebook(root / "notebooks/toys/dying.ipynb", PARAMETERS, "import os\nos.kill(os.getpid(), 9)")
    (root / "notebooks/profiles").mkdir()
    (root / "notebooks/profiles/smoke.yaml").write_text("toys/good: {seed: 5}\n")
    return root


@pytest.fixture(scope="module")
def first(root):
    """Outcomes of the first run of everything, two side by side."""
    return notebooks.run(notebooks.plan("laptop", "*", {}, root=root), side_by_side=2)


def contents(folder, name):
    return {file: (folder / file.format(name)).read_bytes() for file in FILES[:7]}


def test_a_failure_names_cell_and_error_and_stops_no_other(first):
    errors = {outcome.job.name: outcome.error for outcome in first}
    assert errors == {
        "toys/dying": "its Python process died; the usual cause is a lack of memory",
        "toys/failing": "cell [3]: ValueError: last line",
        "toys/good": None,
        "toys/other": None,
    }


def test_files_are_where_they_belong(root, first):
    left = {path.relative_to(root / "results/laptop").as_posix() for path in root.glob("results/laptop/**/*.*")}
    assert {file.format("good") for file in FILES} <= left
    assert not (root / "results/laptop/executed/toys/failing.ipynb").exists()


def test_reused_unless_something_changed(root, first, capsys):
    jobs = notebooks.plan("laptop", "toys/good toys/other", {}, root=root)
    assert notebooks.run(jobs) == []
    assert capsys.readouterr().out.count("reused") == 2
    figure = jobs[0].results / "figures/good-figure.csv"
    whole = figure.read_bytes()
    figure.write_bytes(whole[:-1])
    assert [up_to_date(job) for job in jobs] == [False, True]
    assert [outcome.job.name for outcome in notebooks.run(jobs)] == ["toys/good"]
    assert figure.read_bytes() == whole


def test_profile_and_parameters_reach_the_notebook_and_same_seed_same_bytes(root, first):
    smoke = notebooks.plan("smoke", "toys/good", {}, root=root)
    custom = notebooks.plan("laptop", "toys/good", {"seed": 5}, root=root)
    assert [outcome.error for job in (smoke, custom) for outcome in notebooks.run(job)] == [None, None]
    measured = [
        json.loads((job.results / "quantities/toys/good.json").read_text())["good.mean"]
        for job in (smoke[0], custom[0], notebooks.plan("laptop", "toys/good", {}, root=root)[0])
    ]
    assert measured[0] == measured[1] != measured[2]
    assert custom[0].results.name == "laptop-custom", "results of other parameters stay out of the profile's"
    again = contents(custom[0].results, "good")
    notebooks.run(custom, again=True)
    assert contents(custom[0].results, "good") == again


def test_claims_of_what_ran_and_what_did_not(root, first):
    claim = claims.Claim(
        "c", "p", "no-item", "s", "good.mean", "<", 9.0, 0.0, ("laptop",), "here", "ours"
    )  # fmt: skip
    (verdict,) = claims.judge("laptop", claims=[claim], folder=root / "results/laptop")
    assert verdict.result == "reproduced"


def test_another_run_holds_the_folder(root, first):
    job = notebooks.plan("laptop", "toys/failing", {}, root=root)[0]
    with notebooks._alone(job.results), pytest.raises(ValueError, match="another run is writing there"):
        notebooks.run([job])


def test_interrupted_run_ends_its_kernel_and_can_be_resumed(tmp_path, write_notebook):
    alive = tmp_path / "alive"
    slow = f"import os, pathlib, time\npathlib.Path({str(alive)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    write_notebook(tmp_path / "notebooks/slow.ipynb", PARAMETERS, slow)
    script = (
        "from pathlib import Path; from lib.report import notebooks\n"
        f"notebooks.run(notebooks.plan('laptop', '*', {{}}, root=Path({str(tmp_path)!r})))"
    )
    # A job in the background of a shell inherits that Ctrl-C is ignored.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    runner = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, preexec_fn=heed)
    wait_for(alive.exists)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(timeout=120) != 0
    kernel = int(alive.read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{kernel}"))
    assert not (tmp_path / "results/laptop/executed/slow.ipynb").exists()
    assert not up_to_date(notebooks.plan("laptop", "*", {}, root=tmp_path)[0])


@pytest.mark.parametrize("terminal", [False, True])
def test_display_is_live_in_a_terminal_and_plain_in_a_log(terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    with Display(2, stream) as display:
        display.running("a", "1/3")
        if terminal:
            wait_for(lambda: "0/2 done" in stream.getvalue())
        display.finished("a", "3 s")
    text = stream.getvalue()
    assert "[1/2] a: 3 s\n" in text
    assert ("running a (cell 1/3)" in text) == terminal
    assert ("\x1b" in text) == terminal


def wait_for(condition, seconds=60):
    """Until `condition` holds; the limit only keeps a broken run from hanging."""
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("did not happen")
