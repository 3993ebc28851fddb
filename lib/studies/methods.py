"""Ways to connect two modes, compared: the same modes, the same number of SGD samples, the same evaluation.

The methods table of paper 1 (arXiv 2505.02604) compares published numbers; here every method spends at most the
same number of mini-batches, its path is evaluated by :meth:`lib.connectivity.Path.evaluate`, and what the table
holds is measured. A mini-batch counts where it is run forward and backward; looks at the loss do not count.
"""

import time
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from lib import runs, training
from lib.connectivity import M2M, Path, connect
from lib.connectivity.analysis.landscape import Plane
from lib.connectivity.baselines import alignment, curves, neb
from lib.layers import data_flow
from lib.studies.modes import Mode, load_mode
from lib.weights import flatten


@dataclass(frozen=True)
class Trial:
    """One method between one pair of modes.

    Parameters
    ----------
    start, end : Mode
        Of the same data and model.
    method : str
        One of ``METHODS``.
    sgd_steps : int
        Mini-batches that it may spend.
    curve : lib.connectivity.baselines.curves.Curve
        For curves; SGD steps, kind and bends follow from the method.
    band : lib.connectivity.baselines.neb.AutoNEB
        The SGD steps are its budget.
    search : M2M
        For LLPF, with the adaptive driver. Where a path arrives before the SGD steps are spent, LLPF runs again with
        half the threshold, and the last path that arrived counts; where none arrives, what is left is straight.
    points : int
        Points at which the path is evaluated, about; at least the anchors and the middles between them.
    seed : int
    """

    start: Mode
    end: Mode
    method: str
    sgd_steps: int
    curve: curves.Curve = field(default_factory=curves.Curve)
    band: neb.AutoNEB = field(default_factory=neb.AutoNEB)
    search: M2M = field(default_factory=M2M)
    points: int = 41
    seed: int = 0


def trial(config, checkpoint):
    """Connect two modes by a method and evaluate the path.

    Returns
    -------
    dict
        ``points``: :meth:`lib.connectivity.Path.evaluate` on the training split; ``anchors``: tensor (T, D);
        ``worst`` and ``mean`` training loss of the curve (the mean over arc length); ``accuracy``: test accuracy
        at the worst point; ``length``; ``samples``: images of all mini-batches spent; ``arrived``: whether the
        method itself came to the end mode; ``seconds`` of the search, on this machine.
    """
    task = config.start.data.load()
    a, b = load_mode(config.start, task), load_mode(config.end, task)
    began = time.perf_counter()
    path, sgd_steps, arrived = METHODS[config.method](a, b, task, config, checkpoint)
    seconds = time.perf_counter() - began
    interior_points = max(1, round((config.points - 1) / (len(path) - 1)) - 1)
    points = path.evaluate(task, interior_points=interior_points, splits=("train",))
    worst = path.model_at(points["position"][points["train_loss"].argmax()], task)
    loss, arc = points["train_loss"].to_numpy(), points["arc"].to_numpy()
    return {
        "points": points,
        "anchors": path.anchors,
        "worst": float(loss.max()),
        "mean": float(np.trapezoid(loss, arc) / arc[-1]),
        "accuracy": training.evaluate(worst, task.test).accuracy,
        "length": float(arc[-1]),
        "samples": sgd_steps * config.search.batch,
        "arrived": arrived,
        "seconds": seconds,
    }


def _straight(a, b, task, config, checkpoint):
    return Path.linear(a, b), 0, True


def _curve(a, b, task, config, checkpoint, *, kind, bends):
    settings = replace(config.curve, kind=kind, bends=bends, sgd_steps=config.sgd_steps, batch=config.search.batch)
    path = curves.connect(a, b, task, settings, seed=config.seed, checkpoint=checkpoint)
    return path, config.sgd_steps, True


def _band(a, b, task, config, checkpoint):
    settings = replace(config.band, batch=config.search.batch, budget=config.sgd_steps)
    path = neb.connect(a, b, task, settings, seed=config.seed, checkpoint=checkpoint)
    return path, int(path.log["sgd_steps"].iloc[-1]), True


