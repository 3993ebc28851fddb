"""The geometry of a tick (paper 1): the variance sphere of a layer of three weights, where it is a circle.

Three weights whose mean is 0 lie in a plane, and those of one variance v on a circle of radius sqrt(3 v) in it.
The tick is computed by the library's own correction; the loss is a toy: low in a curved valley near the circle.
"""

import math

import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Circle

from lib import sphere

_PLANE = torch.linalg.qr(torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 1.0], [1.0, 0.0, -1.0]]).double())[0][:, 1:]
VARIANCE = 1 / 3  # a circle of radius 1
START, END = 2.5, 0.5  # directions of the start and the destination, which both lie in the valley
STEPS = (("move", "P_i", "M_1"), ("correct", "M_1", "M_2"), ("train", "M_2", "M_3"), ("correct", "M_3", "P_{i+1}"))
OFFSETS = {"P_i": (-10, 3), "M_1": (0, -9), "M_2": (9, 6), "M_3": (-13, 0), "P_{i+1}": (-4, 9), "D": (9, 3)}


def valley(angle):
    """Distance from the origin at which the toy loss is lowest, by direction."""
    return 1 + 0.3 * torch.sin((angle - START) * math.pi / (START - END))


def loss(point):
    """Toy loss of points (..., 2) of the plane."""
    return (point.norm(dim=-1) - valley(torch.atan2(point[..., 1], point[..., 0]))) ** 2


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
    points = {
        "P_i": start,
        "M_1": moved,
        "M_2": corrected,
        "M_3": trained.detach(),
        "P_{i+1}": _correct(trained.detach()),
    }
    return pd.DataFrame([{"point": n, "x": float(p[0]), "y": float(p[1])} for n, p in {**points, "D": end}.items()])


def _correct(point):
    """A point of the plane, projected as the layer of three weights that it stands for."""
    weights = (_PLANE @ point)[None]
    return (sphere.correct({"w": weights}, {"w": VARIANCE})["w"] @ _PLANE)[0]


def draw(ax, points):
    """Draw the toy loss (dark is high), the variance sphere, and the tick's points with arrows between them."""
    grid = np.linspace(-1.3, 1.3, 200)
    x, y = np.meshgrid(grid, grid[grid >= 0])
    height = loss(torch.from_numpy(np.stack([x, y], -1))).sqrt().numpy()
    ax.contourf(x, y, height, levels=np.linspace(0, 0.6, 13), cmap="Blues", extend="max", alpha=0.6)
    ax.add_patch(Circle((0, 0), 1, fill=False, linestyle="--", color="0.3", label="variance sphere"))
    places = dict(zip(points["point"], points[["x", "y"]].to_numpy(), strict=True))
    for number, (label, one, other) in enumerate(STEPS):
        arrow = {"arrowstyle": "->", "color": f"C{number}", "linewidth": 1.6, "shrinkA": 2, "shrinkB": 2}
        ax.annotate("", places[other], places[one], arrowprops=arrow)
        ax.plot([], [], color=f"C{number}", label=f"{label}: ${one}$ to ${other}$")
    for name, place in places.items():
        ax.plot(*place, "ko", markersize=3)
        ax.annotate(f"${name}$", place, xytext=OFFSETS[name], textcoords="offset points", ha="center", va="center")
    ax.set(aspect="equal", ylim=(0, 1.2), xlim=(-1.2, 1.2), xticks=[], yticks=[])
