"""Hundreds of executions of a short notebook on a busy machine; none may hang, each must end in one clear line.

    python tests/endurance.py --executions 300 --abreast 4 --busy 2

Three of four executions are left alone and must succeed. The kernel of every fourth is ended at a random moment
(before, during or after its last cell) by SIGKILL or SIGSTOP: that execution must fail in one line that says so, or
succeed where the kernel had nothing left to do.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbformat import v4

from lib.report.execute import Job, execute

CELLS = ("x = 1", "import time\nfor _ in range(10):\n    time.sleep(0.05)\n    x += 1", "x")
SECONDS = 60.0  # that an execution may take


def write_notebook(folder):
    """A notebook of three short cells."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "short.ipynb"
    notebook = v4.new_notebook(cells=[*map(v4.new_code_cell, CELLS)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return path


def disturb(process, moment, number, ended):
    """Send a signal to the kernel ``moment`` seconds after it was started, unless all is over by then."""
    while process._kernel is None and not ended.is_set():
        time.sleep(0.01)
    time.sleep(moment)
    if process._kernel and not ended.is_set():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process._kernel, number)


def one(source, folder, index, seed):
    """Execute once; what was done to it, how long it took, how it ended."""
    draw = random.Random(f"{seed} {index}")
    number = draw.choice((signal.SIGKILL, signal.SIGSTOP)) if index % 4 == 3 else None
    ended = threading.Event()

    def started(process):
        if number:
            threading.Thread(target=disturb, args=(process, draw.uniform(0, 4), number, ended), daemon=True).start()

    job = Job("short", source, folder / str(index), {}, {}, "key")
    with open(os.devnull) as lock:
        outcome = execute(job, lock=lock.fileno(), started=started, progress=lambda *_: None)
    ended.set()
    return number, outcome


def is_right(number, outcome):
    """Whether an execution ended in time, as it had to."""
    words = {signal.SIGKILL: "ended by SIGKILL", signal.SIGSTOP: "was stopped (SIGSTOP)"}
    if outcome.seconds > SECONDS or (outcome.error and (number is None or "\n" in outcome.error)):
        return False
    return outcome.error is None or words[number] in outcome.error


def main(arguments=None):
    """Print how the executions ended; exit code 0 if all did as they had to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executions", type=int, default=300)
    parser.add_argument("--abreast", type=int, default=4)
    parser.add_argument("--busy", type=int, default=2, help="other processes that each keep a core busy")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(given.busy)]
    try:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.abreast) as pool:
            source = write_notebook(Path(folder))
            results = list(pool.map(lambda i: one(source, Path(folder), i, given.seed), range(given.executions)))
    finally:
        for process in busy:
            process.kill()
    ends = Counter((number.name if number else "left alone", end.error or "complete") for number, end in results)
    for (what, end), count in sorted(ends.items()):
        print(f"{count:4} {what}: {end}")
    wrong = [result for result in results if not is_right(*result)]
    longest = max(outcome.seconds for _, outcome in results)
    print(f"{len(results)} executions, longest {longest:.1f} s, {len(wrong)} not as they had to be")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
