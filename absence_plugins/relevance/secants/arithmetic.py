"""What every secant is made of: midpoints, quotients, slopes and transposes, each bitwise symmetric in x and r."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.pulling import pull_back

Function = Callable[[Tensor], Tensor]

# A midpoint slope is accepted where it explains the change of the output to so many units in the last place.
SLACK = 8
# From this share of close elements on, all are computed: selecting costs more.
DENSE = 0.1
# Elements of a piece, whose intermediate values stay in a processor's cache; fewer than so many pieces are done at once.
PIECE, FEW = 2**17, 4


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
    return (numerator / denominator).masked_fill_(denominator == 0, 0.0)


def reduce_to(multiplier: Tensor, operand: Tensor) -> Tensor:
    """The multiplier of a broadcast operand: summed to its shape, in its dtype."""
    if multiplier.shape == operand.shape and multiplier.dtype == operand.dtype:
        return multiplier
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
    found = pull_back([o for o, _ in given], leaves, [m for _, m in given])
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
    gradient: Function | None = None,
) -> Tensor:
    """(f(a) - f(a')) / (a - a') of an elementwise function; no noise where a and a' are close.

    Kinked: f'(a) where a = a'. Smooth: where abs(a - a') <= (24 eps)^(1/3) max(1, abs(a + a') / 2), the mean of f' at
    the two points of Gauss between a and a' (exact to order 4), if that explains y - y' to rounding: not across a kink
    or near a pole. 0 where a = a' and f' is not finite.

    Args:
        function: f, elementwise; called with a selection of the elements unless ``whole``.
        a: operand of x's pass.
        other: operand of r's pass.
        y: f(a).
        other_y: f(a').
        smooth: whether f' is continuous.
        whole: f takes tensors besides a, and can be called on all elements only.
        cancels: torch computes f with an error of eps abs(a) rather than eps abs(f), as gelu at large negative a.
        gradient: f'; by default from autograd, which runs f once more.

    >>> a = torch.tensor([-1.0, 2.0, 3.0])
    >>> slope(torch.relu, a, torch.tensor([1.0, 2.0, 5.0]), torch.relu(a), torch.tensor([1.0, 2.0, 5.0]), smooth=False)
    tensor([0.5000, 1.0000, 1.0000])
    """
    given = (a, other, y, other_y)
    if not whole and y.numel() >= FEW * PIECE and all(_is_line(one, y) for one in given):
        result = y.new_empty_strided(y.shape, y.stride())
        for *piece, found in zip(*(torch.split(_as_line(one), PIECE) for one in (*given, result)), strict=True):
            found.copy_(slope(function, *piece, smooth=smooth, cancels=cancels, gradient=gradient))
        return result
    difference = a - other
    result = (y - other_y).div_(difference)
    if smooth:
        bound = (24 * torch.finfo(a.dtype).eps) ** (1 / 3)
        size = (a + other).abs_().mul_(bound / 2).clamp_(min=bound)
        near = size.sub_(difference.abs_()).lt(0).logical_not_()  # also where both are infinite
    elif result.sum().isfinite():  # nowhere 0 / 0
        return result
    else:
        near = a == other
    count = int(near.count_nonzero())
    if count == 0:
        return result
    gradient = gradient or partial(derivative, function)
    close = partial(_derivative_between, gradient, cancels) if smooth else partial(_derivative_of_equal, gradient)
    if count == near.numel():
        return close(a, other, y, other_y, result)
    if whole or count > DENSE * near.numel():
        return torch.where(near, close(a, other, y, other_y, result), result)
    places = near.nonzero(as_tuple=True)
    result[places] = close(*(t[places] for t in (a, other, y, other_y, result)))
    return result


def _is_line(tensor: Tensor, like: Tensor) -> bool:
    """Whether a tensor fills its memory without gaps, in the order of another one."""
    is_alike = tensor.shape == like.shape and tensor.stride() == like.stride()
    return is_alike and tensor.permute(_order(tensor)).is_contiguous()


def _as_line(tensor: Tensor) -> Tensor:
    """Its elements as they lie in memory: a view."""
    return tensor.permute(_order(tensor)).view(-1)


def _order(tensor: Tensor) -> list[int]:
    strides = tensor.stride()
    return sorted(range(tensor.ndim), key=lambda axis: -strides[axis])


def _derivative_of_equal(gradient: Function, a: Tensor, other: Tensor, *_: Any) -> Tensor:
    found = gradient(midpoint(a, other))  # the same for 0. and -0.
    return torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def _derivative_between(
    gradient: Function, cancels: bool, a: Tensor, other: Tensor, y: Tensor, other_y: Tensor, ratio: Tensor
) -> Tensor:
    """The mean of f' at the points of Gauss where it explains the change, else the ratio of the differences.

    Every sum pairs a value of x with r's before anything else is added: exchanged, it has the same bits.
    """
    difference = a - other
    middle, half = torch.add(a, other).mul_(0.5), difference.abs().mul_(1 / math.sqrt(12))
    found = gradient(middle - half).add_(gradient(middle.add_(half))).mul_(0.5)
    noise = torch.add(a.abs(), other.abs()).mul_(found.abs().add_(float(cancels))).add_(y.abs().add_(other_y.abs()))
    # noise - abs(error): NaN or negative where the derivative does not explain the change
    margin = noise.mul_(SLACK * torch.finfo(a.dtype).eps).sub_(difference.mul_(found).sub_(y - other_y).abs_())
    if margin.min() >= 0:
        return found
    return torch.where(margin >= 0, found, ratio.masked_fill(a == other, 0.0))


def shape_up(value: Tensor, dims: Sequence[int] | None, keepdim: bool, ndim: int) -> Tensor:
    """A reduced tensor with the axes that the reduction removed, of size 1 (all axes if ``dims`` is None)."""
    if keepdim or ndim == 0:
        return value
    axes = sorted(d % ndim for d in (range(ndim) if dims is None else dims))
    for axis in axes:
        value = value.unsqueeze(axis)
    return value
