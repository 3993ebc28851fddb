"""The state of a long computation on disk, so that it continues after ``kill -9`` with the same bytes.

A computation asks ``due()`` now and then, hands its whole state to ``save`` and starts from ``load()``. The
state is one safetensors file with the JSON values in its metadata and a checksum over every byte; it is
replaced atomically, so the last complete state is always there. What is damaged counts as not there. What only
grows, such as the anchors of a path, lies beside it (:class:`Rows`): each is written once, however often the state is.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

import safetensors.torch
import torch

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

    def rows(self):
        """Where tensors of one shape are kept that come one by one; see :class:`Rows`."""
        return Rows(self.folder / "rows.bin")

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

    def rows(self):
        """Tensors of one shape that come one by one, in a file that nobody else sees."""
        return Rows()

    def child(self, name):
        """Itself."""
        return self

    def clear(self):
        """Nothing to remove."""


class Rows:
    """Tensors of one shape, each written once, to the end of a file: the anchors of a path that is being found.

    Memory holds none of them, and a save of the state costs the same however many there are: the state names how
    many rows count, and a checksum over them.

    Parameters
    ----------
    file : Path, optional
        Made with the first row; default a temporary file that is gone when nobody uses it any more.
    """

    def __init__(self, file=None):
        self._path, self._file, self._count, self._like, self._sum = file, None, 0, None, hashlib.sha256()

    def __len__(self):
        return self._count

    def append(self, row):
        """Add a tensor; it is in the file before the next state is saved."""
        if self._file is None:
            self._open("wb+")
        self._like = row.detach().cpu()
        data = self._like.contiguous().numpy().tobytes()
        self._file.write(data)
        self._sum.update(data)
        self._count += 1

    def state(self):
        """What a saved state has to hold of the rows; they are on the disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"count": self._count, "sha256": self._sum.hexdigest()}

    def restored(self, state, like):
        """Go on behind the rows that a state names, what was written after it being cut off; False if it cannot be.

        Parameters
        ----------
        state : dict
            As :meth:`state` gave it.
        like : tensor
            Of the shape and type of a row.

        Returns
        -------
        bool
            False, said in one line of the log, if the file does not hold these rows: then start afresh.
        """
        size = state["count"] * like.numel() * like.element_size()
        if not self._path.is_file() or self._path.stat().st_size < size:
            log.warning("%s holds fewer than %d rows, starting afresh", self._path, state["count"])
            return False
        self._open("rb+")
        left, total = size, hashlib.sha256()
        while left:
            block = self._file.read(min(left, 1 << 24))
            total.update(block)
            left -= len(block)
        if total.hexdigest() != state["sha256"]:
            log.warning("the rows of %s do not fit their checksum, starting afresh", self._path)
            self._file = None
            return False
        self._file.truncate(size)
        self._file.seek(size)
        self._count, self._like, self._sum = state["count"], like.detach().cpu(), total
        return True

    def tensor(self):
        """All rows as one tensor (n, *shape) on the CPU, read from the file as they are used."""
        self._file.flush()
        shape = (self._count, *self._like.shape)
        flat = torch.from_file(str(self._file.name), shared=False, size=math.prod(shape), dtype=self._like.dtype)
        return flat.view(shape)

    def _open(self, mode):
        if self._path is None:
            self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 (open as long as rows come)
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, mode)  # noqa: SIM115


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
