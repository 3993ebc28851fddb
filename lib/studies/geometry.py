"""The geometry of a tick (paper 1): the variance sphere of a layer of three weights, where it is a circle.

Three weights whose mean is 0 lie in a plane, and those of one variance v on a circle of radius sqrt(3 v) in it.
The tick is computed by the library's own correction; the loss is a toy: low in a curved valley near the circle.
"""

import math

import numpy as np
import pandas as pd
import torch

from lib import sphere

_PLANE = torch.linalg.qr(torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 1.0], [1.0, 0.0, -1.0]]).double())[0][:, 1:]
VARIANCE = 1 / 3  # a circle of radius 1
START, END = 2.5, 0.5  # directions of the start and the destination, which both lie in the valley


def valley(angle):
    """Distance from the origin at which the toy loss is lowest, by direction."""
    return 1 + 0.3 * torch.sin((angle - START) * math.pi / (START - END))


def loss(point):
    """Toy loss of points (..., 2) of the plane."""
    return (point.norm(dim=-1) - valley(torch.atan2(point[..., 1], point[..., 0]))) ** 2


def surface(x, y):
    """Distance from the valley, the root of the toy loss, on the grid of some values x and y, as an array (y, x)."""
    return loss(torch.from_numpy(np.stack(np.meshgrid(x, y), -1))).sqrt().numpy()


def tick(*, fraction=0.3, sgd_steps=12, lr=0.15):
    """One tick of LLPF M2M: move, correct, train, correct.

    Parameters
    ----------
    fraction : float
        Of the way to the destination that the move takes.
    sgd_steps : int
    lr : float
        Of the gradient descent on the toy loss.

    Returns
    -------
    DataFrame
        ``point`` (P_i, M_1, M_2, M_3, P_{i+1}, D) with its place x, y in the plane.
    """
    start, end = (torch.tensor([math.cos(a), math.sin(a)]).double() for a in (START, END))
    moved = start + fraction * (end - start)
    corrected = _correct(moved)
    trained = corrected.clone().requires_grad_()
    for _ in range(sgd_steps):
        (gradient,) = torch.autograd.grad(loss(trained), trained)
        trained = (trained - lr * gradient).detach().requires_grad_()
    trained = trained.detach()
    names = "P_i", "M_1", "M_2", "M_3", "P_{i+1}", "D"
    points = start, moved, corrected, trained, _correct(trained), end
    return pd.DataFrame([{"point": n, "x": float(p[0]), "y": float(p[1])} for n, p in zip(names, points, strict=True)])


def _correct(point):
    """A point of the plane, projected as the layer of three weights that it stands for."""
    weights = (_PLANE @ point)[None]
    return (sphere.correct({"w": weights}, {"w": VARIANCE})["w"] @ _PLANE)[0]
