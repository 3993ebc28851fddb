"""The two LeNets of the papers, written here as no library has them: LeNet5 and the LeNet of Caffe."""

import torch
from torch import nn
from torch.nn import functional as F

from lib.errors import InputError


class LeNet5(nn.Module):
    """LeNet5 as in both papers: 6@5x5 (padding 2), 16@5x5, 120, 84, classes; 61,706 parameters for MNIST.

    ``widths`` are those of its four hidden layers. Xavier uniform weights, zero biases. Pooling before the ReLU gives
    the same values as after it (both are monotonic) at a quarter of the cost.
    """

    def __init__(self, image_shape, classes, *, widths=(6, 16, 120, 84)):
        super().__init__()
        channels, height, width = _at_least(12, image_shape)
        first, second, third, fourth = widths
        self.conv1 = nn.Conv2d(channels, first, 5, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(second * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2), third)
        self.fc2 = nn.Linear(third, fourth)
        self.fc3 = nn.Linear(fourth, classes)
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
        channels, height, width = _at_least(16, image_shape)
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


def _at_least(pixels, image_shape):
    if min(image_shape[1:]) < pixels:
        raise InputError(f"image_shape={tuple(image_shape)}: this LeNet needs images of {pixels} pixels or more")
    return image_shape


def _initialise(model, weight_filler):
    for layer in model.children():
        weight_filler(layer.weight)
        nn.init.zeros_(layer.bias)
