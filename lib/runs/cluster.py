"""Runs on Dask: a local cluster sized to the machine, or the one at ``DASK_SCHEDULER_ADDRESS``.

One thread a worker and a share of the memory each. The key of a run is the key of its Dask task, so two
notebooks that ask one cluster for the same run get it once. A lost worker costs its run, which starts
again elsewhere from its checkpoint; a run that loses its worker three times is given up, the others go on.
"""

import contextlib
import logging
import os
import queue
import tempfile

import dask
import torch
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster

from lib import paths
from lib.errors import InputError
from lib.runs import work
from lib.runs.progress import progress

ADDRESS = "DASK_SCHEDULER_ADDRESS"
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 2,
    "distributed.worker.memory.target": False,  # results are small and go home at once: never spill
    "distributed.worker.memory.spill": False,
    "distributed.admin.tick.limit": "1h",  # a busy machine is no news
}


@contextlib.contextmanager
def local_cluster(workers=None):
    """One cluster for this process and its children, which find it through ``DASK_SCHEDULER_ADDRESS``.

    Parameters
    ----------
    workers : int, optional
        Default: ``LIB_WORKERS``, else one a core (at most four where a GPU is shared). Without effect when
        ``DASK_SCHEDULER_ADDRESS`` names a cluster already.

    Yields
    ------
    str
        The scheduler's address.
    """
    if address := os.environ.get(ADDRESS):
        yield address
        return
    environment = {"LIB_CACHE": str(paths.CACHE), "OMP_NUM_THREADS": "1"}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lib-workers-"))
        stack.enter_context(dask.config.set(_SETTINGS))
        cluster = stack.enter_context(LocalCluster(
            n_workers=workers or machine_workers(), threads_per_worker=1, memory_limit="auto",
            host="127.0.0.1", local_directory=folder, silence_logs=logging.CRITICAL, env=environment,
            dashboard_address=None, scheduler_kwargs={"dashboard_address": "127.0.0.1:0"}))
        stack.callback(os.environ.pop, ADDRESS, None)
        os.environ[ADDRESS] = cluster.scheduler_address
        yield cluster.scheduler_address


def machine_workers():
    """The number of workers that suits this machine."""
    if given := os.environ.get("LIB_WORKERS"):
        if not given.isdecimal() or int(given) < 1:
            raise InputError(f"LIB_WORKERS={given}: must be a whole number of at least 1")
        return int(given)
    return min(CPU_COUNT, 4) if torch.cuda.is_available() else CPU_COUNT


def outcomes(function, jobs, label):
    """Run jobs on the cluster and hand back each as it finishes.

    Parameters
    ----------
    jobs : dict of str to config
        The runs by key.

    Yields
    ------
    key : str
    outcome : (packed, about) or Exception
        As :func:`lib.runs.work.execute` returns it, or why there is none.
    """
    with local_cluster(min(len(jobs), machine_workers())) as address, _client(address) as client:
        finished = queue.SimpleQueue()
        futures = {key: client.submit(work.execute, function, config, key, key=f"{function.__name__}-{key}")
                   for key, config in jobs.items()}
        for key, future in futures.items():
            future.add_done_callback(lambda future, key=key: finished.put((key, future)))
        with contextlib.closing(progress(label, len(jobs))) as display:
            for done in range(len(jobs)):
                key, future = _next(finished, client, display, done, len(jobs))
                yield key, _result(future)
                del futures[key], future  # lets the worker forget it


def _next(finished, client, display, done, total):
    while True:
        display.show(done, min(total - done, len(client.ncores())))
        with contextlib.suppress(queue.Empty):
            return finished.get(timeout=1.0)


def _client(address):
    try:
        return Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{ADDRESS}={address}: no Dask scheduler answers there ({error})") from None


def _result(future):
    try:
        return future.result()
    except KilledWorker:
        return RuntimeError("its worker was lost three times (killed for memory?); give each worker more "
                            "memory or set LIB_WORKERS lower")
    except Exception as error:  # whatever a run raises is reported as that run's failure
        return error
