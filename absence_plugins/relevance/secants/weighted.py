"""Linear layers, convolutions and products with constant weights, by Epsilon or by a redistribution rule.

Epsilon: m_i = W^T m. Gamma, ZPlus, AlphaBeta: m_i = (W^T (of_z R) + sign(da_i) abs(W)^T (of_size R)) / 2 with R = m dy
and the coefficients of the rule (redistribution.py); no division by da. Weights that depend on the input: the
vector-Jacobian product at the midpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from absence_plugins.relevance.operation import Multiplier, Operation, Place, Pull, secant
from absence_plugins.relevance.secants.arguments import Arguments, single
from absence_plugins.relevance.secants.arithmetic import midpoint, quotient, reduce_to, vjp
from absence_plugins.relevance.secants.convolutions import Operator, convolution_operator
from absence_plugins.relevance.secants.quadratic import at_midpoint
from absence_plugins.relevance.secants.redistribution import Redistribution, Spread, Stabilized, multiplier_coefficients

WEIGHTED = frozenset(("linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))))


class WeightedPull:
    """m of the output -> m of the input. Of its last call it keeps what no multiplier carries.

    Attributes:
        spread: R of the input by Flat or WSquare (the multipliers are 0 then); None with other rules.
        absorbed: R of the output that a stabilizer took away; None without one.
    """

    def __init__(self, op: Operation, operator: Operator, place: Place, weight: Tensor) -> None:
        operand = op.operand(place)
        self._operator, self._weight = operator, weight
        self._like = operand.new_empty(()).expand(operand.shape)  # its shape alone: the operand itself is not kept
        # Epsilon needs no dy; on a record of Epsilon there may be no output
        self._change: Tensor = operand.new_empty(()) if op.rule is None else op.output - op.other_output
        rule, self._passed = op.rule, None
        if isinstance(rule, Stabilized):
            self._passed, rule = rule.passed(self._change), rule.rule
        self._back: Callable[[Tensor], Tensor] = lambda m: operator.transpose(m, weight)
        self._power = rule.power if isinstance(rule, Spread) else None
        if rule is not None and self._power is None:
            self._back = redistribute(operator, rule, operand - op.other_operand(place), weight, self._change)
        self.spread: Tensor | None = None
        self.absorbed: Tensor | None = None
        self.support: Tensor | None = None  # where Flat and WSquare count the input: 1, elsewhere 0

    def __call__(self, multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        """The pull."""
        m = single(multiplier)
        if m is None:
            return (None,)
        if self._passed is not None:
            self.absorbed = m * (1 - self._passed) * self._change
            m = m * self._passed
        if self._power is not None:
            counted = torch.ones_like(self._like) if self.support is None else self.support
            self.spread = spread(self._operator, self._weight, counted, m * self._change, self._power)
            return (torch.zeros_like(self._like),)
        return (reduce_to(self._back(m), self._like),)


def redistribute(
    operator: Operator, rule: Redistribution, da: Tensor, weight: Tensor, change: Tensor
) -> Callable[[Tensor], Tensor]:
    """The pull of a rule: one forward pass for the gross contributions, two transposes."""
    of_z, of_size = multiplier_coefficients(rule, change, operator.forward(da.abs(), weight.abs()))
    sign = da.sign_()

    def pull(m: Tensor) -> Tensor:  # abs(W) anew: kept for all layers it takes as much memory as the model
        return operator.transpose(m * of_z, weight).addcmul_(sign, operator.transpose(m * of_size, weight.abs()))

    return pull


def spread(operator: Operator, weight: Tensor, counted: Tensor, relevance: Tensor, power: int) -> Tensor:
    """R_i = sum_j c_i v_ij / (sum_i c_i v_ij) R_j with v = abs(w)^power; c is 0 for padding, 1 elsewhere."""
    v = torch.ones_like(weight) if power == 0 else weight.abs() ** power
    return counted * operator.transpose(quotient(relevance, operator.forward(counted, v)), v)


@secant("linear")
def linear(op: Operation) -> Pull:
    """y = a W^T + b."""
    arguments = Arguments(op, input=None, weight=None, bias=None)
    if arguments.varying() != ["input"]:
        return at_midpoint(op)
    return WeightedPull(op, LINEAR, op.varying[0], arguments.value("weight"))


LINEAR = Operator(lambda a, w: torch.nn.functional.linear(a, w), lambda m, w: m @ w if w.ndim > 1 else m[..., None] * w)


@secant("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(op: Operation) -> Pull:
    """y = a * W + b; the transposed convolution alike."""
    names: dict[str, Any] = {"input": None, "weight": None, "bias": None, "stride": 1, "padding": 0}
    if "transpose" in op.name:
        names |= {"output_padding": 0, "groups": 1, "dilation": 1}
    else:
        names |= {"dilation": 1, "groups": 1}
    arguments = Arguments(op, **names)
    if arguments.varying() != ["input"]:
        return at_midpoint(op)
    settings = {key: arguments.value(key) for key in names if key not in ("input", "weight", "bias")}
    weight = arguments.value("weight")
    operator = convolution_operator(op.name, arguments.value("input").shape, weight.shape[2:], settings)
    return WeightedPull(op, operator, op.varying[0], weight)


@secant("matmul", "mm", "bmm", "addmm", "baddbmm")
def matrix_product(op: Operation) -> Pull:
    """A B (+ C): m B_bar^T for A, A_bar^T m for B; with a rule in force and one constant factor as a linear layer."""
    if op.name in ("addmm", "baddbmm"):
        arguments = Arguments(op, input=None, first=None, second=None)
        factors = ("first", "second")
    else:
        arguments = Arguments(op, input=None, other=None)
        factors = ("input", "other")
    names = arguments.varying()
    one, two = (arguments[name] for name in factors)
    if op.rule is not None and len(names) == 1 and names[0] in factors:
        is_first = names[0] == factors[0]
        return _product_by_rule(op, is_first, (two if is_first else one).value)
    if factors[0] == "first" or one.value.ndim < 2 or two.value.ndim < 2:
        return at_midpoint(op)
    middle_one = midpoint(one.value, one.other) if one.varies else one.value
    middle_two = midpoint(two.value, two.other) if two.varies else two.value

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(names)
        found: dict[str, Tensor] = {}
        if "input" in names:
            found["input"] = reduce_to(m @ middle_two.mH, one.value)
        if "other" in names:
            found["other"] = reduce_to(middle_one.mH @ m, two.value)
        return arguments.in_order(found)

    return pull


def _product_by_rule(op: Operation, is_first: bool, weight: Tensor) -> Pull:
    place = op.varying[0]
    scale: float = op.kwargs.get("alpha", 1) if op.name in ("addmm", "baddbmm") else 1

    def forward(a: Tensor, w: Tensor) -> Tensor:
        product: Tensor = a @ w if is_first else w @ a
        return product * abs(scale)

    def transpose(m: Tensor, w: Tensor) -> Tensor:
        return vjp(lambda a: forward(a, w), [op.operand(place)], m)[0]

    return WeightedPull(op, Operator(forward, transpose), place, weight if scale >= 0 else -weight)
