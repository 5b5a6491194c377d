"""What an operation does with the windows of changed maps: convolutions and poolings widen them, others hand them on.

Rules are for the operations that torch runs in inference mode, by name. A rule gets a
:class:`~absence_plugins.core.changed_calls.Call` and returns the windows of the output, or None where the operation
cannot be followed. What needs whole maps (a mean over positions, a GroupNorm) gets them put together, and the network
behind it runs on whole changed maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from absence_plugins.core.changed_calls import (
    Call,
    Done,
    Made,
    boxes_of,
    follow_each_position,
    follow_whole,
    operand_of,
)
from absence_plugins.core.changed_shapes import permute, reshape, take_channels
from absence_plugins.core.changed_slides import follow_convolution, follow_max_pool, follow_mean_pool, follow_pad
from absence_plugins.core.changed_windows import Map, Window, is_whole, tensors_in

if TYPE_CHECKING:
    from absence_plugins.core.changed_parts import Follower


def follow(follower: Follower, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Done | None:
    """What runs an operation on known maps, or None where it cannot be followed."""
    call = Call(follower, func, args, kwargs)
    if len({known.shape[0] for known in call.maps}) > 1:
        return None
    name = func._schema.name
    if (own := RESHAPES.get(name)) is not None:
        return own(call)
    made: Made
    if func._schema.is_mutable:
        if name in DROPOUTS and follow_dropout(call):
            return lambda: func(*args, **kwargs)  # nothing is written
        return _follow_in_place(call) if is_pointwise(func) else None
    if is_pointwise(func):
        made = follow_pointwise(call)
    else:
        rule = RULES.get(name)
        made = None if rule is None else rule(call)
    if made is None:
        return None
    axes, windows, sizes = made
    held = [id(window.content) for known in call.maps for window in known.windows]
    windows = [Window(w.content.clone() if id(w.content) in held else w.content, w.starts) for w in windows]
    amount, each = call.maps[0].shape[0], _multiplications(call)

    def run() -> Any:
        whole = all([window.content.shape[axis] for axis in axes] == sizes for window in windows)
        if whole:  # nobody will look at the map as it was
            content = windows[0].content
            out = torch.zeros((), dtype=content.dtype, device=content.device).expand(amount, *content.shape[1:])
        else:
            out = func(*args, **kwargs)
        follower.count(out, windows, each, is_run=not whole)
        if (before := call.map(out)) is None:
            follower.known[out] = Map(axes, out.shape, windows)
        elif name not in SAME:
            before.windows = windows
        return out

    return run


def is_pointwise(func: Any) -> bool:
    """Whether an operation makes every value of one value of each argument, and draws nothing."""
    if torch.Tag.nondeterministic_seeded in func.tags:
        return False
    return torch.Tag.pointwise in func.tags or func._schema.name.removesuffix("_") in POINTWISE


def _multiplications(call: Call) -> float:
    """Per value of the output, of convolutions and linear layers."""
    if call.func._schema.name not in ("aten::conv2d", "aten::linear"):
        return 0.0
    weight = call.argument(1, "weight")
    return float(weight[0].numel())


def follow_pointwise(call: Call) -> Made:
    """All arguments in the boxes in which one of them is changed."""
    tensors = tensors_in((call.args, call.kwargs))
    dims, amount = max(one.dim() for one in tensors), call.maps[0].shape[0]
    axes = call.maps[0].axes
    if any(known.axes != axes or len(known.shape) != dims for known in call.maps):
        return None
    shapes = {id(one): (1,) * (dims - one.dim()) + tuple(one.shape) for one in tensors}
    full = [max(shape[axis] for shape in shapes.values()) for axis in axes]
    if any(shape[axis] not in (1, end) for shape in shapes.values() for axis, end in zip(axes, full, strict=True)):
        return None
    if any(shape[0] not in (1, amount) for shape in shapes.values()):
        return None
    windows = []
    for group in call.groups():
        starts, sizes = boxes_of(call, tensors, group, full)
        swapped = {id(one): operand_of(call, one, shapes[id(one)], group, starts, sizes, full) for one in tensors}
        made = call.func(*_swap(call.args, swapped), **_swap(call.kwargs, swapped))
        windows.append(Window(made, starts))
    return axes, windows, full


def _swap(value: Any, swapped: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return swapped.get(id(value), value)
    if isinstance(value, dict):
        return {name: _swap(one, swapped) for name, one in value.items()}
    return type(value)(_swap(one, swapped) for one in value) if isinstance(value, (tuple, list)) else value


def _follow_in_place(call: Call) -> Done | None:
    """``x.relu_()``, ``x += y``: where ``x`` is a known map whose memory nothing else shares."""
    own = call.map(call.args[0]) if call.args else None
    if own is None or own.owners[0] > 1 or not call.func._schema.name.endswith("_") or "out" in call.kwargs:
        return None
    made = follow_pointwise(call)
    if made is None or made[2] != own.sizes:
        return None

    def run() -> Tensor:
        value: Tensor = call.args[0]
        own.windows = made[1]
        if not all(is_whole(own, group) for group in call.groups()):
            call.func(*call.args, **call.kwargs)
        call.follower.count(value, made[1], 0.0, is_run=True)
        return value

    return run


def follow_norm(call: Call) -> Made:
    """Batch normalization in evaluation mode."""
    known = call.first
    is_fixed = call.argument(5, "training", True) is False and call.argument(3, "running_mean") is not None
    return follow_each_position(call) if known is not None and is_fixed and 1 not in known.axes else None


def follow_dropout(call: Call) -> Made:
    """Dropout in evaluation mode."""
    return follow_each_position(call) if call.argument(2, "train", True) is False else None


def follow_slopes(call: Call) -> Made:
    """PReLU, with a slope for every channel."""
    known = call.map(call.args[0])
    return follow_each_position(call) if known is not None and 1 not in known.axes else None


def follow_channels(call: Call) -> Made:
    """Linear layers over the last axis, where that holds channels."""
    known = call.first
    if known is None or len(known.shape) < 2 or len(known.shape) - 1 in known.axes:
        return None
    return follow_each_position(call)


def follow_layer_norm(call: Call) -> Made:
    """Layer normalization: of the channels at each position, else of whole maps."""
    known, many = call.first, len(call.args[1])
    if known is None or many >= len(known.shape):
        return None
    if any(axis >= len(known.shape) - many for axis in known.axes):
        return follow_whole(call)
    return follow_each_position(call)


def follow_softmax(call: Call) -> Made:
    """Of the channels at each position, else of whole maps."""
    known = call.first
    if known is None or (axis := call.args[1] % len(known.shape)) == 0:
        return None
    return follow_whole(call) if axis in known.axes else follow_each_position(call)


def follow_cat(call: Call) -> Made:
    """Along the channels."""
    parts, axis = call.args[0], call.argument(1, "dim", 0)
    dims = parts[0].dim()
    axes = call.maps[0].axes
    axis %= dims
    if axis == 0 or axis in axes or any(known.axes != axes for known in call.maps):
        return None
    full = call.maps[0].sizes
    if any(one.dim() != dims or [one.shape[each] for each in axes] != full for one in parts):
        return None
    if any(one.shape[0] != call.maps[0].shape[0] for one in parts):
        return None
    windows = []
    for group in call.groups():
        starts, sizes = boxes_of(call, parts, group, full)
        own = [operand_of(call, one, one.shape, group, starts, sizes, full) for one in parts]
        rows = len(call.follower.rows[group])
        windows.append(Window(call.func([one.expand(rows, *one.shape[1:]) for one in own], axis), starts))
    return axes, windows, full


def follow_reduction(call: Call) -> Made:
    """Means, sums and extremes over axes other than that of the batch."""
    known, over = call.first, call.argument(1, "dim")
    if known is None or over is None:
        return None
    over = [axis % len(known.shape) for axis in (over if isinstance(over, (tuple, list)) else [over])]
    if not over or 0 in over:
        return None
    if call.argument(2, "keepdim", False) and not set(over) & set(known.axes):
        return follow_each_position(call)
    return follow_whole(call)


POINTWISE = {  # what torch does not mark as such in every version
    *(f"aten::{name}" for name in ("hardswish", "hardsigmoid", "hardtanh", "relu6", "mish", "celu", "selu", "where")),
    *(f"aten::{name}" for name in ("abs", "elu", "gelu", "leaky_relu", "threshold", "softplus", "log_sigmoid")),
    *(f"aten::{name}" for name in ("hardshrink", "softshrink")),
}
DROPOUTS = ("aten::dropout_", "aten::feature_dropout_", "aten::alpha_dropout_", "aten::feature_alpha_dropout_")
SAME = {"aten::contiguous", "aten::to", "aten::dropout", "aten::feature_dropout"}  # may be the argument
RULES: dict[str, Callable[[Call], Made]] = {
    "aten::conv2d": follow_convolution,
    "aten::max_pool2d": follow_max_pool,
    "aten::avg_pool2d": follow_mean_pool,
    "aten::pad": follow_pad,
    "aten::batch_norm": follow_norm,
    "aten::prelu": follow_slopes,
    "aten::layer_norm": follow_layer_norm,
    "aten::linear": follow_channels,
    "aten::softmax": follow_softmax,
    "aten::log_softmax": follow_softmax,
    "aten::cat": follow_cat,
    "aten::concat": follow_cat,
    "aten::dropout": follow_dropout,
    "aten::feature_dropout": follow_dropout,
    **{f"aten::{name}": follow_each_position for name in ("clone", "contiguous", "to", "_to_copy")},
    **{f"aten::{name}": follow_reduction for name in ("mean", "sum", "amax", "amin")},
    **{
        f"aten::{name}": follow_whole
        for name in ("adaptive_avg_pool2d", "group_norm", "instance_norm", "upsample_nearest2d", "upsample_bilinear2d")
    },
}
RESHAPES: dict[str, Callable[[Call], Done | None]] = {
    **{f"aten::{name}": reshape for name in ("view", "reshape", "flatten", "unflatten", "unsqueeze", "_unsafe_view")},
    **{f"aten::{name}": permute for name in ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims")},
    **{f"aten::{name}": take_channels for name in ("slice", "narrow", "chunk", "split", "split_with_sizes")},
}
