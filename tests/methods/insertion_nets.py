"""Nets whose encoded absences are known, or that have none, for test_insertion.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, SIZE = 32, 8
PLUS, BLOCK = torch.zeros(5, 5), torch.ones(3, 3)
PLUS[2], PLUS[:, 2] = 1.0, 1.0


def scenes(count: int, seed: int) -> Tensor:
    """Images [count, 1, 32, 32]: faint noise, each with pluses and blocks at random places (none to two of each)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    for image in images:
        for shape in (PLUS, BLOCK):
            for _ in range(int(torch.randint(3, (), generator=generator))):
                y, x = torch.randint(SIDE - 5, (2,), generator=generator).tolist()
                height, width = shape.shape
                image[0, y : y + height, x : x + width] = torch.maximum(image[0, y : y + height, x : x + width], shape)
    return images


def planted() -> nn.Sequential:
    """Units: 0 block and not plus, 1 not plus, 2 block, 3 plus, 4 either. Encoded absences: 0 and 1."""
    detect = nn.Conv2d(1, 2, 5, padding=2)
    block = F.pad(BLOCK, (1, 1, 1, 1)) - F.pad(torch.zeros(3, 3), (1, 1, 1, 1), value=1.0)
    filters = torch.stack([PLUS - (1 - PLUS), block])[:, None]
    detect.weight.data, detect.bias.data = filters, torch.tensor([-6.0, -6.0])  # a perfect match is 9
    mix = nn.Conv2d(2, 5, 1)
    mix.weight.data = torch.tensor([[-2.0, 1.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])[:, :, None, None]
    mix.bias.data = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    return nn.Sequential(detect, nn.ReLU(), mix).eval()


class Noisy(nn.Module):
    """Units that are noise: the fractional part of a large random projection of the whole image, another for each unit."""

    def __init__(self, units: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weights", 1e3 * torch.randn(units, 64, 64, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        total = torch.einsum("bchw,uhw->bu", x.double(), self.weights[:, :height, :width])
        return torch.sin(total).float()


class Borders(nn.Module):
    """Units that fall at long straight steps of brightness, such as the edges of a pasted patch; what is inside does not count.

    A little noise, another for each unit, says which patches are the lowest: any.
    """

    def __init__(self, units: int, seed: int) -> None:
        super().__init__()
        step = torch.cat([-torch.ones(1, SIZE), torch.ones(1, SIZE)]) / SIZE
        self.register_buffer("step", step[None, None])
        self.noise = Noisy(units, seed)

    def forward(self, x: Tensor) -> Tensor:
        rows = F.relu(F.conv2d(x, self.step).abs() - 0.05)
        columns = F.relu(F.conv2d(x, self.step.transpose(2, 3)).abs() - 0.05)
        steps = rows.flatten(1).sum(1) + columns.flatten(1).sum(1)
        return 1 - steps[:, None] + 0.01 * self.noise(x)


def shades(count: int, seed: int) -> Tensor:
    """Images of one brightness each, with faint noise: a patch of another image has a border."""
    generator = torch.Generator().manual_seed(seed)
    level = 0.2 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
    return level + 0.02 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
