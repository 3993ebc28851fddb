"""AutoNEB: a band of pivots between two modes that relaxes towards a minimum energy path.

Draxler et al., Essentially No Barriers in Neural Network Energy Landscape, arXiv 1803.00885, as paper 1
(arXiv 2505.02604) runs it as its baseline. In each step the pivots are redistributed to equal arc length and
descend along their gradient on one shared mini-batch, less its component along the band; no spring. Between
cycles of steps pivots are added where the band is worst: 1, 3, 7, 11.
"""

import itertools
import math
from dataclasses import dataclass

import pandas as pd
import torch

from lib import trial
from lib.checkpoint import NoCheckpoint
from lib.connectivity.baselines.gradients import Gradients, restore
from lib.connectivity.path import Path
from lib.connectivity.settings import check_positive
from lib.errors import InputError
from lib.progress import bar
from lib.scopes import computation
from lib.weights import flatten

PUBLISHED = ((1e-3, 1000, 4), (1e-3, 2000, 2), (1e-4, 1000, 4), (1e-5, 1000, 4))


@dataclass(frozen=True)
class AutoNEB:
    """How a band of pivots is relaxed.

    Parameters
    ----------
    cycles : tuple of (float, int, int)
        Learning rate of Adam, steps of a cycle, number of such cycles; Adam starts anew in every cycle. The
        published ones by default.
    batch : int
        Images that all pivots share in a step.
    test_points : int
        Points inside every segment at which the loss is looked at after a cycle.
    excess : float
        A segment gets a pivot at its worst test point where the loss lies above the line between the losses
        of the segment's ends by more than this fraction of the range of the pivots' losses.
    inserts, most_pivots : int
        Largest number of pivots added after a cycle, and of pivots altogether; by default 1, 3, 7, 11.
    budget : int
        Approximate total of gradient evaluations; replaces the cycle lengths. A cycle gets its part of what is left,
        in proportion to its own length, and fewer steps the more pivots there are. 0: no budget.
    judge_images : int
        Size of the training sample on which the test points are judged, batch norm by its own statistics.
    """

    cycles: tuple[tuple[float, int, int], ...] = PUBLISHED
    batch: int = 64
    test_points: int = 9
    excess: float = 0.2
    inserts: int = 4
    most_pivots: int = 11
    budget: int = 0
    judge_images: int = 512

    def __post_init__(self):
        check_positive(self, "batch", "test_points", "most_pivots", "judge_images")
        if not self.cycles or not all(len(c) == 3 and min(c) > 0 for c in self.cycles):
            raise InputError(f"cycles={self.cycles}: needs (learning rate, steps, number), all larger than 0")
        if min(self.excess, self.inserts, self.budget) < 0:
            raise InputError(f"excess={self.excess}, inserts={self.inserts}, budget={self.budget}: must be 0 or larger")

    @property
    def schedule(self):
        """Learning rate and steps of each cycle, in order."""
        return [(lr, steps) for lr, steps, number in self.cycles for _ in range(number)]

    def steps(self, cycle, *, pivots, spent):
        """Steps of a cycle (0-based) with so many pivots, after ``spent`` gradients."""
        wanted = [steps for _, steps in self.schedule[cycle:]]
        if not self.budget:
            return wanted[0]
        return max(1, round((self.budget - spent) * wanted[0] / sum(wanted) / pivots))


@computation()
def connect(a, b, task, config=None, *, seed=0, checkpoint=NoCheckpoint(), progress=None):
    """Relax a band of pivots between two modes.

    Parameters
    ----------
    a, b : torch.nn.Module
        Any two modules of one shape; they stay as they are.
    task : lib.tasks.Task
    config : AutoNEB, optional
    seed : int
        Of the mini-batches and the sample that judges.
    checkpoint : lib.checkpoint.Checkpoint, optional
        Where the search keeps its state every few seconds and finds it again.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    Path
        From ``a`` to ``b``; its anchors are the pivots. ``path.log`` has a row a cycle: ``sgd_steps`` (gradients
        of mini-batches so far), ``pivots``, ``loss`` (largest of the pivots on the cycle's last mini-batch).

    Raises
    ------
    FloatingPointError
        If a pivot's loss is not finite; the message names the cycle.
    """
    task = trial.check_ends(a, b, task)
    config = config or AutoNEB()
    gradients = Gradients(a, task, batch=config.batch, seed=seed, judge_images=config.judge_images)
    band = _Band(flatten(a), flatten(b), gradients, config)
    band.run(checkpoint.of(a=a, b=b, task=task, config=config, seed=seed), progress)
    return Path(a, band.points, pd.DataFrame(band.log))


