"""Whatever is quadratic in its operands: the vector-Jacobian product at the midpoints.

y quadratic: y(v) - y(v') = J((v + v') / 2) (v - v'), exactly. Of degree 3 and 4 in all operands together (einsum of
three):
the mean of J at the two points of Gauss between v and v', which is exact to degree 4.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from absence_plugins.relevance.operation import Multiplier, Operation, Pull, RelevanceError, secant
from absence_plugins.relevance.secants.arguments import function_of_varying
from absence_plugins.relevance.secants.arithmetic import midpoint, quotient, vjp
from absence_plugins.relevance.secants.elementwise import by_slope


def at_midpoint(op: Operation) -> Pull:
    """The vector-Jacobian product at the midpoint of all varying operands."""
    function = function_of_varying(op)
    middle = [midpoint(op.operand(place), op.other_operand(place)) for place in op.varying]
    return lambda multiplier: tuple(vjp(function, middle, multiplier))


def at_gauss_points(op: Operation) -> Pull:
    """The mean of the vector-Jacobian products at the two points of Gauss."""
    function = function_of_varying(op)
    middle = [midpoint(op.operand(place), op.other_operand(place)) for place in op.varying]
    step = [(op.operand(place) - op.other_operand(place)) / math.sqrt(12) for place in op.varying]
    points = [[c + s for c, s in zip(middle, step, strict=True)], [c - s for c, s in zip(middle, step, strict=True)]]

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        one, two = (vjp(function, point, multiplier) for point in points)
        return tuple(midpoint(p, q) for p, q in zip(one, two, strict=True))

    return pull


@secant(
    *[
        "mv",
        "dot",
        "vdot",
        "inner",
        "outer",
        "ger",
        "tensordot",
        "kron",
        "cross",
        "linalg_cross",
        "vecdot",
        "linalg_vecdot",
        "addmv",
        "addr",
        "addbmm",
        "addcmul",
        "lerp",
        "var",
    ],
    *["var_mean", "mse_loss", "rmatmul"],
)
def quadratic(op: Operation) -> Pull:
    """Degree 2 in all operands together."""
    return at_midpoint(op)


@secant("einsum", "bilinear", "chain_matmul", "linalg_multi_dot")
def multilinear(op: Operation) -> Pull:
    """Linear in each operand: of the degree that is the number of varying operands."""
    if len(op.varying) <= 2:
        return at_midpoint(op)
    if len(op.varying) <= 4:
        return at_gauss_points(op)
    raise RelevanceError(f"{op.name} of {len(op.varying)} operands that depend on the input; contract them two by two")


@secant("square")
def square(op: Operation) -> Pull:
    """m (a + a')."""
    return by_slope(op, op.operand(op.varying[0]) + op.other_operand(op.varying[0]))


@secant("std", "std_mean")
def standard_deviation(op: Operation) -> Pull:
    """s = sqrt(var): m / (s + s'), then the variance at the midpoint; 0 where both are 0."""
    several = isinstance(op.output, (tuple, list))
    s, other = (op.output[0], op.other_output[0]) if several else (op.output, op.other_output)
    scale = quotient(1.0, s + other)
    variance = replace(op, name="var", function=torch.var_mean if several else torch.var)
    back = at_midpoint(variance)

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        if not isinstance(multiplier, tuple):
            return back(multiplier * scale)
        m, of_mean = multiplier
        return back((None if m is None else m * scale, of_mean))

    return pull
