"""Images kept as the bytes that files hold, normalised where they are used: a quarter of the memory of float32."""

import torch
from torch.utils._pytree import tree_map

MOMENTS = ("stored", "mean", "deviation")


class Pixels:
    """Images (n, C, H, W): indexed, split or handed to any function of torch they are normalised float32 tensors.

    Parameters
    ----------
    stored : tensor (n, C, H, W), uint8
    mean, deviation : tensor (C, 1, 1), float32

    Examples
    --------
    >>> images = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2)
    >>> pixels = Pixels(images, *moments(images))
    >>> pixels[1].mean() + pixels[0].mean(), len(pixels)
    (tensor(0.), 2)
    """

    dtype, ndim = torch.float32, 4

    def __init__(self, stored, mean, deviation):
        self.stored, self.mean, self.deviation = stored, mean.to(stored.device), deviation.to(stored.device)

    shape = property(lambda self: self.stored.shape)
    device = property(lambda self: self.stored.device)

    def __len__(self):
        return len(self.stored)

    def __getitem__(self, index):
        if isinstance(index, tuple):
            return self[:][index]
        return self.stored[index].float().sub_(self.mean).div_(self.deviation)

    def split(self, size):
        """Parts of at most ``size`` images, one after another."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, *args, **kwargs):
        """The same images elsewhere, or in another memory format."""
        return Pixels(self.stored.to(*args, **kwargs), self.mean, self.deviation)

    def clone(self, **kwargs):
        """A copy, for example in another memory format."""
        return Pixels(self.stored.clone(**kwargs), self.mean, self.deviation)

    def __getattr__(self, name):
        if name in MOMENTS or name.startswith("__"):  # while it is copied or unpickled there is nothing to delegate to
            raise AttributeError(name)
        return getattr(self[:], name)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        args, kwargs = tree_map(lambda value: value[:] if isinstance(value, cls) else value, (args, kwargs or {}))
        return function(*args, **kwargs)


def moments(images):
    """Mean and standard deviation of each channel of bytes, (C, 1, 1) each: exact, from how often a value occurs."""
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).double()
    values = torch.arange(256, dtype=torch.float64, device=counts.device)
    fractions = counts / counts.sum(1, keepdim=True)
    mean = fractions @ values
    deviation = (fractions * (values - mean[:, None]).square()).sum(1).sqrt()
    return mean.float()[:, None, None], deviation.float().clamp_min(1e-12)[:, None, None]
