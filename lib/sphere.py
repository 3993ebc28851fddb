"""Layer variance and variance correction: the one operation that both papers share.

The *variance sphere* of a layer is the set of all its weight tensors W with Var(W) = v. As the mean of a
trained layer is near 0, a fixed variance fixes the distance to the origin, hence "sphere". Variance
correction projects a tensor with mean m and variance s2 onto the sphere of variance v::

    W <- m + sqrt(v / s2) (W - m)

Paper 1 (arXiv 2505.02604) corrects before and after the training of each step of a path, paper 2
(arXiv 2404.04616, Algorithm 3) after the averaging of received models. Variances are population variances.
"""

import itertools

import torch

from lib.errors import InputError
from lib.weights import is_weight


@torch.no_grad()
def variance(state):
    """Population variance of every weight tensor.

    Parameters
    ----------
    state : dict of str to tensor, or torch.nn.Module
        Parameters by name; biases and normalisation parameters (one dimension) are left out.

    Returns
    -------
    dict of str to 0-d tensor

    Examples
    --------
    >>> state = {"weight": torch.tensor([[1.0, 3.0], [1.0, 3.0]]), "bias": torch.ones(2)}
    >>> variance(state)
    {'weight': tensor(1.)}
    """
    state = _parameters(state)
    return {name: tensor.var(correction=0) for name, tensor in state.items() if is_weight(tensor)}


@torch.no_grad()
def correct(state, target, *, epsilon=0.0):
    """Project tensors onto their variance spheres.

    Parameters
    ----------
    state : dict of str to tensor
        Parameters by name; stays as it is.
    target : dict of str to float or 0-d tensor
        Variance by name; tensors that are not named are returned unchanged. :func:`variance` of another
        state is the usual target.
    epsilon : float
        Added to both variances. The papers' formula has 0; their reference code uses 1e-4, with which a
        tensor of variance 1e-3 recovers only part of what it lost.

    Returns
    -------
    dict of str to tensor
        A constant tensor (variance 0, one element) has no direction to grow in and stays.

    Raises
    ------
    InputError
        If a target is negative or names no tensor of the state.

    Examples
    --------
    >>> state = {"weight": torch.tensor([[1.0, 3.0], [1.0, 3.0]]), "bias": torch.ones(2)}
    >>> correct(state, {"weight": 4.0})["weight"]  # the same mean, four times the variance
    tensor([[0., 4.],
            [0., 4.]])
    """
    unknown = sorted(set(target) - set(state))
    if unknown:
        raise InputError(f"target: '{unknown[0]}' is not a tensor of the state")
    corrected = dict(state)
    for name, value in target.items():
        if value < 0:
            raise InputError(f"target of '{name}'={float(value)}: a variance cannot be negative")
        tensor = state[name].detach()
        mean, found = tensor.mean(), tensor.var(correction=0)
        if found > _rounding(mean):
            corrected[name] = mean + ((value + epsilon) / (found + epsilon)) ** 0.5 * (tensor - mean)
    return corrected


def variances(rows, layout):
    """Population variance of each weight tensor of N networks.

    Parameters
    ----------
    rows : tensor (N, D)
    layout : lib.weights.Layout

    Returns
    -------
    tensor (N, layers)
        A column for each of ``layout.layers``.
    """
    found = rows.new_empty(len(rows), len(layout.layers))  # filled in place: small results that stay between large
    for part, into in zip(rows.split(16), found.split(16), strict=True):  # temporaries would fragment the memory
        for column, name in enumerate(layout.layers):
            into[:, column] = row_variance(part[:, layout.slices[name]])
    return found


def correct_rows_(rows, target, layout, *, epsilon=0.0):
    """:func:`correct` of N networks at once, in place, without host synchronisation on a GPU.

    Parameters
    ----------
    rows : tensor (N, D)
    target : tensor (N, layers)
        A column for each of ``layout.layers``. Weight tensors that are frozen stay as they are.
    layout : lib.weights.Layout
    epsilon : float
        As in :func:`correct`.

    Returns
    -------
    tensor
        The same rows.
    """
    free = [name not in layout.frozen for name in layout.layers]
    blocks = [rows[:, layout.slices[name]] for name in itertools.compress(layout.layers, free)]
    correct_blocks_(blocks, target if all(free) else target[:, free], epsilon=epsilon)
    return rows


def correct_blocks_(blocks, target, *, epsilon=0.0):
    """:func:`correct` of L weight tensors of N networks, in place and in few operations.

    Parameters
    ----------
    blocks : list of L tensors (N, n_l)
        A weight tensor of all networks, each a row.
    target : tensor (N, L)
    epsilon : float
        As in :func:`correct`.
    """
    if not blocks or (target.device.type == "cpu" and _correct_near_zero(blocks, target, epsilon)):
        return
    means = torch.stack([block.mean(1) for block in blocks], 1)
    columns = means.split(1, dim=1)
    norms = [
        torch.linalg.vector_norm(block.sub_(mean), dim=1) / block.shape[1] ** 0.5
        for block, mean in zip(blocks, columns, strict=True)
    ]
    found = torch.stack(norms, 1).square_()
    scale = torch.where(found > _rounding(means), ((target + epsilon) / (found + epsilon)).sqrt_(), 1.0)
    for block, factor, mean in zip(blocks, scale.split(1, dim=1), columns, strict=True):
        block.mul_(factor).add_(mean)


def _rounding(mean):
    """The variance that rounding gives a constant tensor, instead of 0: about (machine epsilon x mean)^2."""
    return (8 * torch.finfo(mean.dtype).eps * mean).square()


def _correct_near_zero(blocks, target, epsilon):
    """The same with fewer passes over the weights, where no mean is larger than its standard deviation.

    There the mean square less the squared mean loses no digits. Trained layers are like that; where one is not,
    nothing is changed and False returned. Only for a CPU, which need not wait for the answer.
    """
    # Mean and norm of a block one after the other: the second reads it from the cache.
    moments = [(block.mean(1), torch.linalg.vector_norm(block, dim=1) / block.shape[1] ** 0.5) for block in blocks]
    means, norms = (torch.stack(column, 1) for column in zip(*moments, strict=True))
    found = norms.square_().sub_(means.square())
    if not bool((found > means.square()).all()):
        return False
    scale = ((target + epsilon) / (found + epsilon)).sqrt_()
    for block, factor, shift in zip(blocks, scale.split(1, dim=1), (means * (1 - scale)).split(1, dim=1), strict=True):
        if len(block) == 1:  # a single factor is a number: one pass instead of two
            torch.add(shift, block, alpha=float(factor), out=block)
        else:
            block.mul_(factor).add_(shift)
    return True


def row_variance(rows):
    """Population variance of each row (N, n): two vectorised passes, where ``torch.var`` is a scalar one."""
    return (rows - rows.mean(1, keepdim=True)).square_().sum(1) / rows.shape[1]


def _parameters(state):
    return dict(state.named_parameters()) if isinstance(state, torch.nn.Module) else state
