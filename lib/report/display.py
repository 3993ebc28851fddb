"""Progress of a run of notebooks: one live line in a terminal, a line a notebook in a log."""

import sys
import threading
import time


class Display:
    """Counts finished notebooks and names the running ones; used from several threads.

    Parameters
    ----------
    total : int
        Number of notebooks.
    stream : file
        Where to write; a terminal gets a live line as well.
    """

    def __init__(self, total: int, stream=None):
        self.total, self.done, self.silent = total, 0, False
        self._stream = stream or sys.stdout
        self._cells, self._begin, self._lock = {}, time.monotonic(), threading.Lock()
        self._live = self._stream.isatty()
        self._stop = threading.Event()

    def __enter__(self):
        if self._live:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        with self._lock:
            self._erase()

    def running(self, name: str, cells: str) -> None:
        """Notebook `name` has run `cells` ("3/9") of its cells."""
        with self._lock:
            self._cells[name] = cells

    def finished(self, name: str, how: str) -> None:
        """Notebook `name` is finished: print one line."""
        with self._lock:
            if self.silent:
                return
            self.done += 1
            self._cells.pop(name, None)
            self._erase()
            print(f"[{self.done}/{self.total}] {name}: {how}", file=self._stream, flush=True)

    def _tick(self):
        while not self._stop.wait(0.5):
            with self._lock:
                running = ", ".join(f"{name} (cell {cells})" for name, cells in self._cells.items())
                seconds = time.monotonic() - self._begin
                line = f"{self.done}/{self.total} done, {seconds:.0f} s; running {running}"
                self._erase()
                self._stream.write(line[:110])
                self._stream.flush()

    def _erase(self):
        if self._live:
            self._stream.write("\r\x1b[K")
