"""What a message holds: the whole model, or the part of it that a variant of gossip learning sends.

Partial messages are the gossip variants that paper 2 finds free of the plateau delay: the receiver completes
them with its own weights, so that what is averaged stays correlated. A mask (k, D) says which weights of k
senders are in the messages; ``None`` stands for all of them.
"""

from dataclasses import dataclass

import torch

from lib import seeds as streams
from lib.errors import InputError


@dataclass(frozen=True)
class Whole:
    """The whole model."""

    def mask(self, change, sent, layout, *, seeds):
        """No mask."""
        return None


@dataclass(frozen=True)
class Sampled:
    """Each weight is sent with probability ``fraction``, drawn anew for each message."""

    fraction: float = 0.5

    def __post_init__(self):
        _check_fraction(self.fraction)

    def mask(self, change, sent, layout, *, seeds):
        """Mask (k, D); see :meth:`Compressed.mask`."""
        mask = torch.empty_like(change, dtype=torch.bool)
        for row, seed in zip(mask, seeds, strict=True):  # sender by sender: it does not matter who sends together
            generator = streams.generator(seed, "sampled", device=change.device)
            row.copy_(torch.rand(change.shape[1], generator=generator, device=change.device) < self.fraction)
        return mask


@dataclass(frozen=True)
class Compressed:
    """Only weights that training just changed much are sent: the outer part of a tensor's range of changes.

    With d the change of a weight and r = max d - min d over its tensor, weights with
    ``min d + fraction r / 2 < d < max d - fraction r / 2`` are left out.
    """

    fraction: float = 0.5

    def __post_init__(self):
        _check_fraction(self.fraction)

    def mask(self, change, sent, layout, *, seeds):
        """Mask (k, D) of the weights to send.

        Parameters
        ----------
        change : tensor (k, D)
            What the training of this tick added to the weights of the k senders.
        sent : tensor (k,), int64
            Messages that each sender has sent before.
        layout : lib.weights.Layout
        seeds : list of int
            Of this message of each sender.
        """
        mask = torch.empty_like(change, dtype=torch.bool)
        for part in layout.slices.values():
            low, high = change[:, part].aminmax(dim=1, keepdim=True)
            margin = self.fraction * (high - low) / 2
            mask[:, part] = (change[:, part] <= low + margin) | (change[:, part] >= high - margin)
        return mask


@dataclass(frozen=True)
class Partitioned:
    """The model is cut into ``parts`` runs of weights; each message holds one of them, in turn."""

    parts: int = 4

    def __post_init__(self):
        if self.parts < 1:
            raise InputError(f"parts={self.parts}: must be at least 1")

    def mask(self, change, sent, layout, *, seeds):
        """Mask (k, D); see :meth:`Compressed.mask`."""
        part = torch.arange(change.shape[1], device=change.device) * self.parts // change.shape[1]
        return part == (sent.to(change.device) % self.parts)[:, None]


def _check_fraction(fraction):
    if not 0 < fraction <= 1:
        raise InputError(f"fraction={fraction}: must be in (0, 1]")
