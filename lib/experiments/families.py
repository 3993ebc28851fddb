"""How the modes of each family are trained and connected: the settings that the family notebooks share.

Endpoint recipes of the paper's members are published (paper 1, arXiv 2505.02604, and its reference code); those
of the laptop members and all settings of the adaptive driver are ours.
"""

from dataclasses import dataclass, replace

from lib import models, training
from lib.connectivity import M2M, Adaptive, Fixed, connect
from lib.experiments.connectivity import Mode, load_mode
from lib.layers import data_flow

FAMILIES = tuple(name for name in models.FAMILIES if name != "lenet_caffe")  # paper 1; the LeNet of Caffe is paper 2's

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
LAPTOP = {
    "cct7": training.Recipe(epochs=80, batch=50, optimiser="adamw", lr=0.003, schedule="cosine"),
}


def recipe(model, size, *, epochs=0):
    """How a family's modes are trained.

    Parameters
    ----------
    model : str
        A family of ``lib.models``.
    size : {"laptop", "paper"}
    epochs : int
        Instead of the recipe's own, unless 0.

    Returns
    -------
    lib.training.Recipe
    """
    if size == "paper":
        chosen = PAPER.get(model, _CNN)
    else:
        chosen = LAPTOP.get(model, training.Recipe(epochs=40, batch=50, lr=0.05, momentum=0.9))
    return replace(chosen, epochs=epochs) if epochs else chosen


def adaptive(*, threshold, lr, batch, most_rounds, judge_images=250):
    """The adaptive search of the family notebooks, following the data flow.

    Few rounds a move: a move that needs many is better halved, as its rounds are lost when it is taken back.
    """
    driver = Adaptive(threshold=threshold, rounds=30, most_rounds=most_rounds, judge_images=judge_images)
    return M2M(order="fdf", lr=lr, batch=batch, driver=driver)


@dataclass(frozen=True)
class Budget:
    """The paper's fixed schedule with a number of SGD rounds, to be compared with an adaptive path.

    Parameters
    ----------
    start, end : Mode
    rounds : int
        SGD rounds in total, five a tick.
    lr : float
    batch : int
    anchors : int
        How many points of the path are stored, about.
    between : int
        Points evaluated inside every segment.
    seed : int
    """

    start: Mode
    end: Mode
    rounds: int
    lr: float
    batch: int
    anchors: int = 40
    between: int = 3
    seed: int = 0


def fixed_schedule(config, checkpoint):
    """Spend a budget of rounds on the fixed schedule, layers starting at equal intervals.

    The share of its way that a layer moves in a tick is such that it is within 2 % of its destination when the
    next layer starts (ours; the paper's steps are made for far more ticks).

    Returns
    -------
    dict
        ``certificate``: largest training loss over anchors and segments; ``rounds``; ``ticks``.
    """
    task = config.start.data.load()
    start, end = load_mode(config.start, task), load_mode(config.end, task)
    ticks = max(1, config.rounds // 5)
    stages = min(ticks, len(data_flow(start, task)))
    driver = Fixed(
        ticks=ticks, step_a=1 - 0.02 ** (stages / ticks), record_every=max(1, ticks // config.anchors), unit="module"
    )
    search = M2M(order="fdf", lr=config.lr, batch=config.batch, moving_spheres=False, driver=driver)
    path = connect(start, end, task, search, seed=config.seed, checkpoint=checkpoint)
    return {"certificate": path.certificate(task, between=config.between), "rounds": 5 * ticks, "ticks": ticks}
