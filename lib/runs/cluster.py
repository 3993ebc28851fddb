"""Runs on Dask: a local cluster sized to the machine, or the one at ``DASK_SCHEDULER_ADDRESS``.

One thread a worker and a share of the memory each. The key of a run is the key of its Dask task, so two
notebooks that ask one cluster for the same run get it once. A lost worker costs its run, which starts
again elsewhere from its checkpoint; one that loses worker after worker is given up, the others go on.
"""

import contextlib
import logging
import math
import os
import platform
import queue
import signal
import tempfile
import threading
import time

import dask
import torch
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster

from lib import folders
from lib.errors import InputError
from lib.progress import progress
from lib.runs import work

ADDRESS = "DASK_SCHEDULER_ADDRESS"
_CONNECT = "10s"
_CLOSE_SECONDS = 5.0
_MEMORY = "auto"  # a worker's share of the machine
_PATIENCE = 120.0  # seconds that this machine's cluster may be without workers: lost ones are back in a few
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,
    "distributed.worker.memory.target": False,  # results are small and go home at once: never spill
    "distributed.worker.memory.spill": False,
    "distributed.scheduler.worker-ttl": "60s",  # a worker that was stopped is replaced, its runs start again
    "distributed.admin.tick.limit": "1h",  # a busy machine is no news
    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}
    # glibc keeps what large tensors leave, instead of mapping each anew (Dask's own threshold is far smaller), and
    # torch asks for large pages: evaluations are up to twice as fast, a copy of ResNet18's weights four times.
    | {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**31, "THP_MEM_ALLOC_ENABLE": 1},
}
logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it says, a run's failure says too
_LOST = "its workers were lost (killed for memory?); give each worker more memory or set LIB_WORKERS lower"


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
    environment = {"LIB_CACHE": str(folders.CACHE)}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lib-workers-"))
        stack.enter_context(dask.config.set(_SETTINGS))
        cluster = LocalCluster(
            n_workers=workers or machine_workers(),
            threads_per_worker=1,
            memory_limit=_MEMORY,
            preload=["lib.runs.work"],
            host="127.0.0.1",
            local_directory=folder,
            silence_logs=logging.CRITICAL,
            env=environment,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        )
        stack.callback(_close, cluster)
        stack.callback(os.environ.pop, ADDRESS, None)
        os.environ[ADDRESS] = cluster.scheduler_address
        yield cluster.scheduler_address


def _close(cluster):
    """Close a cluster; a worker that does not end within some seconds is killed."""
    closer = threading.Thread(target=cluster.close, daemon=True)
    closer.start()
    closer.join(_CLOSE_SECONDS)
    for nanny in cluster.workers.values() if closer.is_alive() else ():
        if nanny.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def machine_workers():
    """The number of workers that suits this machine."""
    if given := os.environ.get("LIB_WORKERS"):
        if not given.isdecimal() or int(given) < 1:
            raise InputError(f"LIB_WORKERS={given}: must be a whole number of at least 1")
        return int(given)
    return min(CPU_COUNT, 4) if torch.cuda.is_available() else CPU_COUNT


def outcomes(function, jobs, label, home):
    """Run jobs on the cluster and hand back each as it finishes.

    When a worker dies, Dask suspects whatever it had been given. Runs that were suspected too often are set
    aside and tried once more at the end, one at a time, so that only the guilty fail.

    Parameters
    ----------
    jobs : dict of str to config
        The runs by key.
    home : str
        As of :func:`lib.runs.work.execute`.

    Yields
    ------
    key : str
    outcome : None, (packed, about) or Exception
        As :func:`lib.runs.work.execute` returns it, or why there is none.

    Raises
    ------
    ConnectionError
        If the scheduler is lost, or all workers of this machine's cluster are and none comes back. Elsewhere a
        cluster may well be empty for hours (a SLURM queue): there we wait.
    """
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(local_cluster(min(len(jobs), machine_workers())))
        client = stack.enter_context(_client(address))
        display = stack.enter_context(contextlib.closing(progress(label, len(jobs))))
        suspects, patience = {}, _PATIENCE if "//127.0.0.1:" in address else math.inf
        for key, outcome in _spread(client, function, jobs, display, patience, home):
            if isinstance(outcome, KilledWorker):
                suspects[key] = jobs[key]
            else:
                yield key, outcome
                display.step()
        for key, config in suspects.items():
            for _, outcome in _spread(client, function, {key: config}, display, patience, home):
                yield key, RuntimeError(_LOST) if isinstance(outcome, KilledWorker) else outcome
                display.step()


def _spread(client, function, jobs, display, patience, home):
    """Pairs of key and outcome as they come; at any time there are as many runs under way as workers."""
    waiting, running, finished = dict(jobs), {}, queue.SimpleQueue()
    manned = time.monotonic()
    while waiting or running:
        workers = _workers(client)
        manned = time.monotonic() if workers else manned
        if time.monotonic() - manned > patience:
            raise ConnectionError("all Dask workers were lost and none came back")
        while waiting and len(running) < max(workers, 1):
            key = next(iter(waiting))
            # The same in all notebooks of a cache folder: one cluster does it once.
            name = f"{function.__name__}-{key}-{platform.node()}-{folders.CACHE}"
            running[key] = client.submit(work.execute, function, waiting.pop(key), key, home, key=name)
            running[key].add_done_callback(lambda _, key=key: finished.put(key))
        display.show(len(running) if workers else 0)
        with contextlib.suppress(queue.Empty):
            key = finished.get(timeout=1.0)
            yield key, _outcome(running.pop(key))


def _workers(client):
    try:
        return len(client.ncores())
    except OSError:
        raise ConnectionError("the Dask scheduler was lost") from None


def _client(address):
    try:
        return Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{ADDRESS}={address}: no Dask scheduler answers there ({error})") from None


def _outcome(future):
    try:
        return future.result()
    except Exception as error:  # whatever a run raises is reported as that run's failure
        return error
