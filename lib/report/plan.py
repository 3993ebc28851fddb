"""Which notebooks a run means, with which parameters, and what is known of the results that are there.

Everything that the user gave is checked here, for all notebooks, before anything runs.
"""

import fnmatch
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import nbformat

from lib import folders, runs
from lib.errors import InputError
from lib.report import parameters
from lib.report.execute import Job, last_error, up_to_date

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def find(folder: Path = folders.NOTEBOOKS) -> dict[str, Path]:
    """All notebooks of `folder`, by name: the path without its suffix."""
    files = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def select(patterns: str, known: dict[str, Path]) -> dict[str, Path]:
    """The notebooks that match one of the blank-separated `patterns`; each pattern must match some."""
    chosen = set()
    for pattern in patterns.split():
        matches = fnmatch.filter(known, pattern.removeprefix("notebooks/").removesuffix(".ipynb"))
        if not matches:
            raise InputError(f"notebooks={pattern!r}: no such notebook{parameters.suggest(pattern, known)}")
        chosen.update(matches)
    if not chosen:
        raise InputError("notebooks='': expected names or patterns such as gossip/*")
    return {name: path for name, path in known.items() if name in chosen}


def plan(profile: str, patterns: str, changes: dict, *, device: str = "auto", root: Path = folders.ROOT) -> list[Job]:
    """Jobs for the selected notebooks of ``root/notebooks``, every parameter known and of the right type.

    Parameters
    ----------
    profile : str
        "laptop", or a file of ``notebooks/profiles``.
    patterns : str
        Blank-separated notebook names, with ``*``.
    changes : dict
        Parameters for every selected notebook; results then go to ``results/<profile>-custom``.
    device : str
        What "auto" means in the notebooks.

    Raises
    ------
    InputError
        For the first thing that is wrong with any of them.
    """
    folder = root / "notebooks"
    known = find(folder)
    chosen = select(patterns, known)
    by_profile = parameters.read_profile(profile, folder=folder / "profiles", notebooks=known)
    _check_device(device)
    results = root / "results" / (f"{profile}-custom" if changes else profile)
    jobs = []
    for name, path in chosen.items():
        notebook = _read(path, name)
        own = parameters.declared(notebook, name=name)
        values = parameters.apply(own, {**by_profile.get(name, {}), **changes}, notebook=name)
        different = {key: value for key, value in values.items() if value != own[key].value}
        key = _key(notebook, name, [results.name, device, values, _content(values)])
        jobs.append(Job(name, path, results, values, different, key))
    return jobs


def _content(values):
    """What the user's own data, files and code hold: other content under the same name is another notebook."""
    names = values.get("data")
    found = []
    for name in sorted({"folder", "mnist", "cifar10"} & set([names] if isinstance(names, str) else names or [])):
        from lib import sources  # two seconds that a run with nothing to do need not spend

        found += filter(None, [sources.fingerprint(name)])
    words = [value for value in values.values() if isinstance(value, str) and value]
    files = [os.path.join(folders.ROOT, os.path.expanduser(word)) for word in words]
    files += [file for word in words for file in _module_files(word)]
    return found + [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if os.path.isfile(file)]


def _module_files(word):
    """Where the module of ``package.module:function`` may lie; without importing it, so not what it imports in turn."""
    module, colon, _ = word.partition(":")
    if not colon:
        return []
    path = os.path.join(*module.split("."))
    return [os.path.join(folder, path + end) for folder in sys.path for end in (".py", "/__init__.py")]


def _read(path, name):
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError):
        raise InputError(f"{name}: not a notebook, or damaged") from None


def _check_device(device):
    if not DEVICE.fullmatch(device):
        raise InputError(f"device={device!r}: expected auto, cpu, cuda, cuda:N or mps")
    if device.startswith(("cuda", "mps")):
        import torch

        backend = torch.backends.mps if device == "mps" else torch.cuda
        if not backend.is_available():
            raise InputError(f"device={device!r}: not available on this machine; expected auto or cpu")


def _key(notebook, name, settings):
    """What decides whether a notebook must run again: source, settings, the code and versions below it."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    try:
        code_hash = runs.code_hash_of_source(code)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    parts = [
        json.dumps(settings, sort_keys=True),
        *(cell.source for cell in notebook.cells),
        code_hash,
        Path(__file__).with_name("style.mplstyle").read_text(),
        (folders.ROOT / "requirements.txt").read_text(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def states(jobs: list[Job], results: Path) -> dict[str, str]:
    """State of the results of every notebook that has some, by name.

    Parameters
    ----------
    jobs : list of Job
        The notebooks as they would run now; another notebook's results cannot be told to be current.
    results : Path
        The profile's results.

    Returns
    -------
    dict of str to str
        "current": made by the code, parameters and data at hand. "stale": by others. "failed: ...": the last run
        failed, and why. "as committed": no run on this machine is known, the results came with the repository.
    """
    planned = {job.name: job for job in jobs}
    folder = results / "quantities"
    there = {file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.json")}
    return {name: _state(name, planned.get(name), results) for name in sorted(there | planned.keys())
            if name in there or last_error(results, name)}  # fmt: skip


def _state(name, job, results):
    if error := last_error(results, name):
        return f"failed: {error}"
    if not (results / "executed" / f"{name}.json").is_file():
        return "as committed"
    return "current" if job is not None and up_to_date(job) else "stale"
