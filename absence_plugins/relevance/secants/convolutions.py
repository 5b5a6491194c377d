"""Convolutions as linear operators, and their transposes by the cheapest kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.relevance.secants.arithmetic import vjp

Transpose = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Operator:
    """a -> a W without bias, and its transpose, for any weights of the same shape."""

    forward: Callable[[Tensor, Tensor], Tensor]
    transpose: Transpose


def convolution_operator(name: str, shape: torch.Size, kernel: torch.Size, settings: dict[str, Any]) -> Operator:
    """The convolution ``name`` of values of a shape, with stride, padding and so on as the operation has them."""
    named = ((key, value if isinstance(value, (int, str)) else tuple(value)) for key, value in settings.items())
    return _operator(name, shape, kernel, *named)


@functools.lru_cache(256)
def _operator(name: str, shape: torch.Size, kernel: torch.Size, *named: tuple[str, Any]) -> Operator:
    n, settings = len(kernel), dict(named)
    function = getattr(torch, name)

    def forward(value: Tensor, w: Tensor) -> Tensor:
        found: Tensor = function(value, w, None, **settings)
        return found

    def by_autograd(m: Tensor, w: Tensor) -> Tensor:
        return vjp(lambda value: forward(value, w), [m.new_zeros(shape)], m)[0]

    each = {key: _list(v, n) for key, v in settings.items() if key not in ("groups", "padding")}
    padding = _padding(settings["padding"], each["dilation"], kernel)
    if padding is None or len(shape) != n + 2:
        return Operator(forward, by_autograd)
    each["padding"] = padding
    return Operator(forward, _direct_transpose(each, settings["groups"], "transpose" in name, kernel, shape))


def _list(value: Any, n: int) -> list[int]:
    return [value] * n if isinstance(value, int) else [*value] * (n if len(value) == 1 else 1)


def _padding(value: Any, dilation: list[int], kernel: torch.Size) -> list[int] | None:
    """The padding of each axis in numbers; None where both sides differ."""
    if not isinstance(value, str):
        return _list(value, len(kernel))
    whole = [0 if value == "valid" else d * (size - 1) for d, size in zip(dilation, kernel, strict=True)]
    return None if any(size % 2 for size in whole) else [size // 2 for size in whole]


def _direct_transpose(
    each: dict[str, list[int]], groups: int, transposed: bool, kernel: torch.Size, shape: torch.Size
) -> Transpose:
    """The gradient of the input alone, without a forward pass."""
    stride, padding, dilation = each["stride"], each["padding"], each["dilation"]
    is_pointwise = not transposed and set(stride) == {1} and set(padding) == {0} and set(kernel) == {1} and groups == 1
    reach = [d * (size - 1) - p for d, size, p in zip(dilation, kernel, padding, strict=True)]
    is_flat = not transposed and len(kernel) == 2 and len(set(stride)) == 1
    is_depthwise = is_flat and groups == shape[1] and min(reach) >= 0

    def transpose(m: Tensor, w: Tensor) -> Tensor:
        if m.device.type == "cpu":  # the kernels of CUDA are good for all shapes
            if is_pointwise:
                return (w.flatten(1).mT @ m.flatten(2)).view(shape)
            if is_depthwise and len(w) == groups and w.dtype == torch.float32:
                return _depthwise_transpose(m, w, stride[0], reach, dilation, shape)
        found: Tensor = torch.ops.aten.convolution_backward(
            m, m.new_empty(()).expand(shape), w, None, stride, padding, dilation, transposed,
            each.get("output_padding", [0] * len(kernel)), groups, [True, False, False],
        )[0]  # fmt: skip
        return found

    return transpose


def _depthwise_transpose(
    m: Tensor, w: Tensor, stride: int, reach: list[int], dilation: list[int], shape: torch.Size
) -> Tensor:
    """As a convolution by the flipped weights, of the multipliers at the distance of the stride.

    oneDNN's kernel of the backward is several times slower.
    """
    if stride > 1:
        each = zip(shape[2:], dilation, w.shape[2:], reach, strict=True)
        sizes = [size + d * (k - 1) - 2 * r for size, d, k, r in each]
        apart = m.new_zeros((*m.shape[:2], *sizes))
        apart[:, :, ::stride, ::stride] = m
        m = apart
    return F.conv2d(m, w.flip(2, 3), None, 1, reach, dilation, len(w))