def _low_loss(a, b, task, config, checkpoint):
    """LLPF with lower and lower thresholds until the SGD steps are spent."""
    found, spent, driver = None, 0, config.search.driver
    while spent < config.sgd_steps:
        search = replace(config.search, driver=replace(driver, max_sgd_steps=config.sgd_steps - spent))
        part = checkpoint.child(f"threshold-{driver.max_loss:g}")
        path = connect(a, b, task, search, seed=config.seed, checkpoint=part)
        if not path.reached(b):
            return found or _completed(path, b), config.sgd_steps, found is not None
        found, spent = path, spent + int(path.log["sgd_steps"].iloc[-1])
        driver = replace(driver, max_loss=driver.max_loss / 2)
    return found, spent, True


def _completed(path, b):
    """A path that ended on its way, and a straight line from there."""
    return Path(b, torch.cat([path.anchors, flatten(b)[None]]), path.log)


def _aligned(method, a, b, task, config, checkpoint):
    return method(a, alignment.align(a, b, task), task, config, checkpoint)


METHODS = {
    "straight line": _straight,
    "aligned line": partial(_aligned, _straight),
    "Bezier, 1 bend": partial(_curve, kind="bezier", bends=1),
    "Bezier, 3 bends": partial(_curve, kind="bezier", bends=3),
    "chain, 1 bend": partial(_curve, kind="chain", bends=1),
    "chain, 3 bends": partial(_curve, kind="chain", bends=3),
    "AutoNEB": _band,
    "LLPF": _low_loss,
    "aligned LLPF": partial(_aligned, _low_loss),
}


@dataclass(frozen=True)
class Lines:
    """Straight lines along which layers move one at a time, or the first ones together.

    Parameters
    ----------
    start, end : Mode
    aligned : bool
        Whether the end mode is aligned with the start first.
    points : int
        Points of each line, both ends included.
    """

    start: Mode
    end: Mode
    aligned: bool = False
    points: int = 9


def layer_barriers(config, checkpoint):
    """Training loss on layer-wise and cumulative straight lines.

    Returns
    -------
    dict
        ``losses``: a row a point: ``kind`` ("layer-wise", "cumulative"), ``layer``, ``fraction`` of the way,
        ``loss``, and ``barrier``: how far it lies above the line between the losses of the ends.
    """
    task = config.start.data.load()
    a, b = load_mode(config.start, task), load_mode(config.end, task)
    b = alignment.align(a, b, task) if config.aligned else b
    layers = data_flow(a, task)
    labels = [next(n for n in names).rpartition(".")[0] for names in layers]
    tables = []
    for kind in ("layer-wise", "cumulative"):
        for label, path in zip(labels, curves.layerwise(a, b, layers, cumulative=kind == "cumulative"), strict=True):
            loss = path.evaluate(task, interior_points=config.points - 2, splits=("train",))["train_loss"].to_numpy()
            fraction = np.linspace(0, 1, len(loss))
            above = loss - (1 - fraction) * loss[0] - fraction * loss[-1]
            columns = {"kind": kind, "layer": label, "fraction": fraction, "loss": loss, "barrier": above}
            tables.append(pd.DataFrame(columns))
    return {"losses": pd.concat(tables, ignore_index=True)}


@dataclass(frozen=True)
class Planes:
    """The plane through two modes and the middle of a path, with other paths on it.

    Parameters
    ----------
    through : Trial
    others : tuple of Trial
        Between the same modes.
    resolution : int
        Grid points a side.
    """

    through: Trial
    others: tuple[Trial, ...]
    resolution: int = 15


def plane(config, checkpoint):
    """Training loss on a plane and the projections of paths.

    Returns
    -------
    dict
        ``surface``: as of :meth:`lib.connectivity.analysis.landscape.Plane.surface`; ``curves``: columns ``method``,
        ``x``, ``y`` and ``height``, the distance of the anchor from the plane.
    """
    task = config.through.start.data.load()
    model = load_mode(config.through.start, task)
    anchors = {each.method: runs.one(trial, each)["anchors"].to(task.device)
               for each in (config.through, *config.others)}  # fmt: skip
    path = Path(model, anchors[config.through.method])
    found = Plane.through(path.anchors[0], path.anchors[-1], path.point((len(path) - 1) / 2))
    tables = []
    for method, points in anchors.items():
        on_plane, height = found.coordinates(points)
        columns = {"x": on_plane[:, 0].tolist(), "y": on_plane[:, 1].tolist(), "height": height.tolist()}
        tables.append(pd.DataFrame(columns).assign(method=method))
    shown = torch.cat(list(anchors.values()))
    surface = found.surface(model, task, shown, resolution=config.resolution)
    return {"surface": surface, "curves": pd.concat(tables, ignore_index=True)}
