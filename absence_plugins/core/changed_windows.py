"""Windows in which maps differ from others: cut out with their surroundings, joined, put back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Starts = Sequence[Sequence[int]]
SMALL = 30_000  # values of a box, below which all boxes are cut out at once


@dataclass
class Window:
    """The windows of a group of changed images in one map.

    Attributes:
        content: [n, ...], the axes of the map; all windows of a group have one size.
        starts: [n][axes of positions], where each begins.
    """

    content: Tensor
    starts: Starts


@dataclass
class Map:
    """What is known of a tensor.

    Attributes:
        axes: of positions; () where nothing is positions, and windows hold everything.
        shape: of the tensor as it runs.
        windows: by group.
        owners: [1], how many tensors share the memory.
    """

    axes: tuple[int, ...]
    shape: Sequence[int]
    windows: list[Window]
    owners: list[int] = field(default_factory=lambda: [1])

    @property
    def sizes(self) -> list[int]:
        """Of the tensor along the axes of positions."""
        return [self.shape[axis] for axis in self.axes]

    def window_sizes(self, group: int) -> list[int]:
        """As :attr:`sizes`, of a group's windows."""
        return [self.windows[group].content.shape[axis] for axis in self.axes]


def is_whole(known: Map, group: int) -> bool:
    """Whether a group's windows cover the whole map."""
    return known.window_sizes(group) == known.sizes


def complete(value: Tensor, known: Map, group: int, rows: Sequence[int]) -> Tensor:
    """The changed maps [n, ...] of a group, whole."""
    return cut(value, known, group, rows, [[0] * len(known.axes)] * len(rows), known.sizes)


def cut(
    value: Tensor,
    known: Map | None,
    group: int,
    rows: Sequence[int],
    starts: Starts,
    sizes: Sequence[int],
    fill: float = 0.0,
    axes: tuple[int, ...] = (),
) -> Tensor:
    """Boxes of changed maps [n, ...]: the tensor as it runs, with the windows in their places.

    Args:
        value: [m, ...] the tensor.
        known: its windows; None where nothing is changed.
        group: of the windows.
        rows: of each box, which of the m.
        starts: of the boxes, which may reach beyond the map.
        sizes: of the boxes.
        fill: what stands beyond the map.
        axes: of positions, where nothing is changed.
    """
    window = None if known is None else known.windows[group]
    axes = axes if known is None else known.axes
    if known is not None and window is not None and list(sizes) == known.window_sizes(group):
        is_same = all(tuple(one) == tuple(other) for one, other in zip(starts, window.starts, strict=True))
        if is_same:
            return window.content
    is_small = value.shape[1:2].numel() * math.prod(sizes) < SMALL
    if axes == (2, 3) and value.dim() == 4 and (is_small or value.is_cuda):
        return _index(value, window, rows, starts, sizes, fill)
    return _copy_boxes(value, window, rows, starts, sizes, fill, axes)


def _index(
    value: Tensor, window: Window | None, rows: Sequence[int], starts: Starts, sizes: Sequence[int], fill: float
) -> Tensor:
    """All boxes at once, by the places where their values stand: faster for small ones."""
    (amount, channels), full = (len(rows), value.shape[1]), value.shape[2:]
    spots = torch.tensor(starts, device=value.device)
    down, right = (spots[:, axis, None] + torch.arange(sizes[axis], device=value.device) for axis in (0, 1))
    index = torch.tensor(rows, device=value.device)[:, None, None] * full.numel()
    index = index + down[:, :, None] * full[1] + right[:, None, :]
    sources = [value.movedim(1, -1).reshape(-1, channels)]
    beyond = ~(_within(down, full[0])[:, :, None] & _within(right, full[1])[:, None, :])
    if window is not None:
        height, width = window.content.shape[2:]
        begins = torch.tensor(window.starts, device=value.device)
        down, right = down - begins[:, :1], right - begins[:, 1:]
        each = torch.arange(amount, device=value.device)[:, None, None] * (height * width) + len(sources[0])
        inside = _within(down, height)[:, :, None] & _within(right, width)[:, None, :]
        index = torch.where(inside, each + down[:, :, None] * width + right[:, None, :], index)
        beyond &= ~inside
        sources.append(window.content.movedim(1, -1).reshape(-1, channels))
    index = index.masked_fill_(beyond, sum(map(len, sources)))
    sources.append(value.new_full((1, channels), fill))
    found = torch.cat(sources).index_select(0, index.flatten())
    return found.view(amount, *sizes, channels).movedim(-1, 1)


