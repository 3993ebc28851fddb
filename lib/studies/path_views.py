"""A closer look at paths: loss surface, directions, fewest segments, sharpness, cost (paper 1; layouts are ours).

Pure functions of a config, for ``runs.map``; modes and paths come from :mod:`lib.studies.m2m`.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib import models, runs, seeds
from lib.connectivity import Path, simplify
from lib.connectivity.analysis import landscape
from lib.connectivity.analysis.simplification import evenly_spaced
from lib.connectivity.walker import Connection as Search
from lib.studies.m2m import Connection, m2m
from lib.studies.modes import Mode, load_mode
from lib.studies.places import position


@dataclass(frozen=True)
class Surface:
    """The loss over the plane through both ends of a path and its middle, and the path seen on it."""

    path: Connection
    resolution: int = 15


def surface(config, checkpoint):
    """Evaluate a plane.

    Returns
    -------
    dict
        ``grid``: :meth:`lib.connectivity.analysis.landscape.Plane.surface`; ``path``: x, y, distance from the plane
        and losses of the path's anchors; ``marks``: x, y of the start, the end and the middle.
    """
    path, task = found_path(config.path)
    three = torch.stack([path.anchors[0], path.anchors[-1], path.point(position(path, 0.5))])
    plane = landscape.Plane.through(*three)
    positions, heights = plane.coordinates(path.anchors)
    seen = pd.DataFrame(positions.tolist(), columns=["x", "y"]).assign(off_plane=heights.tolist())
    grid = plane.surface(path.model, task, torch.cat([three, path.anchors]), resolution=config.resolution)
    return {
        "grid": grid,
        "path": seen.join(path.evaluate(task)[["train_loss", "test_accuracy"]]),
        "marks": pd.DataFrame(plane.coordinates(three)[0].tolist(), columns=["x", "y"]),
    }


@dataclass(frozen=True)
class Segments:
    """The segments of a path, at ``points`` points inside each."""

    path: Connection
    points: int = 50


def segments(config, checkpoint):
    """Look at a path between its anchors.

    Returns
    -------
    dict
        ``points``: :meth:`lib.connectivity.Path.evaluate` on the training split; ``reached``: whether the path
        ends exactly in the end mode.
    """
    path, task = found_path(config.path)
    points = path.evaluate(task, interior_points=config.points, splits=("train",), images=config.path.eval_images)
    return {"points": points, "reached": path.reached(load_mode(config.path.end, task))}


@dataclass(frozen=True)
class Moves:
    """One tick of M2M from a mode towards each of many: move by ``fraction``, correct, train ``sgd_steps``, correct."""

    start: Mode
    ends: tuple[Mode, ...]
    fraction: float = 0.1
    sgd_steps: int = 50
    lr: float = 0.01
    seed: int = 0


def moves(config, checkpoint):
    """Singular values of the moves, layer by layer.

    Returns
    -------
    dict
        ``values``: a row for each layer and number of singular value; every move is scaled to length 1, so
        that k moves in k independent, equally used directions give k values of 1; ``random``: the same for
        random directions of that dimension. ``losses``: training loss where each move ended.
    """
    task = config.start.data.load()
    start, differences, losses = load_mode(config.start, task), [], []
    for end in config.ends:
        walker = Search(
            start, load_mode(end, task), task, order="all", moving_spheres=False, seed=config.seed,
            batch=64, lr=config.lr, judge_images=len(task.train),
        )  # fmt: skip
        before = walker.vector.clone()
        walker.move_fraction(walker.layout.names, config.fraction)
        walker.correct()
        walker.train(config.sgd_steps)
        walker.correct()
        differences.append(walker.vector - before)
        losses.append(walker.loss_at(walker.vector))
    return {"values": _by_layer(walker.layout, torch.stack(differences), config.seed), "losses": losses}


def _by_layer(layout, differences, seed):
    rows = []
    noise = torch.randn(differences.shape, generator=seeds.generator(seed, "noise of the same shape"))
    for name in layout.layers:
        part = layout.slices[name]
        ours, random = (landscape.singular_values(each[:, part]).tolist() for each in (differences, noise))
        for number, (value, chance) in enumerate(zip(ours, random, strict=True)):
            layer = name.removesuffix(".weight")
            rows.append({"layer": layer, "number": number + 1, "value": value, "random": chance})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Simplification:
    """A path, the bounds that it is simplified under, and the numbers of evenly spaced pivots beside them."""

    path: Connection
    bounds: tuple[float, ...] = (0.05, 0.1, 0.2)
    pivots: tuple[int, ...] = (1, 3, 7, 11)
    interior_points: int = 10


def simplification(config, checkpoint):
    """Simplify a path.

    Returns
    -------
    dict
        ``table``: a row for each choice of anchors: ``choice``, ``bound``, ``segments``, ``max_loss``;
        bounds below the largest training loss of the whole path and more pivots than anchors are left out.
        ``kept``: tensor (T, D), the anchors under the smallest bound.
    """
    path, task = found_path(config.path)
    whole = path.max_loss(task, interior_points=config.interior_points)
    rows = [{"choice": "all anchors", "bound": None, "segments": len(path) - 1, "max_loss": whole}]
    shortest = [(bound, simplify(path, task, bound, interior_points=config.interior_points))
                for bound in sorted(config.bounds) if bound > whole]  # fmt: skip
    for bound, each in shortest:
        max_loss = each.max_loss(task, interior_points=config.interior_points)
        rows.append({"choice": "fewest", "bound": bound, "segments": len(each) - 1, "max_loss": max_loss})
    for count in config.pivots:
        if count <= len(path) - 2:
            max_loss = evenly_spaced(path, count).max_loss(task, interior_points=config.interior_points)
            rows.append({"choice": "evenly", "bound": None, "segments": count + 1, "max_loss": max_loss})
    kept = shortest[0][1].anchors if shortest else path.anchors
    return {"table": pd.DataFrame(rows), "kept": kept}


@dataclass(frozen=True)
class Sharpness:
    """Sharpness at ``points`` evenly spaced anchors of a path, its ends included."""

    path: Connection
    points: int = 9
    radius: float = 0.1
    draws: int = 5


def sharpness(config, checkpoint):
    """Measure the sharpness along a path.

    Returns
    -------
    dict
        ``table``: ``anchor``, ``fraction`` of the anchors, ``sharpness`` (:func:`landscape.sharpness`).
    """
    path, task = found_path(config.path)
    last = len(path) - 1
    rows = []
    for anchor in sorted({round(number * last / (config.points - 1)) for number in range(config.points)}):
        value = landscape.sharpness(path.model_at(anchor, task), task, radius=config.radius, draws=config.draws)
        rows.append({"anchor": anchor, "fraction": anchor / max(1, last), "sharpness": value})
    return {"table": pd.DataFrame(rows)}


def cost(config):
    """Parameters of a mode's model, and floating-point operations of one image, forward and backward."""
    task = config.data.load()
    model = models.create(config.model, task, size=config.size, seed=config.seed)
    counter = FlopCounterMode(display=False)
    with counter:
        model.train()(task.train.x[:2]).sum().backward()
    return {"parameters": sum(p.numel() for p in model.parameters()), "flops": counter.get_total_flops() // 2}


def found_path(config):
    """The path of a connection, from the cache where it is there, and its task."""
    task, found = config.start.data.load(), runs.one(m2m, config)
    model = models.create(config.start.model, task, size=config.start.size, seed=config.start.seed)
    return Path(model, found["anchors"], found["log"]), task
