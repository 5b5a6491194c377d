"""Networks that count their forwards, and their inputs, for tests of perturbations in batches. `import batching_nets`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_plugins import ReferenceSet


class Net(nn.Module):
    """Counts its forwards, and the samples of each."""

    def __init__(self, channels: int = 2, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, classes)
        self.sizes: list[int] = []
        self.eval()

    def forward(self, x: Tensor, scale: Tensor | None = None, table: Tensor | None = None) -> Tensor:
        self.sizes.append(len(x))
        found = self.head(self.body(x).mean((2, 3)))
        found = found if scale is None else found * scale[:, None]
        return found if table is None else found + table.sum(0)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.table = Net(1), nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 4))

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        return self.image(x) * self.table(row).exp()


def images(count: int = 3, side: int = 10, channels: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1), dtype=dtype)


def references(side: int = 10) -> ReferenceSet:
    return ReferenceSet(images(9, side) * 0.5, torch.arange(9) % 4, k=3)


class Entangled(Net):
    def forward(self, x: Tensor, *extra: Tensor) -> Tensor:
        others = {"mean": lambda: x.mean(0), "first": lambda: x[:1], "last": lambda: x[-1:]}
        return super().forward(x - others[self.kind](), *extra)
