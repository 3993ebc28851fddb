"""LLPF M2M: a low-loss path from one mode to another, layer by layer on variance spheres (arXiv 2505.02604).

Two drivers share the tick of :mod:`lib.connectivity.walker` (move, correct, train, correct). :class:`Fixed` is
the paper's schedule with the options of its reference code. :class:`Adaptive` is ours and the default: the
step follows from the loss, an anchor is accepted only by the loss of the point that is stored and of points on
the segment that leads to it (in eval mode, on a sample of the training split: the loss of the last mini-batches
looks much better than the stored point), else it is taken back. Both paths end exactly in D.
"""

import re
import warnings
from functools import cached_property

import pandas as pd
import torch

from lib.checkpoint import NoCheckpoint
from lib.connectivity.path import Path
from lib.connectivity.settings import M2M, Adaptive
from lib.connectivity.walker import Connection
from lib.progress import bar
from lib.scopes import computation


@computation()
def connect(a, b, task, config=None, *, seed=0, checkpoint=NoCheckpoint(), progress=None):
    """Find a low-loss path between two modes.

    Parameters
    ----------
    a, b : torch.nn.Module
        Any two modules of one shape, on the task's device; they stay as they are. What a path does not move must be
        the same in both: frozen parameters, and buffers other than the running statistics of batch norm.
    task : lib.tasks.Task
    config : M2M, optional
    seed : int
        Of the mini-batches, the sample that judges, and a random layer order.
    checkpoint : lib.checkpoint.Checkpoint, optional
        Where the search keeps its state every few seconds and finds it again.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    Path
        From ``a`` to ``b``; where an adaptive search gave up it ends on the way (``path.reached(b)``), and a
        warning says why and what may help. ``path.log`` has a row an anchor: tick or SGD steps, layer, step, loss, and
        the images on which points were ``judged`` so far.

    Raises
    ------
    InputError
        If the modes differ in shape or in what a path does not move, or hold values that are not finite.
    FloatingPointError
        If training diverges; the message names the tick and the layers that moved.
    """
    config = config or M2M()
    connection = Connection(
        a, b, task, order=config.order, moving_spheres=config.moving_spheres, seed=seed,
        batch=config.batch, lr=config.lr, momentum=config.momentum,
        judge_images=getattr(config.driver, "judge_images", 1), first_images=getattr(config.driver, "first_images", 1),
    )  # fmt: skip
    kind = _AdaptiveSearch if isinstance(config.driver, Adaptive) else FixedSearch
    search = kind(connection, config)
    if hopeless := search.modes_above_bound():
        warnings.warn(f"the search may not arrive: {hopeless}", stacklevel=3)
    elif tight := search.modes_above_bound(search.goal):
        warnings.warn(f"the search may take many steps or not arrive: {tight}", stacklevel=3)
    anchors, log = search.run(checkpoint.of(a=a, b=b, task=task, config=config, seed=seed), progress)
    if reason := search.why_not_arrived():
        warnings.warn(f"no path to the destination: {reason}", stacklevel=3)
    return Path(a, anchors, pd.DataFrame(log))


class _Search:
    """State and loop that both drivers share: run, save now and then, continue."""

    def __init__(self, connection, config):
        self.walk, self.config, self.driver = connection, config, config.driver
        self.log, self.ticks = [], 0
        self.stage, self.progress, self.step = 0, 0.0, getattr(config.driver, "step", 0.0)

    def run(self, checkpoint, progress=None):
        """Search to the end; the anchors as one tensor, which lies on the disk, and the log."""
        self.anchors = checkpoint.rows()
        self._restore(checkpoint.load())
        with bar("connect", self.total(), progress) as tell:
            while not self.finished():
                self.tick()
                self.ticks += 1
                tell(self.done(), self.status)
                if checkpoint.due():
                    checkpoint.save(self._state())
        self.end()
        return self.anchors.tensor().to(self.walk.vector.device), self.log

    def record(self, point):
        """Store a point as the next anchor."""
        self.last = point.clone()
        self.anchors.append(point)

    def _state(self):
        counters = {name: getattr(self, name) for name in ("ticks", "stage", "progress", "step", "log")}
        parts = {"anchors": self.anchors.state(), "vector": self.walk.vector.clone()}
        return counters | parts | {"sgd_steps": self.walk.sgd_steps, "judged": self.walk.judged}

    def _restore(self, state):
        if state is None or not self.anchors.restored(state.pop("anchors"), self.walk.vector):
            self.record(self.walk.vector)
            return
        self.last = self.anchors.tensor()[-1].to(self.walk.vector.device, copy=True)
        self.walk.vector.copy_(state.pop("vector"))
        self.walk.sgd_steps, self.walk.judged = state.pop("sgd_steps"), state.pop("judged")
        for name, value in state.items():
            setattr(self, name, value)

    def correct(self, wanted, moving):
        """Correct the variance if that is ``wanted``, of all layers or of those that are ``moving``."""
        if wanted:
            self.walk.correct(None if self.config.corrected == "all" else moving, epsilon=self.config.epsilon)

    def check_finite(self, loss, layers):
        if loss != loss or loss == float("inf"):
            raise FloatingPointError(f"path diverged at tick {self.ticks}, moving {layers}: loss {loss}")


