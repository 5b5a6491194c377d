"""The unit that is explained: one channel of a layer, read and reduced exactly as the patch scan does."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import capture, evaluating, rewritten, stopped_at
from absence_plugins.core.rectified import check_preactivation
from absence_plugins.core.units import Unit, is_rectifier
from absence_plugins.methods.patches.images import checked, image_at, read
from absence_plugins.methods.patches.windows import unit_values

LOOKED_AT = 4  # images: enough to see whether a layer's values look rectified
MISFIT = ("channels", "shape", "size of tensor", "size mismatch")  # torch's words on images of another shape
AFFINE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
)  # never rectified, whatever the values


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


@dataclass(frozen=True)
class Look:
    """A layer on a few images.

    Attributes:
        units: how many it has; 0: it does not run.
        note: for the reader, where its values look rectified; else empty.
    """

    units: int
    note: str = ""


def look_at(model: nn.Module, layer: str, dataset: Any, reduce: str = "mean") -> Look:
    """Run a few images, before hours of work on a layer that cannot show absences, or on images the model does not take.

    The scan, the test and the maps read copies of the layer's output, so a ``ReLU(inplace=True)`` behind it does no harm.

    Raises:
        ValueError: a rectifier, a layer that has no units, images that the model does not take.

    Warns AbsenceWarning where the values look rectified, as those of a residual block.

    >>> net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(inplace=True))
    >>> look_at(net, "0", torch.rand(4, 1, 2, 2))
    Look(units=3, note='')
    """
    module = check_layer(model, layer)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    first = [image_at(dataset, number) for number in range(min(LOOKED_AT, len(dataset)))]
    if not first:
        raise ValueError("the data set holds no images")
    images = torch.stack([one for one in first if one.shape == first[0].shape]).to(device)
    units: list[int] = []

    def copied(output: Tensor) -> Tensor:
        units.append(unit_values(output, reduce).shape[1])
        return output.clone()

    def run() -> None:
        with rewritten(module, copied):
            try:
                model(images)
            except (
                Exception
            ) as error:  # behind the layer the model may fail; whatever else, the scan says it in its words
                if not units and any(word in str(error) for word in MISFIT):
                    shape = " x ".join(str(side) for side in images.shape[1:])
                    raise ValueError(
                        f"the model does not take the data set's images, {shape} (channels x height x width): {error}; give the "
                        "data set a transform that makes images of the channels and the size that the model takes"
                    ) from None

    with torch.no_grad(), evaluating(model), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_preactivation(module, run)
    count = units[-1] if units else 0
    notes = [str(one.message) for one in caught if issubclass(one.category, AbsenceWarning)]
    if not notes or isinstance(module, AFFINE):
        return Look(count)
    note = f"Layer {layer!r}: {notes[0]}."
    warnings.warn(note, AbsenceWarning, stacklevel=2)
    return Look(count, note)


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
