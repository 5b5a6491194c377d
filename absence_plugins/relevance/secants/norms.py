"""Normalization layers as a quotient y = c / s: m_c = (m - (c_bar / s_bar) mean(y_bar m)) / s_bar, then the centering.

s^2 = mean(c^2) + eps. In this form the multiplier is bounded where one pass is nearly constant; c * rsqrt(var) by the
product rule is not. The affine part is a product and a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.training import MIXES, REMEDY
from absence_plugins.relevance.operation import Multiplier, Operation, Pull, RelevanceError, secant
from absence_plugins.relevance.secants.arguments import Arguments, single
from absence_plugins.relevance.secants.arithmetic import midpoint, quotient, reduce_to
from absence_plugins.relevance.secants.elementwise import by_slope


def standardize(
    a: Tensor, other: Tensor, dims: list[int], eps: float, *, center: bool
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """y_bar, and the pull from m of y = c / s to m of a."""
    c, c2 = (a - a.mean(dims, keepdim=True), other - other.mean(dims, keepdim=True)) if center else (a, other)
    s, s2 = ((t.square().mean(dims, keepdim=True) + eps).sqrt() for t in (c, c2))
    y_bar, inverse = midpoint(c / s, c2 / s2), quotient(1.0, midpoint(s, s2))
    ratio = midpoint(c, c2) * inverse

    def pull(m: Tensor) -> Tensor:
        found = (m - ratio * (y_bar * m).mean(dims, keepdim=True)) * inverse
        return found - found.mean(dims, keepdim=True) if center else found

    return y_bar, pull


def _affine(arguments: Arguments, shape: tuple[int, ...], y_bar: Tensor, back: Callable[[Tensor], Tensor]) -> Pull:
    """y w + b, where w and b have ``shape`` beside the values."""
    weight = arguments["weight"]
    scale: Tensor | None = None
    if weight.value is not None:
        scale = midpoint(weight.value, weight.other) if weight.varies else weight.value
        scale = scale.reshape(shape)
    names = arguments.varying()

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(names)
        found: dict[str, Tensor] = {}
        if "input" in names:
            found["input"] = reduce_to(back(m if scale is None else m * scale), arguments.value("input"))
        if "weight" in names:
            found["weight"] = (m * y_bar).sum_to_size(shape).reshape(weight.value.shape)
        if "bias" in names:
            found["bias"] = m.sum_to_size(shape).reshape(arguments.value("bias").shape)
        return arguments.in_order(found)

    return pull


@secant("layer_norm")
def layer_norm(op: Operation) -> Pull:
    """Over the last axes, centered."""
    arguments = Arguments(op, input=None, normalized_shape=None, weight=None, bias=None, eps=1e-5, cudnn_enable=True)
    return _over_last_axes(arguments, arguments.value("eps"), center=True)


@secant("rms_norm")
def rms_norm(op: Operation) -> Pull:
    """Over the last axes, not centered."""
    arguments = Arguments(op, input=None, normalized_shape=None, weight=None, eps=None, bias=None)
    eps = arguments.value("eps")
    return _over_last_axes(arguments, torch.finfo(op.output.dtype).eps if eps is None else eps, center=False)


def _over_last_axes(arguments: Arguments, eps: float, *, center: bool) -> Pull:
    argument = arguments["input"]
    shape = tuple(arguments.value("normalized_shape"))
    y_bar, back = standardize(argument.value, argument.other, list(range(-len(shape), 0)), eps, center=center)
    return _affine(arguments, shape, y_bar, back)


@secant("group_norm")
def group_norm(op: Operation) -> Pull:
    """Over the channels of a group and all positions, centered."""
    arguments = Arguments(op, input=None, num_groups=None, weight=None, bias=None, eps=1e-5, cudnn_enabled=True)
    return _over_groups(arguments, arguments.value("num_groups"))


@secant("instance_norm")
def instance_norm(op: Operation) -> Pull:
    """Over the positions of each channel, centered; with running statistics in evaluation, as batch norm."""
    arguments = Arguments(
        op, input=None, weight=None, bias=None, running_mean=None, running_var=None, use_input_stats=True,
        momentum=0.1, eps=1e-5, cudnn_enabled=True,
    )  # fmt: skip
    if not arguments.value("use_input_stats"):
        return _by_running_statistics(op, arguments)
    return _over_groups(arguments, arguments.value("input").shape[1])


def _over_groups(arguments: Arguments, groups: int) -> Pull:
    argument = arguments["input"]
    whole = argument.value.shape
    split = (whole[0], groups, whole[1] // groups * math.prod(whole[2:]))
    y_bar, back = standardize(
        argument.value.reshape(split), argument.other.reshape(split), [2], arguments.value("eps"), center=True
    )
    channels = (1, whole[1], *(1 for _ in whole[2:]))
    return _affine(arguments, channels, y_bar.reshape(whole), lambda m: back(m.reshape(split)).reshape(whole))


@secant("batch_norm")
def batch_norm(op: Operation) -> Pull:
    """In evaluation: m times the scale w / sqrt(running variance + eps)."""
    arguments = Arguments(
        op, input=None, weight=None, bias=None, running_mean=None, running_var=None, training=False,
        momentum=0.1, eps=1e-5, cudnn_enabled=True,
    )  # fmt: skip
    if arguments.value("training") or arguments.value("running_var") is None:
        raise RelevanceError(
            f"batch norm {MIXES}, or always does; {REMEDY}, and give it running statistics (track_running_stats=True)"
        )
    return _by_running_statistics(op, arguments)


def _by_running_statistics(op: Operation, arguments: Arguments) -> Pull:
    argument, weight = arguments["input"], arguments["weight"]
    channels = (1, argument.value.shape[1], *(1 for _ in argument.value.shape[2:]))
    mean, variance = (arguments.value(name).reshape(channels) for name in ("running_mean", "running_var"))
    scale: Any = (variance + arguments.value("eps")).rsqrt()
    if arguments.varying() == ["input"]:
        return by_slope(op, scale if weight.value is None else scale * weight.value.reshape(channels))
    y_bar = (midpoint(argument.value, argument.other) - mean) * scale if weight.varies else op.output
    return _affine(arguments, channels, y_bar, lambda m: m * scale)
