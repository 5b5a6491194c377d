"""Nets whose effects are known on paper, and images for them. `import faithfulness_nets`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIDE, SAMPLES = 8, 24


class Weighted(nn.Module):
    """u_0 = sum(w x), u_1 = 3 - ReLU(sum(h x) - 0.5): images [N, 1, 8, 8] -> [N, 2]."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(SIDE, SIDE, generator=generator))
        self.h = nn.Parameter(torch.rand(SIDE, SIDE, generator=generator) * (torch.arange(SIDE) < 4))
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        held = self.relu((x * self.h).sum((1, 2, 3)) - 0.5)
        return self.drop(torch.stack([(x * self.w).sum((1, 2, 3)), 3 - held], 1))


def images(count: int = SAMPLES, seed: int = 1) -> Tensor:
    """Pixels above zero, a quarter of them blank."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, SIDE, SIDE, generator=generator) + 0.1
    return x * (torch.rand(x.shape, generator=generator) < 0.75)


def noise(seed: int) -> Tensor:
    return torch.randn(SAMPLES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def effect(net: Weighted, unit: int, x: Tensor) -> Tensor:
    """What each pixel adds to the unit, on paper (for unit 1 where its ReLU is open)."""
    return (net.w * x if unit == 0 else -net.h * x).detach()
