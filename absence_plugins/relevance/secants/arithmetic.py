"""What every secant is made of: midpoints, quotients, slopes and transposes, each bitwise symmetric in x and r."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]

# A midpoint slope is accepted where it explains the change of the output to so many units in the last place.
SLACK = 8


def midpoint(a: Tensor, other: Tensor) -> Tensor:
    """(a + a') / 2, without overflow.

    >>> midpoint(torch.tensor([1.0, 3e38]), torch.tensor([2.0, 3e38]))
    tensor([1.5000e+00, 3.0000e+38])
    """
    return a * 0.5 + other * 0.5


def quotient(numerator: Tensor | float, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator is 0.

    >>> quotient(1.0, torch.tensor([2.0, 0.0]))
    tensor([0.5000, 0.0000])
    """
    zero = denominator == 0
    return torch.where(zero, 0.0, numerator / denominator.masked_fill(zero, 1.0))


def reduce_to(multiplier: Tensor, operand: Tensor) -> Tensor:
    """The multiplier of a broadcast operand: summed to its shape, in its dtype."""
    if torch.is_complex(multiplier) and not torch.is_complex(operand):
        multiplier = multiplier.real
    return multiplier.sum_to_size(operand.shape).to(operand.dtype)


def vjp(function: Callable[..., Any], inputs: Sequence[Tensor], multiplier: Any) -> list[Tensor]:
    """Vector-Jacobian product of a function of one or more outputs: one multiplier per input."""
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in inputs]
        outputs = function(*leaves)
    several = isinstance(outputs, (tuple, list))
    pairs = zip(outputs if several else (outputs,), multiplier if several else (multiplier,), strict=True)
    given = [(output, m.to(output.dtype)) for output, m in pairs if m is not None and output.requires_grad]
    if not given:
        return [torch.zeros_like(value) for value in inputs]
    found = torch.autograd.grad([o for o, _ in given], leaves, [m for _, m in given], allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for v, g in zip(inputs, found, strict=True)]


def derivative(function: Function, a: Tensor) -> Tensor:
    """f'(a) of an elementwise function, by autograd."""
    return vjp(function, [a], torch.ones_like(a))[0]


def slope(
    function: Function,
    a: Tensor,
    other: Tensor,
    y: Tensor,
    other_y: Tensor,
    *,
    smooth: bool,
    whole: bool = False,
    cancels: bool = False,
) -> Tensor:
    """(f(a) - f(a')) / (a - a') of an elementwise function; no noise where a and a' are close.

    Kinked: f'(a) where a = a'. Smooth: where abs(a - a') <= (24 eps)^(1/3) max(1, abs(a)), the mean of f' at the two
    points of Gauss between a and a' (exact to order 4), if that explains y - y' to rounding: not across a kink or near
    a pole. 0 where a = a' and f' is not finite.

    Args:
        function: f, elementwise; called with a selection of the elements unless ``whole``.
        a: operand of x's pass.
        other: operand of r's pass.
        y: f(a).
        other_y: f(a').
        smooth: whether f' is continuous.
        whole: f takes tensors besides a, and can be called on all elements only.
        cancels: torch computes f with an error of eps abs(a) rather than eps abs(f), as gelu at large negative a.

    >>> a = torch.tensor([-1.0, 2.0, 3.0])
    >>> slope(torch.relu, a, torch.tensor([1.0, 2.0, 5.0]), torch.relu(a), torch.tensor([1.0, 2.0, 5.0]), smooth=False)
    tensor([0.5000, 1.0000, 1.0000])
    """
    difference, change = a - other, y - other_y
    result = change / difference
    near = a == other
    if smooth:
        bound = (24 * torch.finfo(a.dtype).eps) ** (1 / 3)
        near = near | (difference.abs() <= bound * torch.maximum(a.abs(), other.abs()).clamp(min=1.0))
    if not near.any():
        return result
    if whole:
        return torch.where(near, _slope_of_close(function, a, other, y, other_y, smooth, cancels), result)
    result[near] = _slope_of_close(function, a[near], other[near], y[near], other_y[near], smooth, cancels)
    return result


def _slope_of_close(
    function: Function, a: Tensor, other: Tensor, y: Tensor, other_y: Tensor, smooth: bool, cancels: bool
) -> Tensor:
    middle = torch.where(a == other, a + 0.0, midpoint(a, other))  # + 0.0: the same for 0. and -0.
    if not smooth:
        return torch.nan_to_num(derivative(function, middle), nan=0.0, posinf=0.0, neginf=0.0)
    difference, change = a - other, y - other_y
    half = torch.where(a == other, 0.0, difference.abs() / math.sqrt(12))
    found = midpoint(derivative(function, middle - half), derivative(function, middle + half))
    noise = y.abs() + other_y.abs() + (found.abs() + float(cancels)) * (a.abs() + other.abs())
    explained = (found * difference - change).abs() <= SLACK * torch.finfo(a.dtype).eps * noise
    equal = torch.where(torch.isfinite(found), found, 0.0)
    return torch.where(a == other, equal, torch.where(explained, found, change / difference))


def shape_up(value: Tensor, dims: Sequence[int] | None, keepdim: bool, ndim: int) -> Tensor:
    """A reduced tensor with the axes that the reduction removed, of size 1 (all axes if ``dims`` is None)."""
    if keepdim or ndim == 0:
        return value
    axes = sorted(d % ndim for d in (range(ndim) if dims is None else dims))
    for axis in axes:
        value = value.unsqueeze(axis)
    return value
