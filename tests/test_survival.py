"""``kill -9`` at random moments: a training goes on where it was, and ends with the same bytes."""

import random
import signal
import subprocess
import sys
import time

import pytest
import run_functions
from run_functions import Training, digest, train

from lib import paths
from lib.checkpoint import Checkpoint, NoCheckpoint


def run_until(folder, moment):
    """Start the training in a process of its own and kill it ``moment`` seconds after its next checkpoint."""
    started = folder / "started"
    seen = started.stat().st_size if started.exists() else 0
    process = subprocess.Popen(
        [sys.executable, run_functions.__file__, str(folder)],
        env={"PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None and not (started.exists() and started.stat().st_size > seen):
        time.sleep(0.01)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    return process.wait()


def test_a_training_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    undisturbed = digest(train(Training(), NoCheckpoint()))
    moments = random.Random(0)
    codes = [run_until(tmp_path, moments.uniform(0, 0.5)) for _ in range(2)]
    assert codes == [-signal.SIGKILL] * 2
    assert not (tmp_path / "digest").exists()
    subprocess.run(
        [sys.executable, run_functions.__file__, str(tmp_path)],
        env={"PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    assert (tmp_path / "digest").read_text() == undisturbed
    steps = [int(line.split()[2]) for line in (tmp_path / "started").read_text().splitlines()]
    assert steps == sorted(set(steps)), "a saved step was done again"


class PowerLossError(Exception):
    """The power goes."""


class Fragile(Checkpoint):
    """Fails after a number of saves, as if the process had been killed right there."""

    def __init__(self, folder, saves):
        super().__init__(folder, every=0)
        self.saves = saves

    def save(self, state):
        super().save(state)
        self.saves -= 1
        if not self.saves:
            raise PowerLossError


@pytest.mark.parametrize("saves", [1, 2, 17])
def test_a_training_may_stop_after_any_step(tmp_path, saves):
    config = Training(epochs=1)
    with pytest.raises(PowerLossError):
        train(config, Fragile(tmp_path, saves))
    assert digest(train(config, Checkpoint(tmp_path))) == digest(train(config, NoCheckpoint()))
