"""The notebook runner on small real notebooks: what it runs, reuses, reports, and leaves behind."""

import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.errors import InputError
from lib.report import claims, execute, notebooks, times
from lib.report.display import Display
from lib.report.execute import up_to_date
from lib.report.plan import plan, states

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
figures.save(fig, f"{name}-figure", data, source="noise", caption="Noise.")
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
    for name, end in (("killed", "os.kill(os.getpid(), 9)"), ("exiting", "os._exit(3)"),
                      ("stopped", "os.kill(os.getpid(), 19)")):  # fmt: skip
        write_notebook(root / f"notebooks/toys/{name}.ipynb", PARAMETERS, f"import os\n{end}")
    (root / "notebooks/profiles").mkdir()
    (root / "notebooks/profiles/smoke.yaml").write_text("toys/good: {seed: 5}\n")
    return root


@pytest.fixture(scope="module")
def first(root):
    """Outcomes of the first run of everything, two side by side."""
    return notebooks.run(plan("laptop", "*", {}, root=root), side_by_side=2)


def contents(folder, name):
    return {file: (folder / file.format(name)).read_bytes() for file in FILES[:7]}


def test_a_failure_names_cell_and_error_and_stops_no_other(first):
    errors = {outcome.job.name: outcome.error for outcome in first}
    process = "executing cell 3 of 3: its Python process"
    assert errors == {
        "toys/exiting": f"{process} ended by itself, exit code 3",
        "toys/failing": "cell [3]: ValueError: last line",
        "toys/good": None,
        "toys/killed": f"{process} was ended by SIGKILL; the usual cause is a lack of memory",
        "toys/other": None,
        "toys/stopped": f"{process} was stopped (SIGSTOP) and does not answer",
    }


def test_files_are_where_they_belong(root, first):
    left = {path.relative_to(root / "results/laptop").as_posix() for path in root.glob("results/laptop/**/*.*")}
    assert {file.format("good") for file in FILES} <= left
    assert not (root / "results/laptop/executed/toys/failing.ipynb").exists()


def test_reused_unless_something_changed(root, first, capsys):
    jobs = plan("laptop", "toys/good toys/other", {}, root=root)
    assert notebooks.run(jobs) == []
    assert capsys.readouterr().out.count("reused") == 2
    figure = jobs[0].results / "figures/good-figure.csv"
    whole = figure.read_bytes()
    figure.write_bytes(whole[:-1])
    assert [up_to_date(job) for job in jobs] == [False, True]
    assert [outcome.job.name for outcome in notebooks.run(jobs)] == ["toys/good"]
    assert figure.read_bytes() == whole


def test_profile_and_parameters_reach_the_notebook_and_same_seed_same_bytes(root, first):
    smoke = plan("smoke", "toys/good", {}, root=root)
    custom = plan("laptop", "toys/good", {"seed": 5}, root=root)
    assert [outcome.error for job in (smoke, custom) for outcome in notebooks.run(job)] == [None, None]
    measured = [
        json.loads((job.results / "quantities/toys/good.json").read_text())["good.mean"]
        for job in (smoke[0], custom[0], plan("laptop", "toys/good", {}, root=root)[0])
    ]
    assert measured[0] == measured[1] != measured[2]
    assert custom[0].results.name == "laptop-custom", "results of other parameters stay out of the profile's"
    again = contents(custom[0].results, "good")
    notebooks.run(custom, again=True)
    assert contents(custom[0].results, "good") == again


def claim_of(quantity):
    return claims.Claim("c", "p", "no-item", "s", quantity, "<", 9.0, 0.0, ("laptop",), "here", "ours")


def test_only_claims_of_notebooks_that_succeeded_count(root, first, tmp_path, write_notebook):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    wanted = [claim_of("good.mean"), claim_of("other.mean")]

    def verdicts():
        jobs = plan("laptop", "toys/good toys/other", {}, root=copy)
        known = states(jobs, jobs[0].results)
        return [v.result for v in claims.judge("laptop", states=known, claims=wanted, folder=jobs[0].results)]

    assert verdicts() == ["reproduced"] * 2
    write_notebook(copy / "notebooks/toys/good.ipynb", PARAMETERS, "name = 'good'", DRAW, "1 / 0")
    assert verdicts() == ["stale (made by other code, parameters or data)", "reproduced"]
    notebooks.run(plan("laptop", "toys/good", {}, root=copy))
    assert verdicts() == ["failed (cell [4]: ZeroDivisionError: division by zero)", "reproduced"]
    shutil.rmtree(copy / "results/laptop/executed")
    assert verdicts() == ["as committed (holds)"] * 2, "a fresh clone"


