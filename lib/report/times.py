"""How long each notebook took, by profile: what a run expects of the notebooks that are still to come."""

import contextlib
import json
import platform
from pathlib import Path

import psutil

from lib.report import context

FILE = "times.json"


def read(results: Path) -> dict[str, float]:
    """Seconds by notebook, as the last runs took; empty where none is known."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return dict(json.loads((results / FILE).read_text())["seconds"])
    return {}


def record(results: Path, name: str, seconds: float) -> None:
    """Note how long a notebook took, and on which machine; a faster reuse of cached runs does not count as a time."""
    known = read(results)
    known[name] = round(seconds, 1)
    machine = f"{platform.machine()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    context.write(
        results / FILE, json.dumps({"machine": machine, "seconds": known}, indent=1, sort_keys=True) + "\n"
    )
