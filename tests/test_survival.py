"""``kill -9`` at random moments: a training goes on where it was, and ends with the same bytes."""

import argparse
import random
import signal
import subprocess
import sys
import time

import large_path
import pytest
import run_functions
import survive
from run_functions import Training, digest, train

from lib import folders
from lib.checkpoint import Checkpoint, NoCheckpoint
from lib.connectivity import M2M, Adaptive, Fixed
from lib.studies import gossip
from lib.studies import m2m as connectivity
from lib.training import Recipe


def run_until(folder, moment):
    """Start the training in a process of its own and kill it ``moment`` seconds after its next checkpoint."""
    started = folder / "started"
    seen = started.stat().st_size if started.exists() else 0
    process = subprocess.Popen(
        [sys.executable, run_functions.__file__, str(folder)],
        env={"PYTHONPATH": str(folders.ROOT), "OMP_NUM_THREADS": "1"},
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
        env={"PYTHONPATH": str(folders.ROOT), "OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    assert (tmp_path / "digest").read_text() == undisturbed
    steps = [int(line.split()[2]) for line in (tmp_path / "started").read_text().splitlines()]
    assert steps == sorted(set(steps)), "a saved step was done again"


MODES = [
    connectivity.Mode(connectivity.Data(train_images=500), "lenet5", seed, Recipe(epochs=4, momentum=0.9))
    for seed in (0, 1)
]
RING = gossip.GraphConfig("ring", {"num_nodes": 4})
LONG = {
    "training": (train, Training(epochs=1)),
    "path, fixed": (connectivity.m2m, connectivity.Connection(*MODES, M2M(Fixed(ticks=20)), interior_points=1)),
    "path, adaptive": (
        connectivity.m2m,
        connectivity.Connection(
            *MODES, M2M(Adaptive(max_loss=1.0, step=0.1, growth=1.0, max_sgd_steps=200)), interior_points=1
        ),
    ),
    **{
        f"gossip, {name}": (
            gossip.gossip_run,
            gossip.Run("digits", "lenet5", RING, system, 20, 0, image_size=16),
        )
        for name, system in gossip.SYSTEMS.items()
    },
}


@pytest.mark.parametrize("name", LONG)
def test_whatever_takes_long_may_stop_at_any_moment(tmp_path, interrupted_after, name):
    function, config = LONG[name]
    undisturbed = digest(function(config, NoCheckpoint()))
    for saves in (1, 2, 9):  # so that it stops three times, further and further
        with pytest.raises(KeyboardInterrupt):
            function(config, interrupted_after(saves))
    assert digest(function(config, Checkpoint(tmp_path))) == undisturbed


def test_a_path_killed_twice_is_kept_with_the_bytes_of_an_undisturbed_one(tmp_path, monkeypatch):
    """The small version of ``tests/large_path.py``, whose path does not fit into memory twice."""
    monkeypatch.setenv("LIB_CHECKPOINT_SECONDS", "0.1")
    calm, stormy = large_path.survive(tmp_path, argparse.Namespace(size="laptop", anchors=60, cluster=False))
    assert (calm["codes"], stormy["codes"]) == ([0], [-signal.SIGKILL, -signal.SIGKILL, 0])
    assert calm["anchors"] == stormy["anchors"] == 60
    assert calm["bytes"] == stormy["bytes"]


def test_make_reproduce_killed_twice_leaves_the_files_of_an_undisturbed_run(tmp_path):
    files, different = survive.survive(
        tmp_path, kills=2, target="figures", profile="smoke", notebooks="gossip/01*", seed=0
    )
    assert len(files) > 3
    assert different == []
