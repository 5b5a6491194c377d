"""Forwards of copies of a few inputs that differ from them in one small box each: only what a box reaches is computed.

A :class:`Near` stands for N maps [N, C, ...] that equal one of a few clean maps outside of a box. Convolutions, poolings
and pointwise operations run on the clean maps, and on what lies around the boxes; the box grows with every operation.
Once it is most of the map, or at any operation without a rule here, the maps become ordinary tensors. So the values are those
of ordinary forwards up to rounding, whatever the model does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks_of_all
from torch.utils._pytree import tree_map

aten = torch.ops.aten
MOST = 0.75  # of a map: larger boxes are computed as whole maps
POINTWISE = {
    getattr(aten, name + ending)
    for name in (
        *("relu", "leaky_relu", "elu", "celu", "hardtanh", "silu", "mish", "gelu", "sigmoid", "hardsigmoid", "tanh"),
        *("hardswish", "clamp", "clamp_min", "clamp_max", "threshold", "neg", "abs", "exp", "sqrt", "rsqrt", "square"),
        *("add", "sub", "mul", "div"),
    )
    for ending in ("", "_")
    if hasattr(aten, name + ending)
} | {aten.softplus, aten.pow, aten.clone, aten._to_copy, aten.maximum, aten.minimum}
NORMS = {
    aten.native_batch_norm,
    aten.cudnn_batch_norm,
    aten.miopen_batch_norm,
    aten._native_batch_norm_legit_no_training,
}
MAX_POOLS = {aten.max_pool2d_with_indices, aten.max_pool3d_with_indices}
AVERAGE_POOLS = {aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d}


class Near(Tensor):
    """N maps [N, C, ...] that equal the clean maps [M, C, ...] of their ``owners`` [N] outside of boxes.

    patch: what is in the boxes [N, C, ...]; starts: where they begin [N, axes]. Without clean maps ``patch`` is the maps.
    """

    patch: Tensor
    clean: Tensor | None
    starts: Tensor
    owners: Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, patch: Tensor, clean: Tensor | None, starts: Tensor, owners: Tensor) -> Near:
        """Of the shape, type and device of the maps, without their memory."""
        shape = (len(patch), *(patch if clean is None else clean).shape[1:])
        made: Near = Tensor._make_wrapper_subclass(cls, shape, dtype=patch.dtype, device=patch.device)
        made.patch, made.clean, made.starts, made.owners = patch, clean, starts, owners
        return made

    def __init__(self, *args: Any) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """One operation of the forward."""
        kwargs = kwargs or {}
        rule = _RULES.get(func.overloadpacket)
        found = NotImplemented if rule is None else rule(func, args, kwargs)
        if found is not NotImplemented:
            return found
        return func(*tree_map(_as_tensor, args), **tree_map(_as_tensor, kwargs))

    @property
    def box(self) -> tuple[int, ...]:
        """The extents of the boxes."""
        return tuple(self.patch.shape[2:])

    def fill(self) -> Tensor:
        """Become whole maps, in the memory format that the operations left."""
        if self.clean is not None:
            whole = _crop(self, torch.zeros_like(self.starts), tuple(self.clean.shape[2:]))
            self.patch, self.clean = whole, None
        return self.patch

    def become(self, other: Near) -> Near:
        """Take over another's state: the result of an operation in place."""
        self.patch, self.clean, self.starts, self.owners = other.patch, other.clean, other.starts, other.owners
        return self


def _as_tensor(value: Any) -> Any:
    """A plain contiguous tensor, whose memory a view shares with the Near."""
    if isinstance(value, Near):
        value.patch = value.fill().contiguous()
        return value.patch
    return value


