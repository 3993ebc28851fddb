"""Paths between two modes (:mod:`lib.experiments.modes`) as pure functions of a config, for ``runs.map``."""

from dataclasses import dataclass, field

from lib import sphere
from lib.connectivity import M2M, Path, connect
from lib.experiments.modes import Data, Mode, load_mode, mode

__all__ = ["Connection", "Data", "Mode", "Straight", "load_mode", "m2m", "mode", "outcome", "straight_line"]


@dataclass(frozen=True)
class Connection:
    """A path between two modes, and how closely it is looked at.

    Parameters
    ----------
    start, end : Mode
        Of the same data and model.
    search : M2M
    seed : int
    between : int
        Points inside every segment at which the training loss is measured, on the whole split. Test loss and
        accuracy are measured at the anchors only.
    """

    start: Mode
    end: Mode
    search: M2M = field(default_factory=M2M)
    seed: int = 0
    between: int = 10


def m2m(config, checkpoint):
    """Connect two modes and evaluate the path.

    Returns
    -------
    dict
        ``points``: :meth:`lib.connectivity.Path.evaluate`; ``distances``: by anchor and parameter, to the
        end mode; ``weights``: names of the weight tensors among them; ``log`` of the search; ``anchors``: tensor
        (T, D); ``certificate``: largest training loss; ``reached``: whether the path ends exactly in the end mode;
        ``rounds``: SGD rounds up to the last anchor.
    """
    task = config.start.data.load()
    start, end = load_mode(config.start, task), load_mode(config.end, task)
    path = connect(start, end, task, config.search, seed=config.seed, checkpoint=checkpoint)
    found = outcome(path, end, task, between=config.between)
    return found | {"distances": path.distances(end), "weights": list(sphere.variance(end)), "log": path.log}


def outcome(path, end, task, *, between):
    """What every path is judged by: ``points`` to ``rounds`` of :func:`m2m`."""
    points = path.evaluate(task, between=between, inside=("train",))
    return {
        "points": points,
        "anchors": path.anchors,
        "certificate": float(points["train_loss"].max()),
        "reached": path.reached(end),
        "rounds": int(path.log["rounds"].max()) if len(path.log) else 0,
    }


@dataclass(frozen=True)
class Straight:
    """The straight line between two modes, at ``points`` evenly spaced points, both ends included."""

    start: Mode
    end: Mode
    points: int = 21


def straight_line(config, checkpoint):
    """Evaluate the straight line between two modes.

    Returns
    -------
    dict
        ``points``: as of :func:`m2m`; ``barrier``: largest training loss above the larger of the two ends'.
    """
    task = config.start.data.load()
    path = Path.linear(load_mode(config.start, task), load_mode(config.end, task))
    points = path.evaluate(task, between=config.points - 2)
    loss = points["train_loss"]
    return {"points": points, "barrier": float(loss.max() - max(loss.iloc[0], loss.iloc[-1]))}
