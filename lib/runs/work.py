"""What a worker does: one run, on one thread, with its checkpoint.

A worker that has the client's cache folder stores the outcome there, however large it is; from any other the outcome
goes back packed, so no common file system is needed. Where there is one, a run whose worker was lost continues from
its checkpoint on another. One thread for every run, in a worker or in the
caller's process, makes the order of all sums the same: the same bytes whatever the number of workers.
"""

import contextlib
import os
import platform
import signal
import threading
import time
from importlib import metadata

import torch

from lib import seeds
from lib.checkpoint import Checkpoint
from lib.errors import InputError
from lib.runs import cache, code

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "scikit-learn", "networkx")
_here = threading.local()


def dk_setup(worker):
    """Dask calls this when a local worker starts: Ctrl-C is for the client, which ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def inside_a_run():
    """True when this thread is executing a run, which may ask for runs of its own."""
    return getattr(_here, "running", False)


def execute(function, config, key, home):
    """Run ``function(config, checkpoint)``.

    Parameters
    ----------
    home : str
        The client's probe, see :func:`lib.runs.cache.at_home`.

    Returns
    -------
    None or ((str, bytes), dict)
        None where the outcome is in the client's cache. Else the outcome, as :func:`lib.runs.cache.pack` packs it, and
        versions, device, host and seconds.

    Raises
    ------
    RuntimeError
        If the code here is not the code that the client asked for.
    """
    entry = cache.entry(function, config)
    code.require_current(function)
    if entry.key != key:
        raise RuntimeError(
            f"worker on {platform.node()} has another version of the code than the client (edited meanwhile?); "
            "bring it up to date and restart it"
        )
    started = time.perf_counter()
    with _one_thread(), seeds.scope(0):  # a draw from the global generator must not depend on former runs
        outcome = function(config, Checkpoint(entry.checkpoints, checkpoint_seconds()))
    circumstances = about(time.perf_counter() - started)
    if not cache.is_home(home):
        return cache.pack(outcome), circumstances
    return cache.write(entry, outcome, circumstances)


def checkpoint_seconds():
    """Seconds between the saves of a run's state: ``LIB_CHECKPOINT_SECONDS``, else 5."""
    given = os.environ.get("LIB_CHECKPOINT_SECONDS") or "5"
    with contextlib.suppress(ValueError):
        if float(given) >= 0:
            return float(given)
    raise InputError(f"LIB_CHECKPOINT_SECONDS={given}: must be a number of at least 0")


def about(seconds):
    """The circumstances of a run."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    gpu = torch.cuda.is_initialized()
    device = torch.cuda.get_device_name() if gpu else f"CPU {torch.backends.cpu.get_cpu_capability()}"
    return {"seconds": seconds, "device": device, "host": platform.node(), "versions": versions}


@contextlib.contextmanager
def _one_thread():
    threads, outer = torch.get_num_threads(), inside_a_run()
    torch.set_num_threads(1)
    _here.running = True
    try:
        yield
    finally:
        _here.running = outer
        torch.set_num_threads(threads)
