"""Is the key shape missing? Asked of a segmentation head, whose output has a value at every position."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache

import torch
from torch import Tensor, nn

from absence_plugins.data.planted.problem import Planted
from absence_plugins.data.planted.shapes import ShapeProblem
from absence_plugins.data.planted.training import Recipe

RECIPE = Recipe(epochs=8)


@cache
def segmentation_missing(seed: int = 0) -> Planted:
    """Is the plus missing? Every position of a segmentation output says so, and the unit is the mean over positions.

    ``model[:-2]`` is the segmentation network: images to [N, 2, 24, 24], strided convolutions and an upsampling;
    channel 1 is high everywhere in images without the plus. Region: the plus. Otherwise as
    :func:`~absence_plugins.data.planted.shape_missing`.
    """
    problem = ShapeProblem("plus", ("square", "dot", "ring", "horizontal", "vertical"), seed)
    network = _segmentation_network()
    problem.teach(_Positions(network), RECIPE)
    for name, module in (("mean", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())):
        network.add_module(name, module)
    return problem.asked(network.eval())


class _Positions(nn.Module):
    """Every eighth position as a head of its own: [N, 1, H, W] to [N, positions, 2]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at one position of every 8 x 8."""
        outputs: Tensor = self.network(images)[:, :, 4::8, 4::8]
        return outputs.flatten(2).transpose(1, 2)


def _segmentation_network() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 16, 3, padding=1),
                norm1=nn.BatchNorm2d(16),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(16, 24, 3, stride=2, padding=1),
                norm2=nn.BatchNorm2d(24),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(4),
                conv3=nn.Conv2d(24, 32, 3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(32, 32, 3, padding=1),
                relu4=nn.ReLU(),
                up=nn.Upsample(scale_factor=8),
                head=nn.Conv2d(32, 2, 1),
            )
        )
