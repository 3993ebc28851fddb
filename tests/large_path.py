"""A path of 100 anchors of the paper's ResNet18 (11.2 million weights, 4.5 GB) through ``runs.map``, killed on the way.

    python tests/large_path.py                 # about ten minutes and 15 GB of disk; exit code 0 if all holds
    python tests/large_path.py --size laptop   # the same with a small network, in a minute

One process runs undisturbed; others, in another cache, are killed (SIGKILL) when a third and two thirds of the anchors
are there, the last one finishes. Both caches must hold the same bytes; peak memory and the time of saves are printed.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from lib import folders, models, runs, tasks
from lib.checkpoint import Checkpoint
from lib.connectivity import M2M, Fixed, connect
from lib.studies.m2m import outcome

MEMORY, SAVES = 12 * 2**30, 0.1  # bytes, and part of the time


@dataclass(frozen=True)
class Large:
    """A path between two untrained networks on noise: only its size matters here."""

    size: str = "paper"
    anchors: int = 100


class _Timed(Checkpoint):
    """A checkpoint that notes the seconds from being due to being saved."""

    seconds = 0.0

    def save(self, state):
        super().save(state)
        _Timed.seconds += time.monotonic() - self._asked


def path(config, checkpoint):
    """Connect by the fixed schedule, a step of SGD a tick, and evaluate."""
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = tasks.from_tensors(images, torch.arange(16) % 10, images, torch.arange(16) % 10, name="noise", device="cpu")
    start, end = (models.create("resnet18", data, size=config.size, seed=seed) for seed in (1, 2))
    driver = Fixed(ticks=config.anchors - 2, step_a=0.05, min_sgd_steps=1, max_sgd_steps=1, stop_loss=1e9)
    began = time.monotonic()
    timed = _Timed(checkpoint.folder, checkpoint.every)
    found = connect(start, end, data, M2M(driver=driver, batch=4, order="all"), checkpoint=timed)
    searched = time.monotonic() - began
    result = outcome(found, end, data, interior_points=0) | {"distances": found.distances(end)}
    about = {"anchors": len(found), "search": searched, "saves": _Timed.seconds}
    (folders.CACHE / "measured.json").write_text(json.dumps(about))
    return result


def run(size, anchors, cluster):
    """What the process does that is killed: the run, by itself or on a worker; then its peak memory."""
    import large_path  # as a module: what is in __main__ cannot be a run

    with runs.local_cluster(1) if cluster else contextlib.nullcontext():
        found = runs.one(large_path.path, large_path.Large(size, anchors))
    print(float(found["anchors"][-1].double().sum()))


def start(arguments, cache):
    """The process above, in a session of its own."""
    options = [f"--size={arguments.size}", f"--anchors={arguments.anchors}", *["--cluster"] * arguments.cluster]
    return subprocess.Popen(
        [sys.executable, __file__, "--run", *options], start_new_session=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "LIB_CACHE": str(cache), "PYTHONPATH": f"{folders.ROOT}:{Path(__file__).parent}",
             "OMP_NUM_THREADS": "1", "LIB_CHECKPOINT_SECONDS": os.environ.get("LIB_CHECKPOINT_SECONDS", "5")},
    )  # fmt: skip


def watch(process, cache, until):
    """Wait for the end, or kill the group when so many bytes of anchors are there; peak memory of all its processes."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        if until and sum(file.stat().st_size for file in cache.glob("checkpoints/*/*/rows.bin")) >= until:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0.02)
    return peak


def memory(group):
    """Resident bytes of all processes of a session."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == group:
                found += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return found


def checksums(cache):
    """Checksums of the only entry of a cache."""
    (about,) = cache.glob("runs/*/*/about.json")
    return json.loads(about.read_text())["checksums"]


def survive(folder, arguments):
    """Run undisturbed and killed twice; what was seen of each, a dict."""
    weights, seen = {"paper": 11_173_962, "laptop": 31_682}[arguments.size], []
    for name, parts in (("undisturbed", [None]), ("killed twice", [1 / 3, 2 / 3, None])):
        cache, peak, codes = Path(folder, name), 0, []
        for part in parts:
            process = start(arguments, cache)
            peak = max(peak, watch(process, cache, part and int(part * arguments.anchors * weights * 4)))
            codes.append(process.returncode)
        measured = json.loads((cache / "measured.json").read_text())
        saves = measured["saves"] / measured["search"]
        seen.append(measured | {"name": name, "codes": codes, "peak": peak, "saves": saves, "bytes": checksums(cache)})
        for left in cache.rglob("tensors.safetensors"):
            left.unlink()
    return seen


def main(arguments=None):
    """Print what happened; exit code 0 if all was as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="paper", choices=models.SIZES)
    parser.add_argument("--anchors", type=int, default=100)
    parser.add_argument("--cluster", action="store_true", help="on a worker, not in the process itself")
    parser.add_argument("--folder", help="where to make the temporary folder")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.run:
        return run(given.size, given.anchors, given.cluster)
    with tempfile.TemporaryDirectory(prefix="large-path-", dir=given.folder) as folder:
        seen = survive(folder, given)
    for each in seen:
        print("{name}: exit codes {codes}, {anchors} anchors, last search {search:.0f} s".format(**each), end="")
        print(f", of it saves {each['saves']:.1%}, peak memory of all processes {each['peak'] / 2**30:.2f} GiB")
    same = seen[0]["bytes"] == seen[1]["bytes"]
    print("the same bytes" if same else "other bytes")
    within = all(each["peak"] < MEMORY and each["saves"] < SAVES and each["codes"][-1] == 0 for each in seen)
    return int(not (same and within and seen[1]["codes"][:2] == [-signal.SIGKILL] * 2))


if __name__ == "__main__":
    sys.exit(main())
