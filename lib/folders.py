"""Where things lie: one place for every folder that the bundle reads or writes."""

import os
from pathlib import Path

from lib.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
DATA = ROOT / "data"
RESULTS = ROOT / "results"
DOWNLOADS = DATA / "downloads"
CACHE = ROOT / os.environ.get("LIB_CACHE", DATA / "cache")


def data_dir() -> Path | None:
    """Folder with the user's data sets: the environment variable ``DATA_DIR``; None if it is not set.

    Returns
    -------
    Path
        Absolute; a relative ``DATA_DIR`` counts from the repository root, where notebooks run too.

    Raises
    ------
    InputError
        If ``DATA_DIR`` is set and is not a folder.
    """
    given = os.environ.get("DATA_DIR", "").strip()
    if not given:
        return None
    folder = (ROOT / Path(given).expanduser()).resolve()
    if not folder.is_dir():
        raise InputError(f"DATA_DIR={given}: no such folder; unset it, or name the one with your data sets")
    return folder
