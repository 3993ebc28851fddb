"""Paths between two modes (:mod:`lib.studies.modes`) as pure functions of a config, for ``runs.map``."""

from dataclasses import dataclass, field

from lib import sphere
from lib.connectivity import M2M, Path, connect
from lib.studies.modes import Data, Mode, load_mode, mode

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
    interior_points : int
        Points inside every segment at which the training loss is measured, on the whole split. Test loss and
        accuracy are measured at the anchors only.
    eval_images : int
        As ``images`` of :meth:`lib.connectivity.Path.evaluate`; 0: every point on whole splits.
    """

    start: Mode
    end: Mode
    search: M2M = field(default_factory=M2M)
    seed: int = 0
    interior_points: int = 10
    eval_images: int = 0


def m2m(config, checkpoint):
    """Connect two modes and evaluate the path.

    Returns
    -------
    dict
        ``points``: :meth:`lib.connectivity.Path.evaluate`; ``distances``: by anchor and parameter, to the
        end mode; ``weights``: names of the weight tensors among them; ``log`` of the search; ``anchors``: tensor
        (T, D); ``max_loss``: largest training loss; ``reached``: whether the path ends exactly in the end mode;
        ``sgd_steps``: SGD steps up to the last anchor; ``trained``, ``judged``, ``evaluated``: images, one counted as
        often as it was used, that the search trained on and judged points on, and that evaluated the path.
    """
    task = config.start.data.load()
    start, end = load_mode(config.start, task), load_mode(config.end, task)
    path = connect(start, end, task, config.search, seed=config.seed, checkpoint=checkpoint)
    found = outcome(path, end, task, interior_points=config.interior_points, images=config.eval_images)
    judged = int(path.log["judged"].max()) if "judged" in path.log else 0
    found |= {"trained": found["sgd_steps"] * config.search.batch, "judged": judged}
    return found | {"distances": path.distances(end), "weights": list(sphere.variance(end)), "log": path.log}


def outcome(path, end, task, *, interior_points, images=0):
    """What every path is judged by: ``points`` to ``sgd_steps``, and ``evaluated``, of :func:`m2m`."""
    points = path.evaluate(task, interior_points=interior_points, inside=("train",), images=images)
    return {
        "points": points,
        "anchors": path.anchors,
        "max_loss": float(points["train_loss"].max()),
        "reached": path.reached(end),
        "sgd_steps": int(path.log["sgd_steps"].max()) if len(path.log) else 0,
        "evaluated": int(points[["train_images", "test_images"]].sum().sum()),
    }


@dataclass(frozen=True)
class Straight:
    """The straight line between two modes, at ``points`` evenly spaced points, both ends included."""

    start: Mode
    end: Mode
    points: int = 21
    eval_images: int = 0


def straight_line(config, checkpoint):
    """Evaluate the straight line between two modes.

    Returns
    -------
    dict
        ``points``: as of :func:`m2m`; ``barrier``: largest training loss above the larger of the two ends'.
    """
    task = config.start.data.load()
    path = Path.linear(load_mode(config.start, task), load_mode(config.end, task))
    points = path.evaluate(task, interior_points=config.points - 2, images=config.eval_images)
    loss = points["train_loss"]
    return {"points": points, "barrier": float(loss.max() - max(loss.iloc[0], loss.iloc[-1]))}
