"""LLPF M2O, towards the origin, and paths between variance spheres (arXiv 2505.02604, AngleConformal).

M2O shrinks every layer but normalisation towards 0, without variance correction. So that an SGD step turns a
scale-invariant layer by the same angle on every sphere, its learning rate follows its variance (AngleConformal)::

    lr_l = lr_0 Var(P_l) / v_l        or its square root,        v_l = Var(P_0,l)

A gradient on such a layer grows as 1/||P_l||, its step as lr_l/||P_l||, the angle as lr_l/||P_l||^2. The stop
is ours: a layer whose variance has reached its target is held on that sphere, and when all have arrived the
path ends. Modes of different spheres (weight decays, say) are connected by :func:`cross_spheres`.
"""

from dataclasses import dataclass, replace

import pandas as pd
import torch

from lib import sphere, trial
from lib.checkpoint import NoCheckpoint
from lib.connectivity.llpf import connect
from lib.connectivity.path import Path
from lib.connectivity.settings import M2M, check_one_of, check_positive, check_schedule
from lib.connectivity.walker import Walker
from lib.errors import InputError
from lib.progress import bar
from lib.scopes import computation
from lib.weights import is_weight

POLICIES = {"variance": 1.0, "root": 0.5, "constant": 0.0}
ROUTES = ("moving", "origin")
AIMS = ("origin", "rescaled")
LAYER_NORMS = ("stays", "grows")


@dataclass(frozen=True)
class M2O:
    """How a mode is moved towards the origin.

    Parameters
    ----------
    ticks : int
        Most ticks; fewer where all layers reach their targets.
    step_f, step_a : float
        The step of a layer at distance n from its aim is step_a n + step_f, and never beyond its target.
    aim : {"origin", "rescaled"}
        What a layer moves towards: the origin, as the paper says, or its own weights rescaled to the target variance.
        The latter, with the policy "constant", is what the only published script does for modes of different spheres;
        it corrects no variance, so a layer that has arrived is not held.
    layer_norm : {"stays", "grows"}
        Gains and offsets of layer norm stay, as batch norm does, or move away from the origin by the same rule, as in
        the reference code.
    policy : {"variance", "root", "constant"}
        Learning rate of a layer: times Var(P_l)/v_l (AngleConformal), times its square root, or as it is.
    min_sgd_steps, max_sgd_steps : int
        SGD steps a tick.
    stop_loss : float
        A tick's training ends when the mean of its last ``min_sgd_steps`` losses is not larger.
    record_every : int
        Ticks between stored anchors.
    batch : int
    lr : float
        Plain SGD.
    """

    ticks: int = 200
    step_f: float = 0.0
    step_a: float = 0.01
    policy: str = "variance"
    aim: str = "origin"
    layer_norm: str = "stays"
    min_sgd_steps: int = 5
    max_sgd_steps: int = 100
    stop_loss: float = 0.02
    record_every: int = 1
    batch: int = 64
    lr: float = 0.01

    def __post_init__(self):
        check_positive(self, "batch", "lr")
        check_one_of(self, policy=POLICIES, aim=AIMS, layer_norm=LAYER_NORMS)
        check_schedule(self, "step_f", "step_a")


@computation()
def to_origin(a, task, config=None, *, targets=None, seed=0, checkpoint=NoCheckpoint(), progress=None):
    """Move a mode towards the origin, keeping its loss low.

    Parameters
    ----------
    a : torch.nn.Module
        On the task's device; stays as it is, and so do its parameters with ``requires_grad=False`` on the path.
    task : lib.tasks.Task
    config : M2O, optional
    targets : dict of str to float or 0-d tensor, optional
        Variance by weight tensor at which a layer stops, such as ``sphere.variance(other)``; a layer that
        has less is left on its own sphere, layers without a target shrink until the last tick.
    seed : int
        Of the mini-batches.
    checkpoint : lib.checkpoint.Checkpoint, optional
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    Path
        ``path.log`` has a row an anchor: tick, SGD steps, loss, and layers that have ``arrived``.

    Raises
    ------
    InputError
        If a target names no weight tensor of the model or is not larger than 0, or every weight tensor is frozen.
    FloatingPointError
        If training diverges; the message names the tick.
    """
    config, targets = config or M2O(), targets or {}
    descent = _Descent(a, task, config, targets, seed)
    descent.run(checkpoint.of(a=a, task=task, config=config, targets=targets, seed=seed), progress)
    return Path(a, descent.anchors.tensor().to(descent.vector.device), pd.DataFrame(descent.log))


