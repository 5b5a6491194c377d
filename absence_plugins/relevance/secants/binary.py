"""Elementwise functions of two operands: the slope in each, averaged over the other operand's two values.

f(a, b) - f(a', b') = mean of [f(a, b) - f(a', b)] + [f(a', b) - f(a', b')] and the same with b first; each bracket is a
slope times a difference: m_a = m (df/da at b + df/da at b') / 2, m_b = m (df/db at a + df/db at a') / 2.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from absence_plugins.relevance.operation import Multiplier, Operation, Pull, secant
from absence_plugins.relevance.secants.arguments import function_of_varying, single
from absence_plugins.relevance.secants.arithmetic import midpoint, quotient, reduce_to, slope
from absence_plugins.relevance.secants.elementwise import by_slope, unary_slope


def by_factors(op: Operation, factors: list[Tensor]) -> Pull:
    """m times one tensor per varying operand, summed where the operand was broadcast."""
    operands = [op.operand(place) for place in op.varying]

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(operands)
        return tuple(reduce_to(m * f, a) for f, a in zip(factors, operands, strict=True))

    return pull


def averaged(op: Operation, smooth: bool) -> Pull:
    """The averaged slopes of one or two varying operands."""
    if len(op.varying) == 1:
        return by_slope(op, unary_slope(op, smooth))
    y, other_y = op.output, op.other_output
    a, b = (op.operand(place).expand_as(y).to(y.dtype) for place in op.varying)
    other_a, other_b = (op.other_operand(place).expand_as(y).to(y.dtype) for place in op.varying)
    f = function_of_varying(op)
    y_ab, y_ba = f(a, other_b), f(other_a, b)

    def at(function: object, p: Tensor, q: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return slope(function, p, q, u, v, smooth=smooth, whole=True)  # type: ignore[arg-type]

    of_a = midpoint(at(lambda t: f(t, b), a, other_a, y, y_ba), at(lambda t: f(t, other_b), a, other_a, y_ab, other_y))
    of_b = midpoint(at(lambda t: f(a, t), b, other_b, y, y_ab), at(lambda t: f(other_a, t), b, other_b, y_ba, other_y))
    return by_factors(op, [of_a, of_b])


@secant("pow", "rpow", "float_power", "atan2", "logaddexp", "logaddexp2", "xlogy", "xlog1py", "ldexp")
def smooth(op: Operation) -> Pull:
    """Averaged slopes of a smooth function. A constant exponent 2 gives m (a + a')."""
    exponent = op.args[1] if len(op.args) > 1 else op.kwargs.get("exponent")
    if op.name == "pow" and not isinstance(exponent, Tensor) and exponent == 2:
        return by_slope(op, op.operand(op.varying[0]) + op.other_operand(op.varying[0]))
    return averaged(op, smooth=True)


@secant("floor_divide")
def floor_divide(op: Operation) -> Pull:
    """Jumps, as ``div`` with a rounding mode (torch has no derivative of ``floor_divide``)."""
    rounding = {"rounding_mode": "floor", **op.kwargs}
    return averaged(replace(op, function=torch.div, kwargs=rounding), smooth=False)


@secant("fmod", "remainder", "copysign")
def kinked(op: Operation) -> Pull:
    """Averaged slopes of a function with kinks or jumps."""
    return averaged(op, smooth=False)


@secant("hypot")
def hypotenuse(op: Operation) -> Pull:
    """The L2 norm of two: m a_bar / y_bar, m b_bar / y_bar."""
    scale = op.output + op.other_output
    return by_factors(op, [quotient(op.operand(p) + op.other_operand(p), scale) for p in op.varying])
