"""Trained modes as pure functions of a config, for ``runs.map``: what the connectivity notebooks start from.

A module of its own, so that no change of a search or of an evaluation trains a mode again.
"""

from dataclasses import dataclass, field, replace

from lib import models, runs, sources, sphere, tasks, training
from lib.weights import is_weight


@dataclass(frozen=True)
class Data:
    """A data set by name, and how networks are trained on it; ``image_size`` and ``train_images`` 0 keep its own.

    Of ``train_images`` each class has its part. ``augment`` False leaves out the data set's augmentation.
    """

    name: str = "digits"
    image_size: int = 0
    train_images: int = 0
    precision: str = "float32"
    compiled: bool = False
    augment: bool = True

    def load(self):
        """The task."""
        task = tasks.load(self.name, size=self.image_size or None, precision=self.precision, compiled=self.compiled)
        task = task if self.augment else replace(task, augmentation=None)
        return task.subset(self.train_images) if self.train_images else task

    def fingerprint(self):
        """Of the data: see :func:`lib.sources.fingerprint`."""
        return sources.fingerprint(self.name)


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
    weights = {name: p.detach() for name, p in model.named_parameters() if is_weight(p)}
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


def _floats(values):
    return {name: float(value.detach()) for name, value in values.items()}