@computation()
def cross_spheres(
    a, b, task, *, route="moving", m2m=None, m2o=None, seed=0, checkpoint=NoCheckpoint(), progress=None
):  # fmt: skip
    """Connect two modes that lie on different variance spheres.

    Parameters
    ----------
    a, b : torch.nn.Module
    task : lib.tasks.Task
    route : {"moving", "origin"}
        "origin", the paper's: M2O from the larger mode to the other's spheres, then M2M along these; where
        ``b`` is the larger one the path is found from ``b`` and turned round, as M2O cannot go up.
        "moving", ours: one M2M whose target variances go from Var(a) to Var(b), in either direction.
    m2m : M2M, optional
    m2o : M2O, optional
        For the route "origin".
    seed : int
    checkpoint : lib.checkpoint.Checkpoint, optional
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    Path
        From ``a`` to ``b``; on the route "origin" the log's column ``part`` says which part an anchor is of.
    """
    if route not in ROUTES:
        raise InputError(f"route='{route}': choose one of {', '.join(ROUTES)}")
    task = trial.check_ends(a, b, task)
    m2m = replace(m2m or M2M(), moving_spheres=route == "moving")
    common = {"seed": seed, "progress": progress}
    if route == "moving":
        return connect(a, b, task, m2m, checkpoint=checkpoint, **common)
    if _size(b) > _size(a):
        path = cross_spheres(b, a, task, route=route, m2m=m2m, m2o=m2o, checkpoint=checkpoint, **common)
        return Path(a, path.anchors.flip(0), path.log[::-1].reset_index(drop=True))
    down = to_origin(a, task, m2o, targets=sphere.variance(b), checkpoint=checkpoint.child("to origin"), **common)
    middle = down.model_at(len(down) - 1, task)
    along = connect(middle, b, task, m2m, checkpoint=checkpoint.child("along the spheres"), **common)
    return Path(a, torch.cat([down.anchors, along.anchors[1:]]), _joined(down.log, along.log))


def _joined(first, second):
    """Two logs as one; either is empty where its part of the path never left its start."""
    logs = [log.assign(part=part) for part, log in (("M2O", first), ("M2M", second)) if len(log)]
    if len(logs) == 2:
        logs[1]["sgd_steps"] += logs[0]["sgd_steps"].max()
    return pd.concat(logs, ignore_index=True) if logs else first


def _size(model):
    """Sum of squares of all weights about their means."""
    return sum(float(p.detach().var(correction=0)) * p.numel() for p in model.parameters() if is_weight(p))


