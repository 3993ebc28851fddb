"""``kill -9`` of a whole ``make reproduce``, again and again; no file may differ from an undisturbed run.

    python tests/survive.py --kills 10 --profile smoke

works on two copies of the tree in a temporary folder: one runs undisturbed, in the other the process group
is killed at random moments and started again, until it finishes. What both wrote is compared byte by byte.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = (".csv", ".png", ".pdf", ".tex")


def copy_tree(target):
    """Copy the files of the working tree that git knows or would know."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("results/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def start(tree, target, profile, notebooks):
    """``make reproduce``, or another target, in a session of its own; a state is saved twice a second."""
    settings = [f"PROFILE={profile}", f"NOTEBOOKS={notebooks}", f"PYTHON={sys.executable}"]
    outer = (
        "LIB_CACHE",
        "DASK_SCHEDULER_ADDRESS",
        "MAKEFLAGS",
        "MAKELEVEL",
        "PROFILE",
        "NOTEBOOKS",
        "PYTHONPATH",
    )
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    with open(tree / "log", "a") as log:
        return subprocess.Popen(
            ["make", target, *settings], cwd=tree, start_new_session=True, stdout=log, stderr=log,
            env={**environment, "LIB_CHECKPOINT_SECONDS": "0.5"},
        )  # fmt: skip


def killed(process, moment):
    """Kill the whole group after ``moment`` seconds; False if it had finished before."""
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(2)  # a kernel is in a session of its own and looks once a second whether its parent lives
        return True
    return False


def state_of(tree):
    """How many runs are finished, and how many have a state from which they continue."""
    cache = tree / "data" / "cache"
    finished = [entry for entry in cache.glob("runs/*/*") if not entry.name.startswith(".")]
    return len(finished), len(list(cache.glob("checkpoints/**/*.safetensors")))


def files_of(tree, profile):
    """Digest of every file that the notebooks wrote, by name."""
    results = tree / "results" / profile
    found = (file for file in results.rglob("*") if file.suffix in KINDS)
    written = {str(file.relative_to(results)): file for file in found}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest()
        for name, file in written.items()
        if not name.startswith(("executed/", "report/"))
    }


def survive(folder, *, kills, target, profile, notebooks, seed):
    """Run undisturbed and disturbed; the names of the files, and of those that differ."""
    calm, stormy = copy_tree(folder / "calm"), copy_tree(folder / "stormy")
    begin = time.monotonic()
    code = start(calm, target, profile, notebooks).wait()
    seconds = time.monotonic() - begin
    print(f"undisturbed: exit {code} after {seconds:.0f} s, {state_of(calm)[0]} runs", flush=True)
    moments, done = random.Random(seed), 0
    while done < kills:
        moment = moments.uniform(0.5, max(2.0, seconds * 0.6))
        if killed(start(stormy, target, profile, notebooks), moment):
            done += 1
            runs, states = state_of(stormy)
            print(f"kill {done} after {moment:.1f} s: {runs} runs finished, {states} under way", flush=True)
        else:  # finished in spite of everything: once more from nothing
            shutil.rmtree(stormy)
            copy_tree(stormy)
    last = start(stormy, target, profile, notebooks).wait()
    print(f"last start: exit {last}, {state_of(stormy)[0]} runs", flush=True)
    one, other = files_of(calm, profile), files_of(stormy, profile)
    different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if last != code:
        different.append(f"exit code {last} in place of {code}")
    return sorted(one), different


def main(arguments=None):
    """Print what happened; exit code 0 if no file differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--target", default="reproduce")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--notebooks", default="*")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(arguments))
    with tempfile.TemporaryDirectory(prefix="survive-") as folder:
        files, different = survive(Path(folder), **given)
        if different or not files:
            print((Path(folder) / "stormy" / "log").read_text()[-2000:])
    print(f"{given['kills']} kills: {len(files)} files, {len(different)} differ", *different, sep="\n  ")
    return 1 if different or not files else 0


if __name__ == "__main__":
    sys.exit(main())
