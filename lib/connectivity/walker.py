"""The point that travels: what one tick of LLPF does to it, shared by every driver (arXiv 2505.02604).

A tick moves the active layers from P_i towards the destination (M_1), corrects the variance (M_2), trains on
mini-batches (M_3) and corrects again (P_{i+1}). The point is one flat vector; a tick is a few operations on it
and its slices, and asks the device for a number (a host synchronisation) only to decide what comes next.
"""

import collections
import random

import torch

from lib import layers, scopes, seeds, sphere, trial
from lib.batchnorm import batch_norms, from_batch
from lib.errors import InputError
from lib.weights import FlatModel, flatten

ORDERS = ("fdf", "all", "reversed", "random")


def layer_order(model, task, order, seed):
    """Layers (tuples of parameter names) in the order in which they start to move.

    Parameters
    ----------
    order : {"fdf", "all", "reversed", "random"}
        Follow the data flow (the paper's), all at once, against the data flow, or shuffled.
    """
    if order not in ORDERS:
        raise InputError(f"order='{order}': choose one of {', '.join(ORDERS)}")
    if order == "all":
        return [tuple(name for name, _ in model.named_parameters())]
    flow = layers.data_flow(model, task)
    if order == "reversed":
        return flow[::-1]
    if order == "random":
        random.Random(seeds.derive(seed, "layer order")).shuffle(flow)
    return flow


def arc(start, end):
    """Length r phi of the arc between two tensors (n,): the mean of their norms times the angle between them."""
    norms = start.norm(), end.norm()
    cosine = (start @ end / (norms[0] * norms[1]).clamp_min(1e-30)).clamp(-1, 1)
    return float((norms[0] + norms[1]) / 2 * torch.acos(cosine))


class Walker:
    """A point on its way through weight space, and the training that keeps its loss low.

    Parameters
    ----------
    start : torch.nn.Module
        The mode to start from; stays as it is.
    task : lib.tasks.Task
    batch : int
    lr, momentum : float
        SGD without weight decay, and by default without momentum, as in the reference.
    seed : int
    judge_images, first_images : int
        Images of the training split on which :meth:`loss_at` estimates a loss, and those of a first look.

    Attributes
    ----------
    sgd_steps, judged : int
        SGD steps, and images on which losses were estimated, so far.
    samples : list of lib.tasks.Split
        Of the first look, where it takes fewer images, and of the estimate.
    """

    def __init__(self, start, task, *, batch, lr, seed, judge_images, momentum=0.0, first_images=0):
        self.loss, self.flat = task.loss, FlatModel(start)
        self.layout, self.norms = self.flat.layout, batch_norms(self.flat.module)
        scopes.train(self.flat.module)
        self.lr, self.momentum, self.seed, self.sgd_steps, self.judged = lr, momentum, seed, 0, 0
        self.velocity = torch.zeros_like(self.vector)
        self.batches = task.batches(seeds.derive(seed, "path"), batch)
        first = [first_images] if 0 < first_images < min(judge_images, len(task.train)) else []
        self.samples = [task.train.subset(size, seed=seed) for size in (*first, judge_images)]
        self.network = task.prepared(self.flat.module)
        free = {n: p for n, p in self.layout.state(self.vector).items() if n not in self.flat.frozen}
        self.spheres = sphere.variance(free)
        self.weights = list(self.spheres)

    @property
    def vector(self):
        """The point itself, (D,)."""
        return self.flat.vector

    def correct(self, names=None, *, epsilon=0.0):
        """Project weight tensors that receive gradients onto their spheres, in place: all, or those among ``names``."""
        chosen = self.weights if names is None else [name for name in self.weights if name in names]
        active = [name for name in chosen if self.flat.module.get_parameter(name).requires_grad]
        self.project(active, epsilon=epsilon)

    def project(self, names, *, epsilon=0.0):
        """Project weight tensors onto their spheres, in place."""
        if names:
            blocks = [self.vector[None, self.layout.slices[name]] for name in names]
            target = torch.stack([self.spheres[name] for name in names])[None]
            sphere.correct_blocks_(blocks, target, epsilon=epsilon)

    def train(self, sgd_steps):
        """``sgd_steps`` SGD steps; returns their losses as a tensor, without waiting for the device."""
        losses = []
        for _ in range(sgd_steps):
            x, y = self.batches.get(self.sgd_steps)
            with seeds.scope(self.seed, "round", self.sgd_steps), torch.enable_grad():
                loss = self.loss(self.network(x), y)
            self.flat.gradient.zero_()
            if loss.requires_grad:  # where every layer has arrived nothing is left to train
                loss.backward()
            self.descend()
            self.sgd_steps += 1
            losses.append(loss.detach())
        return torch.stack(losses)

    def train_until_low(self, *, min_sgd_steps, max_sgd_steps, stop_loss):
        """SGD steps until the mean loss of the last ``min_sgd_steps`` is not above ``stop_loss``, or all are spent.

        Returns
        -------
        float
            That mean.
        """
        self.velocity.zero_()
        losses = collections.deque(self.train(min_sgd_steps), maxlen=min_sgd_steps)
        sgd_steps = min_sgd_steps
        while sgd_steps < max_sgd_steps and float(sum(losses)) / min_sgd_steps > stop_loss:
            losses.extend(self.train(1))
            sgd_steps += 1
        return float(sum(losses)) / min_sgd_steps

    @torch.no_grad()
    def descend(self):
        """One step of SGD along the gradient; its momentum starts afresh with every move."""
        step = self.flat.gradient
        if self.momentum:
            step = self.velocity.mul_(self.momentum).add_(step)
        self.vector.add_(step, alpha=-self.lr)

    @torch.no_grad()
    def loss_at(self, point, sample=None):
        """Loss of a point (D,) in eval mode on a sample, batch norm by the sample's own statistics.

        That is batch norm re-estimated on the sample, in one pass: the sample is one batch. The walker stays
        where it is. The sample is the larger of ``samples`` unless one is given.
        """
        sample = self.samples[-1] if sample is None else sample
        self.judged += len(sample)
        module, here = self.flat.module, self.vector.clone()
        self.vector.copy_(point)
        with seeds.scope(self.seed, "judge"), from_batch(module, self.norms):
            loss = float(self.loss(module(sample.x[:]), sample.y))
        self.vector.copy_(here)
        return loss


