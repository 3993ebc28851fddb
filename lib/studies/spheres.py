"""From sphere to sphere: paths between modes of different layer variance, and towards the origin (paper 1).

Pure functions of a config, for ``runs.map``; modes come from :mod:`lib.studies.modes`.
"""

from dataclasses import dataclass, field

import pandas as pd

from lib import sphere
from lib.connectivity import M2M, M2O, cross_spheres, to_origin
from lib.studies.m2m import outcome
from lib.studies.modes import Mode, load_mode
from lib.weights import flatten


@dataclass(frozen=True)
class Crossing:
    """A path between two modes of different spheres, ``route`` "moving" or "origin"."""

    start: Mode
    end: Mode
    route: str
    m2m: M2M = field(default_factory=M2M)
    m2o: M2O = field(default_factory=M2O)
    seed: int = 0
    interior_points: int = 10


def crossing(config, checkpoint):
    """Cross the spheres and evaluate the path.

    Returns
    -------
    dict
        As of :func:`lib.studies.m2m.m2m`, and ``variances``: by anchor and weight tensor; ``distance``: of each
        anchor to the end, as a fraction of that of the start.
    """
    task = config.start.data.load()
    start, end = load_mode(config.start, task), load_mode(config.end, task)
    path = cross_spheres(
        start, end, task, route=config.route, m2m=config.m2m, m2o=config.m2o, seed=config.seed, checkpoint=checkpoint
    )
    found = outcome(path, end, task, interior_points=config.interior_points)
    left = [float((flatten(end) - anchor).norm()) for anchor in path.anchors]
    return found | {"variances": variances(path), "distance": pd.DataFrame({"distance": left}) / left[0]}


@dataclass(frozen=True)
class Descent:
    """A mode on its way to the origin; where a mode ``onto`` is given it stops at the variances of that one."""

    start: Mode
    m2o: M2O = field(default_factory=M2O)
    onto: Mode | None = None
    seed: int = 0


def descent(config, checkpoint):
    """Move a mode towards the origin, all layers, to the last tick or the targets.

    Returns
    -------
    dict
        ``points``: loss and accuracy at every anchor; ``variances``: by anchor and weight tensor; ``log``.
    """
    task = config.start.data.load()
    start, targets = load_mode(config.start, task), None
    if config.onto:
        targets = sphere.variance(load_mode(config.onto, task))
    path = to_origin(start, task, config.m2o, targets=targets, seed=config.seed, checkpoint=checkpoint)
    return {"points": path.evaluate(task), "variances": variances(path), "log": path.log}


def variances(path):
    """Variance of every weight tensor at every anchor, as a DataFrame."""
    return pd.DataFrame([{name: float(v) for name, v in sphere.variance(state).items()} for state in path.states()])
