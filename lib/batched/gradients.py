"""Loss gradients of many networks in one forward and one backward pass."""

import torch

from lib import scores


def gradients(network, layout, rows, buffers, x, y, loss=scores.cross_entropy):
    """Each network's gradient of its own mean loss on its own inputs.

    Parameters
    ----------
    network : callable
        As of :func:`lib.batched.fallback.network`.
    layout : lib.weights.Layout
    rows : tensor (n, D)
        Weights.
    buffers : dict of str to tensor (n, *shape)
        The networks' own buffers, running statistics of batch norm above all; updated in place.
    x : tensor (B, n, ...)
    y : tensor (B, n, ...)
    loss : callable
        Of a task.

    Returns
    -------
    gradient : tensor (n, D)
        0 where a parameter is frozen, or the outputs do not depend on it.
    loss : tensor, 0-d
        Sum over networks.
    """
    leaves = {n: view.detach().requires_grad_(n not in layout.frozen) for n, view in layout.views(rows).items()}
    total = scores.sum_over_networks(loss, network(leaves, buffers, x, training=True), y)
    free = [leaf for leaf in leaves.values() if leaf.requires_grad]
    found = iter(torch.autograd.grad(total, free, allow_unused=True, materialize_grads=True) if free else ())
    parts = [next(found) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in leaves.values()]
    return torch.cat([part.reshape(len(rows), -1) for part in parts], 1), total.detach()
