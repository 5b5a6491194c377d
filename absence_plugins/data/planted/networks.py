"""The networks of the planted problems: built on the meta device, weights come with the training."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Sum(nn.Module):
    """The sum over the last axis, as a module that hooks can see: [..., M] to [...]."""

    def forward(self, branches: Tensor) -> Tensor:
        """Sum of the branches."""
        return branches.sum(-1)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm beside a 1x1 convolution, their :class:`Sum`, and a ReLU: [N, C, H, W] to [N, D,
    H, W].
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.sum = Sum()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of the sum of both branches."""
        body: Tensor = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        branches = torch.stack([body, self.shortcut(x)], -1)
        result: Tensor = self.relu2(self.sum(branches))
        return result


def normalized_network(channels: int = 1) -> nn.Sequential:
    """Three blocks conv, batch norm, ReLU, max pooling, for 24 x 24 pixels; two logits."""
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, 12, 3, padding=1),
                norm1=nn.BatchNorm2d(12),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(12, 24, 3, padding=1),
                norm2=nn.BatchNorm2d(24),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(24, 24, 3, padding=1),
                norm3=nn.BatchNorm2d(24),
                relu3=nn.ReLU(),
                pool3=nn.MaxPool2d(6),
                flatten=nn.Flatten(),
                linear=nn.Linear(24, 2),
            )
        )


def plain_network(channels: int = 1, outputs: int = 2) -> nn.Sequential:
    """Three blocks conv, ReLU, max pooling, for 24 x 24 pixels."""
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, 16, 3, padding=1),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(16, 32, 3, padding=1),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 32, 3, padding=1),
                relu3=nn.ReLU(),
                pool3=nn.MaxPool2d(6),
                flatten=nn.Flatten(),
                linear=nn.Linear(32, outputs),
            )
        )


def residual_network(channels: int = 1) -> nn.Sequential:
    """A strided stem and two residual blocks with average pooling, for 24 x 24 pixels; two logits."""
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(channels, 12, 3, stride=2, padding=1, bias=False),
                norm=nn.BatchNorm2d(12),
                relu=nn.ReLU(),
                block1=ResidualBlock(12, 16),
                pool1=nn.AvgPool2d(2),
                block2=ResidualBlock(16, 24),
                pool2=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(24, 2),
            )
        )