class Connection(Walker):
    """A walker with a destination: the layers in their order and their spheres on the way.

    Parameters that are equal at both ends have arrived: they stay there, and a layer of such parameters is no stage.
    """

    def __init__(self, start, end, task, *, order, moving_spheres, seed, **training):
        task = trial.check_ends(start, end, task)
        super().__init__(start, task, seed=seed, **training)
        self.start = self.vector.clone()
        self.destination = flatten(end).to(self.vector.device)
        if not torch.isfinite(self.vector).all() or not torch.isfinite(self.destination).all():
            raise InputError("modes: a weight of the start or the end is not finite")
        slices = self.layout.slices.items()
        self.flat.frozen |= {name for name, part in slices if torch.equal(self.start[part], self.destination[part])}
        self.flat.freeze(())
        order = layer_order(start, task, order, seed)
        self.layers = [layer for layer in order if not self.flat.frozen.issuperset(layer)] or order[-1:]
        self.starts = dict(self.spheres)
        self.ends = sphere.variance(self.layout.state(self.destination)) if moving_spheres else self.starts
        self.whole = {}  # distance of each stage's layers at the start of the path

    def distance_left(self, stage):
        """Distance of a stage's layers to the destination, as a fraction of what it was at the start of the path.

        Training also moves the layers, so this is not one minus the sum of the moves.
        """
        if stage not in self.whole:
            self.whole[stage] = self._distance(self.start, stage)
        if self.whole[stage] == 0:  # two equal modes
            return 0.0
        return float(self._distance(self.vector, stage) / self.whole[stage])

    def _distance(self, point, stage):
        """Distance of a point's (D,) layers of a stage to the destination, without a temporary of their full size."""
        parts = [self.layout.slices[name] for name in self.layers[stage]]
        return torch.stack([(self.destination[part] - point[part]).norm() for part in parts]).norm()

    def arc(self, part):
        """Length of the arc between the point and the destination of a slice of the vector."""
        return arc(self.vector[part], self.destination[part])

    def set_progress(self, stage, progress):
        """Freeze the layers before ``stage``, which have arrived, and set the spheres of the one that moves.

        With moving spheres the target variance of a layer goes from Var(P_0) to Var(D) as the layer moves
        (ours); else it stays Var(P_0), as in the paper.
        """
        arrived = [name for layer in self.layers[:stage] for name in layer]
        if progress >= 1:
            arrived += self.layers[stage]
        self.flat.freeze(arrived)
        for name in self.layers[stage]:
            if name in self.starts:
                self.spheres[name] = torch.lerp(self.starts[name], self.ends[name], min(progress, 1.0))

    def follow_spheres(self):
        """Set the spheres of all layers by the part of the way that each has covered.

        With moving spheres the target variance of a layer goes from Var(P_0) to Var(D) as its distance to D
        shrinks (ours), for drivers that move several stages at once; else it stays Var(P_0), as in the paper.
        """
        if self.ends is self.starts:
            return
        for name, start in self.starts.items():
            part = self.layout.slices[name]
            whole = (self.destination[part] - self.start[part]).norm()
            left = (self.destination[part] - self.vector[part]).norm()
            covered = 1 - (left / whole.clamp_min(1e-30)).clamp(0, 1)
            self.spheres[name] = torch.lerp(start, self.ends[name], covered)

    def move_fraction(self, names, fraction):
        """Move parameters by a fraction of what is left of their way; a fraction of 1 sets them exactly onto D."""
        self.velocity.zero_()
        for name in names:
            part = self.layout.slices[name]
            if fraction >= 1:
                self.vector[part] = self.destination[part]
            else:
                self.vector[part].lerp_(self.destination[part], fraction)
