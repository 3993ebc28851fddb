"""Running statistics of batch norm: which norms have them, and what they are after weights were moved.

Statistics of an average of networks are not the average of their statistics: a network whose weights were moved
without training is meaningless in eval mode before they are computed anew.
"""

import contextlib

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from lib import scopes, seeds


def batch_norms(model):
    """The batch norms whose running statistics follow the data, by name.

    One that is frozen keeps them as constants: of momentum 0, all of its parameters without gradient, or in eval mode
    inside a model in training mode.

    Returns
    -------
    dict of str to torch.nn.Module
    """
    return {name: norm for name, norm in model.named_modules() if _follows(norm, model.training)}


def _follows(norm, training):
    if not (isinstance(norm, _BatchNorm) and norm.track_running_stats) or norm.momentum == 0:
        return False
    parameters = list(norm.parameters())
    frozen = parameters and not any(p.requires_grad for p in parameters)
    return not frozen and (norm.training or not training)


def running_statistics(model):
    """The running means and variances of the batch norms that follow the data, by name."""
    return {f"{name}.{part}".lstrip("."): getattr(norm, part)
            for name, norm in batch_norms(model).items() for part in ("running_mean", "running_var")}  # fmt: skip


def depends_on_batch(model):
    """Whether a model has a batch norm without running statistics, which normalises by the batch in eval mode too."""
    return any(isinstance(module, _BatchNorm) and module.running_mean is None for module in model.modules())


@contextlib.contextmanager
def from_batch(model, norms, *, momentum=None):
    """Let these norms of a model take the statistics of the batch, everything else being in eval mode.

    Their running statistics move towards those by ``momentum``; None: they become the plain average over the batches.
    """
    momenta = {name: norm.momentum for name, norm in norms.items()}
    with scopes.evaluation(model):
        for norm in norms.values():
            norm.train()
            norm.momentum = momentum
        try:
            yield
        finally:
            for name, norm in norms.items():
                norm.momentum = momenta[name]


@torch.no_grad()
def reestimate(model, x, *, batch=256):
    """Set running statistics to those of inputs ``x``, after weights were averaged or interpolated.

    The statistics are the plain average over batches, which are drawn at random: of images that lie sorted by class, a
    batch in their order would hold one class, and its variance would be too small. Models without batch norm are left
    alone at no cost.

    Parameters
    ----------
    model : torch.nn.Module
    x : tensor (n, ...)
    batch : int
        Most inputs of a forward pass.

    Returns
    -------
    tensor (n, ...) or None
        What the model makes of ``x`` where batch norm takes each batch's own statistics; of one batch these are
        the outputs in eval mode, but for the running variances' factor n / (n - 1). None without batch norm.

    Notes
    -----
    ``torch.optim.swa_utils.update_bn`` puts the whole model into training mode, dropout and frozen norms included.
    """
    norms = batch_norms(model)
    if not norms:
        return None
    for norm in norms.values():
        norm.reset_running_stats()
    with from_batch(model, norms):
        return in_parts(model, x, batch)


def in_parts(model, x, batch):
    """What a model makes of inputs (n, ...), in batches of at most ``batch`` that are drawn at random."""
    if len(x) <= batch:
        return model(x[:])
    order = torch.randperm(len(x), generator=seeds.generator(0, "batch norm")).to(x.device)
    parts = order.tensor_split(-(-len(x) // batch))  # no batch of a single input
    return torch.cat([model(x[part]) for part in parts])[order.argsort()]
