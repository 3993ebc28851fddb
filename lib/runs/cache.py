"""One folder per finished run, complete and verified or not there at all.

``<CACHE>/runs/<function>/<key>/`` holds ``config.json`` (what was asked), ``metrics.json`` (numbers, strings,
lists, columns of text), ``tensors.safetensors`` (tensors and numeric columns), ``about.json`` (versions,
device, seconds, checksums) and ``DONE`` (checksum of ``about.json``). The folder is written under a temporary
name, flushed to the disk and renamed. A reader checks every checksum: what is damaged is said in one line,
removed, and run again.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from pathlib import Path

import safetensors.torch

from lib import paths, storage
from lib.errors import InputError
from lib.runs.code import code_hash
from lib.runs.config import canonical

log = logging.getLogger(__name__)
CODE_DIGITS = 12  # of the code hash, in front of a key
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
        return paths.CACHE / "runs" / self.function / self.key

    @property
    def checkpoints(self):
        """Where the unfinished run keeps its state."""
        return paths.CACHE / "checkpoints" / self.function / self.key


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


def write(entry, outcome, about):
    """Store an outcome; another process that stored the same run first is left in peace.

    Parameters
    ----------
    entry : Entry
    outcome : (str, bytes)
        JSON text and safetensors bytes, as :func:`pack` makes them.
    about : dict
        What is worth knowing about the run: versions, device, seconds.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; nothing half-written stays under the key.
    """
    entry.folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = entry.folder.with_name(f".{entry.key}.{uuid.uuid4().hex}.tmp")
    asked = json.dumps({**dataclasses.asdict(entry), "config": json.loads(entry.config)}, indent=1)
    parts = dict(zip(_PARTS, (asked.encode(), outcome[0].encode(), outcome[1]), strict=True))
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    about = {**about, "created": time.time(), "checksums": checksums}
    parts["about.json"] = json.dumps(about, indent=1).encode()
    parts["DONE"] = hashlib.sha256(parts["about.json"]).hexdigest().encode()
    try:
        temporary.mkdir()
        for name, data in parts.items():
            storage.write_through(temporary / name, data)
        storage.sync_folder(temporary)
        if not _rename(temporary, entry.folder) and read(entry) is None:
            _rename(temporary, entry.folder)
        storage.sync_folder(entry.folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary, folder):
    try:
        os.rename(temporary, folder)
    except OSError:
        if not folder.exists():
            raise
        return False
    return True


def read(entry):
    """The outcome of a finished run; None if it is not there or not whole (said in one line, removed)."""
    if not entry.folder.exists():
        return None
    try:
        parts, _ = verified(entry.folder)
        return unpack(parts["metrics.json"].decode(), parts["tensors.safetensors"])
    except Exception as error:  # whatever a damaged file makes a parser do, the remedy is the same
        log.warning("cache entry %s/%s is damaged (%s), running again", entry.function, entry.key, error)
        shutil.rmtree(entry.folder, ignore_errors=True)
        return None


def verified(folder):
    """The files of an entry as bytes, and its ``about`` as a dict.

    Raises
    ------
    ValueError
        If a file is missing or does not fit its checksum.
    """
    folder = Path(folder)
    about = _content(folder, "about.json")
    if hashlib.sha256(about).hexdigest().encode() != _content(folder, "DONE"):
        raise ValueError("about.json does not fit DONE")
    about = json.loads(about)
    parts = {name: _content(folder, name) for name in _PARTS}
    for name, data in parts.items():
        if hashlib.sha256(data).hexdigest() != about["checksums"][name]:
            raise ValueError(f"{name} does not fit its checksum")
    return parts, about


def _content(folder, name):
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from None


def pack(outcome):
    """An outcome as JSON text and safetensors bytes."""
    if not isinstance(outcome, dict):
        raise TypeError(f"a run must return a dict, got a {type(outcome).__name__}")
    text, tensors = storage.encode(outcome)
    return text, safetensors.torch.save(tensors)


def unpack(text, data):
    """The outcome that :func:`pack` packed."""
    return storage.decode(text, safetensors.torch.load(data))
