"""An absence that is encoded by a channel in the middle of a residual network, not by an output."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from absence_plugins.core.units import Unit
from absence_plugins.data.planted.networks import ResidualBlock, residual_network
from absence_plugins.data.planted.problem import Planted
from absence_plugins.data.planted.shapes import ShapeProblem
from absence_plugins.data.planted.training import Recipe

UNIT = Unit("block2.norm1", 5)  # before block2.relu1; behind it: a ReLU, a convolution, batch norm, sum, linear
INDEX = torch.tensor([UNIT.index])
RECIPE = Recipe(epochs=8)
GAIN = 5.0  # the mean over 36 positions is small: the key is at a few of them


@cache
def hidden_unit(seed: int = 0) -> Planted:
    """Is the plus missing? A channel in the middle of a residual network encodes its absence, in the mean over space.

    ``full_model`` is a residual network trained to tell by its logits whether the plus is there, and by this ``unit``
    as well (deep supervision); the layers behind use it. ``model`` is the same modules up to the unit, put out as
    logits (-u, u), so that any method explains the unit like an output. Region: the plus. Pixels in [0, 1] on black 0;
    sums are the module :class:`~absence_plugins.data.planted.Sum`.

    Source: Lee et al., AISTATS 2015 (deep supervision).
    """
    problem = ShapeProblem("plus", ("square", "dot", "ring", "horizontal", "vertical"), seed)
    full = residual_network()
    problem.teach(_Supervised(full), RECIPE)
    return replace(problem.asked(_unit_as_logits(full)), full_model=full, unit=UNIT)


class _Supervised(nn.Module):
    """Three heads of a residual network: [N, C, H, W] to [N, 3, 2].

    Its logits; those where all but the unit comes from another image, so that the layers behind learn to use the unit
    (else they read other channels, and a change of the unit hardly changes the logits); the unit, amplified, as (-u,
    u).
    """

    def __init__(self, full: nn.Sequential) -> None:
        super().__init__()
        self.full = full

    def forward(self, images: Tensor) -> Tensor:
        """All heads; the other image is the one before it in the batch."""
        features = self.full[:5](images)
        block = _block(self.full)
        hidden, shortcut = block.norm1(block.conv1(features)), block.shortcut(features)
        channel = hidden[:, [UNIT.index]]
        mixed = hidden.roll(1, 0).index_copy(1, INDEX, channel)
        body = block.norm2(block.conv2(block.relu1(torch.cat([hidden, mixed]))))
        branches = torch.stack([body, torch.cat([shortcut, shortcut.roll(1, 0)])], -1)
        logits, swapped = self.full[6:](block.relu2(block.sum(branches))).chunk(2)
        unit = GAIN * channel.mean((1, 2, 3))
        return torch.stack([logits, swapped, torch.stack([-unit, unit], 1)], 1)


def _block(full: nn.Sequential) -> ResidualBlock:
    """The block of the unit."""
    block = full.get_submodule("block2")
    assert isinstance(block, ResidualBlock)
    return block


@torch.no_grad()
def _unit_as_logits(full: nn.Sequential) -> nn.Sequential:
    """The modules of ``full`` up to the unit, then (-u, u) as a 1x1 convolution and the mean over space."""
    block = _block(full)
    with torch.device("meta"):  # torch's default initialization would advance the global random state
        signs = nn.Conv2d(block.norm1.num_features, 2, 1, bias=False)
    signs = signs.to_empty(device="cpu")
    signs.weight.zero_()
    signs.weight[:, UNIT.index, 0, 0] = torch.tensor([-1.0, 1.0])
    parts: OrderedDict[str, nn.Module] = OrderedDict(full[:5].named_children())
    parts |= {"block2_conv1": block.conv1, "block2_norm1": block.norm1}
    return nn.Sequential(parts | {"signs": signs, "mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}).eval()
