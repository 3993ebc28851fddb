"""Contexts in which the library computes, so that what the caller owns is as it was when they end.

A training flag of a module, torch's random state, the gradient mode and autocast belong to the caller.
"""

import contextlib

import torch

from lib import seeds


@contextlib.contextmanager
def computation():
    """Compute the same whatever the caller's settings: gradients, no autocast, own random numbers.

    Also a decorator, ``@computation()``. The caller may be inside of ``torch.no_grad``, ``torch.inference_mode`` or
    ``torch.autocast``; what a model draws outside of any other :func:`lib.seeds.scope` comes from a fixed seed.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(seeds.scope(0, "computation"))
        yield


@contextlib.contextmanager
def evaluation(model):
    """Eval mode for all modules of a model; afterwards each has the flag that it had."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


def train(model):
    """Training mode, but for modules that were in eval mode inside a model in training mode: so one freezes them."""
    frozen = [module for module in model.modules() if model.training and not module.training]
    model.train()
    for module in frozen:
        module.training = False
