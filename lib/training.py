"""Train a mode and evaluate it.

A *mode* is a well-trained network. Optimisers are torch's; the learning rate is a function of the step, so
that a training that was interrupted continues with bit-identical results from its checkpoint.
"""

import math
from dataclasses import dataclass

import torch

from lib import batchnorm, scopes, seeds, trial
from lib.checkpoint import NoCheckpoint
from lib.errors import InputError
from lib.progress import bar

OPTIMISERS = ("sgd", "adamw")
SCHEDULES = ("constant", "onecycle", "cosine", "step")


@dataclass(frozen=True)
class Recipe:
    """How a mode is trained, by the task's loss.

    Parameters
    ----------
    epochs, batch : int
        Passes over the training split and inputs in a mini-batch.
    optimiser : {"sgd", "adamw"}
    lr, momentum, weight_decay : float
        Momentum counts for SGD only.
    schedule : {"constant", "onecycle", "cosine", "step"}
        onecycle: cosine from lr/25 up to lr over the first 30 % of the steps, then down to lr/250,000, as
        torch's default; step: times 0.1 at each of ``milestones``.
    warmup : int
        Epochs of linear warm-up before the schedule.
    milestones : tuple of int
        Epochs, for the step schedule.
    """

    epochs: int = 20
    batch: int = 64
    optimiser: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    milestones: tuple[int, ...] = ()

    def __post_init__(self):
        for name, allowed in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}='{getattr(self, name)}': choose one of {', '.join(allowed)}")
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if not self.lr > 0:
            raise InputError(f"lr={self.lr}: must be larger than 0")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum={self.momentum}: must be in [0, 1)")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay={self.weight_decay}: must be 0 or larger")

    def rate(self, step, per_epoch):
        """Learning rate of a step (0-based)."""
        warm, total = self.warmup * per_epoch, self.epochs * per_epoch
        if step < warm:
            return self.lr * (step + 1) / warm
        progress = (step - warm) / max(1, total - warm - 1)
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "onecycle":
            return self.lr * _one_cycle(progress)
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(step >= m * per_epoch for m in self.milestones)
        return self.lr


def _one_cycle(progress, rise=0.3, first=1 / 25, last=1 / 250_000):
    start, end, share = (first, 1, progress / rise) if progress < rise else (1, last, (progress - rise) / (1 - rise))
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@scopes.computation()
def train_mode(model, task, recipe, *, seed, checkpoint=NoCheckpoint(), progress=None):
    """Train a model in place, until it is a mode.

    Parameters
    ----------
    model : torch.nn.Module
        On the task's device. Parameters with ``requires_grad=False`` stay where they are. It trains in training mode,
        but for modules in eval mode inside a model in training mode, such as a batch norm that you froze.
    task : lib.tasks.Task
    recipe : Recipe
    seed : int
        Of the order of the data, the augmentation and what the model draws itself (dropout).
    checkpoint : lib.checkpoint.Checkpoint, optional
        Where to keep the state every few seconds and find it again, for a model of the same initial weights.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    torch.nn.Module
        The same model, in eval mode.

    Raises
    ------
    InputError
        If the model does not fit the task, or no parameter requires gradients,
        or the checkpoint belongs to other arguments.
    FloatingPointError
        If a weight is not finite at the end of an epoch; the message names both.
    """
    task = trial.check(model, task)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("model: no parameter requires gradients, so nothing can be trained; call requires_grad_()")
    batches = task.batches(seeds.derive(seed, "training"), recipe.batch)
    optimiser = _optimiser(model, recipe)
    checkpoint = checkpoint.of(model=model, task=task, recipe=recipe, seed=seed)
    step, network = _resume(model, optimiser, checkpoint), task.prepared(model)
    total = recipe.epochs * batches.per_epoch
    scopes.train(model)
    with bar("train_mode", total, progress) as tell:
        while step < total:
            x, y = batches.get(step)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step, batches.per_epoch)
            with seeds.scope(seed, "training", step):
                loss = task.loss(network(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            tell(step, lambda: {"epoch": -(-step // batches.per_epoch), "loss": float(loss.detach())})  # noqa: B023
            if step % batches.per_epoch == 0:
                _check_finite(model, step // batches.per_epoch)
            if checkpoint.due():
                checkpoint.save({"step": step, "model": model.state_dict(), "optimiser": _optimiser_state(optimiser)})
    return model.eval()


def _check_finite(model, epoch):
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise FloatingPointError(f"training diverged in epoch {epoch}: '{name}' is not finite")


def _optimiser(model, recipe):
    options = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **options)
    return torch.optim.AdamW(model.parameters(), **options)


def _optimiser_state(optimiser):
    return {str(index): dict(entry) for index, entry in optimiser.state_dict()["state"].items()}


def _resume(model, optimiser, checkpoint):
    state = checkpoint.load()
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    entries = {int(index): entry for index, entry in state["optimiser"].items()}
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
    return state["step"]


def evaluate(model, split, *, batch=256):
    """Loss and metric of a model, in eval mode, over a whole split.

    Returns
    -------
    named tuple
        ``loss`` and ``accuracy``, or how the metric of the task is called.

    Raises
    ------
    InputError
        If the model does not fit the split.
    """
    return score(model, trial.check(model, split), batch=batch)


@scopes.computation()
@torch.no_grad()
def score(model, split, *, batch=256):
    """:func:`evaluate` of a model that has been tried."""
    with scopes.evaluation(model):
        if batchnorm.depends_on_batch(model):  # in the order of the split a batch may hold one class
            return split.score(batchnorm.in_parts(model, split.x, batch))
        return split.score(torch.cat([model(x) for x in split.x.split(batch)]))
