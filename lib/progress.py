"""How far a computation is: a bar in a terminal or in JupyterLab, lines in a log, a file for the runner of notebooks.

A notebook that the runner executes prints nothing of it: its copy holds results, and the runner shows the progress
of all notebooks in its own log (:mod:`lib.report.display`).
"""

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path

FILE = "LIB_PROGRESS"  # environment variable: where the runner of notebooks reads the progress, or "off" for nothing
_LAYOUT = "{desc}: {n_fmt}/{total_fmt} done{postfix} [{elapsed} elapsed, {remaining} left] {bar:20}"
_DELAY = 0.2  # seconds: what takes less shows nothing


@contextlib.contextmanager
def bar(label, total, shown=None):
    """Show how far one computation is, while the context is open.

    Parameters
    ----------
    label : str
    total : float
        How much there is to do.
    shown : bool, optional
        The caller's word: False for nothing, True also in a worker's thread. By default it is shown, where stderr is a
        log as a line every 30 s, but not in a worker's thread. ``LIB_PROGRESS=off`` is for nothing.

    Yields
    ------
    callable
        ``tell(done, describe)``: so much is done, and ``describe()`` gives a dict of what to say of it; it is called
        only when it is shown, so that the computation does not wait for its own numbers.
    """
    default = threading.current_thread() is threading.main_thread()
    if os.environ.get(FILE) or not (default if shown is None else shown):
        yield lambda done, describe: None
        return
    with contextlib.closing(_Live(label, total) if _is_live() else _Lines(label, total, sys.stderr)) as display:
        yield lambda done, describe: display.show(done, lambda: ", ".join(_said(*each) for each in describe().items()))


def progress(label, total):
    """The display of a map of runs that suits where the output goes.

    Returns
    -------
    object
        With ``show(running)``, to be called about every second, ``step()`` for one more done, ``close()``.
    """
    if file := os.environ.get(FILE):
        return _File(None if file == "off" else Path(file), label, total)
    return _Map(_Live(label, total) if _is_live() else _Lines(label, total, sys.stdout))


def announce(text):
    """Print a line about a map, where a person reads it: not into the copy of an executed notebook."""
    if not os.environ.get(FILE):
        print(text, flush=True)


def clock(seconds):
    """Seconds as 1:02:03 or 02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def _is_live():
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _said(name, value):
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


class _Live:
    """A bar that moves."""

    def __init__(self, label, total):
        from tqdm.auto import tqdm  # only where it is shown

        self._bar = tqdm(total=total, desc=label, bar_format=_LAYOUT, leave=False, delay=_DELAY, mininterval=0)
        self._shown = -1.0

    def show(self, done, describe):
        now = time.monotonic()
        if now - self._shown >= 0.1:
            self._shown = now
            self._bar.set_postfix_str(describe(), refresh=False)
            self._bar.update(round(done, 2) - self._bar.n)

    def close(self):
        self._bar.close()


class _Lines:
    """A line of a log every 30 s."""

    def __init__(self, label, total, stream):
        self._label, self._total, self._stream = label, total, stream
        self._started = self._said = time.monotonic()

    def show(self, done, describe):
        now = time.monotonic()
        if now - self._said < 30:
            return
        self._said, elapsed = now, now - self._started
        left = f", about {clock(elapsed / done * (self._total - done))} left" if done else ""
        line = f"{self._label}: {done:.4g}/{self._total:.4g} done, {describe()}, {clock(elapsed)} elapsed{left}"
        print(line, file=self._stream, flush=True)

    def close(self):
        pass


class _Map:
    """Counts the runs of a map that are done, for a display."""

    def __init__(self, display):
        self._display, self._done, self.close = display, 0, display.close

    def show(self, running):
        self._display.show(self._done, lambda: f"{running} running")

    def step(self):
        self._done += 1


class _File:
    """Tells the runner of notebooks."""

    def __init__(self, file, label, total):
        self._file, self._state = file, {"label": label, "total": total, "done": 0, "running": 0}

    def show(self, running):
        self._state["running"] = running
        if self._file:
            with contextlib.suppress(OSError):  # a progress that cannot be shown is no reason to fail
                partial = self._file.with_name(f"{self._file.name}.partial")
                partial.write_text(json.dumps(self._state))
                os.replace(partial, self._file)

    def step(self):
        self._state["done"] += 1
        self.show(self._state["running"])

    def close(self):
        self.show(0)