def test_a_process_that_does_not_end_after_its_last_cell_is_ended_and_what_it_wrote_is_taken(
    tmp_path, write_notebook, monkeypatch
):
    monkeypatch.setattr(execute, "CLEARING_SECONDS", 0.0)  # less than a kernel needs to end
    lingering = "import atexit, time\natexit.register(time.sleep, 60)\nprint('measured')"
    write_notebook(tmp_path / "notebooks/lingering.ipynb", PARAMETERS, lingering)
    (outcome,) = notebooks.run(plan("laptop", "*", {}, root=tmp_path))
    assert outcome.error is None
    assert outcome.seconds < 50
    assert "measured" in outcome.job.executed(".ipynb").read_text()


def test_a_process_that_is_ended_from_outside_says_so(tmp_path, write_notebook):
    started = tmp_path / "started"
    wait = f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(60)"
    write_notebook(tmp_path / "notebooks/slow.ipynb", PARAMETERS, wait)
    (job,) = plan("laptop", "*", {}, root=tmp_path)

    def end(process):
        threading.Thread(target=lambda: (wait_for(started.exists), process._process.terminate())).start()

    with open(os.devnull) as lock:
        outcome = execute.execute(job, lock=lock.fileno(), started=end, progress=lambda *_: None)
    assert outcome.error == "executing cell 3 of 3: papermill was ended from outside by SIGTERM"
    assert states([job], job.results) == {"slow": f"failed: {outcome.error}"}


def test_cell_timeout(tmp_path, write_notebook, monkeypatch):
    write_notebook(tmp_path / "notebooks/slow.ipynb", PARAMETERS, "import time\ntime.sleep(60)")
    monkeypatch.setenv("CELL_TIMEOUT", "1")
    (outcome,) = notebooks.run(plan("laptop", "*", {}, root=tmp_path))
    assert outcome.error == "executing cell 3 of 3: not finished within CELL_TIMEOUT=1 seconds"
    for given in ("soon", "0", "-1", "0.5"):
        monkeypatch.setenv("CELL_TIMEOUT", given)
        with pytest.raises(InputError, match=f"CELL_TIMEOUT={given}: must be a whole number of seconds above 0"):
            notebooks.run(plan("laptop", "*", {}, root=tmp_path), again=True)


def test_another_run_holds_the_folder(root, first):
    job = plan("laptop", "toys/failing", {}, root=root)[0]
    with notebooks._alone(job.results), pytest.raises(ValueError, match="another run is writing there"):
        notebooks.run([job])


def test_interrupted_run_ends_its_kernel_and_can_be_resumed(tmp_path, write_notebook):
    alive = tmp_path / "alive"
    slow = f"import os, pathlib, time\npathlib.Path({str(alive)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    write_notebook(tmp_path / "notebooks/slow.ipynb", PARAMETERS, slow)
    script = (
        "from pathlib import Path; from lib.report import notebooks; from lib.report.plan import plan\n"
        f"notebooks.run(plan('laptop', '*', {{}}, root=Path({str(tmp_path)!r})))"
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
    assert not up_to_date(plan("laptop", "*", {}, root=tmp_path)[0])


@pytest.mark.parametrize("terminal", [False, True])
def test_display_is_live_in_a_terminal_and_moves_in_a_log(tmp_path, monkeypatch, terminal):
    monkeypatch.setenv("COLUMNS", "200")
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    a, b = (execute.Job(name, tmp_path, tmp_path, {}, {}, "key") for name in "ab")
    times.record(tmp_path, "a", 30.0)
    a.executed(".progress").parent.mkdir()
    a.executed(".progress").write_text('{"label": "m2m", "total": 9, "done": 4, "running": 2}')
    with Display([a, b], stream, silence=0.0) as display:
        display.running(a, 2, 3)
        wait_for(lambda: "0/2 notebooks done; 4/9 runs done, 2 under way; 00:0" in stream.getvalue())
        display.finished(a, "3 s")
        with display.phase("building the report"):
            wait_for(lambda: "building the report" in stream.getvalue())
    text = stream.getvalue()
    assert "[1/2] a: 3 s\n" in text
    assert "running a (cell 2/3)" in text
    assert " left" in text
    assert ("\x1b" in text) == terminal


def test_times_of_notebooks_that_end_together_are_all_noted(tmp_path):
    names = [str(number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: times.record(tmp_path, name, 1.0), names))
    assert times.read(tmp_path) == dict.fromkeys(names, 1.0)


def wait_for(condition, seconds=60):
    """Until `condition` holds; the limit only keeps a broken run from hanging."""
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("did not happen")
