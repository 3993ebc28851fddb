"""Fair measuring: candidates in turn, processor seconds, ratios round by round, memory of a fresh process.

All candidates run on one thread and take turns, so that a machine that changes its speed changes it for all.
The unit is the 1024^3 float32 product on the same thread: 2^31 floating point operations.
"""

import json
import pathlib
import resource
import subprocess
import sys
import time

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib import folders
from lib.runs import work

PRODUCT_FLOPS = 2 * 1024**3


def product():
    """A function that multiplies two 1024 x 1024 matrices."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return lambda: a @ b


def seconds(candidates, *, rounds=9):
    """Processor seconds of each candidate, which take turns.

    Parameters
    ----------
    candidates : dict of str to callable
    rounds : int
        Rounds that count; one more comes first and does not.

    Returns
    -------
    DataFrame (rounds, candidates)
    """
    found = []
    for number in range(rounds + 1):
        row = {}
        for name, function in candidates.items():
            begin = time.process_time()
            function()
            row[name] = time.process_time() - begin
        if number:
            found.append(row)
    return pd.DataFrame(found)


def ratio(times, reference):
    """Median over rounds of one series over another."""
    return float((times / reference).median())


def flops(function):
    """Floating point operations of the products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def bound(times, operations):
    """Seconds in which the product's speed would do the operations, round by round."""
    return times["product"] * operations / PRODUCT_FLOPS


def in_fresh_process(function, *arguments):
    """What ``function`` of a benchmark module returns, with its peak memory, from a process of its own.

    Returns
    -------
    dict
        With ``memory_GiB`` added.
    """
    call = f"{function.__module__}:{function.__name__}"
    command = [sys.executable, "-m", "benchmarks.measure", call, json.dumps(arguments)]
    result = subprocess.run(command, cwd=folders.ROOT, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def machine():
    """One line on the machine and the versions."""
    about = work.about(0.0)
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in ("python", "torch", "numpy"))
    return f"{about['device']}, one thread, {versions}"


def _main():
    import importlib

    module, _, name = sys.argv[1].partition(":")
    torch.set_num_threads(1)
    outcome = getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))
    print(json.dumps(outcome | {"memory_GiB": _peak_memory()}))


def _peak_memory():
    """Peak resident memory of this process in GiB; ``ru_maxrss`` would count what its parent held at the fork."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # macOS: bytes


if __name__ == "__main__":
    _main()
