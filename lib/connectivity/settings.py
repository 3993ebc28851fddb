"""How two modes are connected: the settings of LLPF M2M (arXiv 2505.02604), which check themselves."""

from dataclasses import dataclass, field

from lib.connectivity.walker import ORDERS
from lib.errors import InputError

CORRECTIONS = ("none", "before", "after", "both")
CORRECTED = ("all", "moving")
ARCS = ("start", "stage")
RULES = ("sum", "max")
UNITS = ("tensor", "module")


@dataclass(frozen=True)
class Adaptive:
    """Steps as long as the loss allows (ours).

    Parameters
    ----------
    max_loss : float
        Largest loss of an accepted anchor and of the points inside its segment.
    slack : float
        A move is trained until its loss is ``slack * max_loss``, or ``sgd_steps`` are spent: this leaves slack for the
        next move. The step grows where a move met that target quickly, and shrinks where it did not.
    step : float
        Fraction of a layer's way that the first move takes; small, as the first move of a batch-norm network's
        first convolution is the most dangerous one.
    growth : float
        Factor of the step after an anchor that had its slack within ``2 * chunk`` SGD steps; the step is divided
        by it after one that has none.
    chunk, sgd_steps : int
        SGD steps between loss checks, and SGD steps after which a move is taken back and halved.
    look : float
        A point is judged only where the mean mini-batch loss of the last ``chunk`` is at most ``look`` times what the
        point must reach. Batch norm makes the loss in training larger than that of the stored point: with 1 it takes
        more SGD steps than it must, with more it takes more images to judge.
    smallest_step, largest_step : float
        A step that shrinks below the first ends the search: the path then ends where it is. The second caps every
        step; with 1 a layer may go its whole way in one move.
    max_sgd_steps : int
        SGD steps after which the search ends, all moves together.
    judge_images, first_images : int
        Size of the training sample that judges an anchor, and of the part of it that looks first: the large sample sees
        only what passes on the small one.
    interior_points : int
        Points inside the segment to an anchor that are judged with it, evenly spaced.
    """

    max_loss: float = 0.05
    slack: float = 0.5
    step: float = 0.02
    growth: float = 1.5
    chunk: int = 5
    sgd_steps: int = 60
    look: float = 1.0
    smallest_step: float = 1e-4
    largest_step: float = 0.5
    max_sgd_steps: int = 100_000
    judge_images: int = 512
    first_images: int = 256
    interior_points: int = 1

    def __post_init__(self):
        check_positive(self, "max_loss", "step", "look", "smallest_step", "largest_step")
        check_positive(self, "chunk", "sgd_steps", "max_sgd_steps", "judge_images", "first_images")
        if not self.growth >= 1:
            raise InputError(f"growth={self.growth}: must be 1 or larger")
        if self.sgd_steps < self.chunk:
            raise InputError(f"sgd_steps={self.sgd_steps}: must be at least chunk={self.chunk}")
        if not self.interior_points >= 0:
            raise InputError(f"interior_points={self.interior_points}: must be 0 or larger")


@dataclass(frozen=True)
class Fixed:
    """The paper's schedule: a number of ticks, each a step of fixed rule.

    Parameters
    ----------
    ticks : int
    step_f, step_a, step_c : float
        The step of a unit at distance n is step_a n + step_c arc + step_f, never more than n (the clamp is
        ours); arc = r phi with r the mean norm of start and destination and phi the angle between them.
    rule : {"sum", "max"}
        "sum" as in the paper; the reference code takes max(step_f + step_c arc, step_a n).
    arc_from : {"start", "stage"}
        Where arcs begin: at the start of the path (the paper), or where the point is when a stage starts to move (the
        reference code, which then measures the arcs of all layers anew).
    unit : {"tensor", "module"}
        What a distance n is measured over; the reference merges LeNet5's biases with their weights.
    min_sgd_steps, max_sgd_steps : int
        SGD steps a tick.
    stop_loss : float
        A tick's training ends when the mean of its last ``min_sgd_steps`` losses is not larger.
    stages : tuple of (int, str)
        Tick from which on the parameters whose name matches a regular expression move, as in the published
        settings; empty: the layers of the configured order start at equal intervals of the ticks.
    record_every : int
        Ticks between stored anchors; the path is what is stored.
    """

    ticks: int = 1000
    step_f: float = 0.0
    step_a: float = 0.001
    step_c: float = 0.0
    rule: str = "sum"
    arc_from: str = "start"
    unit: str = "tensor"
    min_sgd_steps: int = 5
    max_sgd_steps: int = 5
    stop_loss: float = 0.1
    stages: tuple[tuple[int, str], ...] = ()
    record_every: int = 1

    def __post_init__(self):
        check_one_of(self, rule=RULES, arc_from=ARCS, unit=UNITS)
        check_schedule(self, "step_f", "step_a", "step_c")


@dataclass(frozen=True)
class M2M:
    """How two modes are connected.

    Parameters
    ----------
    driver : Adaptive or Fixed
    order : {"fdf", "all", "reversed", "random"}
        Follow the data flow, or the orders of the ablation.
    correction : {"both", "before", "after", "none"}
        When the variance is corrected, relative to the training of a tick.
    corrected : {"all", "moving"}
        Which layers: all, as the published reference code does, or those that move, as the authors' later code
        (twoentartian/LLR2) does.
    moving_spheres : bool
        Whether a layer's target variance goes from Var(P_0) to Var(D) as it moves (ours; crosses spheres
        both ways; both drivers), or stays Var(P_0) (the paper).
    epsilon : float
        Of the variance correction; the reference code has 1e-4.
    batch : int
    lr, momentum : float
        Of SGD; the paper's has no momentum. It starts afresh with every move.
    """

    driver: Adaptive | Fixed = field(default_factory=Adaptive)
    order: str = "fdf"
    correction: str = "both"
    corrected: str = "all"
    moving_spheres: bool = True
    epsilon: float = 0.0
    batch: int = 64
    lr: float = 0.01
    momentum: float = 0.0

    def __post_init__(self):
        check_one_of(self, order=ORDERS, correction=CORRECTIONS, corrected=CORRECTED)
        check_positive(self, "batch", "lr")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum={self.momentum}: must be in [0, 1)")
        if not self.epsilon >= 0:
            raise InputError(f"epsilon={self.epsilon}: must be 0 or larger")

    @property
    def before(self):
        """Whether the variance is corrected before a tick's training."""
        return self.correction in ("before", "both")

    @property
    def after(self):
        """Whether the variance is corrected after a tick's training."""
        return self.correction in ("after", "both")


def check_positive(config, *names):
    """Refuse a setting that is not larger than 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise InputError(f"{name}={getattr(config, name)}: must be larger than 0")


def check_one_of(config, **choices):
    """Refuse a setting that is none of its choices."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise InputError(f"{name}='{getattr(config, name)}': choose one of {', '.join(allowed)}")


def check_schedule(config, *steps):
    """Refuse ticks, SGD steps or steps that make no schedule; ``steps`` names the parts of a step."""
    check_positive(config, "ticks", "min_sgd_steps", "max_sgd_steps", "stop_loss", "record_every")
    sizes = [getattr(config, name) for name in steps]
    if min(sizes) < 0 or max(sizes) == 0:
        raise InputError(f"{', '.join(steps)}: must not be negative, and one must be larger than 0")
    if config.max_sgd_steps < config.min_sgd_steps:
        raise InputError(f"max_sgd_steps={config.max_sgd_steps}: must be at least min_sgd_steps={config.min_sgd_steps}")
