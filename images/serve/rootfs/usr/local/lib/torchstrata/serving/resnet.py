"""ResNet-50 in plain torch, for images that have no torchvision: its parameters have the same names, so that the same files of weights fit.

As torchvision has it, which is version 1.5 of the paper's: a bottleneck's stride is at its 3x3 convolution.
"""

from __future__ import annotations

import torch
from torch import nn

EXPANSION = 4


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        is_same = stride == 1 and channels == out
        self.downsample = None if is_same else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return what the block makes of N x channels x H x W."""
        shortcut = self.downsample(values) if self.downsample else values
        values = self.relu(self.bn1(self.conv1(values)))
        values = self.relu(self.bn2(self.conv2(values)))
        return self.relu(self.bn3(self.conv3(values)) + shortcut)


class ResNet(nn.Module):
    """A stem, four groups of bottlenecks and a linear classifier."""

    def __init__(self, blocks: tuple[int, int, int, int], classes: int = 1000) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1 = _group(64, 64, blocks[0], stride=1)
        self.layer2 = _group(256, 128, blocks[1], stride=2)
        self.layer3 = _group(512, 256, blocks[2], stride=2)
        self.layer4 = _group(1024, 512, blocks[3], stride=2)
        self.fc = nn.Linear(2048, classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return N x classes scores of N x 3 x H x W pictures."""
        values = self.maxpool(self.relu(self.bn1(self.conv1(pictures))))
        values = self.layer4(self.layer3(self.layer2(self.layer1(values))))
        return self.fc(values.mean((2, 3)))


def resnet50() -> nn.Module:
    """Return ResNet-50 for ImageNet's thousand classes, with random weights."""
    return ResNet((3, 4, 6, 3))


def _group(channels: int, width: int, count: int, *, stride: int) -> nn.Sequential:
    following = (Bottleneck(width * EXPANSION, width, 1) for _ in range(count - 1))
    return nn.Sequential(Bottleneck(channels, width, stride), *following)
