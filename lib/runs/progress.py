"""How far a map is: a bar in a terminal or in JupyterLab, a file for the runner of notebooks, lines in a log.

A notebook that the runner executes prints nothing of it: its copy holds results, and the runner shows the progress
of all notebooks in its own log (:mod:`lib.report.display`).
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

_PLAIN_SECONDS = 30.0
FILE = "LIB_PROGRESS"  # environment variable: where the runner of notebooks reads the progress


def progress(label, total):
    """The display that suits where the output goes.

    Returns
    -------
    object
        With ``show(running)``, to be called about every second, ``step()`` for one more done, ``close()``.
    """
    if file := os.environ.get(FILE):
        return _File(Path(file), label, total)
    live = sys.stderr.isatty() or "ipykernel" in sys.modules
    return _Live(label, total) if live else _Plain(label, total)


def announce(text):
    """Print a line about a map, where a person reads it: not into the copy of an executed notebook."""
    if not os.environ.get(FILE):
        print(text, flush=True)


class _Live:
    def __init__(self, label, total):
        from tqdm.auto import tqdm  # only where it is shown

        layout = "{desc}: {n_fmt}/{total_fmt} done{postfix} [{elapsed} elapsed, {remaining} left]"
        self._bar = tqdm(total=total, desc=label, bar_format=layout, leave=False)

    def show(self, running):
        self._bar.set_postfix_str(f"{running} running")

    def step(self):
        self._bar.update()

    def close(self):
        self._bar.close()


class _File:
    def __init__(self, file, label, total):
        self._file, self._state = file, {"label": label, "total": total, "done": 0, "running": 0}

    def show(self, running):
        self._state["running"] = running
        with contextlib.suppress(OSError):  # a progress that cannot be shown is no reason to fail
            partial = self._file.with_name(f"{self._file.name}.partial")
            partial.write_text(json.dumps(self._state))
            os.replace(partial, self._file)

    def step(self):
        self._state["done"] += 1
        self.show(self._state["running"])

    def close(self):
        self.show(0)


class _Plain:
    def __init__(self, label, total):
        self._label, self._total, self._done = label, total, 0
        self._started = self._said = time.monotonic()

    def show(self, running):
        now = time.monotonic()
        if now - self._said < _PLAIN_SECONDS:
            return
        self._said, elapsed, left = now, now - self._started, ""
        if self._done:
            left = f", about {clock(elapsed / self._done * (self._total - self._done))} left"
        print(
            f"{self._label}: {self._done}/{self._total} done, {running} running, {clock(elapsed)} elapsed{left}",
            flush=True,
        )

    def step(self):
        self._done += 1

    def close(self):
        pass


def clock(seconds):
    """Seconds as 1:02:03 or 02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
