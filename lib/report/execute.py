"""Run one notebook in a process of its own, or find that nothing about it has changed.

A notebook is up to date if its source, its parameters, its data and the code it imports are what they were, and
every file that it wrote is still there with the same bytes. The executed copy takes its place only when complete.
A process that does not end, or a kernel that was stopped, is noticed in seconds and ended with all it has started.
"""

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil

from lib import folders
from lib.errors import InputError
from lib.report import context

LONGEST_MESSAGE = 300
CLEARING_SECONDS = 10.0  # that a process may take to end after its last cell
STOPPED_SECONDS = 5.0  # that a process may be stopped
INTERRUPTED = "was interrupted before it ended"


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


def last_error(results: Path, name: str) -> str | None:
    """Why the last run of a notebook failed; None if it did not, or there was none."""
    with contextlib.suppress(OSError):
        return (results / "executed" / f"{name}.failed").read_text()
    return None


def cell_timeout() -> int | None:
    """Seconds that a cell may take, from ``CELL_TIMEOUT``; None, the default, sets no limit.

    Raises
    ------
    InputError
        If it is not a whole number above 0.
    """
    given = os.environ.get("CELL_TIMEOUT", "").strip()
    if given and not (given.isdecimal() and int(given) > 0):
        raise InputError(f"CELL_TIMEOUT={given}: must be a whole number of seconds above 0")
    return int(given) if given else None


def execute(
    job: Job, *, lock: int, started: Callable[["Process"], None], progress: Callable[[int, int], None]
) -> Outcome:
    """Run `job`; the executed notebook, its html and the manifest of its files appear only if it succeeds.

    Parameters
    ----------
    lock : int
        File descriptor that the process holds open, so that a lock outlives a runner that was killed.
    started : callable
        Gets the :class:`Process`, so that the caller can end it.
    progress : callable
        Gets the number of the cell that begins, and how many there are.
    """
    begin = time.monotonic()
    partial, written, failed = (job.executed(suffix) for suffix in (".partial.ipynb", ".written", ".failed"))
    partial.parent.mkdir(parents=True, exist_ok=True)
    for left in (partial, written, job.executed(".json")):
        left.unlink(missing_ok=True)
    failed.write_text(INTERRUPTED)  # unless what follows says otherwise
    process = Process(job, partial, lock)
    started(process)
    error = process.follow(progress) or _cell_error(partial)
    if error is None:
        _finish(job, partial, written)
        failed.unlink()
    else:
        failed.write_text(error)
    return Outcome(job, time.monotonic() - begin, error)


class Process:
    """The process that executes a notebook (:mod:`lib.report.engine`) and its kernel, watched."""

    def __init__(self, job, partial, lock):
        order = {
            "source": str(job.source), "output": str(partial), "parameters": job.changes,
            "folder": str(folders.ROOT), "cell_timeout": cell_timeout(),
        }  # fmt: skip
        read, write = os.pipe()
        self._log = job.executed(".log")
        command = [sys.executable, "-c", "from lib.report import engine; engine.run()", str(write)]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command, env=_environment(job), stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folders.ROOT,
                pass_fds=[lock, write],
            )  # fmt: skip
        os.close(write)
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
            stream.write(json.dumps(order).encode())
        self._kernel = self._cell = self._cells = None
        self._complete, self._failed = False, None
        self._events = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()

    def follow(self, progress: Callable[[int, int], None]) -> str | None:
        """Wait for the end; one line that says what went wrong, or None where the notebook is complete.

        A notebook is complete when no cell is left and the copy is written. How the process then ends does not
        matter: one that takes too long is ended.
        """
        stopped = ended = None
        while self._process.poll() is None:
            self._take(progress, wait=0.25)
            now = time.monotonic()
            ended = (ended or now) if self._complete or self._failed else None
            stopped = (stopped or now) if self._is_stopped() else None
            if ended and now - ended > CLEARING_SECONDS:
                break
            if stopped and now - stopped > STOPPED_SECONDS:
                self._failed = "its Python process was stopped (SIGSTOP) and does not answer"
                break
        self._take(progress, wait=0.25)
        code = self._process.poll()
        self.end()
        if self._complete:
            return None
        if self._failed:
            return f"{self._doing()}: {self._failed}"[:LONGEST_MESSAGE]
        if code is not None and code < 0:
            return f"{self._doing()}: papermill was ended from outside by {signal.Signals(-code).name}"
        return f"{self._doing()}: {self._last_words()}"[:LONGEST_MESSAGE]

    def end(self) -> None:
        """End the process and its kernel, at once; what is kept is kept by then."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._kernel is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._kernel, signal.SIGKILL)  # a kernel leads a group of its own
        self._process.wait()

    def _listen(self, read):
        with open(read, "rb") as events:
            for line in events:
                self._events.put(json.loads(line))
        self._events.put(None)

    def _take(self, progress, *, wait):
        """Take in the events that have come, up to ``wait`` seconds."""
        end = time.monotonic() + wait
        with contextlib.suppress(queue.Empty):
            while (event := self._events.get(timeout=max(0.0, end - time.monotonic()))) is not None:
                self._kernel = event.get("kernel", self._kernel)
                self._complete |= event.get("complete", False)
                self._failed = event.get("failed", self._failed)
                if "cell" in event:
                    self._cell, self._cells = event["cell"], event["of"]
                    progress(self._cell, self._cells)
            self._events.put(None)  # the pipe is closed: whoever asks next must not wait either
            time.sleep(wait)

    def _is_stopped(self):
        pids = [pid for pid in (self._process.pid, self._kernel) if pid]
        with contextlib.suppress(psutil.Error):
            return any(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids)
        return False

    def _doing(self):
        if self._cell is None:
            return "starting the kernel" if self._kernel else "starting papermill"
        return f"executing cell {self._cell} of {self._cells}"

    def _last_words(self):
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "papermill ended without a message"


def _environment(job):
    own = {
        "LIB_RESULTS": str(job.results),
        "LIB_PROFILE": job.results.name,
        "LIB_NOTEBOOK": job.name,
        "LIB_WRITTEN": str(job.executed(".written")),
        "LIB_PROGRESS": str(job.executed(".progress")),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, whatever else is installed
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folders.ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "0",
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **own}


def _cell_error(notebook):
    """One line: the cell and the last line of its error; None where no cell has failed."""
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, nbformat.reader.NotJSONError) as error:
        return f"its executed copy cannot be read: {error}"[:LONGEST_MESSAGE]
    for cell in cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                value = (output.evalue.strip().splitlines() or [""])[-1]
                return f"cell [{cell.execution_count}]: {output.ename}: {value}"[:LONGEST_MESSAGE]
    return None


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
    for left in (written, job.executed(".log"), job.executed(".progress")):
        left.unlink(missing_ok=True)


def _write_html(notebook, target):
    from nbconvert import HTMLExporter  # half a second that a run with nothing to do need not spend

    body, _ = HTMLExporter().from_filename(str(notebook))
    context.write(target, body)


def _digest(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
