"""One tick of LLPF M2M (paper 1, arXiv 2505.02604) in plain lines: to read, and to test against.

The search of :mod:`lib.connectivity.llpf` takes the same tick on one flat vector
(``tests/test_connectivity_reference.py``).
"""

import torch
from torch.nn.functional import cross_entropy


def tick(model, destination, spheres, active, batches, *, step_a, step_c, step_f, arcs, lr):
    """Move, correct, train, correct: from P_i to P_{i+1}, in place.

    Parameters
    ----------
    model : torch.nn.Module
        At the point P_i.
    destination : dict of str to tensor
        D, by name of the parameters.
    spheres : dict of str to 0-d tensor
        Target variance of each weight tensor, Var(P_0,l).
    active : set of str
        Parameters that move; all of them train.
    batches : list of (tensor, tensor)
        Images and classes of the mini-batches.
    step_a, step_c, step_f : float
        The step of a parameter at distance n is ``step_a n + step_c arc + step_f``, and never more than n.
    arcs : dict of str to float
        Length of the arc from P_0 to D by parameter.
    lr : float

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> start, end = torch.nn.Linear(50, 2), torch.nn.Linear(50, 2)
    >>> destination = dict(end.named_parameters())
    >>> spheres = {"weight": start.weight.detach().var(correction=0)}
    >>> away = lambda: (end.weight - start.weight).norm().item()
    >>> before = away()
    >>> tick(start, destination, spheres, {"weight"}, [], step_a=0.5, step_c=0, step_f=0, arcs={"weight": 0}, lr=0.1)
    >>> away() < before, torch.isclose(start.weight.var(correction=0), spheres["weight"]).item()
    (True, True)
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in active:  # P_i to M_1
            way = destination[name] - parameters[name]
            distance = way.norm()
            step = step_a * distance + step_c * arcs[name] + step_f
            parameters[name] += way * min(1.0, float(step / distance))
    correct(parameters, spheres)  # M_1 to M_2
    for x, y in batches:  # M_2 to M_3
        gradients = torch.autograd.grad(cross_entropy(model(x), y), parameters.values())
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), gradients, strict=True):
                parameter -= lr * gradient
    correct(parameters, spheres)  # M_3 to P_{i+1}


@torch.no_grad()
def correct(parameters, spheres):
    """Variance correction, ``W <- m + sqrt(v / s2) (W - m)``, of the weight tensors that have a sphere."""
    for name, variance in spheres.items():
        weight = parameters[name]
        mean, found = weight.mean(), weight.var(correction=0)
        weight.copy_(mean + (variance / found).sqrt() * (weight - mean))
