"""Loss gradients of many networks in one forward and one backward pass."""

import torch
from torch.nn import functional as F


def gradients(network, layout, rows, statistics, x, y):
    """Each network's gradient of its own mean loss on its own images.

    Parameters
    ----------
    network : callable
        As of :func:`lib.batched.fallback.network`.
    layout : lib.batched.layout.Layout
    rows : tensor (n, D)
        Weights.
    statistics : dict of str to tensor (n, C)
        Running statistics of batch norm, updated in place.
    x : tensor (B, n, C, H, W)
    y : tensor (B, n)

    Returns
    -------
    gradient : tensor (n, D)
    loss : tensor, 0-d
        Sum over networks.
    """
    leaves = {name: view.detach().requires_grad_() for name, view in layout.views(rows).items()}
    logits = network(leaves, statistics, x, training=True)
    # The sum over networks of each one's mean: gradients of different networks do not mix.
    loss = F.cross_entropy(logits.flatten(0, 1), y.t().reshape(-1), reduction="sum") / len(y)
    found = torch.autograd.grad(loss, list(leaves.values()))
    return torch.cat([g.reshape(len(rows), -1) for g in found], 1), loss.detach()
