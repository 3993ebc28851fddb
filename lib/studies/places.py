"""What a path is like at one place of it: the score there, and how far each layer still is from the end."""

import numpy as np
import torch

from lib import sphere
from lib.connectivity import Path


def position(path, at):
    """Anchor number plus fraction of the segment after it, at a fraction ``at`` of the path's length."""
    lengths = path.lengths().cpu().numpy()
    return float(np.interp(at * lengths[-1], lengths, np.arange(len(path))))


def place(path, end, task, at):
    """The score of the network at a fraction of a path's length, and how far its layers are from the end.

    Parameters
    ----------
    path : lib.connectivity.Path
    end : torch.nn.Module
        The destination, which the path need not have reached.
    task : lib.tasks.Task
    at : float
        From 0, the start, to 1, the last point.

    Returns
    -------
    scores : dict
        ``train_loss``, ``train_accuracy``, ``test_loss``, ``test_accuracy``.
    left : dict of str to float
        For each weight tensor its distance from that of the end, as a fraction of the distance at the start; 0 where
        start and end are equal.
    """
    where = position(path, at)
    points = torch.stack([path.point(where), path.point(0)])
    here, whole = Path(path.model, points).distances(end)[list(sphere.variance(path.model))].to_numpy()
    left = np.divide(here, whole, out=np.zeros_like(here), where=whole > 0)
    names = (name.removesuffix(".weight") for name in sphere.variance(path.model))
    return path.scores(where, task, splits=("train", "test")), dict(zip(names, left.tolist(), strict=True))
