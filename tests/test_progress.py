"""Progress of computations: a bar where a person watches, lines in a log, nothing when told so; never other numbers."""

import re
import threading

import pytest
import torch
from test_checkpoint_arguments import COMPUTATIONS, DATA, net

from lib import progress
from lib.connectivity import origin
from lib.connectivity.baselines import alignment

SAID = {
    "train_mode": "train_mode: .*epoch 2, loss", "connect": "connect: .*distance left .*, SGD steps .*loss",
    "connect_abreast": "connect: .*distance left", "to_origin": "to_origin: .*, loss .*arrived",
    "curve": "curve: .*loss", "band": "AutoNEB: .*cycle 1, pivots 1, SGD steps .*loss",
    "simulate": "simulate: .*loss .*, accuracy",
    "align": "align: .*groups changed", "cross_spheres": "to_origin: ",
}  # fmt: skip


def cross(**more):
    big = net(1)
    with torch.no_grad():
        big[1].weight *= 2
    _, arguments, _ = COMPUTATIONS["to_origin"]
    config = {"m2m": COMPUTATIONS["connect"][1]["config"], "m2o": arguments["config"]}
    return origin.cross_spheres(big, net(2), DATA, route="origin", **config, **more)


FUNCTIONS = {name: (function, arguments) for name, (function, arguments, _) in COMPUTATIONS.items()}
FUNCTIONS["align"] = (alignment.align, {"a": net(1), "b": net(2), "task": DATA})
FUNCTIONS["cross_spheres"] = (cross, {})


@pytest.fixture(autouse=True)
def fast_clock(monkeypatch):
    """A clock that goes a minute whenever it is looked at: what would be shown after some time is shown at once."""
    now = iter(range(0, 10**9, 60))
    monkeypatch.setattr("lib.progress.time.monotonic", lambda: float(next(now)))
    monkeypatch.delenv("LIB_PROGRESS", raising=False)


def terminal(monkeypatch, is_one=True):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_one, raising=False)
    monkeypatch.setattr(progress, "_DELAY", 0)


def weights(outcome):
    """Something of an outcome that changes with any number in it."""
    if isinstance(outcome, list):
        return torch.stack([weights(each) for each in outcome])
    if isinstance(outcome, torch.nn.Module):
        return torch.cat([value.reshape(-1) for value in outcome.state_dict().values()])
    return outcome.weights if hasattr(outcome, "weights") else outcome.anchors


def run(name, **more):
    function, arguments = FUNCTIONS[name]
    return weights(function(**arguments, **more)).clone()


@pytest.mark.filterwarnings("ignore:the search may not arrive")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_shown_and_that_it_changes_no_number(name, monkeypatch, capsys):
    silent = run(name, progress=False)
    assert capsys.readouterr().err == ""
    assert torch.equal(run(name), silent)
    lines = capsys.readouterr().err
    assert re.search(SAID[name], lines) and " elapsed" in lines and "\r" not in lines
    terminal(monkeypatch)
    assert torch.equal(run(name), silent)
    bar = capsys.readouterr()
    assert re.search(SAID[name], bar.err) and "\r" in bar.err and bar.out == ""
    assert torch.equal(run(name, progress=False), silent)
    monkeypatch.setenv("LIB_PROGRESS", "off")
    assert torch.equal(run(name), silent)
    assert capsys.readouterr().err == ""


def test_workers_threads_and_the_runner_of_notebooks_see_nothing(monkeypatch, capsys, tmp_path):
    terminal(monkeypatch)
    thread = threading.Thread(target=run, args=["train_mode"])
    thread.start()
    thread.join()
    monkeypatch.setenv("LIB_PROGRESS", str(tmp_path / "progress"))
    run("train_mode")
    run("train_mode", progress=True)
    assert capsys.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_a_log_gets_a_line_every_half_minute(monkeypatch, capsys):
    terminal(monkeypatch, False)
    now, asked = [0.0], []
    monkeypatch.setattr("lib.progress.time.monotonic", lambda: now[0])
    with progress.bar("search", 100, shown=True) as tell:
        for second in range(100):
            now[0] = float(second)
            tell(second, lambda: asked.append(1) or {"stage": "2 of 3", "loss": 0.123456})
    assert capsys.readouterr().err.splitlines() == [
        "search: 30/100 done, stage 2 of 3, loss 0.123, 00:30 elapsed, about 01:10 left",
        "search: 60/100 done, stage 2 of 3, loss 0.123, 01:00 elapsed, about 00:40 left",
        "search: 90/100 done, stage 2 of 3, loss 0.123, 01:30 elapsed, about 00:10 left",
    ]
    assert len(asked) == 3, "numbers that nobody sees are not computed"


def test_the_bar_of_a_terminal_leaves_nothing_behind_even_after_an_error(monkeypatch, capsys):
    def search():
        with progress.bar("search", 10) as tell:
            tell(3, lambda: {"loss": 0.5})
            raise KeyError

    terminal(monkeypatch)
    with pytest.raises(KeyError):
        search()
    said = capsys.readouterr().err
    assert "search: 3/10 done, loss 0.5 [" in said
    assert said.rpartition("\r")[2].strip() == "" and "\n" not in said