def _crop(near: Near, starts: Tensor, lengths: Sequence[int], padding: float = 0.0) -> Tensor:
    """Boxes [N, C, ...] of the maps, which may reach over their borders: there they hold ``padding``."""
    assert near.clean is not None
    clean, patch = (part.movedim(1, -1) for part in (near.clean, near.patch))
    rows, channels, axes = len(patch), patch.shape[-1], len(lengths)
    shape = [rows, *[1] * axes]
    in_clean, in_patch = near.owners.reshape(shape), torch.arange(rows).reshape(shape)
    on_map, on_patch = torch.ones(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
    for axis, length in enumerate(lengths):
        shape = [rows, *[1] * axes]
        shape[axis + 1] = length
        place = (starts[:, axis, None] + torch.arange(length)).reshape(shape)
        within = place - near.starts[:, axis].reshape([rows, *[1] * axes])
        size, extent = clean.shape[axis + 1], patch.shape[axis + 1]
        on_map = on_map & (place >= 0) & (place < size)
        on_patch = on_patch & (within >= 0) & (within < extent)
        in_clean, in_patch = in_clean * size + place, in_patch * extent + within
    cells = clean.shape[:-1].numel()
    index = torch.where(on_patch, in_patch + cells, torch.where(on_map, in_clean, cells + patch.shape[:-1].numel()))
    source = torch.cat(
        [clean.reshape(-1, channels), patch.reshape(-1, channels), patch.new_full((1, channels), padding)]
    )
    found = source.index_select(0, index.flatten().to(source.device))
    return found.reshape(rows, *lengths, channels).movedim(-1, 1)


def _per_axis(value: Sequence[int] | int, axes: int) -> list[int]:
    found = [value] if isinstance(value, int) else list(value)
    return found * axes if len(found) == 1 else found


def _slide(
    near: Near, run: Callable[[Tensor, list[int]], Any], frame: tuple[Any, Any, Any, Any], padding_value: float = 0.0
) -> Any:
    """An operation that slides a window over maps. ``run(maps, padding)``; frame: kernel, stride, padding, dilation."""
    if near.clean is None:
        return run(near.patch, _per_axis(frame[2], near.patch.dim() - 2)), None, near.starts
    axes = near.patch.dim() - 2
    kernel, stride, padding, dilation = (_per_axis(one, axes) for one in frame)
    first, lengths, needed, outputs = [], [], [], []
    for axis, (size, extent) in enumerate(zip(near.clean.shape[2:], near.box, strict=True)):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        last = (size + 2 * padding[axis] - reach) // stride[axis]
        start = near.starts[:, axis] + padding[axis]
        low = torch.div(start - reach + stride[axis], stride[axis], rounding_mode="floor").clamp(min=0)
        high = torch.div(start + extent - 1, stride[axis], rounding_mode="floor").clamp(max=last)
        length = min(max(int((high - low).max()) + 1, 1), last + 1)
        first.append(low.clamp(max=last + 1 - length))
        lengths.append(length)
        needed.append((length - 1) * stride[axis] + reach)
        outputs.append(last + 1)
    if prod(lengths) > MOST * prod(outputs):
        return run(near.fill(), padding), None, near.starts
    starts = torch.stack(first, 1)
    origin = starts * torch.tensor(stride) - torch.tensor(padding)
    return run(_crop(near, origin, needed, padding_value), [0] * axes), run(near.clean, padding), starts


def _convolve(func: Any, args: Any, kwargs: Any) -> Any:
    near, weight, bias, stride, padding, dilation, is_transposed, *rest = args
    if is_transposed or not isinstance(near, Near) or kwargs or isinstance(weight, Near):
        return NotImplemented

    def run(maps: Tensor, around: list[int]) -> Tensor:
        found: Tensor = func(maps, weight, bias, stride, around, dilation, False, *rest)
        return found

    return Near(*_slide(near, run, (weight.shape[2:], stride, padding, dilation)), near.owners)


def _max_pool(func: Any, args: Any, kwargs: Any) -> Any:
    near, kernel = args[:2]
    stride, padding, dilation, is_ceil = _filled(args[2:], (kernel, 0, 1, False))
    if is_ceil or kwargs:
        return NotImplemented

    def run(maps: Tensor, around: list[int]) -> Tensor:
        found: Tensor = func(maps, kernel, stride, around, dilation)[0]
        return found

    patch, clean, starts = _slide(near, run, (kernel, stride, padding, dilation), -torch.inf)
    return Near(patch, clean, starts, near.owners), _Untold(patch)


def _average_pool(func: Any, args: Any, kwargs: Any) -> Any:
    near, kernel = args[:2]
    stride, padding, is_ceil, counts_padding, divisor = _filled(args[2:], (kernel, 0, False, True, None))
    if is_ceil or kwargs or divisor is not None or (not counts_padding and any(_per_axis(padding, 1))):
        return NotImplemented

    def run(maps: Tensor, around: list[int]) -> Tensor:
        found: Tensor = func(maps, kernel, stride, around)
        return found

    return Near(*_slide(near, run, (kernel, stride, padding, 1)), near.owners)


def _filled(given: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """Arguments with their defaults; a stride of [] is the kernel."""
    found = [*given, *defaults[len(given) :]]
    return [defaults[0] if found[0] == [] else found[0], *found[1:]]


def _norm(func: Any, args: Any, kwargs: Any) -> Any:
    near, *rest = args
    is_training = func.overloadpacket is not aten._native_batch_norm_legit_no_training and rest[4]
    if kwargs or is_training or not isinstance(near, Near) or any(isinstance(one, Near) for one in rest):
        return NotImplemented
    patch, *others = func(near.patch, *rest)
    clean = None if near.clean is None else func(near.clean, *rest)[0]
    return Near(patch, clean, near.starts, near.owners), *others


def _pointwise(func: Any, args: Any, kwargs: Any) -> Any:
    nears = [one for one in args if isinstance(one, Near)]
    others = [one for one in args if isinstance(one, Tensor) and not isinstance(one, Near)]
    is_in_place = func._schema.name.endswith("_")
    if len({near.shape for near in nears}) > 1 or not all(_is_everywhere_same(one, nears[0]) for one in others):
        return NotImplemented
    if "out" in kwargs or (is_in_place and args[0] is not nears[0]):
        return NotImplemented
    aligned = _align(nears)
    patch = func(*_replaced(args, [near.patch for near in aligned]), **kwargs)
    clean = None
    if aligned[0].clean is not None:
        clean = func(*_replaced(args, [near.clean for near in aligned]), **kwargs)
    found = Near(patch, clean, aligned[0].starts, aligned[0].owners)
    return nears[0].become(found) if is_in_place else found


def _pad(func: Any, args: Any, kwargs: Any) -> Any:
    near, amounts = args[:2]
    axes = near.patch.dim() - 2
    if kwargs or len(amounts) > 2 * axes or min(amounts) < 0:
        return NotImplemented
    if near.clean is None:
        return Near(func(near.patch, *args[1:]), None, near.starts, near.owners)
    before = [*amounts[::2], *[0] * (axes - len(amounts) // 2)][::-1]  # the last axis stands first
    return Near(near.patch.clone(), func(near.clean, *args[1:]), near.starts + torch.tensor(before), near.owners)


def _cat(func: Any, args: Any, kwargs: Any) -> Any:
    parts, axis = args[0], args[1] if len(args) > 1 else 0
    if axis not in (1, 1 - parts[0].dim()) or kwargs or not all(isinstance(one, Near) for one in parts):
        return NotImplemented
    aligned = _align(parts)
    patch = func([near.patch for near in aligned], 1)
    is_near = aligned[0].clean is not None
    clean = func([near.clean for near in aligned], 1) if is_near else None
    return Near(patch, clean, aligned[0].starts, aligned[0].owners)


def _align(nears: Sequence[Near]) -> Sequence[Near]:
    """The same maps with the same boxes: those around all of theirs; or whole maps."""
    if any(near.clean is None for near in nears):
        for near in nears:
            near.fill()
        return nears
    starts = torch.stack([near.starts for near in nears]).amin(0)
    ends = torch.stack([near.starts + torch.tensor(near.box) for near in nears]).amax(0)
    sizes = nears[0].shape[2:]
    lengths = (ends - starts).amax(0).tolist()
    if prod(lengths) > MOST * prod(sizes):
        return _align([*nears, Near(nears[0].fill(), None, starts, nears[0].owners)])[: len(nears)]
    starts = torch.minimum(starts, torch.tensor(sizes) - torch.tensor(lengths))
    return [
        near
        if near.box == tuple(lengths) and torch.equal(near.starts, starts)
        else Near(_crop(near, starts, lengths), near.clean, starts, near.owners)
        for near in nears
    ]


def _replaced(args: Any, values: list[Any]) -> list[Any]:
    rest = iter(values)
    return [next(rest) if isinstance(one, Near) else one for one in args]


def _is_everywhere_same(tensor: Tensor, near: Near) -> bool:
    """Whether a tensor has one value, or one per channel."""
    axes = near.dim() - 2
    return prod(tensor.shape[-axes:]) == 1 and prod(tensor.shape[: -axes - 1]) == 1


class _Untold(Tensor):
    """The places of a pooling's maxima, which are not known here: whoever reads them gets an error."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, like: Tensor) -> _Untold:
        made: _Untold = Tensor._make_wrapper_subclass(cls, like.shape, dtype=torch.int64, device=like.device)
        return made

    def __init__(self, *args: Any) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError("the places of maxima are not known in a forward of near copies")


_RULES: dict[Any, Callable[[Any, Any, Any], Any]] = {
    aten.convolution: _convolve,
    aten.cat: _cat,
    aten.constant_pad_nd: _pad,
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(NORMS, _norm),
    **dict.fromkeys(MAX_POOLS, _max_pool),
    **dict.fromkeys(AVERAGE_POOLS, _average_pool),
}


def make_near(clean: Tensor, copies: Tensor, owners: Tensor, starts: Tensor, ends: Tensor) -> Near:
    """Copies [N, C, ...] of the clean inputs [M, C, ...] of their owners [N] that differ from them between starts and
    ends [N, axes] at most.

    >>> clean, owners = torch.zeros(1, 1, 8), torch.tensor([0, 0])
    >>> copies = clean.repeat(2, 1, 1)
    >>> copies[0, 0, 2], copies[1, 0, 5] = 3.0, 4.0
    >>> near = make_near(clean, copies, owners, torch.tensor([[2], [5]]), torch.tensor([[3], [6]]))
    >>> with torch.no_grad():
    ...     nn.Conv1d(1, 1, 3)(near).box
    (3,)
    """
    lengths = (ends - starts).amax(0)
    starts = torch.minimum(starts, torch.tensor(clean.shape[2:]) - lengths)
    return Near(_boxes(copies, starts, lengths.tolist()), clean.clone(), starts, owners)


def _boxes(maps: Tensor, starts: Tensor, lengths: Sequence[int]) -> Tensor:
    """One box of each map [N, C, ...]."""
    views = [
        one[(slice(None), *(slice(start, start + length) for start, length in zip(begin, lengths, strict=True)))]
        for one, begin in zip(maps, starts.tolist(), strict=True)
    ]
    return torch.stack(views)


def takes_near(model: Any) -> bool:
    """Whether nobody looks into a model's forward: a module without forward hooks, run as it is written."""
    model = getattr(model, "__self__", model)
    if not isinstance(model, nn.Module) or hooks_of_all._global_forward_hooks or hooks_of_all._global_forward_pre_hooks:
        return False
    foreign = (torch.jit.ScriptModule, nn.DataParallel, nn.parallel.DistributedDataParallel)
    return not any(
        isinstance(module, foreign) or module._forward_hooks or module._forward_pre_hooks for module in model.modules()
    )
