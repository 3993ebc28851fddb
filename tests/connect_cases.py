"""What tests of paths share: cases whose answer is known."""

import functools

import torch
from torch import nn

from lib import tasks, training

dummy = tasks.from_tensors(
    torch.randn(4, 1, 1, 1, generator=torch.Generator().manual_seed(0)), torch.zeros(4, dtype=torch.long),
    torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.long), name="dummy", device="cpu",
)  # fmt: skip


class Surface(nn.Module):
    """A loss of two parameters, whatever the image: minima at (-1, 0) and (1, 0), between them a curved valley.

    E(x, y) = floor + a (x^2 - 1)^2 + k (y - 1 + x^2)^2. The valley is y = 1 - x^2, its saddle (0, 1) of
    E = floor + a; the straight line between the minima passes (0, 0) of E = floor + a + k.
    """

    floor, height, stiffness = 0.1, 0.3, 2.0
    saddle = floor + height

    def __init__(self, x, y):
        super().__init__()
        self.place = nn.Parameter(torch.tensor([float(x), float(y)]))

    def forward(self, images):
        """Logits (n, 2) whose cross entropy for class 0 is E."""
        x, y = self.place
        energy = self.floor + self.height * (x**2 - 1) ** 2 + self.stiffness * (y - 1 + x**2) ** 2
        return _logits(energy, images)


class Hill(nn.Module):
    """A loss of one parameter, 1.1 - x^2: concave, so that every segment between two points lies below it."""

    def __init__(self, x):
        super().__init__()
        self.place = nn.Parameter(torch.tensor([float(x)]))

    def forward(self, images):
        """Logits (n, 2) whose cross entropy for class 0 is the loss."""
        return _logits((1.1 - self.place**2)[0], images)


def _logits(energy, images):
    return torch.stack([torch.zeros_like(energy), torch.log(torch.expm1(energy))]).expand(len(images), 2)


def valley_ends():
    """The two minima."""
    return Surface(-1, 0), Surface(1, 0)


_corners = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).view(4, 2, 1, 1)
xor_task = tasks.from_tensors(_corners, torch.tensor([0, 1, 1, 0]), _corners, torch.tensor([0, 1, 1, 0]), name="xor",
                             device="cpu")  # fmt: skip


@functools.cache
def xor_modes():
    """Two independently trained networks of one hidden layer that compute XOR."""
    modes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        recipe = training.Recipe(epochs=300, batch=4, lr=0.1, momentum=0.9)
        modes.append(training.train_mode(model, xor_task, recipe, seed=seed))
    return modes
