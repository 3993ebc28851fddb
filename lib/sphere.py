"""Layer variance and variance correction: the one operation that both papers share.

The *variance sphere* of a layer is the set of all its weight tensors W with Var(W) = v. As the mean of a
trained layer is near 0, a fixed variance fixes the distance to the origin, hence "sphere". Variance
correction projects a tensor with mean m and variance s2 onto the sphere of variance v::

    W <- m + sqrt(v / s2) (W - m)

Paper 1 (arXiv 2505.02604) corrects before and after the training of each step of a path, paper 2
(arXiv 2404.04616, Algorithm 3) after the averaging of received models. Variances are population variances.
"""

import torch

from lib.errors import InputError


def is_weight(tensor):
    """Whether a parameter is a weight tensor: two dimensions or more, so no bias and no normalisation gain."""
    return tensor.ndim >= 2


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
        corrected[name] = correct_(state[name].detach().clone(), value, epsilon=epsilon)
    return corrected


def correct_(tensor, target, *, stacked=False, epsilon=0.0):
    """Project a tensor onto the sphere of variance ``target``, in place and without host synchronisation.

    Parameters
    ----------
    tensor : tensor
        One weight tensor, or with ``stacked`` a stack (N, ...) of the same weight tensor of N nodes.
    target : float or tensor
        A number, or with ``stacked`` a tensor (N,).
    stacked : bool
        Whether the first dimension counts nodes, each with a sphere of its own.
    epsilon : float
        As in :func:`correct`.

    Returns
    -------
    tensor
        The same tensor. A constant tensor (variance 0, one element) has no direction to grow in and stays.
    """
    rows = tensor.view(len(tensor), -1) if stacked else tensor.view(1, -1)
    target = torch.as_tensor(target, dtype=tensor.dtype, device=tensor.device).reshape(-1, 1)
    correct_rows_([rows], target, epsilon=epsilon)
    return tensor


def correct_rows_(blocks, target, *, epsilon=0.0):
    """Project several layers of N nodes onto their spheres, in place: :func:`correct_` in fewer operations.

    Parameters
    ----------
    blocks : list of L tensors (N, n_l)
        A layer's weights of all nodes.
    target : tensor (N, L)
    epsilon : float
    """
    if target.device.type == "cpu" and _correct_near_zero(blocks, target, epsilon):
        return
    means = torch.stack([block.mean(1) for block in blocks], 1)
    columns = means.split(1, dim=1)
    norms = [
        torch.linalg.vector_norm(block.sub_(mean), dim=1) / block.shape[1] ** 0.5
        for block, mean in zip(blocks, columns, strict=True)
    ]
    found = torch.stack(norms, 1).square_()
    # Rounding gives a constant tensor a variance of about (machine epsilon x mean)^2 instead of 0.
    rounding = (8 * torch.finfo(means.dtype).eps * means).square_()
    scale = torch.where(found > rounding, ((target + epsilon) / (found + epsilon)).sqrt_(), 1.0)
    for block, factor, mean in zip(blocks, scale.split(1, dim=1), columns, strict=True):
        block.mul_(factor).add_(mean)


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
