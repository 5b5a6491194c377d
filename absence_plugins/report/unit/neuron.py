"""The unit that is explained: one channel of a layer, read and reduced exactly as the patch scan does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.hooks import capture, stopped_at
from absence_plugins.core.units import Unit, is_rectifier
from absence_plugins.methods.patches.images import checked, read
from absence_plugins.methods.patches.windows import unit_values


class ScannedUnit(nn.Module):
    """A model whose one output is the unit: inputs [B, C, H, W] -> [B], differentiable.

    :class:`~absence_plugins.Unit` reads channels on axis 1; this one also reads tokens [B, T, C], and the first token
    (``reduce="cls"``), as :func:`~absence_plugins.methods.patches.find_extreme_patches` does.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU())
    >>> _ = net[0].weight.data.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
    >>> ScannedUnit(net, "0", 1, "mean")(torch.ones(1, 1, 2, 2)).tolist()
    [-1.0]
    """

    def __init__(self, model: nn.Module, layer: str, index: int, reduce: str) -> None:
        super().__init__()
        self.model, self.layer, self.index, self.reduce = model, layer, index, reduce
        self.training = model.training

    def forward(self, inputs: Tensor) -> Tensor:
        """The unit's value: [B, C, H, W] -> [B]."""
        with capture(Unit(self.layer, 0).module(self.model)) as seen:
            self.model(inputs)
        return unit_values(seen[-1], self.reduce)[:, self.index]


def check_layer(model: nn.Module, layer: str) -> nn.Module:
    """The layer's module.

    Raises:
        ValueError: no such layer, or a rectifier, behind which a unit that is held down is 0, and so is every map of it.
    """
    module = Unit(layer, 0).module(model)
    if is_rectifier(module):
        usable = [
            name for name, one in model.named_modules() if isinstance(one, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))
        ]
        raise ValueError(
            f"layer {layer!r} puts out rectified values: 0 wherever a unit is held down; name a layer in front of the "
            f"rectifier, such as one of: {', '.join(usable)}"
        )
    return module


def layer_values(
    model: nn.Module,
    layer: str,
    dataset: Any,
    units: list[int],
    reduce: str,
    *,
    batch_size: int,
    workers: int,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """Values [N, U] of these units on every image of the data set, and their highest value at any position [N, U].

    Raises:
        ValueError: a unit that the layer does not have.
    """
    module = check_layer(model, layer)
    blocks = [list(range(at, min(len(dataset), at + batch_size))) for at in range(0, len(dataset), batch_size)]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    values, peaks = [], []
    with stopped_at(model, module) as run, tqdm(total=len(dataset), desc="values", disable=not progress) as bar:
        for block, items in zip(blocks, read(dataset, blocks, workers), strict=True):
            images = torch.stack([checked(item, number) for number, item in zip(block, items, strict=True)])
            activation = run(images.to(device))
            every = unit_values(activation, reduce)
            if max(units) >= every.shape[1]:
                raise ValueError(f"layer {layer!r} has units 0 to {every.shape[1] - 1}; there is no unit {max(units)}")
            values.append(every[:, units].cpu())
            peaks.append(unit_values(activation, "max")[:, units].cpu())
            bar.update(len(images))
    # copies: what was made in inference mode cannot take part in autograd
    return torch.cat(values).clone(), torch.cat(peaks).clone()
