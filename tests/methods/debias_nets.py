"""Small nets and a batch with masks, for the tests of the attribution prior."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def cnn(seed: int = 0, classes: int = 3, norm: bool = False, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(seed)
    middle: list[nn.Module] = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), *middle, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, classes)
    ).to(dtype)


def batch(n: int = 4, classes: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, 2, 6, 6, generator=generator, dtype=dtype)
    return x, torch.arange(n) % classes, torch.rand(n, 1, 6, 6, generator=generator) < 0.4
