"""Products and quotients: m b_bar for a; m / b_bar for a and -m y_bar / b_bar for b."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from absence_plugins.relevance.operation import Multiplier, Operation, Pull, secant
from absence_plugins.relevance.secants.arguments import Argument, Arguments, single
from absence_plugins.relevance.secants.arithmetic import midpoint, quotient, reduce_to
from absence_plugins.relevance.secants.binary import averaged
from absence_plugins.relevance.secants.tape import Pair, Tape


@secant("mul", "rmul")
def product(op: Operation) -> Pull:
    """y = a b: m b_bar for a, m a_bar for b; as a quotient where b is known to be a reciprocal (``op.reciprocal``)."""
    arguments = Arguments(op, input=None, other=None)
    factors = {"input": _middle(arguments, "other"), "other": _middle(arguments, "input")}
    if op.reciprocal is not None and len(op.varying) == 2:
        names = ("input", "other") if arguments["other"].place == op.reciprocal else ("other", "input")
        factors = dict(
            zip(names, _as_quotient(op, arguments[names[1]], factors[names[1]], factors[names[0]]), strict=True)
        )

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(op.varying)
        found = {k: reduce_to(m * _conjugate(factors[k]), arguments.value(k)) for k in arguments.varying()}
        return arguments.in_order(found)

    return pull


def _as_quotient(op: Operation, b: Argument, a_bar: Tensor, b_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Of y = a / s with b = 1 / s: m 2 b b' / (b + b') for a, m y_bar / b_bar for b; the product's where b changes its
    sign.

    So a handwritten norm c * rsqrt(var) is bounded where one pass is nearly constant, as c / sqrt(var) is.
    """
    same = b.value.sign() * b.other.sign() > 0
    of_a = torch.where(same, quotient(1.0, midpoint(1 / b.value, 1 / b.other)), b_bar)
    of_b = torch.where(same, midpoint(op.output, op.other_output) * quotient(1.0, b_bar), a_bar)
    return of_a, of_b


def _conjugate(factor: Any) -> Any:
    """The adjoint of a product with a complex factor is the product with its conjugate."""
    return factor.conj() if isinstance(factor, Tensor) and factor.is_complex() else factor


def _middle(arguments: Arguments, name: str) -> Any:
    argument = arguments[name]
    return midpoint(argument.value, argument.other) if argument.varies else argument.value


@secant("div", "rdiv", "rtruediv")
def ratio(op: Operation) -> Pull:
    """y = a / b: m / b_bar for a, -m y_bar / b_bar for b. With a rounding mode: averaged slopes."""
    if op.kwargs.get("rounding_mode") is not None:
        return averaged(op, smooth=False)
    names = ("input", "other") if op.name == "div" else ("other", "input")
    arguments = Arguments(op, **dict.fromkeys((*names, "rounding_mode")))
    a, b = arguments["input"], arguments["other"]
    of_a, of_b = quotient_multipliers(a.value, a.other, b.value, b.other, op.output, op.other_output)

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(op.varying)
        each = {"input": of_a, "other": of_b}
        found = {k: reduce_to(m * each[k], arguments.value(k)) for k in arguments.varying()}
        return arguments.in_order(found)

    return pull


def quotient_multipliers(a: Any, other_a: Any, b: Any, other_b: Any, y: Tensor, other_y: Tensor) -> tuple[Any, Tensor]:
    """What multiplies m for a and for b.

    Where b and b' have different signs b_bar can vanish; there m (1/b + 1/b') / 2 and -m a_bar / (b b').
    """
    like = y.new_ones(())
    b, other_b = b * like, other_b * like
    a_bar, b_bar = midpoint(a * like, other_a * like), midpoint(b, other_b)
    apart = b.sign() * other_b.sign() < 0
    of_a = torch.where(apart, midpoint(1 / b, 1 / other_b), quotient(1.0, b_bar))
    of_b = torch.where(
        apart, -a_bar / b / other_b - a_bar / other_b / b, -2 * midpoint(y, other_y) * quotient(1.0, b_bar)
    )
    return of_a, of_b * 0.5


@secant("addcdiv")
def add_quotient(op: Operation) -> Pull:
    """y = c + v a / b: m for c, v m / b_bar for a, -v m (a/b)_bar / b_bar for b."""
    arguments = Arguments(op, input=None, tensor1=None, tensor2=None)
    a, b = arguments["tensor1"], arguments["tensor2"]
    scale = op.kwargs.get("value", 1)
    of_a, of_b = quotient_multipliers(a.value, a.other, b.value, b.other, a.value / b.value, a.other / b.other)
    each: dict[str, Any] = {"input": 1.0, "tensor1": of_a * scale, "tensor2": of_b * scale}

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(op.varying)
        found = {k: reduce_to(m * each[k], arguments.value(k)) for k in arguments.varying()}
        return arguments.in_order(found)

    return pull


@secant("glu")
def gated_linear_unit(op: Operation) -> Pull:
    """a sigmoid(b) of the two halves of an axis."""
    arguments = Arguments(op, input=None, dim=-1)
    dim, tape = arguments.value("dim"), Tape()
    whole = Pair(arguments["input"].value, arguments["input"].other)
    a = tape.linear(lambda t: t.chunk(2, dim)[0], whole)
    b = tape.call("sigmoid", torch.sigmoid, tape.linear(lambda t: t.chunk(2, dim)[1], whole))
    y = tape.call("mul", torch.mul, a, b)

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        return (None,) if m is None else tuple(tape.pull({y: m}, [whole]))

    return pull
