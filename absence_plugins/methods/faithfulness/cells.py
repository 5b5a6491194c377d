"""Images in cells: what is changed at once when a map's claims are checked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.checks import check_integer

FINE_UP_TO, FINE, COARSE = 64, 32, 14  # pixels a side up to which there are 32 cells a side; above it 14


@dataclass(frozen=True)
class Cells:
    """A grid of square cells over H x W pixels (the last row and column may be smaller), or the features of [N, F].

    Attributes:
        shape: (H, W), or (F,).
        size: side of a cell in pixels.
    """

    shape: tuple[int, ...]
    size: int = 1

    @classmethod
    def of(cls, x: Tensor, size: int | None = None) -> Cells:
        """The cells of inputs [N, C, H, W] or [N, F]; without a size at most 32 a side (images over 64 pixels: 14).

        Raises:
            ValueError: inputs of another shape, a size below 1.

        >>> Cells.of(torch.zeros(1, 3, 224, 224)).grid
        (14, 14)
        """
        if x.dim() not in (2, 4) or x.shape[0] == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}; it must be images [N, C, H, W] or features [N, F], N >= 1")
        shape = tuple(x.shape[2:]) if x.dim() == 4 else (x.shape[1],)
        if size is None:
            side = max(shape)
            size = 1 if x.dim() == 2 else -(-side // (FINE if side <= FINE_UP_TO else COARSE))
        pixels = check_integer("cell", size)
        return cls(shape, 1 if x.dim() == 2 else pixels)

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along every axis."""
        return tuple(-(-side // self.size) for side in self.shape)

    @property
    def count(self) -> int:
        """How many cells there are."""
        return int(torch.tensor(self.grid).prod())

    def total(self, signed: Tensor) -> Tensor:
        """The sum over each cell, channels included, signs kept: [N, C, H, W] or [N, F] -> [N, cells].

        >>> Cells((2, 2), 2).total(torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]]))
        tensor([[2.]])
        """
        if signed.dim() == 2:
            return signed
        summed = signed.sum(1, keepdim=True)
        height, width = (side * self.size for side in self.grid)
        padded = F.pad(summed, (0, width - self.shape[1], 0, height - self.shape[0]))
        return (F.avg_pool2d(padded, self.size) * self.size**2).flatten(1)

    def pixels(self, chosen: Tensor) -> Tensor:
        """Cells [N, cells] as pixels [N, 1, H, W] (features: [N, F]).

        >>> Cells((3, 3), 2).pixels(torch.tensor([[True, False, False, False]]))[0, 0].int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
        """
        if len(self.shape) == 1:
            return chosen
        grid = chosen.reshape(-1, 1, *self.grid)
        wide = grid.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)
        return wide[:, :, : self.shape[0], : self.shape[1]]

    def around(self, values: Tensor, radius: int) -> Tensor:
        """The mean over every cell's neighbors within ``radius``, over those that exist: [N, cells] -> [N, cells]."""
        if len(self.shape) == 1 or radius == 0:
            return values
        grid = values.reshape(-1, 1, *self.grid)
        return F.avg_pool2d(grid, 2 * radius + 1, 1, radius, count_include_pad=False).flatten(1)

    def windows(self, cells: Tensor, radius: int) -> Tensor:
        """Single cells [M] (their numbers) with all neighbors within ``radius``, as a mask [M, cells]."""
        chosen = F.one_hot(cells, self.count).bool()
        if len(self.shape) == 1 or radius == 0:
            return chosen
        grid = chosen.reshape(-1, 1, *self.grid).float()
        return F.max_pool2d(grid, 2 * radius + 1, 1, radius).flatten(1) > 0
