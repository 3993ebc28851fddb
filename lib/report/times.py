"""How long each notebook took, by profile: what a run expects of the notebooks that are still to come."""

import contextlib
import json
import platform
import threading
from pathlib import Path

import psutil

from lib.report import context

FILE = "times.json"
_writing = threading.Lock()


def read(results: Path) -> dict[str, float]:
    """Seconds by notebook, as the last runs took; empty where none is known."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return dict(json.loads((results / FILE).read_text())["seconds"])
    return {}


def machine(results: Path) -> str:
    """On which machine that was; nothing where it is not known."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((results / FILE).read_text())["machine"]
    return ""


def record(results: Path, name: str, seconds: float) -> None:
    """Note how long a notebook took, and on which machine; less where it found its runs in the cache.

    Notebooks that end at the same moment, in several threads, are noted one after another.
    """
    here = f"{platform.machine()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    with _writing:
        known = read(results) | {name: round(seconds, 1)}
        context.write(
            results / FILE, json.dumps({"machine": here, "seconds": known}, indent=1, sort_keys=True) + "\n"
        )
