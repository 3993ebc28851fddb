"""A data set as tensors on a device: what every training, path and simulation of the bundle learns from.

The embedded default is scikit-learn's *digits* (1,797 images, no download). MNIST and CIFAR come through
torchvision, any folder of images is read (:mod:`lib.sources`), and anything else comes as tensors, arrays or
data sets: tables, sequences, token ids. Images are normalised by the mean and standard
deviation of the training split, batches and augmentation are drawn on the device from named seeds, so that
batch ``i`` depends on the seed and ``i`` alone: an interrupted training continues with the same batches.
"""

import functools
import os
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from lib import arrays, pixels, scores, seeds, sources
from lib.augmentation import AUGMENTATIONS, Augmentation
from lib.errors import InputError
from lib.scores import accuracy, cross_entropy
from lib.sources import LABELS, label_of  # noqa: F401 (notebooks ask for it here)

PRECISIONS = ("float32", "bfloat16", "auto")


@dataclass(frozen=True)
class Split:
    """Inputs, targets, and how the outputs of a model are judged by them.

    Parameters
    ----------
    x : tensor (n, ...)
        Float32, or int64 for token ids. Images (n, C, H, W) are normalised and lie channels last in memory; those that
        came as bytes stay bytes until they are used (:class:`lib.pixels.Pixels`).
    y : tensor (n, ...)
        A class for each input, or for each token of it (int64), or numbers (float32).
    loss, metric : callable
        As of :func:`from_tensors`.
    """

    x: torch.Tensor
    y: torch.Tensor
    loss: callable = cross_entropy
    metric: callable = accuracy

    def __len__(self):
        return len(self.y)

    @property
    def classes(self):
        """The class of each input (n,); zeros where the targets are of another kind."""
        return self.y if self.y.ndim == 1 and not self.y.is_floating_point() else self.y.new_zeros(len(self)).long()

    @property
    def score_names(self):
        """What a score consists of: "loss", and the name of the metric, if there is one."""
        return ("loss",) if self.metric is None else ("loss", scores.name_of(self.metric))

    def score(self, outputs):
        """The score of the outputs (n, ...) for all inputs: a named tuple, usually (loss, accuracy)."""
        functions = (self.loss,) if self.metric is None else (self.loss, self.metric)
        return scores.score(*self.score_names[1:])(*(float(function(outputs, self.y)) for function in functions))

    def subset(self, size, *, seed=0):
        """A fixed sample of at most ``size`` inputs, drawn from the classes in turn, so that they balance."""
        if size >= len(self):
            return self
        order, y = torch.randperm(len(self), generator=seeds.generator(seed, "subset")).to(self.y.device), self.classes
        rank = torch.zeros_like(y)
        for label in y.unique():
            of_label = order[y[order] == label]
            rank[of_label] = torch.arange(len(of_label), device=rank.device)
        chosen = order[torch.argsort(rank[order], stable=True)[:size]]
        return replace(self, x=self.x[chosen], y=self.y[chosen])

    def sample(self, size, *, seed=0):
        """A fixed sample of at most ``size`` inputs in which each class has its part of the split.

        The order in which the inputs lie does not matter, but for which inputs of a class are drawn.
        """
        if size >= len(self):
            return self
        order = torch.randperm(len(self), generator=seeds.generator(seed, "sample")).to(self.y.device)
        by_class = order[torch.argsort(self.classes[order], stable=True)]
        chosen = by_class[(torch.arange(size, device=by_class.device) * 2 + 1) * len(self) // (2 * size)]
        return replace(self, x=self.x[chosen], y=self.y[chosen])


class Batches:
    """Shuffled mini-batches without end; ``get(i)`` depends on the seed and ``i`` alone."""

    def __init__(self, split, size, seed, augmentation):
        if not 1 <= size <= len(split):
            raise InputError(f"batch={size}: must be between 1 and the {len(split)} inputs of the split")
        self.split, self.size, self.seed, self.augmentation = split, size, seed, augmentation
        self.per_epoch = len(split) // size
        self._order = functools.lru_cache(maxsize=2)(self._shuffle)

    def get(self, i):
        """Batch ``i``: inputs (size, ...) and targets (size, ...)."""
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
    """A data set on a device: ``train`` and ``test`` splits, how to augment, and the number of ``classes``: None where
    targets are not a class for each input.

    ``precision`` and ``compiled`` say how networks are *trained* on it (:meth:`prepared`). What judges and
    evaluates them calls them as they are.
    """

    name: str
    train: Split
    test: Split
    classes: int | None
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
    def loss(self):
        """The loss that is minimised."""
        return self.train.loss

    @property
    def metric(self):
        """What is reported beside the loss, or None."""
        return self.train.metric

    @property
    def image_shape(self):
        """Channels, height, width; the shape of an input that is no image."""
        return tuple(self.train.x.shape[1:])

    @property
    def dtype(self):
        """Number type of the weights of networks for these inputs."""
        return self.train.x.dtype if self.train.x.dtype.is_floating_point else torch.get_default_dtype()

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


def from_tensors(
    x, y, x_test, y_test, *, name, loss=cross_entropy, metric=None, normalise=True, device="auto", augmentation=None,
    **training,
):  # fmt: skip
    """Make a task of anybody's data.

    Parameters
    ----------
    x, x_test : tensor or array (n, ...)
        Inputs of one shape. Four dimensions are images (n, C, H, W) of any real type; else floats are numbers, such as
        the rows of a table, and integers are token ids.
    y, y_test : tensor or array (n, ...)
        With the default loss a class 0, 1, ... for each input (n,), also as whole floats, as a column (n, 1) or
        one-hot, or a class for each token (n, T). With a loss of your own whatever it takes.
    name : str
    loss, metric : callable, optional
        ``f(outputs, y)`` of a batch that gives one number, the loss a mean over the batch. Defaults are
        :func:`lib.scores.cross_entropy` and :func:`lib.scores.accuracy`; with a loss of your own no metric. Results
        name the metric by its function: ``train_loss``, ``train_accuracy``, or ``train_l1_loss``.
    normalise : bool
        Whether images are normalised by the training split's mean and standard deviation per channel. Other inputs
        are taken as they are.
    device : str or torch.device
        "auto" takes the GPU when there is one.
    augmentation : Augmentation, optional
    **training
        ``precision`` and ``compiled`` of :class:`Task`.

    Raises
    ------
    InputError
        If the parts do not fit each other, a value is not finite, or a target is no class.

    Examples
    --------
    >>> table, price = torch.rand(80, 5), torch.rand(80, 1)
    >>> regression = {"loss": F.mse_loss, "metric": F.l1_loss}
    >>> houses = from_tensors(table, price, table, price, name="houses", device="cpu", **regression)
    >>> houses.train.score(price)
    Score(loss=0.0, l1_loss=0.0)
    """
    x, y, x_test, y_test, classes = arrays.read(x, y, x_test, y_test, as_classes=loss is cross_entropy)
    if augmentation is not None and (x.ndim != 4 or classes is None):
        raise InputError("augmentation: needs images (n, C, H, W) and a class for each")
    device = pick_device(device)
    x, x_test = _on_device(x, x_test, normalise, device)
    judged = {"loss": loss, "metric": accuracy if metric is None and loss is cross_entropy else metric}
    y, y_test = (each.to(device, copy=True) for each in (y, y_test))
    train, test = Split(x, y, **judged), Split(x_test, y_test, **judged)
    return Task(name, train, test, classes, augmentation, **training)


def from_datasets(train, test, **options):
    """Make a task of two data sets of pairs (input, target), such as torchvision's.

    Parameters
    ----------
    train, test : torch.utils.data.Dataset
        Each item is read once: random transforms are frozen, use ``augmentation`` instead. Inputs may be tensors,
        arrays or PIL images.
    **options
        Of :func:`from_tensors`.

    Examples
    --------
    >>> pairs = [(torch.rand(3), number % 2) for number in range(10)]
    >>> from_datasets(pairs, pairs[:4], name="pairs", device="cpu").classes
    2
    """
    return from_tensors(*arrays.stacked("train", train), *arrays.stacked("test", test), **options)


def _on_device(x, x_test, normalise, device):
    """Inputs on the device, images normalised if they are to be.

    Images lie channels last: what a network makes of images so laid out keeps that layout, in which its convolutions,
    its pooling and its batch norm are faster (benchmarks/training.py).
    """
    layout = {"device": device, "copy": True}  # what the caller does to arrays later does not matter
    if x.ndim != 4:
        return x.to(**layout), x_test.to(**layout)
    layout["memory_format"] = torch.channels_last
    if not normalise:
        return x.float().to(**layout), x_test.float().to(**layout)
    if x.dtype == torch.uint8:
        moments = pixels.moments(x)
        return tuple(pixels.Pixels(images.to(**layout), *moments) for images in (x, x_test))
    deviation, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
    deviation = deviation.clamp_min(1e-12)
    return ((x - mean) / deviation).to(**layout), ((x_test - mean) / deviation).to(**layout)


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
