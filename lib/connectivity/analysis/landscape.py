"""Pictures of paths: a plane of weight space with its loss surface, PCA layer by layer, singular values, sharpness.

Items "path pictures" and "redundant dimensions" of paper 1 (arXiv 2505.02604, its first version; the layout is
ours), the plane through three networks as Garipov et al. (2018) draw it. Everything returns numbers.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from lib import seeds
from lib.connectivity.path import Path
from lib.errors import InputError
from lib.weights import Layout, flatten


@dataclass(frozen=True)
class Plane:
    """A plane of weight space: ``origin`` (D,) and two orthonormal directions ``axes`` (2, D)."""

    origin: torch.Tensor
    axes: torch.Tensor

    @classmethod
    def through(cls, a, b, c):
        """The plane of three points (D,): ``a`` at (0, 0), ``b`` on the first axis, ``c`` above it.

        Raises
        ------
        InputError
            If the points lie on one line.
        """
        first, second = b - a, c - a
        length = first.norm()
        first = first / length.clamp_min(1e-30)
        height = second - (second @ first) * first
        if length == 0 or height.norm() <= 1e-6 * second.norm():
            raise InputError("plane: the three points lie on one line")
        return cls(a, torch.stack([first, height / height.norm()]))

    def point(self, x, y):
        """The point (D,) at coordinates x, y, which are distances."""
        return self.origin + x * self.axes[0] + y * self.axes[1]

    def coordinates(self, points):
        """Where points (n, D) fall on the plane, a tensor (n, 2), and how far they are from it, (n,)."""
        difference = points - self.origin
        found = difference @ self.axes.T
        return found, (difference - found @ self.axes).norm(dim=1)

    def surface(self, model, task, points, *, resolution=21, margin=0.2):
        """Training loss and test accuracy on a grid of the plane around points.

        Parameters
        ----------
        model : torch.nn.Module
            Gives the architecture.
        task : lib.tasks.Task
        points : tensor (n, D)
            What the picture must show, such as the three points of the plane and the anchors of a path.
        resolution : int
            Grid points a side.
        margin : float
            Left around the points, as a fraction of their extent.

        Returns
        -------
        DataFrame
            Columns x, y, train_loss, test_accuracy (or the task's metric), row by row of the grid.
        """
        if resolution < 2:
            raise InputError(f"resolution={resolution}: must be at least 2")
        found, _ = self.coordinates(points)
        low, high = found.min(0).values, found.max(0).values
        room = margin * (high - low)
        xs, ys = (np.linspace(float(a), float(b), resolution) for a, b in zip(low - room, high + room, strict=True))
        grid = [(x, y) for y in ys for x in xs]
        scores = Path(model, torch.stack([self.point(x, y) for x, y in grid])).evaluate(task)
        return pd.DataFrame(grid, columns=["x", "y"]).join(scores[["train_loss", f"test_{task.train.score_names[-1]}"]])


def layer_pca(paths, *, components=2):
    """Principal components of the anchors of many paths together, one weight tensor at a time.

    Parameters
    ----------
    paths : dict of str to Path
        Of one architecture.
    components : int

    Returns
    -------
    DataFrame
        A row for each layer and anchor: ``layer``, ``path``, ``anchor``, ``fraction`` (of the path's anchors),
        ``pc1`` ..., and ``explained``, the fraction of the variance that the components hold in this layer.
    """
    first = next(iter(paths.values()))
    layout = Layout.of(first.model)
    anchors = torch.cat([path.anchors for path in paths.values()])
    where = pd.DataFrame(
        [
            {"path": label, "anchor": number, "fraction": number / max(1, len(path) - 1)}
            for label, path in paths.items()
            for number in range(len(path))
        ]
    )
    columns = [f"pc{number + 1}" for number in range(components)]
    tables = []
    for name in layout.layers:
        scores, explained = principal_components(anchors[:, layout.slices[name]], components)
        table = where.assign(layer=name.removesuffix(".weight"), explained=explained)
        tables.append(table.join(pd.DataFrame(scores, columns=columns)))
    return pd.concat(tables, ignore_index=True)


def principal_components(points, components):
    """PCA of a few points of many dimensions, through their (n, n) inner products.

    Parameters
    ----------
    points : tensor (n, D)
    components : int

    Returns
    -------
    scores : array (n, components)
        Of either sign of a component, that in which the last point lies above the mean.
    explained : float
    """
    if not 1 <= components <= len(points):
        raise InputError(f"components={components}: must be between 1 and the {len(points)} points")
    centred = (points - points.mean(0)).double().cpu()
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    scores = vectors[:, :components] * values[:components].sqrt()
    scores = torch.where(scores[-1] < 0, -scores, scores)
    return scores.numpy(), float(values[:components].sum() / values.sum().clamp_min(1e-300))


def singular_values(differences):
    """Singular values of points (n, D), the largest first, each point scaled to length 1; a tensor (n,)."""
    rows = differences.double()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return torch.linalg.eigvalsh(rows @ rows.T).flip(0).clamp_min(0).sqrt()


def sharpness(model, task, *, radius=0.1, draws=10, seed=0):
    """How much the training loss grows at a distance from a point, averaged over random directions.

    Parameters
    ----------
    model : torch.nn.Module
    task : lib.tasks.Task
    radius : float
        Distance, as a fraction of its norm, by which every weight tensor moves; thus the same for every scale.
    draws : int
        Random directions.
    seed : int
        Of the directions, which depend on nothing else: two points of one shape are tried in the same ones.

    Returns
    -------
    float
        Mean loss at the distance less the loss of the point, batch norm re-estimated at each.

    Notes
    -----
    Expected sharpness under perturbations relative to the layer (as filter-normalised pictures, Li et al.
    2018); the largest Hessian eigenvalue would change with the scale of a scale-invariant layer.
    """
    if not radius > 0 or draws < 1:
        raise InputError(f"radius={radius}, draws={draws}: must be larger than 0")
    layout, here = Layout.of(model), flatten(model)
    points = [here]
    for draw in range(draws):
        noise = torch.randn(len(here), generator=seeds.generator(seed, "sharpness", draw)).to(here.device)
        step = torch.zeros_like(here)
        for name, part in layout.slices.items():
            if name in layout.layers:
                step[part] = noise[part] * here[part].norm() / noise[part].norm()
        points.append(here + radius * step)
    losses = Path(model, torch.stack(points)).evaluate(task, splits=("train",)).train_loss
    return float(losses[1:].mean() - losses[0])
