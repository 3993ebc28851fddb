"""Loss and gradient of any point on a mini-batch: what curves and bands of points are trained with.

LLPF moves one point by plain SGD; a curve and an elastic band ask for gradients at many points and move their
own parameters by them. Batches, drop-out and batch norm (the batch's own statistics) are those of LLPF.
"""

import torch

from lib.connectivity.walker import Walker


class Gradients(Walker):
    """A walker that is placed instead of walking: it moves by no step of its own.

    Parameters
    ----------
    model : torch.nn.Module
        Gives the architecture.
    task, batch, seed, judge_images
        As of :class:`lib.connectivity.walker.Walker`.
    """

    def __init__(self, model, task, *, batch, seed, judge_images=1):
        super().__init__(model, task, batch=batch, lr=0.0, seed=seed, judge_images=judge_images)

    def at(self, point, batch):
        """Loss (0-d) and gradient (D,) of a point (D,) on mini-batch number ``batch``.

        The gradient is overwritten by the next call.
        """
        self.vector.copy_(point)
        self.sgd_steps = batch
        return self.train(1)[0], self.flat.gradient

    def descend(self):
        """Stay: whoever asked for the gradient moves the point."""


def restore(search, checkpoint, device):
    """Set the attributes of a search to the state that its checkpoint holds, if there is one."""
    for name, value in (checkpoint.load() or {}).items():
        setattr(search, name, value.to(device) if torch.is_tensor(value) else value)
