"""One call of an operation on maps of which windows are known, and what most rules make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from absence_plugins.core.changed_windows import Map, Starts, Window, complete, cut, tensors_in, union

if TYPE_CHECKING:
    from absence_plugins.core.changed_parts import Follower

Done = Callable[[], Any]
Made = tuple[tuple[int, ...], list[Window], list[int]] | None  # axes of positions, windows, sizes of the whole map


@dataclass
class Call:
    """One call of an operation, of which at least one argument is a known map."""

    follower: Follower
    func: Any
    args: Sequence[Any]
    kwargs: dict[str, Any]

    def map(self, value: Any) -> Map | None:
        """What is known of an argument."""
        return self.follower.known.get(value) if isinstance(value, Tensor) else None

    @property
    def maps(self) -> list[Map]:
        """Of all arguments that are known."""
        return [known for one in tensors_in((self.args, self.kwargs)) if (known := self.map(one)) is not None]

    @property
    def first(self) -> Map | None:
        """The first argument's, if no other argument is known."""
        known = self.map(self.args[0]) if self.args else None
        return known if known is not None and len(self.maps) == 1 else None

    def argument(self, place: int, name: str, usual: Any = None) -> Any:
        """An argument by its place or name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, usual)

    def on(self, first: Tensor) -> Any:
        """The operation on another first argument."""
        return self.func(first, *self.args[1:], **self.kwargs)

    def groups(self) -> range:
        """Numbers of the groups of windows."""
        return range(len(self.follower.rows))

    def completed(self, known: Map, group: int) -> Tensor:
        """The first argument's changed maps, whole; ``known``: what is known of it."""
        return complete(self.args[0], known, group, self.follower.rows[group])


def boxes_of(call: Call, tensors: Sequence[Tensor], group: int, full: Sequence[int]) -> tuple[Starts, list[int]]:
    """Starts and sizes of boxes that hold all that is changed in one of the tensors; ``full``: sizes of the map."""
    boxes: list[tuple[Starts, Sequence[int]]] = []
    amount = len(call.follower.rows[group])
    for one in tensors:
        if (known := call.map(one)) is None:
            continue
        if known.sizes == list(full):
            boxes.append((known.windows[group].starts, known.window_sizes(group)))
        else:  # one value, as that of a squeeze-and-excitation, for all positions
            boxes.append(([(0,) * len(full)] * amount, list(full)))
    return union(boxes, full)


def operand_of(
    call: Call, value: Tensor, shape: Sequence[int], group: int, starts: Starts, sizes: list[int], full: Sequence[int]
) -> Tensor:
    """What a tensor, of ``shape`` if it had all axes, puts into the boxes."""
    rows, known = call.follower.rows[group], call.map(value)
    if known is not None:
        if known.sizes == list(full):
            return call.follower.regions(value, group, starts, sizes)
        return complete(value, known, group, rows)
    axes = call.maps[0].axes
    is_flat = all(shape[axis] == 1 for axis in axes)
    if is_flat and shape[0] == 1:
        return value
    aligned = value.reshape(list(shape))
    rows = list(rows) if shape[0] > 1 else [0] * len(rows)
    if is_flat:
        return aligned[torch.tensor(rows, device=value.device)]
    wide = [full[axes.index(axis)] if axis in axes else size for axis, size in enumerate(shape)]
    return cut(aligned.expand(wide), None, group, rows, starts, sizes, axes=axes)


def follow_each_position(call: Call) -> Made:
    """Functions of the channels at one position, and copies."""
    known = call.first
    if known is None:
        return None
    windows = []
    for window in known.windows:
        windows.append(Window(call.on(window.content), window.starts))
    return known.axes, windows, known.sizes


def follow_whole(call: Call) -> Made:
    """What takes each image's whole map."""
    known = call.first
    if known is None:
        return None
    windows = [Window(call.on(call.completed(known, group)), ()) for group in call.groups()]
    dims = windows[0].content.dim()
    axes = known.axes if dims == len(known.shape) else ()
    if any(len(window.content) != len(rows) for window, rows in zip(windows, call.follower.rows, strict=True)):
        return None
    for window in windows:
        window.starts = [(0,) * len(axes)] * len(window.content)
    return axes, windows, [windows[0].content.shape[axis] for axis in axes]
