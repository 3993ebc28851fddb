"""Connect several pairs of modes in one batch, by the fixed schedule (arXiv 2505.02604).

By the fixed schedule all paths take their steps at the same ticks, so that the points of K paths are the rows of
one matrix and train as one network (:mod:`lib.batched`): repeats that fill a GPU which one small network would leave
idle. The adaptive driver has nothing to go abreast with: each path's next step follows from its own loss.
"""

import pandas as pd
import torch

from lib import seeds as streams
from lib import sphere, trial
from lib.batched.fallback import network, own_buffers
from lib.batched.gradients import gradients
from lib.checkpoint import NoCheckpoint
from lib.connectivity.llpf import FixedSearch
from lib.connectivity.path import Path
from lib.connectivity.settings import Fixed
from lib.connectivity.walker import arc, layer_order
from lib.errors import InputError
from lib.scopes import computation
from lib.weights import Layout, check_same_shape, flatten


@computation()
def connect_abreast(pairs, task, config, *, seeds, checkpoint=NoCheckpoint(), progress=None):
    """Connect several pairs of modes at once: :func:`lib.connectivity.connect` of each, up to rounding.

    Parameters
    ----------
    pairs : list of (torch.nn.Module, torch.nn.Module)
        Modes of one shape, on the task's device; they stay as they are.
    task : lib.tasks.Task
    config : M2M
        With the driver :class:`Fixed` of ``min_sgd_steps = max_sgd_steps``, an order that all paths share, and spheres
        that stay where they are.
    seeds : list of int
        Of each path's mini-batches.
    checkpoint : lib.checkpoint.Checkpoint, optional
        As of :func:`lib.connectivity.connect`.
    progress : bool, optional
        Whether to show how far it is; see :func:`lib.progress.bar`.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        If the modes differ in shape, there is not a seed for each pair, or the settings let paths differ in
        their ticks.
    FloatingPointError
        If the training of any path diverges.
    """
    task = _check(pairs, task, config, seeds)
    points = _Points(pairs, task, config, seeds)
    own = checkpoint.of(pairs=pairs, task=task, config=config, seeds=seeds)
    anchors, log = FixedSearch(points, config).run(own, progress)
    return [
        Path(start, each, pd.DataFrame(log)) for (start, _), each in zip(pairs, anchors.unbind(1), strict=True)
    ]


def _check(pairs, task, config, seeds):
    """The task to use, as of :func:`lib.trial.check`."""
    driver = config.driver
    if not isinstance(driver, Fixed) or driver.min_sgd_steps != driver.max_sgd_steps:
        raise InputError(f"driver={driver}: paths abreast need Fixed with min_sgd_steps equal to max_sgd_steps")
    if config.momentum:
        raise InputError(f"momentum={config.momentum}: paths abreast take plain SGD steps, give 0")
    if config.moving_spheres:
        raise InputError("moving_spheres=True: paths abreast stay on the spheres of their starts, give False")
    if config.corrected != "all":
        raise InputError(f"corrected='{config.corrected}': paths abreast correct all layers, give 'all'")
    if config.order == "random":
        raise InputError("order='random': paths abreast need an order that they share")
    if not pairs or len(seeds) != len(pairs):
        raise InputError(f"seeds: {len(seeds)} for {len(pairs)} pairs, needs one for each")
    for start, end in pairs:
        check_same_shape(pairs[0][0], start)
        task = trial.check_ends(start, end, task)
    return task


class _Points:
    """K points and their destinations: what :class:`lib.connectivity.walker.Connection` is for one."""

    def __init__(self, pairs, task, config, seeds):
        first = pairs[0][0]
        self.layout = Layout.of(first)
        self.lr, self.seed, self.sgd_steps, self.judged = config.lr, seeds[0], 0, 0
        self.vector = torch.stack([flatten(start) for start, _ in pairs])
        self.destination = torch.stack([flatten(end) for _, end in pairs])
        self.layers = layer_order(first, task, config.order, seeds[0])
        self.spheres = sphere.variances(self.vector, self.layout)
        self.loss, self.network = task.loss, task.prepared(network(first, task.train.x[:2]))
        starts = [own_buffers(start) for start, _ in pairs]
        self.buffers = {name: torch.stack([each[name] for each in starts]) for name in starts[0]}
        # As for a single path: what is frozen, or equal at both ends, has arrived.
        self.arrived = torch.zeros_like(self.vector, dtype=torch.bool)
        for name, part in self.layout.slices.items():
            equal = (self.vector[:, part] == self.destination[:, part]).all(1, keepdim=True)
            self.arrived[:, part] = equal | (name in self.layout.frozen)
        self.any_arrived = bool(self.arrived.any())
        self.batches = [task.batches(streams.derive(seed, "path"), config.batch) for seed in seeds]

    def arc(self, part):
        """Length (K, 1) of the arcs between the points and the destinations of a slice."""
        ends = zip(self.vector[:, part], self.destination[:, part], strict=True)
        return self.vector.new_tensor([[arc(start, end)] for start, end in ends])

    def follow_spheres(self):
        """Stay: the spheres are those of the starts."""

    def correct(self, names=None, *, epsilon=0.0):
        """Project every weight tensor of every point onto its sphere, in place."""
        sphere.correct_rows_(self.vector, self.spheres, self.layout, epsilon=epsilon)
        self._stay()

    def train_until_low(self, *, min_sgd_steps, max_sgd_steps, stop_loss):
        """``min_sgd_steps`` SGD steps of every point; the mean of their losses."""
        losses = [self._round() for _ in range(min_sgd_steps)]
        return float(sum(losses)) / min_sgd_steps / len(self.vector)

    @torch.no_grad()
    def _round(self):
        parts = [batches.get(self.sgd_steps) for batches in self.batches]
        x, y = (torch.stack(part, 1) for part in zip(*parts, strict=True))
        with streams.scope(self.seed, "round", self.sgd_steps), torch.enable_grad():
            gradient, loss = gradients(self.network, self.layout, self.vector, self.buffers, x, y, self.loss)
        self.vector.add_(gradient, alpha=-self.lr)
        self._stay()
        self.sgd_steps += 1
        return loss

    def _stay(self):
        if self.any_arrived:
            self.vector.copy_(torch.where(self.arrived, self.destination, self.vector))
