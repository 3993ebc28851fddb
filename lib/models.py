"""One registry of architectures: of each family a laptop member (small, for a CPU) and the papers' member.

LeNet5 and the Caffe LeNet are written here; everything else comes from timm with a CIFAR stem (first stride-2
convolution to stride 1, stem max-pool out), so that 32 pixel images are not shrunk before the first block.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lib import seeds, torchvision_operators
from lib.errors import InputError

SIZES = ("laptop", "paper")


class LeNet5(nn.Module):
    """LeNet5 as in both papers: 6@5x5 (padding 2), 16@5x5, 120, 84, classes; 61,706 parameters for MNIST.

    Xavier uniform weights, zero biases. Pooling before the ReLU gives the same values as after it (both are
    monotonic) at a quarter of the cost.
    """

    def __init__(self, image_shape, classes):
        super().__init__()
        channels, height, width = image_shape
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2), 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)
        _initialise(self, nn.init.xavier_uniform_)

    def forward(self, x):
        """Logits (n, classes) of images (n, C, H, W)."""
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


class CaffeLeNet(nn.Module):
    """The LeNet of Caffe that paper 2 uses: 20@5x5, 50@5x5, 500, classes; 431,080 parameters for MNIST.

    Weights uniform with variance 1/fan_in (Caffe's "xavier" filler), zero biases; no ReLU after convolutions.
    """

    def __init__(self, image_shape, classes):
        super().__init__()
        channels, height, width = image_shape
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2), 500)
        self.fc2 = nn.Linear(500, classes)
        _initialise(self, lambda w: nn.init.kaiming_uniform_(w, nonlinearity="linear"))

    def forward(self, x):
        """Logits (n, classes) of images (n, C, H, W)."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


def _initialise(model, weight_filler):
    for layer in model.children():
        weight_filler(layer.weight)
        nn.init.zeros_(layer.bias)


def _timm(architecture, **options):
    """A builder of a timm architecture with a CIFAR stem."""

    def build(image_shape, classes):
        torchvision_operators.define_missing()
        import timm

        model = timm.create_model(architecture, num_classes=classes, in_chans=image_shape[0], **options)
        return _cifar_stem(model)

    return build


def _cifar_stem(model):
    """First strided convolution to stride 1, a max-pool in the stem out."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            break
    if isinstance(getattr(model, "maxpool", None), nn.Module):
        model.maxpool = nn.Identity()
    return model


@dataclass(frozen=True)
class Family:
    """The two members of a family: ``build(image_shape, classes)`` for the laptop and for the paper."""

    laptop: callable
    paper: callable


FAMILIES = {
    "lenet5": Family(LeNet5, LeNet5),
    "lenet_caffe": Family(CaffeLeNet, CaffeLeNet),
    "resnet18": Family(_timm("resnet10t"), _timm("resnet18")),
}


def create(name, task, *, size="laptop", seed):
    """Make a freshly initialised model for a task.

    Parameters
    ----------
    name : str
        A family of ``models.FAMILIES``.
    task : lib.task.Task
        Gives the image shape, the number of classes and the device.
    size : {"laptop", "paper"}
        Which member of the family.
    seed : int
        Of the initial weights.

    Raises
    ------
    InputError
        If there is no such family or size.
    """
    if name not in FAMILIES:
        raise InputError(f"model='{name}': unknown family, choose one of {', '.join(FAMILIES)}")
    if size not in SIZES:
        raise InputError(f"size='{size}': choose one of {', '.join(SIZES)}")
    model = from_entry(dict(name=name, size=size, image_shape=list(task.image_shape), classes=task.classes), seed)
    return model.to(task.device)


def from_entry(entry, seed=0):
    """Make the model that an entry ``{name, size, image_shape, classes}`` describes, as stored with a path."""
    with seeds.scope(seed, "initial weights"):
        model = getattr(FAMILIES[entry["name"]], entry["size"])(tuple(entry["image_shape"]), entry["classes"])
    model.registry_entry = entry
    return model
