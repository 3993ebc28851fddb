"""Run one notebook through papermill, in a process of its own, or find that nothing about it has changed.

A notebook is up to date if its source, its parameters and the code it imports are what they were, and every
file that it wrote is still there with the same bytes. The executed copy takes its place only when complete.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import yaml

from lib import paths
from lib.report import context

CELLS_DONE = re.compile(r"(\d+)/(\d+)")
LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Job:
    """A notebook to run; of its parameters, `changes` differ from its own; a new `key` means to run it."""

    name: str
    source: Path
    results: Path
    values: dict[str, Any] = field(hash=False)
    changes: dict[str, Any] = field(hash=False)
    key: str

    def executed(self, suffix: str) -> Path:
        """Path of the executed copy, or of what lies beside it."""
        return self.results / "executed" / f"{self.name}{suffix}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `error` is None, or one line that names the cell."""

    job: Job
    seconds: float
    error: str | None = None


def up_to_date(job: Job) -> bool:
    """True if `job` ran before with the same key and all its files are unchanged."""
    try:
        manifest = json.loads(job.executed(".json").read_text())
    except (OSError, ValueError):
        return False
    return manifest["key"] == job.key and all(
        _digest(job.results / name) == digest for name, digest in manifest["files"].items()
    )


def execute(
    job: Job, *, lock: int, started: Callable[[subprocess.Popen], None], progress: Callable[[str], None]
) -> Outcome:
    """Run `job`; the executed notebook, its html and the manifest of its files appear only if it succeeds.

    Parameters
    ----------
    lock : int
        File descriptor that the process holds open, so that a lock outlives a runner that was killed.
    started : callable
        Gets the process, so that the caller can end it.
    progress : callable
        Gets "done/all" cells, now and then.
    """
    begin = time.monotonic()
    partial, written = job.executed(".partial.ipynb"), job.executed(".written")
    partial.parent.mkdir(parents=True, exist_ok=True)
    written.unlink(missing_ok=True)
    process = subprocess.Popen(
        _command(job, partial), env=_environment(job), stderr=subprocess.PIPE, cwd=paths.ROOT, pass_fds=[lock]
    )
    started(process)
    tail = _follow(process, progress)
    if process.wait():
        return Outcome(job, time.monotonic() - begin, _error(partial, tail))
    _finish(job, partial, written)
    return Outcome(job, time.monotonic() - begin)


def _command(job, output):
    # Papermill wants a file for its parameters; the empty YAML document is refused.
    parameters = ["--parameters_yaml", yaml.safe_dump(job.changes)] if job.changes else []
    options = ["--kernel", "python3", "--cwd", str(paths.ROOT), "--progress-bar", "--no-log-output"]
    return [sys.executable, "-m", "papermill", str(job.source), str(output), *options, *parameters]


def _environment(job):
    own = {
        "LIB_RESULTS": str(job.results),
        "LIB_PROFILE": job.results.name,
        "LIB_NOTEBOOK": job.name,
        "LIB_WRITTEN": str(job.executed(".written")),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, whatever else is installed
        "PYTHONPATH": os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "0",
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **own}


def _follow(process, progress):
    """Pass on papermill's count of cells while it runs; returns the end of what it printed."""
    tail = ""
    for chunk in iter(lambda: process.stderr.read1(4096), b""):
        tail = (tail + chunk.decode(errors="replace"))[-8192:]
        if counts := CELLS_DONE.findall(tail):
            progress("/".join(counts[-1]))
    return tail


def _error(partial, tail):
    """One line: the cell and the last line of its error; or papermill's own last words."""
    try:
        cells = nbformat.read(partial, as_version=4).cells
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        cells = []
    for cell in cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                value = (output.evalue.strip().splitlines() or [""])[-1]
                return f"cell [{cell.execution_count}]: {output.ename}: {value}"[:LONGEST_MESSAGE]
    if "DeadKernelError" in tail:
        return "its Python process died; the usual cause is a lack of memory"
    return (tail.strip().splitlines() or ["papermill failed without a message"])[-1].strip()[:LONGEST_MESSAGE]


def _finish(job, partial, written):
    """Put the executed copy in its place, with html, and last the manifest that declares all of it valid."""
    quantities = job.results / "quantities" / f"{job.name}.json"
    files = set(written.read_text().splitlines()) if written.exists() else set()
    if str(quantities) not in files:
        context.write(quantities, "{}\n")
    _write_html(partial, job.executed(".html"))
    os.replace(partial, job.executed(".ipynb"))
    files |= {str(path) for path in (quantities, job.executed(".html"), job.executed(".ipynb"))}
    digests = {os.path.relpath(name, job.results): _digest(Path(name)) for name in sorted(files)}
    context.write(job.executed(".json"), json.dumps({"key": job.key, "files": digests}, indent=1) + "\n")
    written.unlink(missing_ok=True)


def _write_html(notebook, target):
    from nbconvert import HTMLExporter  # half a second that a run with nothing to do need not spend

    body, _ = HTMLExporter().from_filename(str(notebook))
    context.write(target, body)


def _digest(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
