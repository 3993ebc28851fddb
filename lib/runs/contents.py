"""What the cache of runs holds, for people: which runs there are, what they were asked, and what came out."""

import contextlib
import dataclasses
import functools
import json
import os
import time
from pathlib import Path

from lib import folders
from lib.errors import InputError
from lib.runs import cache
from lib.runs.code import code_hash

_LEFTOVER_SECONDS = 3600  # a temporary folder older than this belongs to nobody


@dataclasses.dataclass(frozen=True)
class Item:
    """A finished or unfinished run on the disk.

    Attributes
    ----------
    folder : Path
    state : {"current", "stale", "damaged", "unfinished", "leftover", "unknown"}
        Stale: made by other code than that at hand. Unknown: by a module that is not found here.
    config : dict
        What was asked, as JSON; empty where it is not known.
    size : int
        Bytes.
    age : float
        Seconds since the last change.
    """

    folder: Path
    state: str
    config: dict
    size: int
    age: float

    @property
    def function(self):
        """Name of the run's function, without ``lib.studies``."""
        return self.folder.parent.name.removeprefix("lib.studies.")

    @property
    def useless(self):
        """Whether no run will ever ask for it again."""
        return self.state in ("stale", "damaged", "leftover")

    @property
    def settings(self):
        """The config in one level, ``settings.lr`` for a field of a nested one; a type by its name."""
        return dict(_flat(self.config))

    def outcome(self):
        """What a finished run returned; nothing is computed. ValueError if a file does not fit its checksum."""
        return cache.read_folder(self.folder)


def items():
    """All that is in the cache of runs, by function and age."""
    code = functools.cache(_code)
    found = [
        _item(folder, code)
        for kind in ("runs", "checkpoints")
        for folder in sorted((folders.CACHE / kind).glob("*/*"))
        if folder.is_dir()
    ]
    return sorted(found, key=lambda item: (item.folder.parent, item.age))


def _item(folder, code):
    walk = () if folder.is_symlink() else os.walk(folder)
    found = [*_stats(Path(where, name) for where, _, names in walk for name in names)]
    size, ages = sum(each.st_size for each in found), [each.st_mtime for each in (*found, *_stats([folder]))]
    age = time.time() - max(ages, default=0.0)
    config = {}
    if folder.name.startswith("."):
        state = "leftover" if age > _LEFTOVER_SECONDS else "unfinished"
    elif (known := _freshness(folder, code)) != "current":
        state = known
    elif folder.parent.parent.name == "checkpoints":
        state = "unfinished"
    else:
        state = "current" if _is_whole(folder) else "damaged"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        config = dict(json.loads((folder / "config.json").read_bytes())["config"])
    return Item(folder, state, config, size, age)


def _stats(files):
    for file in files:
        with contextlib.suppress(OSError):  # another process may have removed it by now
            yield file.stat()


def _freshness(folder, code):
    module = folder.parent.name.rpartition(".")[0]
    if (now := code(module)) is None:  # gone, or a user's own that is not on the path here
        return "stale" if module.startswith("lib.") else "unknown"
    return "current" if folder.name.startswith(now[: cache.CODE_DIGITS]) else "stale"


def _code(module):
    """Hash of a module's code, None where there is no such module."""
    try:
        return code_hash(module)
    except (InputError, ImportError, ValueError):
        return None


def _is_whole(folder):
    try:
        cache.verified(folder)
    except ValueError:
        return False
    return True


def _flat(config, place=""):
    for name, value in config.items():
        if name == "$type":
            if place:
                yield place.rstrip("."), value.rpartition(".")[2]
        elif isinstance(value, dict):
            yield from _flat(value, f"{place}{name}.")
        elif not name.startswith("$"):
            yield f"{place}{name}", value
