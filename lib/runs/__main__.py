"""``python -m lib.runs list`` and ``clean``: what the cache holds, and how to get rid of it."""

import argparse
import json
import shutil
import sys

from lib import folders
from lib.runs import cache
from lib.runs.contents import items


def _config(config):
    return ", ".join(f"{name}={_brief(value)}" for name, value in config.items() if not name.startswith("$"))


def _brief(value):
    if not isinstance(value, dict):
        return json.dumps(value)
    fields = ", ".join(f"{name}={_brief(item)}" for name, item in value.items() if not name.startswith("$"))
    return f"{value.get('$type', 'dict').rpartition('.')[2]}({fields})"


def _list():
    found = items()
    for item in found:
        config = _config(item.config)
        config = config if len(config) <= 80 else config[:77] + "..."
        print(f"{item.state:10} {_size(item.size):>9} {_age(item.age):>7}  {item.function}  {config}")
    print(
        f"{len(found)} entries, {_size(sum(item.size for item in found))}, "
        f"{sum(item.useless for item in found)} stale or damaged, in {folders.CACHE}"
    )


def _clean(everything):
    removed = [item for item in items() if everything or item.useless]
    for item in removed:
        cache.remove(item.folder)
    if everything:
        shutil.rmtree(folders.CACHE / "fingerprints", ignore_errors=True)
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
