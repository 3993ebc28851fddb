"""How far a map is: a live line in a terminal, a bar in JupyterLab, now and then a plain line in a log."""

import os
import sys
import time

from tqdm.auto import tqdm

_PLAIN_SECONDS = 30.0


def progress(label, total):
    """The display that suits where the output goes.

    Returns
    -------
    object
        With ``show(running)``, to be called about every second, ``step()`` for one more done, ``close()``.
    """
    executed = bool(os.environ.get("LIB_NOTEBOOK"))  # by the runner: its output is a log
    live = sys.stderr.isatty() or ("ipykernel" in sys.modules and not executed)
    return _Live(label, total) if live else _Plain(label, total)


class _Live:
    def __init__(self, label, total):
        layout = "{desc}: {n_fmt}/{total_fmt} done{postfix} [{elapsed} elapsed, {remaining} left]"
        self._bar = tqdm(total=total, desc=label, bar_format=layout, leave=False)

    def show(self, running):
        self._bar.set_postfix_str(f"{running} running")

    def step(self):
        self._bar.update()

    def close(self):
        self._bar.close()


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
            left = f", about {_clock(elapsed / self._done * (self._total - self._done))} left"
        print(
            f"{self._label}: {self._done}/{self._total} done, {running} running, {_clock(elapsed)} elapsed{left}",
            flush=True,
        )

    def step(self):
        self._done += 1

    def close(self):
        pass


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
