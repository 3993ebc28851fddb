"""Run notebooks strictly: everything the user gave is checked for all of them before anything runs.

``python -m lib.report.notebooks --profile smoke --notebooks "gossip/*" --jobs 2`` is what ``make reproduce``
calls. Notebooks that are up to date are not run again; at the end stand the claims and the report.
"""

import argparse
import fcntl
import fnmatch
import hashlib
import json
import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import nbformat

from lib import paths, runs
from lib.errors import InputError
from lib.report import claims, parameters, site
from lib.report.display import Display
from lib.report.execute import Job, Outcome, execute, up_to_date

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def find(folder: Path = paths.NOTEBOOKS) -> dict[str, Path]:
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


def plan(profile: str, patterns: str, changes: dict, *, device: str = "auto", root: Path = paths.ROOT) -> list[Job]:
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
        key = _key(notebook, name, [results.name, device, values])
        jobs.append(Job(name, path, results, values, different, key))
    return jobs


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
        (paths.ROOT / "requirements.txt").read_text(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_data(jobs: list[Job]) -> None:
    """Raise `InputError` if a data set that a notebook names in its parameter `data` is not there."""
    names = {name for job in jobs for name in _listed(job.values.get("data"))}
    if names:
        from lib import datasets  # two seconds that a run with nothing to do need not spend

        for name in sorted(names):
            datasets.check_available(name)


def _listed(value):
    return [value] if isinstance(value, str) else value or []


def run(jobs: list[Job], *, side_by_side: int = 1, again: bool = False) -> list[Outcome]:
    """Run the jobs that are not up to date, `side_by_side` at a time; failures do not stop the others.

    Returns
    -------
    list of Outcome
        One for each notebook that ran, in the order of `jobs`.

    Raises
    ------
    InputError
        If a data set is missing, or another run holds the results folder; nothing has run then.
    """
    waiting = [job for job in jobs if again or not up_to_date(job)]
    check_data(waiting)
    with Display(len(jobs)) as display:
        for job in jobs:
            if job not in waiting:
                display.finished(job.name, "reused")
        if not waiting:
            return []
        with (
            _alone(waiting[0].results) as lock,
            runs.local_cluster(),
            ThreadPoolExecutor(side_by_side) as pool,
        ):
            return _run_all(waiting, lock, pool, display)


def _run_all(jobs, lock, pool, display):
    processes = []

    def one(job):
        outcome = execute(
            job, lock=lock, started=processes.append, progress=lambda cells: display.running(job.name, cells)
        )
        display.finished(job.name, f"FAILED, {outcome.error}" if outcome.error else f"{outcome.seconds:.0f} s")
        return outcome

    futures = [pool.submit(one, job) for job in jobs]
    try:
        for future in as_completed(futures):
            future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        display.silent = True
        for process in processes:
            process.terminate()
        raise
    return [future.result() for future in futures]


@contextmanager
def _alone(results):
    """Hold the results folder: two runs of one profile would write the same files."""
    folder = results / "executed"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{os.path.relpath(results)}: another run is writing there; wait for it to end") from None
        yield lock.fileno()


def main(arguments: list[str] | None = None) -> int:
    """Run notebooks; exit code 0 if all ran and no claim fails, 1 otherwise, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="notebooks", description=main.__doc__)
    parser.add_argument("--profile", default="laptop", help="laptop, smoke or paper")
    parser.add_argument("--notebooks", default="*", help='names or patterns, such as "gossip/* connectivity/02*"')
    parser.add_argument("--parameters", default="", help='name=value, such as "seed=3 alphas=[0.1,1]"')
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks side by side")
    parser.add_argument("--again", action="store_true", help="also run what is up to date")
    parser.add_argument("--only-run", action="store_true", help="leave the claims and the report as they are")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _main(options)
    except (InputError, OSError) as error:  # a full disk and a folder that is not ours are the user's to mend
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130


def _main(options):
    if options.jobs < 1:
        raise InputError(f"jobs={options.jobs}: expected at least 1")
    changes = parameters.parse_assignments(options.parameters)
    jobs = plan(options.profile, options.notebooks, changes, device=options.device)
    paths.data_dir()
    os.environ["DEVICE"] = options.device
    outcomes = run(jobs, side_by_side=options.jobs, again=options.again)
    failed = any(outcome.error for outcome in outcomes)
    if options.only_run:
        return int(failed)
    print()
    results = jobs[0].results
    code = claims.show(claims.check(options.profile, folder=results))
    if site.executed(results):
        print(f"report: {os.path.relpath(site.build(options.profile, folder=results))}")
    return int(failed or code)


if __name__ == "__main__":
    sys.exit(main())
