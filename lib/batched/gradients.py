"""Loss gradients of many networks in one forward and one backward pass."""

import torch

from lib import scores


def gradients(network, layout, rows, statistics, x, y, loss=scores.cross_entropy):
    """Each network's gradient of its own mean loss on its own inputs.

    Parameters
    ----------
    network : callable
        As of :func:`lib.batched.fallback.network`.
    layout : lib.batched.layout.Layout
    rows : tensor (n, D)
        Weights.
    statistics : dict of str to tensor (n, C)
        Running statistics of batch norm, updated in place.
    x : tensor (B, n, ...)
    y : tensor (B, n, ...)
    loss : callable
        Of a task.

    Returns
    -------
    gradient : tensor (n, D)
    loss : tensor, 0-d
        Sum over networks.
    """
    leaves = {name: view.detach().requires_grad_() for name, view in layout.views(rows).items()}
    total = scores.sum_over_networks(loss, network(leaves, statistics, x, training=True), y)
    found = torch.autograd.grad(total, list(leaves.values()))
    return torch.cat([g.reshape(len(rows), -1) for g in found], 1), total.detach()
