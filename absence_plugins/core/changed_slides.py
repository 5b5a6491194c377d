"""Convolutions, poolings and borders: a kernel that slides over a window reaches further than the window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.changed_calls import Call, Made, follow_whole
from absence_plugins.core.changed_windows import Window, cut, is_whole


@dataclass(frozen=True)
class Slide:
    """A kernel along one axis: its positions o read ``o * step - pad + gap * (0 ... kernel - 1)``."""

    kernel: int
    step: int
    pad: int
    gap: int
    out: int

    def box(self, starts: Sequence[int], size: int) -> tuple[list[int], int]:
        """Where, and over how many of its positions, it reads something of given windows."""
        reach = self.gap * (self.kernel - 1)
        low = [max(0, -((reach - at - self.pad) // self.step)) for at in starts]
        high = [min(self.out - 1, (at + size - 1 + self.pad) // self.step) for at in starts]
        found = max(1, *(upper - lower + 1 for lower, upper in zip(low, high, strict=True)))
        return [max(0, min(lower, self.out - found)) for lower in low], found

    def source(self, starts: Sequence[int], size: int) -> tuple[list[int], int]:
        """What it reads for positions of its own."""
        return [at * self.step - self.pad for at in starts], (size - 1) * self.step + self.gap * (self.kernel - 1) + 1


def follow_slides(call: Call, slides: Sequence[Slide], on_part: Callable[[Tensor], Tensor], fill: float = 0.0) -> Made:
    """A kernel along each axis: ``on_part`` is the operation on what the windows reach, without padding."""
    known = call.first
    if known is None or len(known.axes) != len(slides):
        return None
    boxes = []
    for group, window in enumerate(known.windows):
        sizes = known.window_sizes(group)
        boxes.append(
            [slide.box([spot[axis] for spot in window.starts], sizes[axis]) for axis, slide in enumerate(slides)]
        )
    windows = []
    is_filled = _is_worth_filling(call, slides, boxes)
    for group, own in enumerate(boxes):
        rows = call.follower.rows[group]
        if is_filled or is_whole(known, group):
            every = [(0,) * len(slides)] * len(rows)
            windows.append(Window(call.on(call.completed(known, group)), every))
            continue
        needed = [slide.source(*box) for slide, box in zip(slides, own, strict=True)]
        starts, sizes = list(zip(*(one for one, _ in needed), strict=True)), [size for _, size in needed]
        region = cut(call.args[0], known, group, rows, starts, sizes, fill)
        call.follower.count_copied(region)
        windows.append(Window(on_part(region), list(zip(*(one for one, _ in own), strict=True))))
    return known.axes, windows, [slide.out for slide in slides]


def _is_worth_filling(call: Call, slides: Sequence[Slide], boxes: Sequence[Sequence[tuple[list[int], int]]]) -> bool:
    """Whether whole changed maps cost no more than windows and the maps as they are: these then need not run on."""
    full = math.prod(slide.out for slide in slides)
    areas = [
        len(rows) * math.prod(size for _, size in own) for rows, own in zip(call.follower.rows, boxes, strict=True)
    ]
    amount = sum(map(len, call.follower.rows))
    return bool(full * amount <= sum(areas) + full * call.args[0].shape[0])


def follow_convolution(call: Call) -> Made:
    """The window with its halo, without padding."""
    known, weight, bias = call.first, call.argument(1, "weight"), call.argument(2, "bias")
    if known is None or known.axes != (2, 3):
        return None
    step, padding = _pair(call.argument(3, "stride", 1)), call.argument(4, "padding", 0)
    gap, groups = _pair(call.argument(5, "dilation", 1)), call.argument(6, "groups", 1)
    reach = [one * (size - 1) for one, size in zip(gap, weight.shape[2:], strict=True)]
    if isinstance(padding, str):
        before = [one // 2 if padding == "same" else 0 for one in reach]
        both = reach if padding == "same" else [0, 0]
    else:
        before = _pair(padding)
        both = [2 * one for one in before]
    slides = [
        Slide(kernel, step[axis], before[axis], gap[axis], (end + both[axis] - reach[axis] - 1) // step[axis] + 1)
        for axis, (kernel, end) in enumerate(zip(weight.shape[2:], known.sizes, strict=True))
    ]
    return follow_slides(call, slides, lambda part: F.conv2d(part, weight, bias, step, 0, gap, groups))


def follow_max_pool(call: Call) -> Made:
    """As a convolution; beyond the map stands minus infinity."""
    known = call.first
    if known is None or known.axes != (2, 3):
        return None
    kernel, gap = _pair(call.args[1]), _pair(call.argument(4, "dilation", 1))
    step, pad = _pair(call.argument(2, "stride") or kernel), _pair(call.argument(3, "padding", 0))
    slides = []
    for axis, end in enumerate(known.sizes):
        room = end + 2 * pad[axis] - gap[axis] * (kernel[axis] - 1) - 1
        out = room // step[axis] + 1
        if call.argument(5, "ceil_mode", False):
            out = -(-room // step[axis]) + 1
            out -= (out - 1) * step[axis] >= end + pad[axis]
        slides.append(Slide(kernel[axis], step[axis], pad[axis], gap[axis], out))
    return follow_slides(call, slides, lambda part: F.max_pool2d(part, kernel, step, 0, gap), -torch.inf)


def follow_mean_pool(call: Call) -> Made:
    """As a convolution; on whole maps where the number of values that are averaged differs along the border."""
    known, kernel = call.first, _pair(call.args[1])
    if known is None or known.axes != (2, 3):
        return None
    step, pad = _pair(call.argument(2, "stride") or kernel), _pair(call.argument(3, "padding", 0))
    divisor = call.argument(6, "divisor_override")
    counts = call.argument(5, "count_include_pad", True) or not any(pad) or divisor is not None
    if call.argument(4, "ceil_mode", False) or not counts:
        return follow_whole(call)
    slides = [
        Slide(kernel[axis], step[axis], pad[axis], 1, (end + 2 * pad[axis] - kernel[axis]) // step[axis] + 1)
        for axis, end in enumerate(known.sizes)
    ]
    return follow_slides(call, slides, lambda part: F.avg_pool2d(part, kernel, step, 0, False, True, divisor))


def _pair(value: Any) -> list[int]:
    many = list(value) if isinstance(value, (tuple, list)) else [value]
    return [int(one) for one in (many * 2 if len(many) == 1 else many)]


def follow_pad(call: Call) -> Made:
    """Zeros move windows; a reflected or repeated border has values of the map, and changes with them."""
    known = call.first
    pads, mode = list(call.args[1]), call.argument(2, "mode", "constant")
    if known is None or not known.axes or min(pads) < 0:
        return None
    dims = len(known.shape)
    before = {dims - 1 - at // 2: pads[at] for at in range(0, len(pads), 2)}
    after = {dims - 1 - at // 2: pads[at + 1] for at in range(0, len(pads), 2)}
    if before.get(0, 0) or after.get(0, 0):
        return None
    others = [axis for axis in before if axis not in known.axes and (before[axis] or after[axis])]
    if mode != "constant" and others:
        return None
    full = [end + before.get(axis, 0) + after.get(axis, 0) for axis, end in zip(known.axes, known.sizes, strict=True)]
    if mode != "constant":
        places = [
            F.pad(torch.arange(float(end))[None, None], [before.get(axis, 0), after.get(axis, 0)], mode)[0, 0]
            for axis, end in zip(known.axes, known.sizes, strict=True)
        ]
        return _look_up(call, [one.long().tolist() for one in places])
    inner = [0 if dims - 1 - at // 2 in known.axes else pad for at, pad in enumerate(pads)]
    windows = []
    for window in known.windows:
        starts = [
            tuple(at + before.get(axis, 0) for at, axis in zip(spot, known.axes, strict=True)) for spot in window.starts
        ]
        windows.append(Window(F.pad(window.content, inner, mode, call.argument(3, "value")), starts))
    return known.axes, windows, full


def _look_up(call: Call, places: Sequence[Sequence[int]]) -> Made:
    """Each position of the output is one of the input: ``places`` along each axis."""
    known = call.first
    if known is None or known.axes != (2, 3):
        return None
    windows = []
    for group in call.groups():
        boxes, needed, indices = [], [], []
        for axis, where in enumerate(places):
            size = known.window_sizes(group)[axis]
            low, high = [], []
            for spot in known.windows[group].starts:
                reads = [out for out, at in enumerate(where) if spot[axis] <= at < spot[axis] + size] or [0]
                low.append(reads[0])
                high.append(reads[-1])
            wide = max(upper - lower + 1 for lower, upper in zip(low, high, strict=True))
            low = [min(lower, len(where) - wide) for lower in low]
            read = [where[lower : lower + wide] for lower in low]
            extent = max(max(one) - min(one) + 1 for one in read)
            first = [min(min(one), known.sizes[axis] - extent) for one in read]
            boxes.append((low, wide))
            needed.append((first, extent))
            indices.append([[at - begin for at in one] for one, begin in zip(read, first, strict=True)])
        starts = list(zip(*(one for one, _ in needed), strict=True))
        region = call.follower.regions(call.args[0], group, starts, [size for _, size in needed])
        down, right = (torch.tensor(one, device=region.device) for one in indices)
        every = torch.arange(len(region), device=region.device)[:, None, None]
        content = region[every, :, down[:, :, None], right[:, None, :]].movedim(-1, 1).contiguous()
        windows.append(Window(content, list(zip(*(one for one, _ in boxes), strict=True))))
    return known.axes, windows, [len(where) for where in places]
