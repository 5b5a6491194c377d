"""A network whose encoded absences are known in closed form, with images and concepts."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.report import UnitReport, explain_unit

SIDE = 12
SMALL: dict[str, Any] = {
    "size": 4, "stride": 2, "k": 4, "images_per_unit": 20, "examples": 1, "references": 3, "scored": 0, "progress": False,
}  # fmt: skip
HOSTILE = """<script>alert(1)</script>"><img src=http://evil.example/x onerror=alert(1)> & {{ 7*7 }}"""


def net(layer: str = "conv") -> nn.Sequential:
    """Unit 0 falls with ink (1 - x), unit 1 rises with it (x), unit 2 sees nothing of it (0.1 everywhere, and a little)."""
    conv = nn.Conv2d(1, 3, 1)
    conv.weight.data = torch.tensor([-1.0, 1.0, 0.01]).reshape(3, 1, 1, 1)
    conv.bias.data = torch.tensor([1.0, 0.0, 0.1])
    head = nn.Linear(3, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, 1.0]])
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        OrderedDict([(layer, conv), ("relu", nn.ReLU()), ("pool", pool), ("flat", nn.Flatten()), ("head", head)])
    ).eval()


def images(count: int = 60) -> tuple[Tensor, Tensor]:
    """Few bright dots; in every other image a block of ink in the middle. Images [N, 1, 12, 12] and whether there is a block."""
    generator = torch.Generator().manual_seed(0)
    made = (torch.rand(count, 1, SIDE, SIDE, generator=generator) > 0.97).float()
    block = torch.arange(count) % 2 == 1
    made[block, :, 4:8, 4:8] = 1.0
    return made, block


class Files(torch.utils.data.Dataset[Any]):
    """The images as files of a folder, with names that want to be HTML."""

    def __init__(self, folder: Path, name: str) -> None:
        self.pixels, self.block = images()
        self.folder, self.files = folder, [folder / name / f"{number}.png" for number in range(len(self.pixels))]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> Tensor:
        return self.pixels[number]


def linear_maps(unit: nn.Module, inputs: Tensor, baselines: Tensor) -> Tensor:
    """Gradient times difference: exact for these units, which are linear in the image."""
    with torch.enable_grad():
        free = inputs.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(unit(free).sum(), free)
    return gradient * (inputs - baselines)


def plain_pictures(unit: Any, shape: tuple[int, ...], prepare: Any, seed: int) -> tuple[Tensor, Tensor]:
    """Black drives unit 0 up, white down."""
    return torch.zeros(shape), torch.ones(shape)


def explained(index: int = 0, model: nn.Module | None = None, layer: str = "conv", **options: Any) -> UnitReport:
    pixels, block = images()
    given: dict[str, Any] = {"maps": linear_maps, "pictures": plain_pictures, "labels": block.long(), **SMALL}
    concepts = (torch.stack([block, ~block], 1), ["block", "nothing in the middle"])
    return explain_unit(model or net(), layer, index, pixels, **{"concepts": concepts, **given, **options})
