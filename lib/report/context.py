"""Where a notebook's results go, and the record of what it wrote.

The runner (:mod:`lib.report.execute`) tells a notebook its folder, profile and name through environment
variables. Without the runner, in JupyterLab say, results go to ``results/interactive``, which git ignores.
"""

import os
import re
from pathlib import Path

from lib import folders
from lib.errors import InputError

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def results() -> Path:
    """Folder of the current profile's results."""
    return Path(os.environ.get("LIB_RESULTS") or folders.RESULTS / "interactive")


def profile() -> str:
    """Name of the current profile; "interactive" without the runner."""
    return os.environ.get("LIB_PROFILE") or "interactive"


def notebook() -> str:
    """Name of the running notebook, such as "gossip/03-correction"; "interactive" without the runner."""
    return os.environ.get("LIB_NOTEBOOK") or "interactive"


def target(folder: str, name: str) -> Path:
    """Path of result `name` without suffix, its folder made; names are short words joined by dashes."""
    if not NAME.fullmatch(name):
        raise InputError(f"name={name!r}: expected lower-case words and numbers joined by dashes")
    path = results() / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(path: Path, content: bytes | str) -> None:
    """Write a file as a whole or not at all, and put it on the running notebook's list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if listing := os.environ.get("LIB_WRITTEN"):
        with open(listing, "a") as file:
            file.write(f"{path}\n")
