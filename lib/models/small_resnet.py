"""A residual network small enough for fifty nodes on a laptop, to see what averaging does to batch norm."""

import torch
from torch import nn


class SmallResNet(nn.Module):
    """Stem of 8 channels, blocks of 8, 16 and 32, each at half the resolution, mean pool; all with batch norm."""

    def __init__(self, image_shape, classes):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(image_shape[0], 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(_Block(8, 8, 1), _Block(8, 16, 2), _Block(16, 32, 2))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(32, classes)

    def forward(self, x):
        """Logits (n, classes) of images (n, C, H, W)."""
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        return self.head(torch.flatten(self.pool(x), 1))


class _Block(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, width, 1, stride=stride, bias=False)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
