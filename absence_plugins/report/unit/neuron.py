"""A first look at a layer, before hours of work on it: how many units it has, and whether its values look rectified."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.devices import device_of
from absence_plugins.core.rectified import looks_rectified, rectified_note
from absence_plugins.core.units import Layer, LayerShape
from absence_plugins.methods.patches.images import image_at

LOOKED_AT = 4  # images: enough to see whether a layer's values look rectified
MISFIT = ("channels", "shape", "size of tensor", "size mismatch")  # torch's words on images of another shape
AFFINE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
)  # never rectified, whatever the values


@dataclass(frozen=True)
class Look:
    """A layer on a few images.

    Attributes:
        units: how many it has; 0: the model fails on whole images before it reaches the layer.
        note: for the reader, where its values look rectified; else empty.
        shape: its channels and positions, and on which side it is read; None where units is 0.
    """

    units: int
    note: str = ""
    shape: LayerShape | None = field(default=None, compare=False)


def look_at(model: nn.Module, layer: str | Layer, dataset: Any) -> Look:
    """Run a few images, before hours of work on a layer that cannot show absences, or on images the model does not
    take.

    Raises:
        ValueError: no such layer, one that has no units, images that the model does not take.

    Warns AbsenceWarning where the values look rectified: those of a block that ends in a functional ``relu``, in front
    of which no module can be read.

    >>> net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(inplace=True))
    >>> print(look_at(net, "1", torch.rand(4, 1, 2, 2)).shape)
    1: 3 channels x 2 x 2 positions, mean, before its nonlinearity
    """
    at = Layer.of(layer)
    module = at.module(model)
    device = device_of(model)
    first = [image_at(dataset, number) for number in range(min(LOOKED_AT, len(dataset)))]
    if not first:
        raise ValueError("the data set holds no images")
    images = torch.stack([one for one in first if one.shape == first[0].shape]).to(device)
    try:
        shape = at.shape(model, images)
        with at.reading(model) as run:
            maps = run(images)
    except ValueError:
        raise
    except Exception as error:  # of anything else the scan, which may run crops, speaks in its own words
        if any(word in str(error) for word in MISFIT):
            size = " x ".join(str(side) for side in images.shape[1:])
            raise ValueError(
                f"the model does not take the data set's images, {size} (channels x height x width): {error}; give the "
                "data set a transform that makes images of the channels and the size that the model takes"
            ) from None
        return Look(0)
    at.reduced(maps)  # rejects "cls" where there are no tokens
    is_in_front = at.side == "auto" and shape.side == "input"  # of the nonlinearity: nothing is cut off
    if is_in_front or isinstance(module, AFFINE) or not looks_rectified(maps):
        return Look(shape.channels, "", shape)
    note = f"Layer {at.name!r}: {rectified_note(type(module).__name__)}."
    warnings.warn(note, AbsenceWarning, stacklevel=2)
    return Look(shape.channels, note, shape)
