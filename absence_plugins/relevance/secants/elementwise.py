"""Elementwise functions of one operand: m (f(a) - f(a')) / (a - a')."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.core.training import DRAWS, REMEDY
from absence_plugins.relevance.operation import Multiplier, Operation, Pull, RelevanceError, secant
from absence_plugins.relevance.secants.arguments import Arguments, function_of_varying, single
from absence_plugins.relevance.secants.arithmetic import Function, midpoint, quotient, reduce_to, slope

SMOOTH = [
    "gelu",
    "silu",
    "mish",
    "elu",
    "celu",
    "selu",
    "softplus",
    "sigmoid",
    "tanh",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "sin",
    "cos",
    "tan",
    "atan",
    "asin",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "acos",
    "atanh",
    "erf",
    "erfc",
    "erfinv",
    "logsigmoid",
    "log_sigmoid",
    "logit",
    "softsign",
    "tanhshrink",
    "lgamma",
    "digamma",
    "sinc",
    "erfcx",
    "ndtr",
    "log_ndtr",
    "i0",
    "i0e",
]
KINKED = [
    "relu6",
    "leaky_relu",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "threshold",
    "abs",
    "sign",
    "sgn",
    "floor",
    "ceil",
    "round",
    "trunc",
    "fix",
    "hardshrink",
    "softshrink",
    "nan_to_num",
    "frac",
]


def by_slope(op: Operation, values: Tensor) -> Pull:
    """m times the slopes, summed where the operand was broadcast."""
    operand = op.operand(op.varying[0])
    like = operand.new_empty(()).expand(operand.shape)  # its shape alone: the operand is not kept

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        return (None if m is None else reduce_to(m * values, like),)

    return pull


def unary_slope(op: Operation, smooth: bool) -> Tensor:
    """The slopes of an operation that one operand varies."""
    if len(op.varying) != 1:
        raise RelevanceError(f"{op.name} with {len(op.varying)} operands that depend on the input has no rule")
    (place,) = op.varying
    a, other = op.operand(place), op.other_operand(place)
    y, other_y = op.output, op.other_output
    others = [t for t in (*op.args, *op.kwargs.values()) if isinstance(t, Tensor) and t.ndim > 0 and t is not a]
    a, other = a.expand_as(y).to(y.dtype), other.expand_as(y).to(y.dtype)
    return slope(
        function_of_varying(op), a, other, y, other_y, smooth=smooth, whole=bool(others), cancels=op.name == "gelu",
        gradient=_gradient_of(op, y),
    )  # fmt: skip


def _gradient_of(op: Operation, like: Tensor) -> Function | None:
    """f' of the usual activations in one kernel; None for others."""
    one = like.new_ones(())
    if op.name == "silu":
        return lambda a: torch.ops.aten.silu_backward(one.expand(a.shape), a)
    if op.name == "gelu":
        form = op.kwargs.get("approximate", op.args[1] if len(op.args) > 1 else "none")
        return lambda a: torch.ops.aten.gelu_backward(one.expand(a.shape), a, approximate=form)
    return None


@secant(*SMOOTH)
def smooth(op: Operation) -> Pull:
    """m dy/da, and f' at the points of Gauss where a and a' are close."""
    return by_slope(op, unary_slope(op, smooth=True))


@secant(*KINKED)
def kinked(op: Operation) -> Pull:
    """m dy/da, and f'(a) where a = a'."""
    return by_slope(op, unary_slope(op, smooth=False))


@secant("relu")
def relu(op: Operation) -> Pull:
    """m dy/da in [0, 1] m; 1 where a = a' > 0."""
    a, other = op.operand(op.varying[0]), op.other_operand(op.varying[0])
    difference = a - other
    values = (op.output - op.other_output).div_(difference)
    if not values.sum().isfinite():
        values = torch.where(difference == 0, (a > 0).to(values.dtype), values)
    return by_slope(op, values)


@secant("rrelu")
def rrelu(op: Operation) -> Pull:
    """Leaky ReLU with the mean slope, in evaluation."""
    if op.kwargs.get("training", op.args[3] if len(op.args) > 3 else False):
        raise RelevanceError(f"rrelu {DRAWS}; {REMEDY}")
    return kinked(op)


@secant("exp")
def exponential(op: Operation) -> Pull:
    """The logarithmic mean of y and y': max(y, y') (1 - exp(-abs(d))) / abs(d)."""
    d = (op.operand(op.varying[0]) - op.other_operand(op.varying[0])).abs()
    d = torch.where(op.operand(op.varying[0]) == op.other_operand(op.varying[0]), 0.0, d)
    return by_slope(op, torch.maximum(op.output, op.other_output) * decay(d))


def decay(d: Tensor) -> Tensor:
    """(1 - exp(-d)) / d for d >= 0, and 1 at 0.

    >>> decay(torch.tensor([0.0, 1.0, float("inf")]))
    tensor([1.0000, 0.6321, 0.0000])
    """
    zero = d == 0
    return torch.where(zero, 1.0, -torch.expm1(-d) / d.masked_fill(zero, 1.0))


@secant("sqrt")
def square_root(op: Operation) -> Pull:
    """m / (y + y'); 0 where both are 0."""
    return by_slope(op, quotient(1.0, op.output + op.other_output))


@secant("rsqrt")
def reciprocal_square_root(op: Operation) -> Pull:
    """-m (y y')^2 / (y + y')."""
    product = op.output * op.other_output
    return by_slope(op, -product * (product / (op.output + op.other_output)))


@secant("reciprocal")
def reciprocal(op: Operation) -> Pull:
    """-m y y'."""
    return by_slope(op, -op.output * op.other_output)


@secant("prelu")
def parametric_relu(op: Operation) -> Pull:
    """max(a, 0) + w min(a, 0), one w per channel: slopes in a, and m min(a, 0) averaged for w."""
    arguments = Arguments(op, input=None, weight=None)
    argument, weight = arguments["input"], arguments["weight"]
    a, other = argument.value, argument.other
    shape = (1, -1, *(1 for _ in a.shape[2:])) if a.ndim > 1 else (-1,)
    w = (midpoint(weight.value, weight.other) if weight.varies else weight.value).reshape(shape)
    equal = a == other
    low, rise = midpoint(a.clamp(max=0), other.clamp(max=0)), (a.relu() - other.relu())
    of_high = torch.where(equal, (a > 0).to(a.dtype), rise / (a - other).masked_fill(equal, 1.0))
    values = of_high + w * (1 - of_high)

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(op.varying)
        found = {"input": m * values}
        if weight.varies:
            found["weight"] = (m * low).sum_to_size(w.shape).reshape(weight.value.shape)
        return arguments.in_order(found)

    return pull