class _Descent(Walker):
    """A walker on its way to the origin."""

    def __init__(self, start, task, config, targets, seed):
        task = trial.check(start, task, "a")
        super().__init__(start, task, batch=config.batch, lr=config.lr, seed=seed, judge_images=1)
        if not self.weights:
            raise InputError("a: no weight tensor requires gradients, so nothing can move")
        targets = _checked(targets, sphere.variance(start))
        self.config = config
        self.units = _units([name for name in self.layout.names if name not in self.flat.frozen], self.weights)
        found = self._variances()
        self.targets = torch.stack([found.new_tensor(targets.get(name, 0.0)) for name in self.units])
        self.targets, self.starts = torch.minimum(self.targets, found), found
        self.spheres = dict(zip(self.units, self.targets, strict=True))
        self.growing = _layer_norms(self.flat) if config.layer_norm == "grows" else []
        self.rates = torch.ones_like(self.vector)
        self.log, self.ticks = [], 0

    def run(self, checkpoint, progress):
        """Tick until every layer has arrived, or to the last tick."""
        self.anchors = checkpoint.rows()
        self._restore(checkpoint.load())
        arrived = self._arrived(self._variances())
        with bar("to_origin", self.config.ticks, progress) as tell:
            while self.ticks < self.config.ticks and not all(arrived):
                arrived = self._tick()
                last = self.ticks == self.config.ticks or all(arrived)
                row = self.log[-1] | {"arrived": sum(arrived)}
                tell(self.ticks, lambda row=row: {name: row[name] for name in ("sgd_steps", "loss", "arrived")})
                if last or self.ticks % self.config.record_every == 0:
                    self.anchors.append(self.vector)
                    self.log[-1] = row
                else:
                    self.log.pop()
                if checkpoint.due():
                    checkpoint.save(self._state())

    def _tick(self):
        """Move, train, hold what has arrived; whether each layer has arrived."""
        variances = self._move()
        arrived = self._arrived(variances)
        self._set_rates((variances / self.starts.clamp_min(1e-30)) ** POLICIES[self.config.policy])
        loss = self.train_until_low(
            min_sgd_steps=self.config.min_sgd_steps, max_sgd_steps=self.config.max_sgd_steps,
            stop_loss=self.config.stop_loss,
        )
        if self.config.aim == "origin":
            self.project([name for name, hold in zip(self.units, arrived, strict=True) if hold])
        self.ticks += 1
        if loss != loss or loss == float("inf"):
            raise FloatingPointError(f"path to the origin diverged at tick {self.ticks}: loss {loss}")
        self.log.append({"tick": self.ticks, "sgd_steps": self.sgd_steps, "loss": loss})
        return arrived

    @torch.no_grad()
    def _move(self):
        """Shrink the layers that have not arrived; the variances they have then."""
        variances = self._variances()
        beyond = 1 - (self.targets / variances.clamp_min(1e-30)).sqrt()
        fraction = self._fraction(self.units, 1.0 if self.config.aim == "origin" else beyond)
        kept = 1 - torch.minimum(fraction, beyond).clamp(0, 1)
        for members, factor in zip(self.units.values(), kept, strict=True):
            for name in members:
                self.vector[self.layout.slices[name]].mul_(factor)
        for name, fraction in zip(self.growing, self._fraction(self.growing, 1.0), strict=True):
            self.vector[self.layout.slices[name]].mul_(1 + fraction)
        return variances * kept.square()

    def _fraction(self, names, distance):
        """The step of each named parameter as a fraction of its norm, for a distance that is such a fraction too."""
        if not names:
            return self.vector.new_empty(0)
        norms = torch.stack([self.vector[self.layout.slices[name]].norm() for name in names])
        return self.config.step_a * distance + self.config.step_f / norms.clamp_min(1e-30)

    def _variances(self):
        return torch.stack([self.vector[self.layout.slices[name]].var(correction=0) for name in self.units])

    def _arrived(self, variances):
        # A fraction of 1e-5 covers rounding of single precision; the correction that holds a layer removes it.
        return (variances <= self.targets * (1 + 1e-5)).tolist()

    def _set_rates(self, ratios):
        for members, ratio in zip(self.units.values(), ratios, strict=True):
            for name in members:
                self.rates[self.layout.slices[name]] = ratio

    @torch.no_grad()
    def descend(self):
        """SGD with a learning rate for each layer."""
        self.vector.addcmul_(self.flat.gradient, self.rates, value=-self.lr)

    def _state(self):
        counters = {"ticks": self.ticks, "sgd_steps": self.sgd_steps, "log": self.log}
        return counters | {"anchors": self.anchors.state(), "vector": self.vector.clone()}

    def _restore(self, state):
        if state is None or not self.anchors.restored(state["anchors"], self.vector):
            self.anchors.append(self.vector)
            return
        self.vector.copy_(state["vector"])
        self.ticks, self.sgd_steps, self.log = state["ticks"], state["sgd_steps"], state["log"]


def _layer_norms(flat):
    """Names of the parameters of layer norms that are not frozen."""
    modules = {name: each for name, each in flat.module.named_modules() if isinstance(each, torch.nn.LayerNorm)}
    return [name for name in flat.layout.names if name.rpartition(".")[0] in modules and name not in flat.frozen]


def _units(names, weights):
    """Parameters that shrink together, by weight tensor: a bias goes with the first weight of its module.

    What has no weight tensor in its module, normalisation above all, is in no unit and does not move.
    """
    units = {}
    owner = {}
    for name in weights:
        units[name] = [name]
        owner.setdefault(name.rpartition(".")[0], name)
    for name in names:
        if name not in units and name.rpartition(".")[0] in owner:
            units[owner[name.rpartition(".")[0]]].append(name)
    return units


def _checked(targets, weights):
    """Targets as numbers."""
    targets = {name: float(torch.as_tensor(value).detach()) for name, value in targets.items()}
    for name, value in targets.items():
        if name not in weights:
            raise InputError(f"targets: '{name}' is not a weight tensor of the model")
        if not value > 0:
            raise InputError(f"targets['{name}']={value}: a target variance must be larger than 0")
    return targets
