"""A data set as tensors on a device: what every training, path and simulation of the bundle learns from.

The embedded default is scikit-learn's *digits* (1,797 images, no download). MNIST and CIFAR come through
torchvision, any folder of images through ``ImageFolder``. Images are normalised by the mean and standard
deviation of the training split, batches and augmentation are drawn on the device from named seeds, so that
batch ``i`` depends on the seed and ``i`` alone: an interrupted training continues with the same batches.
"""

import functools
import os
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from lib import seeds, sources
from lib.augmentation import AUGMENTATIONS, Augmentation
from lib.errors import InputError
from lib.sources import LABELS, label_of  # noqa: F401 (notebooks ask for it here)

PRECISIONS = ("float32", "bfloat16", "auto")


@dataclass(frozen=True)
class Split:
    """Images ``x`` (n, C, H, W), float32, normalised, channels last in memory, and classes ``y`` (n,), int64."""

    x: torch.Tensor
    y: torch.Tensor

    def __len__(self):
        return len(self.y)

    def subset(self, size, *, seed=0):
        """A fixed sample of at most ``size`` images, drawn from the classes in turn, so that they balance."""
        if size >= len(self):
            return self
        order = torch.randperm(len(self), generator=seeds.generator(seed, "subset")).to(self.y.device)
        rank = torch.zeros_like(self.y)
        for label in self.y.unique():
            of_label = order[self.y[order] == label]
            rank[of_label] = torch.arange(len(of_label), device=rank.device)
        chosen = order[torch.argsort(rank[order], stable=True)[:size]]
        return Split(self.x[chosen], self.y[chosen])


    def sample(self, size, *, seed=0):
        """A fixed sample of at most ``size`` images in which each class has its part of the split.

        The order in which the images lie does not matter, but for which images of a class are drawn.
        """
        if size >= len(self):
            return self
        order = torch.randperm(len(self), generator=seeds.generator(seed, "sample")).to(self.y.device)
        by_class = order[torch.argsort(self.y[order], stable=True)]
        chosen = by_class[(torch.arange(size, device=by_class.device) * 2 + 1) * len(self) // (2 * size)]
        return Split(self.x[chosen], self.y[chosen])


class Batches:
    """Shuffled mini-batches without end; ``get(i)`` depends on the seed and ``i`` alone."""

    def __init__(self, split, size, seed, augmentation):
        if not 1 <= size <= len(split):
            raise InputError(f"batch={size}: must be between 1 and the {len(split)} images of the split")
        self.split, self.size, self.seed, self.augmentation = split, size, seed, augmentation
        self.per_epoch = len(split) // size
        self._order = functools.lru_cache(maxsize=2)(self._shuffle)

    def get(self, i):
        """Batch ``i``: images (size, C, H, W) and classes (size,)."""
        epoch, position = divmod(i, self.per_epoch)
        index = self._order(epoch)[position * self.size : (position + 1) * self.size]
        x = self.split.x[index]
        if self.augmentation is not None:
            x = self.augmentation(x, seeds.generator(self.seed, "augment", i, device=x.device))
        return x, self.split.y[index]

    def _shuffle(self, epoch):
        generator = seeds.generator(self.seed, "shuffle", epoch)
        return torch.randperm(len(self.split), generator=generator).to(self.split.y.device)


@dataclass(frozen=True)
class Task:
    """A data set on a device: ``train`` and ``test`` splits, number of ``classes``, how to augment.

    ``precision`` and ``compiled`` say how networks are *trained* on it (:meth:`prepared`). What judges and
    evaluates them calls them as they are.
    """

    name: str
    train: Split
    test: Split
    classes: int
    augmentation: Augmentation | None = None
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise InputError(f"precision='{self.precision}': choose one of {', '.join(PRECISIONS)}")

    @property
    def label(self):
        """How figures name the data."""
        return LABELS.get(self.name, self.name)

    @property
    def image_shape(self):
        """Channels, height, width."""
        return tuple(self.train.x.shape[1:])

    @property
    def device(self):
        """Where the tensors lie."""
        return self.train.x.device

    def batches(self, seed, size=64, *, augment=True):
        """Endless shuffled training batches, see :class:`Batches`."""
        return Batches(self.train, size, seed, self.augmentation if augment else None)

    def prepared(self, network):
        """The callable by which training runs a network.

        With bfloat16, products and convolutions of the forward and backward pass run in that type
        (``torch.autocast``), weights, gradients and what comes out stay float32. "auto" is bfloat16 where the device
        computes in it and no convolution is depthwise (on a CPU these take twice as long in it). Compiled networks go
        through ``torch.compile``, which on a GPU replays the kernels of a pass as one CUDA graph.

        Parameters
        ----------
        network : callable
            A module, or a function of images.

        Returns
        -------
        callable
            Of the same arguments; the network itself where nothing was asked for.
        """
        auto = self.precision == "auto" and _faster_in_bfloat16(network, self.device)
        if self.compiled:
            network = torch.compile(network, mode="reduce-overhead")
        if not auto and self.precision != "bfloat16":
            return network

        def in_bfloat16(*args, **kwargs):
            with torch.autocast(self.device.type, torch.bfloat16):
                return network(*args, **kwargs).float()

        return in_bfloat16

    def subset(self, train, test=None, *, seed=0):
        """The same task with at most ``train`` and ``test`` images, classes balanced."""
        smaller = self.test if test is None else self.test.subset(test, seed=seed)
        return replace(self, train=self.train.subset(train, seed=seed), test=smaller)


def load(name, *, size=None, data_dir=None, device="auto", label=None, **training):
    """Load a data set as normalised tensors.

    Parameters
    ----------
    name : {"digits", "mnist", "cifar10", "cifar100", "folder"}
        "folder" reads ``data_dir/train/<class>/*`` and ``data_dir/test/<class>/*``. "cifar10" takes JPEG files,
        ``data_dir/cifar10_jpg/train/<class>/*.jpg``, where torchvision's archive is not there, and is labelled so.
    size : int, optional
        Height and width that images are resized to (bilinear); default the data set's own, 28 for digits.
    data_dir : path, optional
        Where the data lie; default the environment variable ``DATA_DIR``, then ``data/downloads``, where
        torchvision downloads what is missing (never into a folder that the user named).
    device : str or torch.device
        "auto" takes the GPU when there is one.
    label : str, optional
        Name of the task, for figures, where ``name`` is "folder"; default the folder's name.
    **training
        ``precision`` and ``compiled`` of :class:`Task`.

    Raises
    ------
    InputError
        If the name is unknown, the folder does not exist, or the data are missing and cannot be downloaded.

    Examples
    --------
    >>> digits = load("digits", size=16, device="cpu")
    >>> digits.train.x.shape, digits.classes
    (torch.Size([1437, 1, 16, 16]), 10)
    """
    if size is not None and size < 8:
        raise InputError(f"size={size}: images must be at least 8 pixels high and wide")
    *arrays, shown = sources.read(name, size=size, data_dir=data_dir)
    x, y, x_test, y_test = (torch.as_tensor(array) for array in arrays)
    size = size or (28 if name == "digits" else None)
    return from_tensors(
        _resize(x, size), y, _resize(x_test, size), y_test,
        name=label or shown, device=device, augmentation=AUGMENTATIONS.get(name), **training,
    )  # fmt: skip


def from_tensors(x, y, x_test, y_test, *, name, device="auto", augmentation=None, **training):
    """Make a task of anybody's data: images (n, C, H, W), any real type, and integer classes (n,).

    Images are normalised by the training split's mean and standard deviation per channel. ``training`` are
    ``precision`` and ``compiled`` of :class:`Task`.

    Raises
    ------
    InputError
        If the shapes do not fit each other or a value is not finite.
    """
    for part, images, labels in (("x", x, y), ("x_test", x_test, y_test)):
        if images.ndim != 4 or len(images) != len(labels):
            raise InputError(f"{part}: shape {tuple(images.shape)} with {len(labels)} classes, needs (n, C, H, W)")
        if not torch.isfinite(images).all():
            raise InputError(f"{part}: holds values that are not finite")
    device = pick_device(device)
    x, x_test = x.float(), x_test.float()
    deviation, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
    deviation = deviation.clamp_min(1e-12)
    # Channels last: what a network makes of images so laid out keeps that layout, in which its convolutions, its
    # pooling and its batch norm are faster (benchmarks/training.py).
    layout = {"device": device, "memory_format": torch.channels_last}
    train = Split(((x - mean) / deviation).to(**layout), y.long().to(device))
    test = Split(((x_test - mean) / deviation).to(**layout), y_test.long().to(device))
    classes = int(max(y.max(), y_test.max())) + 1
    return Task(name, train, test, classes, augmentation, **training)


def _faster_in_bfloat16(network, device):
    """Whether the device has instructions for bfloat16 and the network, which must be a module, suits them."""
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    modules = network.modules() if isinstance(network, torch.nn.Module) else [None]
    return fast and not any(m is None or getattr(m, "groups", 1) == getattr(m, "in_channels", 0) > 1 for m in modules)


def pick_device(device):
    """``torch.device`` for a name; "auto" is the GPU when there is one."""
    if str(device) == "auto":
        device = os.environ.get("DEVICE", "auto")
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device='{device}': not usable here ({str(error).splitlines()[0]})") from None
    return device


def _resize(x, size):
    if size is None or tuple(x.shape[-2:]) == (size, size):
        return x
    return F.interpolate(x.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)
