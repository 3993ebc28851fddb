"""Curves between two modes: straight lines, whole and layer by layer, and trained Bezier curves and chains.

A curve phi(t) with end points fixed in the modes and one or more bends is trained to minimise the expectation
of L(phi(t)) over t uniform in [0, 1]: Garipov et al., Loss Surfaces, Mode Connectivity, and Fast Ensembling of
DNNs, arXiv 1802.10026, equation 2. Straight lines of one layer at a time, or of the first layers together, are
the layer-wise barriers of Adilova et al., Layer-wise Linear Mode Connectivity, arXiv 2307.06966.
"""

import math
from dataclasses import dataclass

import pandas as pd
import torch

from lib import seeds, trial
from lib.checkpoint import NoCheckpoint
from lib.connectivity.baselines.gradients import Gradients, restore
from lib.connectivity.path import Path
from lib.connectivity.settings import check_one_of, check_positive
from lib.errors import InputError
from lib.progress import bar
from lib.scopes import computation
from lib.weights import Layout, check_ends, flatten

KINDS = ("bezier", "chain")
LOG_EVERY = 50


@dataclass(frozen=True)
class Curve:
    """A parametric curve between two modes and how it is trained.

    Parameters
    ----------
    kind : {"bezier", "chain"}
        A Bezier curve, or a polygonal chain of straight pieces.
    bends : int
        Control points between the modes.
    sgd_steps : int
        SGD steps, each at one t.
    lr, momentum : float
        The learning rate is constant for half of the SGD steps, falls linearly to a hundredth until 90 % of them
        and stays there, as in the authors' code.
    batch : int
    points : int
        Anchors of the path that stands for a Bezier curve; a chain needs none but its bends.
    """

    kind: str = "bezier"
    bends: int = 1
    sgd_steps: int = 2000
    lr: float = 0.01
    momentum: float = 0.9
    batch: int = 64
    points: int = 21

    def __post_init__(self):
        check_one_of(self, kind=KINDS)
        check_positive(self, "bends", "sgd_steps", "lr", "batch")
        if self.points < 2:
            raise InputError(f"points={self.points}: must be at least 2")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum={self.momentum}: must be in [0, 1)")

    def fractions(self, t):
        """How much each control point, the modes included, counts at t in [0, 1]; a list that sums to 1."""
        degree = self.bends + 1
        if self.kind == "bezier":
            return [math.comb(degree, i) * t**i * (1 - t) ** (degree - i) for i in range(degree + 1)]
        return [max(0.0, 1 - abs(t * degree - i)) for i in range(degree + 1)]

    def rate(self, step):
        """Learning rate of a round (0-based)."""
        done = step / self.sgd_steps
        return self.lr * (1 if done <= 0.5 else max(0.01, 1 - 0.99 * (done - 0.5) / 0.4))


@computation()
def connect(a, b, task, config=None, *, seed=0, checkpoint=NoCheckpoint(), progress=None):
    """Train a curve between two modes.

    Parameters
    ----------
    a, b : torch.nn.Module
        Any two modules of one shape; they stay as they are.
    task : lib.tasks.Task
    config : Curve, optional
    seed : int
        Of the mini-batches and of t.
    checkpoint : lib.checkpoint.Checkpoint, optional
        Where the training keeps its state every few seconds and finds it again.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    Path
        From ``a`` to ``b``: ``config.points`` points of a Bezier curve at even t, or the bends of a chain.
        ``path.log`` has the mean training loss of every fifty SGD steps.

    Raises
    ------
    FloatingPointError
        If training diverges; the message names the round.
    """
    task = trial.check_ends(a, b, task)
    config = config or Curve()
    ends = flatten(a), flatten(b)
    training = _Training(ends, Gradients(a, task, batch=config.batch, seed=seed), config, seed)
    training.run(checkpoint.of(a=a, b=b, task=task, config=config, seed=seed), progress)
    count = config.points if config.kind == "bezier" else config.bends + 2
    anchors = [training.point(config.fractions(number / (count - 1))) for number in range(count)]
    return Path(a, torch.stack(anchors), pd.DataFrame(training.log))


class _Training:
    """SGD with momentum on the bends of a curve."""

    def __init__(self, ends, gradients, config, seed):
        self.ends, self.gradients, self.config, self.seed = ends, gradients, config, seed
        fractions = [number / (config.bends + 1) for number in range(1, config.bends + 1)]
        self.bends = torch.stack([torch.lerp(*ends, fraction) for fraction in fractions])
        self.velocity, self.step, self.log = torch.zeros_like(self.bends), 0, []
        self.sum = self.bends.new_zeros(())

    def point(self, fractions):
        """The point (D,) of the curve with these fraction of the control points."""
        point = torch.lerp(*self.ends, fractions[-1])  # what is equal in all control points stays so exactly
        for fraction, bend in zip(fractions[1:-1], self.bends, strict=True):
            point.add_(bend - self.ends[0], alpha=fraction)
        return point

    def run(self, checkpoint, progress):
        """All SGD steps, from where the checkpoint left them."""
        restore(self, checkpoint, self.bends.device)
        with bar("curve", self.config.sgd_steps, progress) as tell:
            while self.step < self.config.sgd_steps:
                self.round()
                tell(self.step, lambda: {"loss": self.log[-1]["loss"] if self.log else math.nan})
                if checkpoint.due():
                    checkpoint.save({n: getattr(self, n) for n in ("bends", "velocity", "step", "log", "sum")})

    def round(self):
        """One gradient at a random t, handed to the bends by their shares in that point."""
        t = float(torch.rand((), generator=seeds.generator(self.seed, "curve", self.step)))
        fractions = self.config.fractions(t)
        loss, gradient = self.gradients.at(self.point(fractions), self.step)
        self.velocity.mul_(self.config.momentum)
        for fraction, velocity in zip(fractions[1:-1], self.velocity, strict=True):
            velocity.add_(gradient, alpha=fraction)
        self.bends.sub_(self.velocity, alpha=self.config.rate(self.step))
        self.step += 1
        self.sum += loss
        if self.step % LOG_EVERY == 0:
            self._note()

    def _note(self):
        mean = float(self.sum) / LOG_EVERY
        if not math.isfinite(mean):
            raise FloatingPointError(f"curve diverged before round {self.step}: loss {mean}")
        self.log.append({"sgd_steps": self.step, "loss": mean})
        self.sum.zero_()


def layerwise(a, b, layers, *, cumulative=False):
    """Straight paths on which only some layers go from one mode to the other, the others staying in ``a``.

    Parameters
    ----------
    a, b : torch.nn.Module
        Two modules of one shape.
    layers : list of tuple of str
        Parameter names, as of :func:`lib.layers.data_flow`.
    cumulative : bool
        Path i moves the layers up to i, instead of layer i alone.

    Returns
    -------
    list of Path
        One for each layer.
    """
    check_ends(a, b)
    layout, start, end, paths, moved = Layout.of(a), flatten(a), flatten(b), [], None
    for names in layers:
        moved = moved.clone() if cumulative and moved is not None else start.clone()
        for name in names:
            moved[layout.slices[name]] = end[layout.slices[name]]
        paths.append(Path(a, torch.stack([start, moved])))
    return paths
