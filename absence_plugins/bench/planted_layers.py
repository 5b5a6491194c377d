"""The layer with positions that layer-wise methods look at in a planted network, and its maps as large as the
inputs.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from math import prod

from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.units import Layer
from absence_plugins.data.planted import Sum

IMAGE_LIKE = (nn.Conv2d, nn.BatchNorm2d, Sum)
LINES_AND_VOLUMES = (nn.Conv1d, nn.Conv3d)  # positions along one or three axes
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def find_positions(model: nn.Module, x: Tensor) -> tuple[str, tuple[int, ...]]:
    """Name and positions of the last convolution, batch norm or sum that puts out [N, C, h, w]; else of the last 1-D or
    3-D convolution.

    Raises:
        ValueError: there is none.

    >>> import torch
    >>> find_positions(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()), torch.zeros(1, 1, 8, 8))
    ('0', (6, 6))
    """
    found = [one for one in find_outputs(model, x, IMAGE_LIKE) if len(one[1]) == 3]
    found = found or find_outputs(model, x, LINES_AND_VOLUMES)
    if not found:
        raise ValueError("this network has no layer with positions, so there is no map")
    name, (_, *positions) = found[-1]
    return name, tuple(positions)


def find_outputs(model: nn.Module, x: Tensor, kinds: tuple[type[nn.Module], ...]) -> list[tuple[str, tuple[int, ...]]]:
    """Names of the modules of these kinds that put out a tensor, with its shape without the batch axis."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            with suppress(ValueError):  # it does not run
                seen = Layer(name, channels="first", side="output").shape(model, x[:1])
                found.append((name, (seen.channels, *seen.positions)))
    return found


def upsample(signed: Tensor, model: nn.Module, x: Tensor) -> Tensor:
    """A map of the inputs, or of the layer of :func:`find_positions` [..., C, *positions], as [..., 1, H, W].

    Channels are summed. Signals and volumes are interpolated in their own layout, that of the first convolution.

    Raises:
        ValueError: an empty map, or one whose layout is not that of the input.
    """
    size = x.shape[-2:]
    signed = signed.detach()
    if not signed.numel():
        raise ValueError("the map is empty: it cannot be made as large as the input")
    if signed.shape[-2:] == size:
        return signed.sum(-3, keepdim=True)
    axes = len(find_positions(model, x)[1])
    summed = signed.sum(-1 - axes)
    leading, positions = summed.shape[:-axes], summed.shape[-axes:]
    target = tuple(size) if axes == 2 else find_outputs(model, x, LINES_AND_VOLUMES)[0][1][1:]
    if prod(target) != prod(size):
        raise ValueError(f"the first convolution puts out {target} positions for inputs of {tuple(size)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        large = F.interpolate(summed.reshape(-1, 1, *positions), size=target, mode=MODES[axes], align_corners=False)
    return large.reshape(*leading, 1, *size)