class _AdaptiveSearch(_Search):
    def total(self):
        """What there is to do: stages."""
        return len(self.walk.layers)

    def done(self):
        """How much of it is done."""
        return self.stage + self.progress

    def status(self):
        """What a person who waits wants to know."""
        stage = min(self.stage, len(self.walk.layers) - 1)
        return {
            "stage": f"{stage + 1} of {len(self.walk.layers)}", "distance left": self.walk.distance_left(stage),
            "SGD steps": self.walk.sgd_steps, "loss": self.log[-1]["loss"] if self.log else float("nan"),
        }  # fmt: skip

    def why_not_arrived(self):
        """Why the search ended before the destination, and what may help; None where it arrived."""
        walk, driver = self.walk, self.driver
        if self.stage == len(walk.layers):
            return None
        where = (
            f"stage {self.stage + 1} of {len(walk.layers)}, {walk.distance_left(self.stage):.2g} of its distance left, "
            f"{walk.sgd_steps} SGD steps"
        )
        if hopeless := self.modes_above_bound():
            return f"{hopeless} ({where})"
        if walk.sgd_steps >= driver.max_sgd_steps:
            return f"max_sgd_steps={driver.max_sgd_steps} are spent ({where}); raise max_sgd_steps, or max_loss"
        return (
            f"the step shrank below smallest_step={driver.smallest_step:g} ({where}); "
            "raise max_loss or SGD steps, or lower lr"
        )

    def modes_above_bound(self, bound=None):
        """Which mode's own loss is above a bound, default the path's, and what may help; None where both are below."""
        told = f"the bound max_loss={self.driver.max_loss:g}"
        if bound is not None:
            told = f"{bound:.3g}, too near " + told
        for name, loss in self.mode_losses.items():
            if loss > (bound or self.driver.max_loss):
                remedy = "raise max_loss, or train the modes longer"
                return f"the {name}'s own loss, {loss:.3g}, is above {told}: {remedy}"
        return None

    @cached_property
    def mode_losses(self):
        """Loss of the two modes, on the sample that judges."""
        return {"start": self.walk.loss_at(self.walk.start), "end": self.walk.loss_at(self.walk.destination)}

    @property
    def goal(self):
        """The loss to which a move is trained."""
        return self.driver.slack * self.driver.max_loss

    def finished(self):
        gave_up = self.step < self.driver.smallest_step or self.walk.sgd_steps >= self.driver.max_sgd_steps
        return gave_up or self.stage == len(self.walk.layers)

    def tick(self):
        """One move, accepted or taken back."""
        step, left = self.step, self.walk.distance_left(self.stage)
        fraction = min(1.0, step / max(left, 1e-12))
        target = 1.0 if fraction == 1 else self.progress + fraction * (1 - self.progress)
        first_step = self.walk.sgd_steps
        loss, healed = self._attempt(fraction, target)
        if loss > self.driver.max_loss and left:
            self.walk.vector.copy_(self.last)
            self.step = min(step, left) / 2
            return
        self.record(self.walk.vector)
        self.log.append(
            {"sgd_steps": self.walk.sgd_steps, "stage": self.stage, "progress": target, "step": step, "loss": loss}
            | {"judged": self.walk.judged}
        )
        if not healed:
            self.step /= self.driver.growth
        elif self.walk.sgd_steps - first_step <= 2 * self.driver.chunk:
            self.step = min(self.driver.largest_step, step * self.driver.growth)
        self.progress = target
        if fraction == 1:
            self.stage, self.progress, self.step = self.stage + 1, 0.0, max(self.step, self.driver.step)

    def _attempt(self, fraction, progress):
        """Move the layers of the stage by a fraction of their way and train.

        Returns the checked loss, and whether it met the target ``slack * max_loss``.
        """
        walk, driver, moving = self.walk, self.driver, self.walk.layers[self.stage]
        walk.set_progress(self.stage, progress)
        walk.move_fraction(moving, fraction)
        self.correct(self.config.before, moving)
        goal = self.goal
        for chunk in range(driver.sgd_steps // driver.chunk):
            loss = float(walk.train(driver.chunk).mean())
            self.check_finite(loss, moving)
            last = chunk + 1 == driver.sgd_steps // driver.chunk
            if loss > driver.look * (driver.max_loss if last else goal):
                continue
            self.correct(self.config.after, moving)
            judged = self._judge(driver.max_loss if last else goal)
            if judged <= goal or last:
                return judged, judged <= goal
        return float("inf"), False

    def _judge(self, limit):
        """The largest loss of the point as it would be stored and of points inside the segment to it, or the first
        one above ``limit``: on few images first, which are enough to refuse most moves."""
        parts = self.driver.interior_points + 1
        for sample in self.walk.samples:
            largest = 0.0
            for number in range(parts, 0, -1):
                point = torch.lerp(self.last, self.walk.vector, number / parts)
                largest = max(largest, self.walk.loss_at(point, sample))
                if largest > limit:
                    return largest
        return largest

    def end(self):
        """Nothing is left to do: the last layer to arrive was set exactly onto D."""


class FixedSearch(_Search):
    """The fixed schedule, of one point (D,) or of several in one batch (K, D)."""

    goal = None

    def total(self):
        """What there is to do: ticks."""
        return self.driver.ticks

    def done(self):
        """How much of it is done."""
        return self.ticks

    def status(self):
        """What a person who waits wants to know."""
        moving = sum(start <= self.ticks for start in self.starts.values())
        return {
            "units on their way": f"{moving} of {len(self.starts)}",
            "distance left": float((self.walk.destination - self.walk.vector).norm()),
            "SGD steps": self.walk.sgd_steps, "loss": self.log[-1]["loss"] if self.log else float("nan"),
        }  # fmt: skip

    def modes_above_bound(self, bound=None):
        """None: this driver has no bound that a path must keep."""

    def why_not_arrived(self):
        """None: the schedule ends with a step onto the destination, whatever the loss."""

    def __init__(self, connection, config):
        super().__init__(connection, config)
        self.units = _units(connection.layout, self.driver.unit)
        self.names = {unit: [n for n, part in connection.layout.slices.items() if _within(part, whole)]
                      for unit, whole in self.units.items()}  # fmt: skip
        self.starts = self._schedule(connection)
        self._measure_arcs()

    def _measure_arcs(self):
        self.arcs = {unit: self.walk.arc(part) for unit, part in self.units.items()}

    def _state(self):
        return super()._state() | {"arcs": self.arcs}

    def _schedule(self, connection):
        """The tick at which each unit starts to move."""
        layer_of = {name: number for number, layer in enumerate(connection.layers) for name in layer}
        starts = {}
        for unit, (name, *_) in self.names.items():
            if self.driver.stages:
                ticks = [tick for tick, pattern in self.driver.stages if re.search(pattern, name)]
                starts[unit] = min(ticks, default=self.driver.ticks)
            else:
                starts[unit] = layer_of.get(name, 0) * self.driver.ticks // len(connection.layers)
        return starts

    def finished(self):
        return self.ticks == self.driver.ticks

    def tick(self):
        """The paper's tick: move, correct, train, correct, record."""
        walk, driver = self.walk, self.driver
        if driver.arc_from == "stage" and self.ticks in self.starts.values():
            self._measure_arcs()
        moving = [unit for unit, start in self.starts.items() if start <= self.ticks]
        for unit in moving:
            self._move(self.units[unit], self.arcs[unit])
        walk.follow_spheres()
        names = [name for unit in moving for name in self.names[unit]]
        self.correct(self.config.before, names)
        loss = walk.train_until_low(
            min_sgd_steps=driver.min_sgd_steps, max_sgd_steps=driver.max_sgd_steps, stop_loss=driver.stop_loss
        )
        self.correct(self.config.after, names)
        if (self.ticks + 1) % driver.record_every == 0:
            self._record(loss, moving)

    def _record(self, loss, moving):
        self.check_finite(loss, moving[-1])
        self.record(self.walk.vector)
        self.log.append({"tick": self.ticks, "sgd_steps": self.walk.sgd_steps, "loss": loss})

    @torch.no_grad()
    def _move(self, part, arc):
        driver, point = self.driver, self.walk.vector[..., part]
        difference = self.walk.destination[..., part] - point
        distance = difference.norm(dim=-1, keepdim=True)
        step = driver.step_f + driver.step_c * arc
        fraction = driver.step_a * distance
        step = step + fraction if driver.rule == "sum" else fraction.clamp_min(step)
        # The clamp at the distance is ours: without it the reference oscillates around D.
        point.addcmul_(difference, (step / distance.clamp_min(1e-30)).clamp_max(1.0))

    def end(self):
        """The final step exactly onto D (ours): a straight segment that is judged like all others."""
        self.record(self.walk.destination)
        self.log.append({"tick": self.ticks, "sgd_steps": self.walk.sgd_steps, "loss": float("nan")})


def _within(part, whole):
    return whole.start <= part.start and part.stop <= whole.stop


def _units(layout, unit):
    """What a distance is measured over: slices of the flat vector by tensor or by module."""
    units = {}
    for name, part in layout.slices.items():
        key = name if unit == "tensor" else name.rpartition(".")[0]
        units[key] = slice(units[key].start, part.stop) if key in units else part
    return units
