"""The state of a long computation on disk, so that it continues after ``kill -9`` with the same bytes.

A computation asks ``due()`` now and then, hands its whole state to ``save`` and starts from ``load()``. The
state is one safetensors file with the JSON values in its metadata and a checksum over them and the tensors; it is
replaced atomically, so the last complete state is always there. What is damaged counts as not there, what was saved
with other arguments is refused. What only grows, such as the anchors of a path, lies beside it (:class:`Rows`): each
is written once, however often the state is.
"""

import copy
import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lib import storage
from lib.errors import InputError

log = logging.getLogger(__name__)
_BLOCK = 2**24  # bytes of a tensor that are looked at together
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Checkpoint:
    """A place for one state, and for named parts that keep their own.

    Parameters
    ----------
    folder : path
        Made on the first save.
    every : float
        Seconds between saves, as told by :meth:`due`; more where a save takes longer than a tenth of them.

    Notes
    -----
    ``load`` gives contiguous tensors on the CPU. Copy them into existing parameters (``load_state_dict``,
    ``copy_``), which keeps those parameters' memory format and device.
    """

    def __init__(self, folder, every=5.0):
        if not every >= 0:
            raise ValueError(f"checkpoint: every must be >= 0 seconds, got {every}")
        self.folder, self.every = Path(folder), every
        self._file, self._arguments, self._pause = self.folder / "state.safetensors", None, every
        self._saved = self._asked = time.monotonic()

    def of(self, **arguments):
        """This checkpoint for a computation with these arguments: its :meth:`load` refuses the state of any other.

        Parameters
        ----------
        **arguments
            By the names that the caller knows them by; see :func:`identity`.
        """
        own = copy.copy(self)
        own._arguments = {name: identity(value) for name, value in arguments.items()}
        return own

    def due(self):
        """True when ``every`` seconds have passed since the last save (or since this object was made)."""
        self._asked = time.monotonic()
        return self._asked - self._saved >= self._pause

    def save(self, state):
        """Replace the stored state: a nested dict of tensors, numbers, strings, bools, None, lists, tables.

        A failed save is logged; the run continues.
        """
        text, tensors = storage.encode(state)
        arguments = json.dumps(self._arguments)
        about = {"state": text, "arguments": arguments, "sha256": _checksum(text, arguments, tensors)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with storage.replacing(self._file) as partial:
                storage.write_tensors(partial, tensors, about)
        except OSError as error:
            log.warning("checkpoint not saved, going on without: %s: %s", self._file, error.strerror)
        self._saved = time.monotonic()
        if self.every:  # so that saves take less than a tenth of the time
            self._pause = max(self.every, 10 * (self._saved - self._asked))

    def load(self):
        """The last saved state, or None when there is none or it cannot be read (said in one line).

        Raises
        ------
        InputError
            If the state was saved with other arguments than those of :meth:`of`.
        """
        try:
            about, tensors = storage.read_tensors(self._file)
            if about["sha256"] != _checksum(about["state"], about["arguments"], tensors):
                raise ValueError("its checksum does not fit")
            state, saved = storage.decode(about["state"], tensors), json.loads(about["arguments"]) or {}
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a damaged file makes a parser do, the remedy is the same
            log.warning("checkpoint %s is not usable (%s), starting afresh", self._file, error)
            return None
        own = saved if self._arguments is None else self._arguments
        if other := [name for name in {**own, **saved} if own.get(name) != saved.get(name)]:
            raise InputError(
                f"checkpoint='{self.folder}': its state belongs to other arguments ({', '.join(other)}); "
                "clear() it, or name another folder"
            )
        return state

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

    def of(self, **arguments):
        """Itself."""
        return self

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
        self._path, self._file, self._count, self._sum = file, None, 0, hashlib.sha256()

    def __len__(self):
        return self._count

    def append(self, row):
        """Add a tensor; it is in the file before the next state is saved."""
        if self._file is None:
            self._open()
        self._shape, self._dtype = row.shape, row.dtype
        data = storage.bytes_of(row.detach().cpu().contiguous())
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
        size, total = state["count"] * like.nbytes, hashlib.sha256()
        try:
            file = open(self._path, "rb+")  # noqa: SIM115 (open as long as rows come)
            while file.tell() < size and (block := file.read(min(size - file.tell(), _BLOCK))):
                total.update(block)
            if total.hexdigest() != state["sha256"]:
                raise OSError(None, f"its first {state['count']} rows do not fit their checksum")
            file.truncate()
        except OSError as error:
            log.warning("%s is not usable (%s), starting afresh", self._path, error.strerror)
            return False
        self._file, self._count, self._sum = file, state["count"], total
        self._shape, self._dtype = like.shape, like.dtype
        return True

    def tensor(self):
        """All rows as one tensor (n, *shape) on the CPU, read from the file as they are used."""
        self._file.flush()
        shape = (self._count, *self._shape)
        return torch.from_file(str(self._file.name), False, math.prod(shape), dtype=self._dtype).view(shape)

    def _open(self):
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self._path, "wb+")  # noqa: SIM115 (open as long as rows come)
                return
            except OSError as error:  # a checkpoint that cannot be kept is no reason to stop
                log.warning("%s cannot be written (%s), going on without", self._path, error.strerror)
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115


def identity(value):
    """A digest of what an argument holds: structure and weights of a module, tensors, fields of dataclasses.

    Returns
    -------
    str
        The same in every process; functions count by their names.
    """
    digest = hashlib.sha256()
    _feed(value, digest, set())
    return digest.hexdigest()[:16]


def _feed(value, digest, seen):
    digest.update(f"{type(value).__module__}.{type(value).__qualname__}:".encode())
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        rows = value.detach().reshape(len(value) if value.ndim else 1, -1)
        for block in rows.split(max(1, _BLOCK // max(1, rows[:1].nbytes))):
            digest.update(storage.bytes_of(block.cpu().contiguous()))
    elif isinstance(value, str | bytes | bool | int | float | None):
        digest.update(repr(value).encode())
    elif id(value) in seen:
        return
    elif isinstance(value, torch.nn.Module):
        digest.update(_ADDRESS.sub("", repr(value)).encode())
        _feed([dict(value.state_dict()), [p.requires_grad for p in value.parameters()]], digest, seen)
    elif isinstance(value, np.ndarray):
        _feed(value.tolist() if value.dtype == object else torch.as_tensor(value), digest, seen)
    elif isinstance(value, dict | list | tuple | set | frozenset):
        digest.update(f"{len(value)} ".encode())
        unordered = isinstance(value, set | frozenset)
        for item in sorted(value, key=repr) if unordered else value.items() if isinstance(value, dict) else value:
            _feed(item, digest, seen)
    elif hasattr(value, "__qualname__"):
        digest.update(f"{value.__module__}.{value.__qualname__}".encode())
    elif dataclasses.is_dataclass(value) or type(value).__repr__ is object.__repr__:
        seen.add(id(value))
        names = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else vars(value)
        _feed({name: getattr(value, name) for name in names}, digest, seen)
    else:
        digest.update(_ADDRESS.sub("", repr(value)).encode())


def _checksum(text, arguments, tensors):
    digest = hashlib.sha256(f"{text}\n{arguments}".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(storage.bytes_of(tensor))
    return digest.hexdigest()