class _Band:
    """Points (n + 2, D): n pivots between two ends; Adam's moments for the pivots, and the loop over cycles."""

    def __init__(self, start, end, gradients, config):
        self.gradients, self.config = gradients, config
        self.points = torch.stack([start, torch.lerp(start, end, 0.5), end])
        # The ends do not move: their losses, which the tangents next to them need, are measured once.
        self.ends = gradients.loss_at(start), gradients.loss_at(end)
        self.cycle, self.batches, self.sgd_steps, self.log = 0, 0, 0, []
        self._start_cycle()

    def _start_cycle(self):
        if self.cycle < len(self.config.schedule):
            self.steps = self.config.steps(self.cycle, pivots=len(self.points) - 2, spent=self.sgd_steps)
        self.step = 0
        self.mean, self.square = (torch.zeros_like(self.points[1:-1]) for _ in range(2))

    def run(self, checkpoint, progress):
        """All cycles, from where the checkpoint left them."""
        restore(self, checkpoint, self.points.device)
        schedule = self.config.schedule
        with bar("AutoNEB", len(schedule), progress) as tell:
            while self.cycle < len(schedule):
                losses = self.relax(schedule[self.cycle][0])
                tell(self.cycle + self.step / self.steps, lambda: self._status(losses))  # noqa: B023 (called at once)
                if self.step == self.steps:
                    self._end_cycle(losses, last=self.cycle + 1 == len(schedule))
                if checkpoint.due():
                    names = ("points", "mean", "square", "cycle", "steps", "step", "batches", "sgd_steps", "log")
                    checkpoint.save({name: getattr(self, name) for name in names})

    def _status(self, losses):
        counts = {"cycle": self.cycle + 1, "pivots": len(losses) - 2, "SGD steps": self.sgd_steps}
        return counts | {"loss": float(losses.max())}

    def relax(self, lr):
        """One step of all pivots on one shared mini-batch; the losses before it, ends included (n + 2,)."""
        self.points = redistribute(self.points)
        gradient = torch.empty_like(self.mean)
        losses = self.points.new_tensor([self.ends[0], *[0.0] * len(gradient), self.ends[1]])
        for number, pivot in enumerate(self.points[1:-1]):
            losses[number + 1], found = self.gradients.at(pivot, self.batches)
            gradient[number].copy_(found)
        along = tangents(self.points, losses)
        gradient -= (gradient * along).sum(1, keepdim=True) * along
        self.batches, self.sgd_steps = self.batches + 1, self.sgd_steps + len(gradient)
        self._adam(gradient, lr)
        return losses

    def _adam(self, gradient, lr, decay=(0.9, 0.999), epsilon=1e-8):
        self.step += 1
        self.mean.lerp_(gradient, 1 - decay[0])
        self.square.lerp_(gradient.square(), 1 - decay[1])
        mean = self.mean / (1 - decay[0] ** self.step)
        square = self.square / (1 - decay[1] ** self.step)
        self.points[1:-1].sub_(mean / (square.sqrt() + epsilon), alpha=lr)

    def _end_cycle(self, losses, *, last):
        loss = float(losses.max())
        if not (math.isfinite(loss) and torch.isfinite(self.points).all()):
            raise FloatingPointError(f"band diverged in cycle {self.cycle + 1}: loss {loss}")
        self.points = redistribute(self.points)
        self.log.append({"sgd_steps": self.sgd_steps, "pivots": len(self.points) - 2, "loss": loss})
        if not last:
            self.points = self._with_inserted()
        self.cycle += 1
        self._start_cycle()

    def _with_inserted(self):
        """The points and, where the loss between two of them is worst, new pivots."""
        room = min(self.config.inserts, self.config.most_pivots - (len(self.points) - 2))
        if room <= 0:
            return self.points
        worst = self._worst()
        chosen = sorted(range(len(worst)), key=lambda segment: -worst[segment][0])[:room]
        points = []
        for segment, point in enumerate(self.points):
            points.append(point)
            if segment in chosen and worst[segment][0] > self.config.excess:
                points.append(torch.lerp(point, self.points[segment + 1], worst[segment][1]))
        return torch.stack(points)

    def _worst(self):
        """For each segment the largest excess of a test point over the line between its ends' losses, as a
        fraction of the range of the points' losses, and where on the segment."""
        loss_at, parts = self.gradients.loss_at, self.config.test_points + 1
        ends = [loss_at(point) for point in self.points]
        span = max(max(ends) - min(ends), 1e-12)
        worst = []
        for segment, (left, right) in enumerate(itertools.pairwise(ends)):
            found = []
            for fraction in (number / parts for number in range(1, parts)):
                loss = loss_at(torch.lerp(self.points[segment], self.points[segment + 1], fraction))
                found.append(((loss - left - fraction * (right - left)) / span, fraction))
            worst.append(max(found))
        return worst


def redistribute(points):
    """Points (n, D) of a polygonal line moved along it to equal arc length, the ends where they are."""
    lengths = (points[1:] - points[:-1]).norm(dim=1).cumsum(0)
    arcs = torch.cat([lengths.new_zeros(1), lengths])
    wanted = torch.linspace(0, 1, len(points), device=arcs.device)[1:-1] * arcs[-1]
    segment = torch.searchsorted(lengths, wanted).clamp_max(len(points) - 2)
    fraction = (wanted - arcs[segment]) / (arcs[segment + 1] - arcs[segment]).clamp_min(1e-30)
    inner = torch.lerp(points[segment], points[segment + 1], fraction[:, None])
    return torch.cat([points[:1], inner, points[-1:]])


def tangents(points, losses):
    """Unit vectors (n - 2, D) of the band at its inner points: along the segment to the neighbour of higher loss."""
    before, after = points[1:-1] - points[:-2], points[2:] - points[1:-1]
    chosen = torch.where((losses[2:] > losses[:-2])[:, None], after, before)
    return chosen / chosen.norm(dim=1, keepdim=True).clamp_min(1e-30)
