"""The same values in another shape: axes in another order, channels split, parts of the channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.changed_calls import Call, Done
from absence_plugins.core.changed_slides import Slide, follow_slides
from absence_plugins.core.changed_windows import Map, Window


def _register(call: Call, out: Tensor, axes: tuple[int, ...], windows: list[Window]) -> Tensor:
    known = call.first
    if known is not None and call.map(out) is None:
        known.owners[0] += 1
        call.follower.known[out] = Map(axes, out.shape, windows, known.owners)
    return out


def reshape(call: Call) -> Done | None:
    """Channels split or joined, or all of an image in a row."""
    known = call.first
    if known is None or call.func._overloadname == "dtype":
        return None
    out = call.func(*call.args, **call.kwargs)
    dims = len(known.shape)
    if not out.dim() or out.shape[0] != known.shape[0]:
        return None
    is_behind = known.axes == tuple(range(dims - len(known.axes), dims))
    windows = []
    if known.axes and is_behind and list(out.shape[out.dim() - len(known.axes) :]) == known.sizes and out.dim() > 2:
        axes = tuple(range(out.dim() - len(known.axes), out.dim()))
        for group, window in enumerate(known.windows):
            middle, sizes = out.shape[1 : out.dim() - len(axes)], known.window_sizes(group)
            windows.append(Window(window.content.reshape(len(window.content), *middle, *sizes), window.starts))
        return lambda: _register(call, out, axes, windows)
    for group in call.groups():
        content = call.completed(known, group)
        windows.append(Window(content.reshape(len(content), *out.shape[1:]), [()] * len(content)))
    return lambda: _register(call, out, (), windows)


def permute(call: Call) -> Done | None:
    """Axes in another order; the batch stays in front."""
    known = call.first
    if known is None:
        return None
    moved = call.on(torch.empty([2 + at for at in range(len(known.shape))], device="meta"))
    order = [size - 2 for size in moved.shape]
    if order[0] != 0:
        return None
    axes = tuple(order.index(axis) for axis in known.axes)
    if list(axes) != sorted(axes):
        return None
    windows = [Window(call.on(window.content), window.starts) for window in known.windows]
    return lambda: _register(call, call.on(call.args[0]), axes, windows)


def take_channels(call: Call) -> Done | None:
    """Slices and parts along the channels; of positions only all, or every so many of them."""
    known, name = call.first, call.func._schema.name
    if known is None:
        return None
    is_slice = name in ("aten::slice", "aten::narrow")
    axis = call.argument(1 if is_slice else 2, "dim", 0) % len(known.shape)
    if axis and axis not in known.axes:
        parts = [call.on(window.content) for window in known.windows]

        def run() -> Any:
            out = call.on(call.args[0])
            if is_slice:
                windows = [Window(part, one.starts) for part, one in zip(parts, known.windows, strict=True)]
                return _register(call, out, known.axes, windows)
            for at, piece in enumerate(out):
                windows = [Window(part[at], one.starts) for part, one in zip(parts, known.windows, strict=True)]
                _register(call, piece, known.axes, windows)
            return out

        return run
    if name != "aten::slice":
        return None
    end = known.shape[axis]
    first, last, step = slice(call.argument(2, "start"), call.argument(3, "end"), call.argument(4, "step", 1)).indices(
        end
    )
    if axis == 0 and (first, last, step) != (0, end, 1):
        return None
    if axis == 0 or (first, last, step) == (0, end, 1):
        return lambda: _register(call, call.on(call.args[0]), known.axes, known.windows)
    slides = [
        Slide(1, step, -first, 1, len(range(first, last, step))) if one == axis else Slide(1, 1, 0, 1, size)
        for one, size in zip(known.axes, known.sizes, strict=True)
    ]
    steps = tuple(slice(None, None, step if one == axis else 1) for one in range(len(known.shape)))
    made = follow_slides(call, slides, lambda part: part[steps])
    return None if made is None else lambda: _register(call, call.on(call.args[0]), known.axes, made[1])
