"""Images in cells, signals in spans, volumes in blocks: what is changed at once when a map's claims are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.checks import check_integer
from absence_plugins.core.kinds import Kind, SignalKind, TableKind, TextKind  # noqa: F401  (examples)

FINE_UP_TO, FINE, COARSE = 64, 32, 14  # pixels a side up to which there are 32 cells a side; above it 14
SPANS, BLOCKS = 64, 8  # of a signal; of a volume along an axis, at most
MEANS: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class Cells:
    """A grid of square cells over H x W pixels (the last row and column may be smaller), or the features of [N, F].

    Of a kind of data: the columns of a table, runs of tokens, spans of a signal, blocks of a volume.

    Attributes:
        shape: (H, W), or (F,); of a kind that of its things: (columns,), (T,), (D, H, W).
        size: side of a cell in pixels, tokens, samples or voxels.
        kind: what the entries are, if not pixels.
        has_channels: whether an axis of channels stands in front of ``shape``.
    """

    shape: tuple[int, ...]
    size: int = 1
    kind: Kind | None = None
    has_channels: bool = True

    @classmethod
    def of(cls, x: Tensor, size: int | None = None, kind: Kind | None = None) -> Cells:
        """The cells of inputs [N, C, H, W] or [N, F]; without a size at most 32 a side (images over 64 pixels: 14).

        Of a kind: single columns and tokens, at most 64 spans of a signal, 8 blocks a side of a volume.

        Raises:
            ValueError: inputs of another shape, a size below 1, a size other than 1 of a table.

        >>> Cells.of(torch.zeros(1, 3, 224, 224)).grid
        (14, 14)
        >>> Cells.of(torch.zeros(1, 2, 640), kind=SignalKind()).grid
        (64,)
        """
        if kind is not None:
            return cls._of_kind(x, size, kind)
        if x.dim() not in (2, 4) or x.shape[0] == 0:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; it must be images [N, C, H, W] or features [N, F], N >= 1, or pass "
                "kind="
            )
        shape = tuple(x.shape[2:]) if x.dim() == 4 else (x.shape[1],)
        if size is None:
            side = max(shape)
            size = 1 if x.dim() == 2 else -(-side // (FINE if side <= FINE_UP_TO else COARSE))
        pixels = check_integer("cell", size)
        return cls(shape, 1 if x.dim() == 2 else pixels, has_channels=x.dim() == 4)

    @classmethod
    def _of_kind(cls, x: Tensor, size: int | None, kind: Kind) -> Cells:
        kind.check(x)
        if len(x) == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}; it needs at least one {kind.name}")
        shape = tuple(kind.things(torch.zeros_like(x[:1]))[0].shape)
        is_single = isinstance(kind, (TableKind, TextKind))
        if size is None:
            size = 1 if is_single else -(-max(shape) // (SPANS if len(shape) == 1 else BLOCKS))
        check_integer("cell", size)
        if isinstance(kind, TableKind) and size != 1:
            raise ValueError(f"cell={size} does not fit a table, whose columns are changed one by one; leave cell out")
        return cls(shape, size, kind, has_channels=not is_single and x.dim() == len(shape) + 2)

    @property
    def is_flat(self) -> bool:
        """Whether cells have no neighbors: features, columns."""
        return isinstance(self.kind, TableKind) or (self.kind is None and len(self.shape) == 1)

    @property
    def thing(self) -> str:
        """What is changed at once, in a word."""
        return "cell" if self.kind is None else self.kind.thing

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along every axis."""
        return tuple(-(-side // self.size) for side in self.shape)

    @property
    def count(self) -> int:
        """How many cells there are."""
        return int(torch.tensor(self.grid).prod())

    def find_allowed(self, content: Tensor) -> Tensor:
        """From entries with content, shaped like the inputs, to those that may change: a pixel in all its channels, a
        column in all its entries. [N, C, H, W] -> [N, 1, H, W]; without channels shaped like the inputs.
        """
        if isinstance(self.kind, TableKind):
            return self.pixels(self.kind.things(content.int()) > 0)
        return content.any(1, keepdim=True) if self.has_channels else content

    def total(self, signed: Tensor) -> Tensor:
        """The sum over each cell, channels included, signs kept: [N, C, H, W] or [N, F] -> [N, cells].

        >>> Cells((2, 2), 2).total(torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]]))
        tensor([[2.]])
        """
        if isinstance(self.kind, TableKind):
            return self.kind.things(signed)
        if self.is_flat:
            return signed
        axes = len(self.shape)
        summed = signed.sum(1, keepdim=True) if signed.dim() == axes + 2 else signed[:, None]
        missing = [cells * self.size - side for cells, side in zip(self.grid, self.shape, strict=True)]
        padded = F.pad(summed, [pad for length in reversed(missing) for pad in (0, length)])
        sums: Tensor = MEANS[axes](padded, self.size) * self.size**axes
        return sums.flatten(1)

    def total_allowed(self, signed: Tensor, allowed: Tensor) -> Tensor:
        """The same of maps over the entries that may change: shaped like inputs, with channels summed, of an embedding
        [N, T, D], or one value per column.
        """
        if isinstance(self.kind, TableKind) and signed.shape != allowed.shape:
            return signed  # one value per column
        if isinstance(self.kind, TextKind):
            signed = self.kind.things(signed)
        elif self.has_channels and signed.dim() == len(self.shape) + 1:
            signed = signed[:, None]
        return self.total(signed * allowed)

    def pixels(self, chosen: Tensor) -> Tensor:
        """Cells [N, cells] as pixels [N, 1, H, W] (features: [N, F]; without channels shaped like the inputs).

        >>> Cells((3, 3), 2).pixels(torch.tensor([[True, False, False, False]]))[0, 0].int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
        """
        if isinstance(self.kind, TableKind):
            entries = torch.tensor([column.entries for column in self.kind.columns], device=chosen.device)
            return chosen.repeat_interleave(entries, 1)
        if self.is_flat:
            return chosen
        wide = chosen.reshape(-1, 1, *self.grid)
        for axis, side in enumerate(self.shape, 2):
            wide = wide.repeat_interleave(self.size, axis).narrow(axis, 0, side)
        return wide if self.has_channels else wide[:, 0]

    def around(self, values: Tensor, radius: int) -> Tensor:
        """The mean over every cell's neighbors within ``radius``, over those that exist: [N, cells] -> [N, cells]."""
        if self.is_flat or radius == 0:
            return values
        return mean_around(values.reshape(-1, 1, *self.grid), 2 * radius + 1).flatten(1)

    def windows(self, cells: Tensor, radius: int) -> Tensor:
        """Single cells [M] (their numbers) with all neighbors within ``radius``, as a mask [M, cells]."""
        chosen = F.one_hot(cells, self.count).bool()
        if self.is_flat or radius == 0:
            return chosen
        grid = chosen.reshape(-1, 1, *self.grid).float()
        return mean_around(grid, 2 * radius + 1).flatten(1) > 0


def mean_around(grid: Tensor, size: int) -> Tensor:
    """The mean over windows of ``size`` (odd) a side, over what exists: [N, C, *grid], of one to three axes.

    >>> mean_around(torch.tensor([[[0.0, 3.0]]]), 3)
    tensor([[[1.5000, 1.5000]]])
    """
    axes = grid.dim() - 2
    if axes < 3:
        return MEANS[axes](grid, size, 1, size // 2, count_include_pad=False)
    # torch's pooling of volumes wants more voxels than the window has, even where it pads
    sums, counts = (
        F.avg_pool3d(F.pad(part, [size // 2] * 6), size, 1) for part in (grid, torch.ones_like(grid[:1, :1]))
    )
    return sums / counts
