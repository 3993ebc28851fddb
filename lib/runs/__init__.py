"""Runs: pure functions of frozen configs, computed once, kept on disk, spread over a Dask cluster.

    outcomes = runs.map(experiments.m2m, configs)

A run's key is made from its function, its config and the parsed source of all modules it uses, so a changed
comment keeps a result and a changed formula does not. What is finished is never computed again, what was
interrupted continues from its checkpoint, what is damaged is noticed and run again.
"""

import os
import shutil

from lib.progress import announce
from lib.runs import cache, work
from lib.runs.code import code_hash, code_hash_of_source

__all__ = ["RunFailed", "code_hash", "code_hash_of_source", "local_cluster", "map", "one"]


class RunFailed(RuntimeError):
    """Some runs of a map failed; the message is one line, the results of the other runs are kept."""


def map(function, configs, *, label=None):
    """The outcomes of ``function`` for each config, from the cache where they are there.

    Parameters
    ----------
    function : callable
        At the top level of a module: ``function(config, checkpoint)`` returns a dict of numbers, strings,
        bools, lists, ``torch.Tensor``, ``pandas.DataFrame`` and dicts of these. A pure function: all its
        randomness comes from seeds in the config. ``checkpoint`` is a :class:`lib.checkpoint.Checkpoint`.
    configs : iterable of frozen dataclasses
        Equal configs run once and share an outcome.
    label : str, optional
        The name in messages; default: the function's.

    Returns
    -------
    list of dict
        In the order of ``configs``, exactly as the cache gives them, whether they were there or not.

    Raises
    ------
    RunFailed
        After all runs have ended, if some failed.
    lib.errors.InputError
        If function or configs cannot be the subject of a run, or the scheduler does not answer.
    """
    label = label or function.__name__
    wanted = [(cache.entry(function, config), config) for config in configs]
    entries = {entry.key: entry for entry, _ in wanted}
    found = {key: cache.read(entry) for key, entry in entries.items()}
    jobs = {entry.key: config for entry, config in wanted if found[entry.key] is None}
    if not work.inside_a_run():
        plural = "s" * (len(entries) != 1)
        reused = len(entries) - len(jobs)
        announce(f"{label}: {len(entries)} run{plural}, {reused} reused, {len(jobs)} to run")
    found.update(_finish(function, jobs, entries, label))
    return [found[entry.key] for entry, _ in wanted]


def one(function, config, *, label=None):
    """The outcome of a single run; see :func:`map`."""
    return map(function, [config], label=label)[0]


def local_cluster(workers=None):
    """A context with one local Dask cluster; see :func:`lib.runs.cluster.local_cluster`."""
    from lib.runs import cluster  # takes a second to load: only where something runs

    return cluster.local_cluster(workers)


def _finish(function, jobs, entries, label):
    """Run the jobs to the last, keep what they give, and complain at the end."""
    kept, failures = {}, {}
    try:
        for key, outcome in _outcomes(function, jobs, label):
            try:
                kept[key] = _keep(entries[key], outcome)
            except Exception as error:  # one run's failure must not cost the others
                failures[f"{_brief(jobs[key])}: {type(error).__name__}: {_first_line(error)}"] = error
    except ConnectionError as error:
        raise RunFailed(f"{label}: {error}; what is finished is kept, run again to continue") from None
    except KeyboardInterrupt:
        announce(f"{label}: interrupted; what is finished is kept, the rest continues from its checkpoints")
        raise
    if failures:
        told = "; ".join([*failures][:3]) + "; ..." * (len(failures) > 3)
        cause = next(iter(failures.values()))
        raise RunFailed(f"{label}: {len(failures)} of {len(jobs)} runs failed: {told}") from cause
    return kept


def _outcomes(function, jobs, label):
    """Pairs of key and outcome, or exception, as they come: from this process or from a cluster."""
    if not jobs:
        return
    cache.require_writable([cache.entry(function, config) for config in jobs.values()])
    with cache.at_home() as home:
        if work.inside_a_run() or (len(jobs) == 1 and not os.environ.get("DASK_SCHEDULER_ADDRESS")):
            yield from _in_process(function, jobs, home)
        else:
            from lib.runs import cluster

            yield from cluster.outcomes(function, jobs, label, home)


def _in_process(function, jobs, home):
    for key, config in jobs.items():
        try:
            outcome = work.execute(function, config, key, home)
        except Exception as error:  # reported as that run's failure, like a worker's
            outcome = error
        yield key, outcome


def _keep(entry, outcome):
    """Write an outcome to the cache, unless the worker did, and give back what the cache gives."""
    if isinstance(outcome, Exception):
        raise outcome
    if outcome is not None:
        packed, about = outcome
        cache.write(entry, cache.unpack(*packed), about)
    kept = cache.read(entry)
    if kept is None:
        raise RuntimeError(f"its outcome is not in {entry.folder}, where the worker put it")
    shutil.rmtree(entry.checkpoints, ignore_errors=True)
    return kept


def _brief(config, width=100):
    text = repr(config)
    return text if len(text) <= width else text[: width - 3] + "..."


def _first_line(error):
    return (str(error).strip() or "no message").splitlines()[0]
