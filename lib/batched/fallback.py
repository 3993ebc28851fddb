"""Run many nodes through one network: grouped where possible, else by ``torch.func.vmap``, else one by one.

Each way is a callable ``(parameters, statistics, x, training) -> logits (n, B, classes)`` like
:class:`lib.batched.grouped.GroupedNetwork`. What is not the fastest way is said once, as a warning in the log.
"""

import logging

import torch
from torch.func import functional_call

from lib.batched.grouped import GroupedNetwork, UnsupportedError

log = logging.getLogger(__name__)


def network(model, images):
    """The fastest way to run many nodes of a model.

    Parameters
    ----------
    model : torch.nn.Module
    images : tensor (b, C, H, W)
        A few images, for a trial run.
    """
    try:
        return GroupedNetwork(model)
    except UnsupportedError as error:
        reason = str(error)
    for way in (VmapNetwork, SerialNetwork):
        try:
            _trial(way(model), model, images)
        except Exception as error:  # vmap raises whatever the model's operations cannot do under it
            reason += f"; {way.__name__}: {str(error).splitlines()[0]}"
        else:
            log.warning("nodes are not stacked as groups (%s), using %s", reason, way.__name__)
            return way(model)
    raise UnsupportedError(f"model {type(model).__name__} cannot be run for many nodes: {reason}")


def _trial(run, model, images):
    parameters = {name: p.detach()[None].repeat(2, *[1] * p.ndim) for name, p in model.named_parameters()}
    statistics = {name: b[None].repeat(2, *[1] * b.ndim) for name, b in running_statistics(model).items()}
    x = images[:, None].expand(-1, 2, *images.shape[1:])
    with torch.random.fork_rng():
        run(parameters, statistics, x, training=True)


def running_statistics(model):
    """The running mean and variance of every batch norm of a model, by name."""
    return {n: b for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))}


class VmapNetwork:
    """All nodes by ``torch.func.vmap``; for models without batch-norm statistics."""

    def __init__(self, model):
        self.model = model

    def __call__(self, parameters, statistics, x, *, training):
        """Logits (n, B, classes); see :class:`lib.batched.grouped.GroupedNetwork`."""
        self.model.train(training)
        one = lambda own, images: functional_call(self.model, own, (images,))  # noqa: E731
        where = None if x.ndim == 4 else 1
        return torch.func.vmap(one, in_dims=(0, where), randomness="different")(parameters, x)


class SerialNetwork:
    """The nodes one after another."""

    def __init__(self, model):
        self.model = model

    def __call__(self, parameters, statistics, x, *, training):
        """Logits (n, B, classes); see :class:`lib.batched.grouped.GroupedNetwork`."""
        self.model.train(training)
        logits = []
        for i in range(len(next(iter(parameters.values())))):
            own = {name: stack[i] for name, stack in (parameters | statistics).items()}
            logits.append(functional_call(self.model, own, (x if x.ndim == 4 else x[:, i],)))
        return torch.stack(logits)
