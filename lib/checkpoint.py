"""The state of a long computation on disk, so that it continues after ``kill -9`` with the same bytes.

A computation asks ``due()`` now and then, hands its whole state to ``save`` and starts from ``load()``. The
state is one safetensors file with the JSON values in its metadata and a checksum over every byte; it is
replaced atomically, so the last complete state is always there. What is damaged counts as not there.
"""

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path

import safetensors.torch

from lib import storage

log = logging.getLogger(__name__)
_UNSIGNED = b'"sha256":"' + b"0" * 64 + b'"'


class Checkpoint:
    """A place for one state, and for named parts that keep their own.

    Parameters
    ----------
    folder : path
        Made on the first save.
    every : float
        Seconds between saves, as told by :meth:`due`.

    Notes
    -----
    ``load`` gives contiguous tensors on the CPU. Copy them into existing parameters (``load_state_dict``,
    ``copy_``), which keeps those parameters' memory format and device.
    """

    def __init__(self, folder, every=5.0):
        if not every >= 0:
            raise ValueError(f"checkpoint: every must be >= 0 seconds, got {every}")
        self.folder, self.every = Path(folder), every
        self._file = self.folder / "state.safetensors"
        self._saved = time.monotonic()

    def due(self):
        """True when ``every`` seconds have passed since the last save (or since this object was made)."""
        return time.monotonic() - self._saved >= self.every

    def save(self, state):
        """Replace the stored state: a nested dict of tensors, numbers, strings, bools, None, lists, tables.

        A failed save is logged; the run continues.
        """
        data = _sign(*storage.encode(state))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            storage.write(self._file, data)
        except OSError as error:
            log.warning("checkpoint not saved, going on without: %s: %s", self._file, error.strerror)
        self._saved = time.monotonic()

    def load(self):
        """The last saved state, or None when there is none or it cannot be read (said in one line)."""
        try:
            return storage.decode(*_verify(self._file.read_bytes()))
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a damaged file makes a parser do, the remedy is the same
            log.warning("checkpoint %s is not usable (%s), starting afresh", self._file, error)
            return None

    def child(self, name):
        """The checkpoint of one part of the computation, e.g. ``child("mode-a")``."""
        if not name or Path(name).name != name:
            raise ValueError(f"checkpoint: a child's name must be one folder name, got {name!r}")
        return Checkpoint(self.folder / name, self.every)

    def clear(self):
        """Remove the state and that of all children."""
        shutil.rmtree(self.folder, ignore_errors=True)


class NoCheckpoint:
    """Takes the place of a :class:`Checkpoint` where nothing is to be kept."""

    def due(self):
        """Never."""
        return False

    def save(self, state):
        """Keep nothing."""

    def load(self):
        """Nothing is ever there."""
        return None

    def child(self, name):
        """Itself."""
        return self

    def clear(self):
        """Nothing to remove."""


def _sign(text, tensors):
    data = safetensors.torch.save(tensors, {"state": text, "sha256": "0" * 64})
    digest = hashlib.sha256(data).hexdigest().encode()
    return data.replace(_UNSIGNED, b'"sha256":"' + digest + b'"', 1)


def _verify(data):
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])["__metadata__"]
    signature = f'"sha256":"{header["sha256"]}"'.encode()
    if hashlib.sha256(data.replace(signature, _UNSIGNED, 1)).hexdigest() != header["sha256"]:
        raise ValueError("its checksum does not fit")
    return header["state"], safetensors.torch.load(data)
