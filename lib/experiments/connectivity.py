"""What the connectivity notebooks ask for: modes and paths as pure functions of a config, for ``runs.map``."""

from dataclasses import dataclass, field

from lib import models, runs, sphere, training
from lib import task as tasks
from lib.connectivity import M2M, Path, connect


@dataclass(frozen=True)
class Data:
    """A data set by name, and how networks are trained on it; ``image_size`` and ``train_images`` 0 keep its own."""

    name: str = "digits"
    image_size: int = 0
    train_images: int = 0
    precision: str = "float32"
    compiled: bool = False

    def load(self):
        """The task."""
        task = tasks.load(self.name, size=self.image_size or None, precision=self.precision, compiled=self.compiled)
        return task.subset(self.train_images) if self.train_images else task


@dataclass(frozen=True)
class Mode:
    """An independently trained network: the seed gives its initial weights and the order of its data."""

    data: Data
    model: str
    seed: int
    recipe: training.Recipe = field(default_factory=training.Recipe)
    size: str = "laptop"


def mode(config, checkpoint):
    """Train a mode.

    Returns
    -------
    dict
        ``weights``: the model's state; ``initial_variance``, ``variance``, ``mean``: by weight tensor;
        ``train_loss``, ``train_accuracy``, ``test_loss``, ``test_accuracy``.
    """
    task = config.data.load()
    model = models.create(config.model, task, size=config.size, seed=config.seed)
    before = _floats(sphere.variance(model))
    training.train_mode(model, task, config.recipe, seed=config.seed, checkpoint=checkpoint)
    weights = {name: p.detach() for name, p in model.named_parameters() if sphere.is_weight(p)}
    outcome = {"weights": model.state_dict(), "initial_variance": before, "variance": _floats(sphere.variance(model))}
    outcome["mean"] = {name: float(p.mean()) for name, p in weights.items()}
    for split in ("train", "test"):
        score = training.evaluate(model, getattr(task, split))
        outcome |= {f"{split}_loss": score.loss, f"{split}_accuracy": score.accuracy}
    return outcome


def load_mode(config, task):
    """The trained model of a config, from the cache where it is there."""
    model = models.create(config.model, task, size=config.size, seed=config.seed)
    model.load_state_dict(runs.one(mode, config)["weights"])
    return model.eval()


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


def _floats(values):
    return {name: float(value.detach()) for name, value in values.items()}
