"""Random numbers by name: every draw comes from a generator derived from one seed and the draw's purpose.

``derive(seed, "mode", 3, "init")`` hashes its arguments with SHA-256, so streams of different purpose never
overlap and adding a draw in one place moves no number anywhere else. Python's and torch's global generators
are not used, except inside :func:`scope`, for code that cannot be handed a generator.
"""

import contextlib
import hashlib
import json

import numpy as np
import torch


def derive(seed, *names):
    """A 63-bit integer that depends on the seed and on every name, in order.

    Parameters
    ----------
    seed : int
    names : str or int
        What the draw is for, e.g. ``"batches"``, ``3``. ``3`` and ``"3"`` are different names.

    Raises
    ------
    TypeError
        If the seed is not an integer or a name is neither string nor integer.
    """
    for value, types in [(seed, int), *((name, (str, int)) for name in names)]:
        if isinstance(value, bool) or not isinstance(value, types):
            raise TypeError(f"seeds: seed must be an int and names str or int, got {value!r}")
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed, *names, device="cpu"):
    """A ``torch.Generator`` on ``device``, seeded with ``derive(seed, *names)``."""
    return torch.Generator(device).manual_seed(derive(seed, *names))


def numpy(seed, *names):
    """A ``numpy.random.Generator`` (PCG64) seeded with ``derive(seed, *names)``."""
    return np.random.default_rng(derive(seed, *names))


@contextlib.contextmanager
def scope(seed, *names):
    """Seed torch's global generators (CPU and CUDA) inside a ``with``; the former states come back after it.

    For code that draws from the global generator only: parameter initialisation, dropout.
    """
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators += torch.cuda.default_generators
    before = [each.get_state() for each in generators]
    try:
        for each in generators:  # torch.manual_seed does the same at twenty times the cost: scopes are for every step
            each.manual_seed(derive(seed, *names))
        yield
    finally:
        for each, state in zip(generators, before, strict=True):
            each.set_state(state)