def _within(places: Tensor, end: int) -> Tensor:
    return (places >= 0) & (places < end)


def _copy_boxes(
    value: Tensor,
    window: Window | None,
    rows: Sequence[int],
    starts: Starts,
    sizes: Sequence[int],
    fill: float,
    axes: tuple[int, ...],
) -> Tensor:
    """Box by box: faster for large ones."""
    full = [value.shape[axis] for axis in axes]
    shape = [len(rows), *value.shape[1:]]
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    source = value if window is None else window.content
    layout = torch.contiguous_format
    if source.dim() == 4 and source.is_contiguous(memory_format=torch.channels_last) and source.shape[1] > 1:
        layout = torch.channels_last
    made = torch.empty(shape, dtype=value.dtype, device=value.device, memory_format=layout)
    if any(at < 0 or at + size > end for spot in starts for at, size, end in zip(spot, sizes, full, strict=True)):
        made.fill_(fill)
    inner = [] if window is None else [window.content.shape[axis] for axis in axes]
    for row, (source_row, spot) in enumerate(zip(rows, starts, strict=True)):
        there, here = _overlap(spot, sizes, [0] * len(full), full)
        put = made[row]
        if window is None:
            _copy(put, here, value[source_row], there, axes)
            continue
        part_there, part_here = _overlap(spot, sizes, window.starts[row], inner)
        if part_here != here:  # else the window covers all of it
            _copy(put, here, value[source_row], there, axes)
        _copy(put, part_here, window.content[row], part_there, axes)
    return made


def union(boxes: Sequence[tuple[Starts, Sequence[int]]], full: Sequence[int]) -> tuple[Starts, list[int]]:
    """Starts and the one size of boxes that hold, for each changed image, several boxes of one map."""
    if all(list(sizes) == list(boxes[0][1]) and starts == boxes[0][0] for starts, sizes in boxes):
        return boxes[0][0], list(boxes[0][1])
    amount, made, found = len(boxes[0][0]), [], []
    for axis, end in enumerate(full):
        low = [min(starts[one][axis] for starts, _ in boxes) for one in range(amount)]
        high = [max(starts[one][axis] + sizes[axis] for starts, sizes in boxes) for one in range(amount)]
        size = max(upper - lower for lower, upper in zip(low, high, strict=True))
        found.append(size)
        made.append([min(lower, end - size) for lower in low])
    return list(zip(*made, strict=True)), found


Box = list[tuple[int, int]]


def _overlap(
    spot: Sequence[int], sizes: Sequence[int], origin: Sequence[int], extent: Sequence[int]
) -> tuple[Box, Box]:
    """Where a box meets another one, in the other's places and in its own."""
    there, here = [], []
    for at, size, start, length in zip(spot, sizes, origin, extent, strict=True):
        low, high = max(at, start), min(at + size, start + length)
        there.append((low - start, max(high, low) - start))
        here.append((low - at, max(high, low) - at))
    return there, here


def _copy(to: Tensor, here: Box, source: Tensor, there: Box, axes: tuple[int, ...]) -> None:
    """Between two tensors without the axis of the batch."""
    for axis, own, other in zip(axes, here, there, strict=True):
        if own[0] >= own[1]:
            return
        to, source = (
            to.narrow(axis - 1, own[0], own[1] - own[0]),
            source.narrow(axis - 1, other[0], other[1] - other[0]),
        )
    to.copy_(source)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [one for part in value for one in tensors_in(part)]
