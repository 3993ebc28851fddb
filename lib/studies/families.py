"""How the modes of each family are trained and connected: the settings that the family notebooks share.

Endpoint recipes of the paper's members are published (paper 1, arXiv 2505.02604, and its reference code); those
of the laptop members and all settings of the adaptive driver are ours.
"""

from dataclasses import dataclass, replace

from lib import models, training
from lib.connectivity import M2M, Adaptive, Fixed, connect
from lib.errors import InputError
from lib.layers import data_flow
from lib.studies.modes import Mode, load_mode

FAMILIES = tuple(name for name in models.FAMILIES if name not in ("lenet_caffe", "small_resnet"))  # those of paper 1

_CNN = training.Recipe(epochs=120, batch=256, lr=0.1, momentum=0.9, weight_decay=1e-4, schedule="cosine")
_MOBILE = replace(_CNN, epochs=200, batch=128, weight_decay=4e-5, schedule="step", milestones=(100,))
PAPER = {
    "lenet5": training.Recipe(epochs=20, lr=0.01),
    "resnet18": replace(_CNN, epochs=70, weight_decay=5e-4, schedule="onecycle"),
    "mobilenetv2": _MOBILE,
    "shufflenet": replace(_MOBILE, epochs=300, milestones=(150, 225)),
    "cct7": training.Recipe(
        epochs=300, batch=128, optimiser="adamw", lr=5.5e-4, weight_decay=6e-2, schedule="cosine", warmup=10
    ),
}
_SMALL = training.Recipe(epochs=30, batch=25, lr=0.05, momentum=0.9, schedule="onecycle")
LAPTOP = {
    "lenet5": replace(_SMALL, lr=0.02),
    "densenet": replace(_SMALL, epochs=60, lr=0.2),
    "efficientnet_b0": replace(_SMALL, epochs=50),
    # SGD, not AdamW as in the paper: a tiny CCT's modes by AdamW are so sharp that plain SGD leaves them again.
    "cct7": replace(_SMALL, epochs=60),
}
# Medium members: no augmentation, as with it a small network's own loss is above the bound of its paths.
_MEDIUM = training.Recipe(epochs=20, batch=64, lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="onecycle")
MEDIUM = {"lenet5": replace(_MEDIUM, epochs=60, lr=0.02)}  # no batch norm: larger rates diverge
_RECIPES = {"laptop": (LAPTOP, _SMALL), "medium": (MEDIUM, _MEDIUM), "paper": (PAPER, _CNN)}
# Learning rate along the path: plain SGD, as in the paper, but larger, which takes fewer SGD steps; without batch norm
# less is stable, and long-trained ResNets (fine-tuned path) need fewer SGD steps with less.
RATES = {"lenet5": 0.05, "resnet18": 0.2, "cct7": 0.2}
_RATE = 0.4
# Larger first steps and less slack than the defaults: fewer SGD steps, as tried on the families' first pairs. Laptop
# members are judged on all images; the medium ones, of which a judge's image costs a third of an SGD step's, on fewer.
_QUICK = Adaptive(slack=0.85, step=0.1, largest_step=1.0, judge_images=2048, interior_points=3)
_CAREFUL = replace(_QUICK, look=3.0, judge_images=1024, interior_points=1)
_DRIVERS = {"laptop": _QUICK, "medium": _CAREFUL, "paper": _QUICK}


def recipe(model, size, *, epochs=0):
    """How a family's modes are trained.

    Parameters
    ----------
    model : str
        A family of ``lib.models``.
    size : {"laptop", "medium", "paper"}
    epochs : int
        Instead of the recipe's own, unless 0.

    Returns
    -------
    lib.training.Recipe
    """
    if size not in _RECIPES:
        raise InputError(f"size='{size}': choose one of {', '.join(_RECIPES)}")
    own, common = _RECIPES[size]
    chosen = own.get(model, common)
    return replace(chosen, epochs=epochs) if epochs else chosen


