"""Run notebooks strictly: everything the user gave is checked for all of them before anything runs.

``python -m lib.report.notebooks --profile smoke --notebooks "gossip/*" --jobs 2`` is what ``make reproduce``
calls. Notebooks that are up to date are not run again; at the end stand the claims and the report.
"""

import argparse
import fcntl
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext, suppress

import psutil

from lib import folders, runs
from lib.errors import InputError
from lib.report import claims, parameters, site, times
from lib.report.display import Display
from lib.report.execute import Job, Outcome, cell_timeout, execute, up_to_date
from lib.report.plan import plan, states

INTERRUPT_SECONDS = 6.0  # that an orderly end may take after Ctrl-C
# Warnings to a person who searches one path. Here tables say whether a path arrived, and the log would be full of them.
IN_TABLES = "ignore:no path to the destination:UserWarning,ignore:the search may:UserWarning"

def check_data(jobs: list[Job]) -> None:
    """Raise `InputError` if a data set that a notebook names in its parameter `data` is not there."""
    names = {name for job in jobs for name in _listed(job.values.get("data"))}
    if names:
        from lib import sources  # two seconds that a run with nothing to do need not spend

        for name in sorted(names):
            sources.check_available(name)


def _listed(value):
    return [value] if isinstance(value, str) else value or []


def run(
    jobs: list[Job], *, display: Display | None = None, side_by_side: int = 1, again: bool = False
) -> list[Outcome]:
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
    cell_timeout()
    with nullcontext(display) if display else Display(jobs) as display:
        for job in jobs:
            if job not in waiting:
                display.finished(job, "reused")
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
            job, lock=lock, started=processes.append, progress=lambda cell, of: display.running(job, cell, of)
        )
        display.finished(job, f"FAILED, {outcome.error}" if outcome.error else f"{outcome.seconds:.0f} s")
        if outcome.error is None:
            times.record(job.results, job.name, outcome.seconds)
        return outcome

    futures = [pool.submit(one, job) for job in jobs]
    try:
        for future in as_completed(futures):
            future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        display.silent = True
        for process in processes:
            process.end()
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
    parser.add_argument("--profile", default="laptop", help="laptop, smoke, cifar or paper")
    parser.add_argument("--notebooks", default="*", help='names or patterns, such as "gossip/* connectivity/02*"')
    parser.add_argument("--parameters", default="", help='name=value, such as "seed=3 alphas=[0.1,1]"')
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks side by side")
    parser.add_argument("--again", action="store_true", help="also run what is up to date")
    parser.add_argument("--only-run", action="store_true", help="leave the claims and the report as they are")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        return _main(options)
    except (InputError, OSError) as error:  # a full disk and a folder that is not ours are the user's to mend
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _main(options):
    if options.jobs < 1:
        raise InputError(f"jobs={options.jobs}: expected at least 1")
    changes = parameters.parse_assignments(options.parameters)
    jobs = plan(options.profile, options.notebooks, changes, device=options.device)
    folders.data_dir()
    os.environ["DEVICE"] = options.device
    os.environ.setdefault("PYTHONWARNINGS", IN_TABLES)
    with Display(jobs) as display:
        outcomes = run(jobs, display=display, side_by_side=options.jobs, again=options.again)
        code = 0 if options.only_run else _conclude(jobs, options, display)
    failures = [outcome for outcome in outcomes if outcome.error]
    for outcome in failures:  # last, where it is read
        print(f"FAILED {outcome.job.name}: {outcome.error}")
    return int(bool(failures) or code)


def _conclude(jobs, options, display):
    """Judge the claims and build the report; 1 if a claim fails that should hold."""
    results = jobs[0].results
    everything = jobs if options.parameters else plan(options.profile, "*", {}, device=options.device)
    known = states(everything, results)
    with display.phase("building the report"):
        verdicts = claims.check(options.profile, folder=results, states=known)
        built = site.build(options.profile, folder=results, states=known) if known else None
    print()
    code = claims.show(verdicts)
    if built:
        print(f"report: {os.path.relpath(built)}")
    return code


def _interrupt(*_):
    """Ctrl-C: everything ends in an orderly way, and after some seconds in any way."""
    guard = threading.Timer(INTERRUPT_SECONDS, _end_everything)
    guard.daemon = True
    guard.start()
    print("\ninterrupted; the same command continues where this one stopped", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


def _end_everything():
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
