"""Maxima: a rise goes to x's winner, a fall to r's: m dy/da there, in [0, 1] m."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.relevance.operation import Multiplier, Operation, Pull, secant
from absence_plugins.relevance.secants.arguments import Arguments, single
from absence_plugins.relevance.secants.arithmetic import shape_up
from absence_plugins.relevance.secants.binary import by_factors
from absence_plugins.relevance.secants.elementwise import by_slope, unary_slope
from absence_plugins.relevance.secants.tape import Tape, pair_of


def winner_pull(
    a: Tensor, other: Tensor, winner: Tensor, other_winner: Tensor, sign: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Multipliers of the maxima -> of the values.

    a, other: [G, N] values; winner, other_winner: [G, K] positions of the maxima in N (sign -1: of the minima).
    Where y = y': m for a common winner, 0 for two different ones.
    """
    change = a.gather(1, winner) - other.gather(1, other_winner)
    at = torch.where(change * sign > 0, winner, other_winner)
    at = torch.where(change == 0, torch.minimum(winner, other_winner), at)
    difference = a.gather(1, at) - other.gather(1, at)
    equal = difference == 0
    share = torch.where(equal, 1.0, change / difference.masked_fill(equal, 1.0))
    size = a.shape

    def pull(m: Tensor) -> Tensor:
        return m.new_zeros(size).scatter_add_(1, at, m * share)

    return pull


@secant(
    *(f"{kind}max_pool{n}d{tail}" for kind in ("", "adaptive_") for n in (1, 2, 3) for tail in ("", "_with_indices"))
)
def max_pooling(op: Operation) -> Pull:
    """A rise of a window's maximum goes to the position of x's maximum, a fall to that of r's."""
    adaptive = "adaptive" in op.name
    n = int(op.name[op.name.index("d_") - 1] if "d_" in op.name else op.name[-2])
    if adaptive:
        arguments = Arguments(op, input=None, output_size=None, return_indices=False)
    else:
        arguments = Arguments(
            op, input=None, kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
        )
    names = ("output_size",) if adaptive else ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    settings = {name: arguments.value(name) for name in names}
    if not adaptive and not settings["stride"]:
        settings["stride"] = settings["kernel_size"]
    pool: Any = getattr(F, f"{'adaptive_' if adaptive else ''}max_pool{n}d")
    argument = arguments["input"]
    shape = argument.value.shape
    groups = math.prod(shape[:-n])
    values, places = [], []
    for tensor in (argument.value, argument.other):
        places.append(pool(tensor, **settings, return_indices=True)[1].reshape(groups, -1))
        values.append(tensor.reshape(groups, -1))
    back = winner_pull(*values, *places)

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        return (None if m is None else back(m.reshape(groups, -1)).reshape(shape),)

    return pull


@secant("amax", "amin", "max", "min")
def extremum(op: Operation) -> Pull:
    """The maximum over axes, as a pooling with one window; ``max(a, b)`` of two tensors is ``maximum``."""
    sign = 1.0 if "max" in op.name else -1.0
    second = op.args[1] if len(op.args) > 1 else op.kwargs.get("other")
    if isinstance(second, Tensor):
        return larger_of_two(op)
    arguments = Arguments(op, input=None, dim=None, keepdim=False)
    a, other = arguments["input"].value, arguments["input"].other
    dims = _axes(arguments.value("dim"), a.ndim)
    kept = [d for d in range(a.ndim) if d not in dims]
    order = [*kept, *dims]
    groups = math.prod(a.shape[d] for d in kept)
    moved = a.permute(order).shape
    values = [t.permute(order).reshape(groups, -1) for t in (a, other)]
    places = [(sign * t).argmax(1, keepdim=True) for t in values]
    back = winner_pull(values[0], values[1], places[0], places[1], sign)
    inverse = [order.index(d) for d in range(a.ndim)]
    keepdim = arguments.value("keepdim")

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,)
        m = shape_up(m, dims, keepdim, a.ndim).reshape(groups, 1)
        return (back(m).reshape(moved).permute(inverse),)

    return pull


def _axes(dim: Any, ndim: int) -> list[int]:
    chosen = range(ndim) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
    return [d % max(ndim, 1) for d in chosen]


@secant("maximum", "minimum", "fmax", "fmin")
def larger_of_two(op: Operation) -> Pull:
    """max(a, b) = b + relu(a - b): m g for a, m (1 - g) for b, with g the slope of relu; 1/2 at a tie in both
    passes.
    """
    sign = 1.0 if "max" in op.name else -1.0
    first, second = ((0,) if op.args else ("input",)), ((1,) if len(op.args) > 1 else ("other",))
    t = (op.operand(first) - op.operand(second)) * sign
    other = (op.other_operand(first) - op.other_operand(second)) * sign
    equal = t == other
    rise = t.relu() - other.relu()
    g = torch.where(equal, (t.sign() + 1) / 2, rise / (t - other).masked_fill(equal, 1.0))
    return by_factors(op, [g if place == first else 1 - g for place in op.varying])


@secant("clamp", "clip", "clamp_min", "clamp_max")
def clamp(op: Operation) -> Pull:
    """m dy/da; with bounds that depend on the input min(max(a, low), high), step by step."""
    if op.name == "clamp_max":
        arguments = Arguments(op, input=None, max=None, min=None)
    else:
        arguments = Arguments(op, input=None, min=None, max=None)
    if arguments.varying() == ["input"]:
        return by_slope(op, unary_slope(op, smooth=False))
    tape = Tape()
    pairs = {name: pair_of(arguments[name]) for name in ("input", "min", "max")}
    like = op.output
    y = pairs["input"]
    for bound, name in (("min", "maximum"), ("max", "minimum")):
        limit = pairs[bound]
        if limit is not None:
            limit = like.new_tensor(limit) if isinstance(limit, (int, float)) else limit
            y = tape.call(name, getattr(torch, name), y, limit)
    names = arguments.varying()

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(names)
        found = tape.pull({y: m}, [pairs[name] for name in names])
        return arguments.in_order({k: v for k, v in zip(names, found, strict=True) if v is not None})

    return pull
