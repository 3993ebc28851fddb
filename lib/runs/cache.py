"""One folder per finished run, complete and verified or not there at all.

``<CACHE>/runs/<function>/<key>/`` holds ``config.json`` (what was asked), ``metrics.json`` (numbers, strings,
lists, columns of text), ``tensors.safetensors`` (tensors and numeric columns), ``about.json`` (versions,
device, seconds, checksums) and ``DONE`` (checksum of ``about.json``). The folder is written under a temporary
name, flushed to the disk and renamed. A reader checks every checksum: what is damaged is said in one line,
removed, and run again.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

import safetensors.torch

from lib import folders, storage
from lib.errors import InputError
from lib.runs.code import code_hash
from lib.runs.config import canonical

log = logging.getLogger(__name__)
CODE_DIGITS = 12  # of the code hash, in front of a key
_ON_DISK = 2**26  # bytes from which on a tensor of an outcome is not read into memory
_PARTS = ("config.json", "metrics.json", "tensors.safetensors")


@dataclasses.dataclass(frozen=True)
class Entry:
    """The identity of a run: function, config and code; ``key`` starts with digits of the code hash."""

    function: str
    config: str
    code: str

    @property
    def key(self):
        """Digits of the code hash and of the hash of function and config: the name of the run's folder."""
        asked = hashlib.sha256(f"{self.function}\n{self.config}".encode()).hexdigest()
        return f"{self.code[:CODE_DIGITS]}-{asked[:24]}"

    @property
    def folder(self):
        """Where the finished run is kept."""
        return folders.CACHE / "runs" / self.function / self.key

    @property
    def checkpoints(self):
        """Where the unfinished run keeps its state."""
        return folders.CACHE / "checkpoints" / self.function / self.key


def entry(function, config):
    """The identity of ``function(config)``.

    Raises
    ------
    InputError
        If the function is not a module's own, or the config is not a frozen dataclass of plain values.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    if "<" in name or function.__module__ == "__main__":
        raise InputError(f"{name}: a run's function must be defined at the top level of a module file")
    try:
        return Entry(name, canonical(config), code_hash(function))
    except InputError as error:
        raise InputError(f"{function.__name__}: {error}") from None


def require_writable(entries):
    """Raise an InputError if the folders of these entries cannot be written: better now than after hours."""
    for folder in {entry.folder.parent for entry in entries}:
        probe = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise InputError(
                f"the cache folder {folder} cannot be written ({error.strerror}); LIB_CACHE names another one"
            ) from None


@contextlib.contextmanager
def at_home():
    """A file in the cache folder of this process: a worker that finds it (:func:`is_home`) shares the folder."""
    folders.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folders.CACHE, prefix=".client-") as file:
        yield file.name


def is_home(probe):
    """Whether this process can write to the cache folder of the one that made the probe, see :func:`at_home`."""
    return Path(probe).parent == folders.CACHE and Path(probe).is_file() and os.access(folders.CACHE, os.W_OK)


def write(entry, outcome, about):
    """Store an outcome; another process that stored the same run first is left in peace.

    Parameters
    ----------
    entry : Entry
    outcome : dict
        What the run gave. Its tensors are written from where they lie: a large one may lie on the disk.
    about : dict
        What is worth knowing about the run: versions, device, seconds.

    Raises
    ------
    TypeError
        If the outcome is not a dict, or holds what cannot be stored.
    OSError
        If the disk is full or the folder cannot be written; nothing half-written stays under the key.
    """
    text, tensors = _encoded(outcome)
    entry.folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = entry.folder.with_name(f".{entry.key}.{uuid.uuid4().hex}.tmp")
    asked = json.dumps({**dataclasses.asdict(entry), "config": json.loads(entry.config)}, indent=1)
    try:
        temporary.mkdir()
        storage.write_through(temporary / "config.json", asked.encode())
        storage.write_through(temporary / "metrics.json", text.encode())
        storage.write_tensors(temporary / "tensors.safetensors", tensors)
        about = {**about, "created": time.time(), "checksums": {name: _checksum(temporary / name) for name in _PARTS}}
        storage.write_through(temporary / "about.json", json.dumps(about, indent=1).encode())
        storage.write_through(temporary / "DONE", _checksum(temporary / "about.json").encode())
        storage.sync(temporary)
        if not _rename(temporary, entry.folder) and read(entry) is None and not _rename(temporary, entry.folder):
            raise OSError(errno.EEXIST, f"{entry.folder} is in the way and cannot be removed")
        storage.sync(entry.folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary, folder):
    try:
        os.rename(temporary, folder)
    except OSError:
        if not os.path.lexists(folder):
            raise
        return False
    return True


def read(entry):
    """The outcome of a finished run; None if it is not there or not whole (said in one line, removed).

    Tensors of 64 MB and more lie in the file, and are read from there as they are used.
    """
    if not os.path.lexists(entry.folder):
        return None
    try:
        outcome = read_folder(entry.folder)
        asked = json.loads((entry.folder / "config.json").read_bytes())
        if asked != {**dataclasses.asdict(entry), "config": json.loads(entry.config)}:
            raise ValueError("it belongs to another run")
        return outcome
    except Exception as error:  # whatever a damaged file makes a parser do, the remedy is the same
        log.warning("cache entry %s/%s is damaged (%s), running again", entry.function, entry.key, error)
        remove(entry.folder)
        return None


def read_folder(folder):
    """The outcome in the folder of an entry, whoever asks; ValueError if a file does not fit its checksum."""
    verified(folder)
    _, tensors = storage.read_tensors(folder / "tensors.safetensors")
    return storage.decode((folder / "metrics.json").read_text("utf-8"), tensors, copied_below=_ON_DISK)


def verified(folder):
    """What ``about.json`` of an entry says, as a dict, after a look at all its files.

    Raises
    ------
    ValueError
        If a file is missing or does not fit its checksum.
    """
    folder = Path(folder)
    try:
        if _checksum(folder / "about.json").encode() != (folder / "DONE").read_bytes():
            raise ValueError("about.json does not fit DONE")
        about = json.loads((folder / "about.json").read_bytes())
        for name in _PARTS:
            if _checksum(folder / name) != about["checksums"][name]:
                raise ValueError(f"{name} does not fit its checksum")
    except OSError as error:
        raise ValueError(f"{Path(error.filename).name}: {error.strerror}") from None
    except (LookupError, TypeError):
        raise ValueError("about.json holds no checksums") from None
    return about


def remove(path):
    """Remove a folder of the cache, or what somebody put in its place; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def pack(outcome):
    """An outcome as JSON text and safetensors bytes, to travel from a worker that has another cache folder."""
    text, tensors = _encoded(outcome)
    return text, storage.to_bytes(tensors)


def unpack(text, data):
    """The outcome that :func:`pack` packed."""
    return storage.decode(text, safetensors.torch.load(data))


def _encoded(outcome):
    if not isinstance(outcome, dict):
        raise TypeError(f"a run must return a dict, got a {type(outcome).__name__}")
    return storage.encode(outcome)


def _checksum(file):
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
