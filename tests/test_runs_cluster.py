"""Runs on Dask: the same bytes whatever the number of workers, and whatever happens to the workers."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Client
from run_functions import Config, Training, digest, everything, train

from lib import folders, runs
from lib.errors import InputError
from lib.progress import progress
from lib.runs import cluster

pytestmark = pytest.mark.xdist_group("cluster")
TRAININGS = [Training(seed=seed, epochs=1) for seed in range(3)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    monkeypatch.delenv("LIB_WORKERS", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    """The digests of the trainings, each run alone in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "CACHE", tmp_path_factory.mktemp("cache"))
        return [digest(runs.one(train, config)) for config in TRAININGS]


@pytest.mark.parametrize(("workers", "step"), [(1, 1), (2, -1), (4, 1)])
def test_the_same_bytes_for_any_number_of_workers_and_any_order(workers, step, in_process):
    with runs.local_cluster(workers):
        outcomes = runs.map(train, TRAININGS[::step])
    assert [digest(outcome) for outcome in outcomes[::step]] == in_process
    assert len(set(in_process)) == 3


def test_failures_and_workers_killed_for_memory_cost_their_runs_only(monkeypatch, capsys):
    monkeypatch.setenv("LIB_WORKERS", "2")
    monkeypatch.setattr(cluster, "_MEMORY", "1GB")
    how = {0: "well", 1: "hungry", 2: "badly", 3: "well", 4: "well"}
    with pytest.raises(runs.RunFailed) as failure:
        runs.map(everything, [Config(seed=seed, how=way) for seed, way in how.items()])
    message = str(failure.value)
    assert message.startswith("everything: 2 of 5 runs failed: Config(seed=2, how='badly'")
    assert "FloatingPointError: training diverged at tick 3, layer conv1" in message
    assert "Config(seed=1, how='hungry'" in message
    assert "its workers were lost (killed for memory?)" in message
    assert "\n" not in message
    runs.map(everything, [Config(seed=seed) for seed in (0, 3, 4)])
    assert "3 runs, 3 reused, 0 to run" in capsys.readouterr().out
    assert "DASK_SCHEDULER_ADDRESS" not in os.environ


@contextmanager
def started(*arguments, **environment):
    """A Dask process of its own, as a user starts it by hand."""
    here = [str(folders.ROOT), str(Path(__file__).parent)]
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments, "--no-dashboard"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_the_first_worker(note):
    """Wait until a worker has told of a checkpoint, then kill -9 it."""
    while not (note.exists() and note.read_text().endswith("\n")):
        time.sleep(0.05)
    os.kill(int(note.read_text().split()[0]), signal.SIGKILL)


def test_a_worker_killed_in_the_middle_costs_nothing_but_time(tmp_path, folder, monkeypatch, in_process):
    address = f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    note = tmp_path / "started"
    slow = [Training(seed=seed, epochs=1, started=str(note), slow=0.05) for seed in range(3)]
    options = {"LIB_CACHE": str(folder), "LIB_CHECKPOINT_SECONDS": "0.2"}
    worker = ("worker", address, "--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path))
    killer = threading.Thread(target=kill_the_first_worker, args=[note], daemon=True)
    with (
        started("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]),
        started(*worker, **options) as one,
        started(*worker, **options) as other,
    ):
        killer.start()
        outcomes = runs.map(train, slow)
        assert [process.poll() for process in (one, other)].count(-signal.SIGKILL) == 1
    assert [digest(outcome) for outcome in outcomes] == in_process
    lines = [line.split() for line in note.read_text().splitlines()]
    assert len({pid for pid, _, _ in lines}) == 2, "both workers took part"
    for seed in "012":
        steps = [int(step) for _, of, step in lines if of == seed]
        assert steps == sorted(set(steps)), "what the lost worker had saved was done again"


def test_a_lost_scheduler_is_one_line(monkeypatch):
    class Gone:
        def ncores(self):
            raise OSError("Timed out trying to connect")

    def lost(*_):
        yield from cluster._spread(Gone(), everything, {"key": Config()}, None, 0.0, "home")

    monkeypatch.setattr(cluster, "outcomes", lost)
    with pytest.raises(runs.RunFailed, match="the Dask scheduler was lost; what is finished is kept"):
        runs.map(everything, [Config(seed=1), Config(seed=2)])


def test_a_cluster_of_this_machine_whose_workers_stay_away_is_given_up(folder, monkeypatch):
    address = f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    told = "all Dask workers were lost and none came back; what is finished is kept"
    with (
        started("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]),
        pytest.raises(runs.RunFailed, match=told),
    ):
        runs.map(everything, [Config(seed=1), Config(seed=2)])


def test_an_address_where_nobody_answers_is_one_line(monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    monkeypatch.setattr(cluster, "_CONNECT", "1s")
    with pytest.raises(InputError, match=r"DASK_SCHEDULER_ADDRESS=tcp://127.0.0.1:9: no Dask scheduler answers"):
        runs.one(everything, Config())


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_the_number_of_workers_is_checked(given, monkeypatch):
    monkeypatch.setenv("LIB_WORKERS", given)
    with pytest.raises(InputError, match=f"LIB_WORKERS={given}: must be a whole number of at least 1"):
        cluster.machine_workers()


def test_workers_run_on_one_thread_and_keep_the_memory_of_large_tensors():
    with runs.local_cluster(1) as address, Client(address, set_as_default=False) as client:
        found = client.submit(lambda: dict(os.environ)).result()
    assert found["OMP_NUM_THREADS"] == "1"
    assert int(found["MALLOC_TRIM_THRESHOLD_"]) > int(found["MALLOC_MMAP_THRESHOLD_"]) > 2**24
    assert found["THP_MEM_ALLOC_ENABLE"] == "1"


def test_a_cluster_that_is_there_is_joined(monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    with runs.local_cluster() as address:
        assert address == "tcp://127.0.0.1:9"
    assert os.environ["DASK_SCHEDULER_ADDRESS"] == "tcp://127.0.0.1:9"


def test_progress_in_a_log_is_a_plain_line_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("lib.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    monkeypatch.setenv("LIB_NOTEBOOK", "x")
    display = progress("m2m", 4)
    for second in range(100):
        now[0] = float(second)
        display.show(2)
        if second in (40, 80):
            display.step()
    display.close()
    assert capsys.readouterr().out.splitlines() == [
        "m2m: 0/4 done, 2 running, 00:30 elapsed",
        "m2m: 1/4 done, 2 running, 01:00 elapsed, about 03:00 left",
        "m2m: 2/4 done, 2 running, 01:30 elapsed, about 01:30 left",
    ]


def test_progress_in_a_terminal_is_one_live_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("lib.progress._DELAY", 0)
    display = progress("m2m", 2)
    display.show(1)
    display.step()
    time.sleep(0.2)  # the line moves ten times a second at most
    display.show(1)
    display.close()
    said = capsys.readouterr().err
    assert "m2m: 1/2 done, 1 running [" in said
    assert "\n" not in said
