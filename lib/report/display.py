"""Progress of a run of notebooks: a live line in a terminal, a line every half minute in a log.

A line says how many notebooks are done, how many runs of the notebooks under way are done and under way (from the
files that :mod:`lib.progress` writes), how long it has taken, and when it may end. That estimate takes the
seconds that each notebook took before (:mod:`lib.report.times`); a notebook of unknown length counts as the mean.
"""

import contextlib
import json
import shutil
import sys
import threading
import time

from lib.progress import clock
from lib.report import times

SILENCE = 25.0  # seconds without a line in a log
LIVE = 0.5


class Display:
    """Counts finished notebooks and names the running ones; used from several threads.

    Parameters
    ----------
    jobs : list of Job
        The notebooks, as of :mod:`lib.report.execute`.
    stream : file
        Where to write; a terminal gets a live line.
    silence : float
        Seconds after which a log gets a line.
    """

    def __init__(self, jobs, stream=None, silence=SILENCE):
        self.total, self.done, self.silent = len(jobs), 0, False
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._jobs, self._cells, self._phase = jobs, {}, None
        known = times.read(jobs[0].results) if jobs else {}
        usual = sum(known.values()) / len(known) if known else 1.0
        self._weights = {job.name: known.get(job.name, usual) for job in jobs}
        self._left = dict(self._weights)
        self._begin = self._said = time.monotonic()
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._silence = silence

    def __enter__(self):
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        with self._lock:
            self._erase()

    def running(self, job, cell: int, of: int) -> None:
        """A notebook begins one of its cells."""
        with self._lock:
            self._cells[job.name] = (cell, of)
            self._left[job.name] = self._weights[job.name] * (1 - (cell - 1) / of)

    def finished(self, job, how: str) -> None:
        """A notebook is finished: print one line."""
        with self._lock:
            if self.silent:
                return
            self.done += 1
            self._cells.pop(job.name, None)
            if how == "reused":
                self._weights.pop(job.name)
            self._left.pop(job.name, None)
            self._print(f"[{self.done}/{self.total}] {job.name}: {how}")

    @contextlib.contextmanager
    def phase(self, text: str):
        """What is done where no notebook runs, such as building the report."""
        self._phase = text
        try:
            yield
        finally:
            self._phase = None

    def line(self) -> str:
        """Where the run stands, in one line."""
        with self._lock:
            elapsed = time.monotonic() - self._begin
            parts = [f"{self.done}/{self.total} notebooks done"]
            if done_and_all := self._runs():
                parts.append(done_and_all)
            parts += [f"{clock(elapsed)} elapsed{self._expected(elapsed)}"]
            if self._phase:
                parts.append(self._phase)
            elif self._cells:
                under_way = (f"{name} (cell {cell}/{of})" for name, (cell, of) in self._cells.items())
                parts.append(f"running {', '.join(under_way)}")
            return "; ".join(parts)

    def _runs(self):
        """Runs of the notebooks under way: done, all, and running now."""
        done = total = running = 0
        for job in self._jobs:
            if job.name in self._cells:
                with contextlib.suppress(OSError, ValueError, KeyError):
                    state = json.loads(job.executed(".progress").read_text())
                    done, total = done + state["done"], total + state["total"]
                    running += state["running"]
        return f"{done}/{total} runs done, {running} under way" if total else ""

    def _expected(self, elapsed):
        whole, left = sum(self._weights.values()), sum(self._left.values())
        if left <= 0 or whole - left < 0.05 * whole:  # too early to tell
            return ""
        return f", about {clock(elapsed * left / (whole - left))} left"

    def _tick(self):
        while not self._stop.wait(LIVE):
            with self._lock:
                if self._live:
                    self._erase()
                    self._stream.write(self.line()[: shutil.get_terminal_size().columns - 1])
                    self._stream.flush()
                elif time.monotonic() - self._said >= self._silence and not self.silent:
                    self._print(self.line())

    def _print(self, text):
        self._erase()
        print(text, file=self._stream, flush=True)
        self._said = time.monotonic()

    def _erase(self):
        if self._live:
            self._stream.write("\r\x1b[K")
