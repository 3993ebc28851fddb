"""Augmentation of images on their device, drawn from a named generator: what each data set of the papers asks for."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Random rotation, crop out of a padded image, and horizontal flip, each image on its own.

    Parameters
    ----------
    rotation : float
        Largest angle in degrees, either way.
    padding : int
        Pixels added on every side before a crop of the former size.
    padding_mode : {"constant", "reflect"}
        What the padding holds; "constant" repeats the image's background, its smallest value.
    flip : bool
        Mirror half of the images.
    """

    rotation: float = 0.0
    padding: int = 0
    padding_mode: str = "constant"
    flip: bool = False

    def __call__(self, x, generator):
        """Augment images ``x`` (n, C, H, W) with draws from ``generator``."""
        if self.rotation:
            x = self._rotate(x, generator)
        if self.padding:
            x = self._crop(x, generator)
        if self.flip:
            mirrored = torch.rand(len(x), generator=generator, device=x.device) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        return x

    def _rotate(self, x, generator):
        angle = torch.empty(len(x), device=x.device).uniform_(-1, 1, generator=generator)
        angle = torch.deg2rad(angle * self.rotation)
        zero = torch.zeros_like(angle)
        rows = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], 1)
        grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid.to(x.dtype), padding_mode="border", align_corners=False)

    def _crop(self, x, generator):
        n, _, height, width = x.shape
        background = {} if self.padding_mode == "reflect" else {"value": float(x.min())}
        padded = F.pad(x, [self.padding] * 4, mode=self.padding_mode, **background)
        corner = torch.randint(0, 2 * self.padding + 1, (2, n, 1, 1), generator=generator, device=x.device)
        rows = corner[0] + torch.arange(height, device=x.device)[:, None]
        columns = corner[1] + torch.arange(width, device=x.device)
        image = torch.arange(n, device=x.device)[:, None, None]
        return padded[image, :, rows, columns].permute(0, 3, 1, 2)


AUGMENTATIONS = {
    "mnist": Augmentation(rotation=5, padding=2),
    "cifar10": Augmentation(padding=4, padding_mode="reflect", flip=True),
    "cifar100": Augmentation(padding=4, padding_mode="reflect", flip=True),
}
