"""``python -m lib.runs list`` and ``clean``: what the cache holds, and how to get rid of it."""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from pathlib import Path

from lib import paths
from lib.errors import InputError
from lib.runs import cache
from lib.runs.code import code_hash

_LEFTOVER_SECONDS = 3600  # a temporary folder older than this belongs to nobody


@dataclasses.dataclass(frozen=True)
class Item:
    """A finished or unfinished run on the disk."""

    folder: Path
    state: str  # current | stale | damaged | unfinished | leftover | unknown
    config: str
    size: int
    age: float

    @property
    def useless(self):
        """Whether no run will ever ask for it again."""
        return self.state in ("stale", "damaged", "leftover")


def items():
    """All that is in the cache of runs, by function and age."""
    found = [
        _item(folder)
        for kind in ("runs", "checkpoints")
        for folder in sorted((paths.CACHE / kind).glob("*/*"))
        if folder.is_dir()
    ]
    return sorted(found, key=lambda item: (item.folder.parent, item.age))


def _item(folder):
    walk = () if folder.is_symlink() else os.walk(folder)
    found = [*_stats(Path(where, name) for where, _, names in walk for name in names)]
    size, ages = sum(each.st_size for each in found), [each.st_mtime for each in (*found, *_stats([folder]))]
    age = time.time() - max(ages, default=0.0)
    config = ""
    if folder.name.startswith("."):
        state = "leftover" if age > _LEFTOVER_SECONDS else "unfinished"
    elif (known := _freshness(folder)) != "current":
        state = known
    elif folder.parent.parent.name == "checkpoints":
        state = "unfinished"
    else:
        state = "current" if _is_whole(folder) else "damaged"
    if (folder / "config.json").is_file():
        config = _config(folder)
    return Item(folder, state, config, size, age)


def _stats(files):
    for file in files:
        with contextlib.suppress(OSError):  # another process may have removed it by now
            yield file.stat()


def _freshness(folder):
    module = folder.parent.name.rpartition(".")[0]
    try:
        fresh = folder.name.startswith(code_hash(module)[: cache.CODE_DIGITS])
    except (InputError, ImportError, ValueError):  # gone, or a user's own that is not on the path here
        return "stale" if module.startswith("lib.") else "unknown"
    return "current" if fresh else "stale"


def _is_whole(folder):
    try:
        cache.verified(folder)
    except ValueError:
        return False
    return True


def _config(folder):
    try:
        config = json.loads((folder / "config.json").read_bytes())["config"]
        return ", ".join(f"{name}={_brief(value)}" for name, value in config.items() if not name.startswith("$"))
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return ""


def _brief(value):
    if not isinstance(value, dict):
        return json.dumps(value)
    fields = ", ".join(f"{name}={_brief(item)}" for name, item in value.items() if not name.startswith("$"))
    return f"{value.get('$type', 'dict').rpartition('.')[2]}({fields})"


def _list():
    found = items()
    for item in found:
        function = item.folder.parent.name.removeprefix("lib.studies.")
        config = item.config if len(item.config) <= 80 else item.config[:77] + "..."
        print(f"{item.state:10} {_size(item.size):>9} {_age(item.age):>7}  {function}  {config}")
    print(
        f"{len(found)} entries, {_size(sum(item.size for item in found))}, "
        f"{sum(item.useless for item in found)} stale or damaged, in {paths.CACHE}"
    )


def _clean(everything):
    removed = [item for item in items() if everything or item.useless]
    for item in removed:
        cache.remove(item.folder)
    if everything:
        shutil.rmtree(paths.CACHE / "fingerprints", ignore_errors=True)
    print(f"removed {len(removed)} entries, {_size(sum(item.size for item in removed))}")


def _size(count):
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _age(seconds):
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def main(arguments=None):
    """Entry point of ``python -m lib.runs``."""
    parser = argparse.ArgumentParser(prog="python -m lib.runs", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what is in the cache: state, size, age, function, config")
    clean = commands.add_parser("clean", help="remove stale and damaged entries")
    clean.add_argument("--all", action="store_true", help="remove everything, unfinished runs too")
    given = parser.parse_args(arguments)
    try:
        _list() if given.command == "list" else _clean(given.all)
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