def adaptive(model, size, *, max_loss, lr, batch, max_sgd_steps):
    """The adaptive search of the family notebooks, following the data flow.

    Parameters
    ----------
    model : str
        A family of ``lib.models``.
    size : {"laptop", "medium", "paper"}
    lr : float
        Of the training along the path; 0 takes the family's own.
    max_loss, batch, max_sgd_steps
        As of :class:`lib.connectivity.M2M` and :class:`lib.connectivity.Adaptive`.

    Returns
    -------
    lib.connectivity.M2M
    """
    driver = replace(_DRIVERS[size], max_loss=max_loss, max_sgd_steps=max_sgd_steps)
    return M2M(order="fdf", lr=lr or RATES.get(model, _RATE), batch=batch, driver=driver)


def variants(search):
    """An adaptive search with one choice changed at a time: what each does to the images that a path takes.

    Parameters
    ----------
    search : lib.connectivity.M2M
        With the driver :class:`lib.connectivity.Adaptive`.

    Returns
    -------
    dict of str to lib.connectivity.M2M
        By what was changed; the first is the search as it is.
    """
    driver = {"step": (0.02, 0.3), "chunk": (2, 10), "slack": (0.5, 1.0), "look": (1.0, 2.0)}
    driver["first_images"] = (search.driver.judge_images,)
    found = {"as set": search}
    for name, values in driver.items():
        found |= {f"{name}={each:g}": replace(search, driver=replace(search.driver, **{name: each})) for each in values}
    found |= {f"lr={each:g}": replace(search, lr=each) for each in (search.lr / 3, 3 * search.lr)}
    with_momentum = [replace(search, momentum=0.9, lr=search.lr * each) for each in (0.1, 0.3)]
    return found | {f"momentum=0.9, lr={each.lr:g}": each for each in with_momentum}


@dataclass(frozen=True)
class Budgets:
    """The paper's fixed schedule with more and more SGD steps, until its path is as low as another one.

    Parameters
    ----------
    start, end : Mode
    bound : float
        The largest training loss to be reached.
    sgd_steps : tuple of int
        SGD steps of each try, five a tick, rising.
    lr : float
    batch : int
    anchors : int
        How many points of the path are stored, about.
    interior_points : int
        Points evaluated inside every segment.
    seed : int
    eval_images : int
        As ``images`` of :meth:`lib.connectivity.Path.evaluate`.
    """

    start: Mode
    end: Mode
    bound: float
    sgd_steps: tuple[int, ...]
    lr: float
    batch: int
    anchors: int = 40
    interior_points: int = 3
    seed: int = 0
    eval_images: int = 0


def fixed_schedule(config, checkpoint):
    """Try the budgets one after the other, and stop at the first that reaches the bound.

    Layers start at equal intervals, along the data flow. The fraction of its way that a layer moves in a tick is
    such that it is within 2 % of its destination when the next layer starts (ours; the paper's steps are made
    for far more ticks).

    Returns
    -------
    dict
        ``sgd_steps`` and ``max_losses`` (largest training loss over anchors and segments) of the tries that were
        made; ``reached``: whether the last of them is not above the bound.
    """
    task = config.start.data.load()
    start, end = load_mode(config.start, task), load_mode(config.end, task)
    layers, spent, max_losses = len(data_flow(start, task)), [], []
    for sgd_steps in config.sgd_steps:
        ticks = max(1, sgd_steps // 5)
        search = M2M(lr=config.lr, batch=config.batch, moving_spheres=False, driver=_schedule(ticks, layers, config))
        path = connect(start, end, task, search, seed=config.seed, checkpoint=checkpoint.child(str(sgd_steps)))
        spent.append(5 * ticks)
        max_losses.append(path.max_loss(task, interior_points=config.interior_points, images=config.eval_images))
        if max_losses[-1] <= config.bound:
            break
    return {"sgd_steps": spent, "max_losses": max_losses, "reached": max_losses[-1] <= config.bound}


def _schedule(ticks, layers, config):
    step = 1 - 0.02 ** (min(ticks, layers) / ticks)
    return Fixed(ticks=ticks, step_a=step, record_every=max(1, ticks // config.anchors), unit="module")
