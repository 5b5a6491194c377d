"""Redistribution rules, a second time as plain matrix algebra; and what they promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from secant_examples import RECTIFIED, C, V, example
from test_secants import build, check, exchanged
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.relevance.operation import SECANTS, Operation
from absence_plugins.relevance.secants.redistribution import AlphaBeta, Gamma, Spread, Stabilized, ZPlus
from absence_plugins.relevance.secants.weighted import WeightedPull

RULES = [Gamma(0.25), Gamma(3.0), ZPlus(), AlphaBeta(1.0), AlphaBeta(0.5)]
LAYERS = {
    "linear": example(F.linear, V(2, 6), C(4, 6), C(4)),
    "linear of three axes": example(F.linear, V(2, 3, 6, domain=RECTIFIED), C(4, 6)),
    "conv1d": example(torch.conv1d, V(2, 4, 7), C(6, 2, 3), C(6), stride=2, padding=1, groups=2),
    "conv2d": example(torch.conv2d, V(2, 2, 5, 5, domain=RECTIFIED), C(3, 2, 3, 3), C(3), 1, 1),
    "conv2d same": example(torch.conv2d, V(1, 2, 5, 4), C(3, 2, 2, 3), None, 1, "same", 1),
    "conv3d": example(torch.conv3d, V(1, 2, 3, 4, 3), C(2, 2, 2, 2, 2), None, (1, 2, 1), (0, 1, 1), (2, 1, 1)),
    "conv_transpose1d": example(torch.conv_transpose1d, V(2, 4, 5), C(4, 3, 3), C(6), 2, 1, 1, 2, 1),
    "conv_transpose2d": example(torch.conv_transpose2d, V(1, 2, 4, 4), C(2, 3, 3, 3), C(3), stride=2),
}


def with_rule(layer: str, rule: Any, seed: int, mode: str = "apart") -> Operation:
    op = build(layer.split()[0], LAYERS[layer], seed, torch.float64, mode)
    return Operation(**{**vars(op), "rule": rule})


def plain(op: Operation, m: Tensor, rule: Any) -> Tensor:
    """R of the inputs from the dense matrix of the layer, one output and one side at a time."""
    a, other = op.operand(op.varying[0]), op.other_operand(op.varying[0])
    args = (*op.args[:2], None, *op.args[3:])
    kwargs = {k: v for k, v in op.kwargs.items() if k != "bias"}
    matrix = torch.autograd.functional.jacobian(lambda v: op.function(v, *args[1:], **kwargs), a)
    matrix = matrix.reshape(m.numel(), a.numel())
    z = matrix * (a - other).reshape(1, -1)
    received = torch.zeros(a.numel(), dtype=a.dtype)
    for z_j, r_j in zip(z, (m * (op.output - op.other_output)).reshape(-1), strict=True):
        higher, lower = z_j.clamp(min=0), z_j.clamp(max=0)
        if higher.sum() < -lower.sum():
            higher, lower = lower, higher
        p, n = float(higher.sum().abs()), float(lower.sum().abs())
        if p == 0:
            continue
        if isinstance(rule, Gamma):
            parts = ((1 + rule.gamma) * higher.abs() - lower.abs()) / ((1 + rule.gamma) * p - n)
        else:
            cap = 0.0 if isinstance(rule, ZPlus) else rule.beta
            beta = min(n / (p - n), cap) if p > n else cap
            parts = (1 + beta) * higher.abs() / p - (beta * lower.abs() / n if n else 0.0)
        received += parts * r_j
    return received.reshape(a.shape)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_rule_is_the_plain_algebra(layer: str, rule: Any, seed: int) -> None:
    op = with_rule(layer, rule, seed)
    m = torch.randn(op.output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (found,) = SECANTS[op.name](op)(m)
    assert found is not None
    relevance = found * (op.operand((0,)) - op.other_operand((0,)))
    want = plain(op, m, rule)
    torch.testing.assert_close(relevance, want, atol=1e-11 * float(want.abs().max()), rtol=1e-9)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 2**31), mode=st.sampled_from(["apart", "near", "nearer", "equal", "mixed", "large", "small"])
)
def test_rule_is_exact_and_symmetric(layer: str, rule: Any, seed: int, mode: str) -> None:
    check(with_rule(layer, rule, seed, mode), seed, 1e-12)


@pytest.mark.parametrize("name", ["matmul", "mm", "bmm", "addmm", "baddbmm"])
def test_rule_of_a_product_with_a_constant_factor_is_that_of_a_linear_layer(name: str) -> None:
    batch = (2,) if name in ("bmm", "baddbmm") else ()
    function, added = getattr(torch, name), (C(*batch, 3, 5),) if name in ("addmm", "baddbmm") else ()
    for call in (
        example(function, *added, V(*batch, 3, 4), C(*batch, 4, 5)),
        example(function, *added, C(*batch, 3, 4), V(*batch, 4, 5)),
    ):
        op = Operation(**{**vars(build(name, call, 3, torch.float64, "apart")), "rule": Gamma(0.5)})
        check(op, 3, 1e-12)
        first = op.varying[0] == (len(added),)
        a, w = (op.args[-2], op.args[-1].mT) if first else (op.args[-1].mT, op.args[-2])
        other = op.other_args[-2] if first else op.other_args[-1].mT
        m = torch.ones_like(op.output)
        (found,) = SECANTS[name](op)(m)
        assert found is not None
        for i in range(2 if batch else 1):
            pick = (lambda t, i=i: t[i]) if batch else (lambda t: t)
            one, two = F.linear(pick(a), pick(w)), F.linear(pick(other), pick(w))
            layer = Operation(
                "linear", F.linear, (pick(a), pick(w)), {}, (pick(other), pick(w)), {}, one, two, ((0,),), Gamma(0.5)
            )
            (want,) = SECANTS["linear"](layer)(torch.ones_like(one))
            torch.testing.assert_close(pick(found) if first else pick(found).mT, want, atol=1e-12, rtol=1e-10)


def test_multipliers_of_a_rule_stay_bounded_where_the_outputs_hardly_differ() -> None:
    """R = m dy is divided by sums of contributions, never by dy: two large contributions that cancel."""
    a = torch.tensor([[1.0, 1.0 + 1e-14]], dtype=torch.float64)
    w = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    zero = torch.zeros_like(a)
    for rule in RULES:
        op = Operation("linear", F.linear, (a, w), {}, (zero, w), {}, F.linear(a, w), F.linear(zero, w), ((0,),), rule)
        (m,) = SECANTS["linear"](op)(torch.ones(1, 1, dtype=torch.float64))
        assert m is not None
        assert m.abs().max() <= 3


def test_multipliers_of_denormal_differences_are_finite() -> None:
    a, w = torch.full((1, 3), 1e-42), torch.tensor([[1.0, -2.0, 0.5]])
    zero = torch.zeros_like(a)
    for rule in RULES:
        op = Operation("linear", F.linear, (a, w), {}, (zero, w), {}, F.linear(a, w), F.linear(zero, w), ((0,),), rule)
        for each in (op, exchanged(op)):
            (m,) = SECANTS["linear"](each)(torch.ones(1, 1))
            assert m is not None
            assert m.isfinite().all()


@pytest.mark.parametrize("power", [0, 2])
@pytest.mark.parametrize("layer", LAYERS)
def test_flat_and_wsquare_are_the_plain_algebra(layer: str, power: int) -> None:
    op = with_rule(layer, Spread(power), 0)
    pull = SECANTS[op.name](op)
    assert isinstance(pull, WeightedPull)
    m = torch.randn_like(op.output)
    (zero,) = pull(m)
    assert zero is not None
    assert not zero.any()
    a, weight = op.operand((0,)), op.args[1] if len(op.args) > 1 else op.kwargs["weight"]
    args, kwargs = (None, *op.args[3:]), {k: v for k, v in op.kwargs.items() if k != "bias"}
    v = torch.ones_like(weight) if power == 0 else weight**2
    matrix = torch.autograd.functional.jacobian(lambda t: op.function(t, v, *args, **kwargs), a)
    matrix = matrix.reshape(m.numel(), a.numel())
    relevance = (m * (op.output - op.other_output)).reshape(-1)
    want = (matrix / matrix.sum(1, keepdim=True)).mT @ relevance
    torch.testing.assert_close(pull.spread, want.reshape(a.shape), atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("rule", [None, Gamma(0.25), Spread(2)], ids=str)
def test_what_a_stabilizer_absorbs_is_accounted_for(rule: Any) -> None:
    def stabilizer(change: Tensor) -> Tensor:
        return change + 0.1 * change.sign()

    op, plain_op = with_rule("conv2d", Stabilized(rule, stabilizer), 0), with_rule("conv2d", rule, 0)
    pull, plain_pull, m = SECANTS["conv2d"](op), SECANTS["conv2d"](plain_op), torch.randn_like(op.output)
    assert isinstance(pull, WeightedPull)
    assert isinstance(plain_pull, WeightedPull)
    change, difference = op.output - op.other_output, op.operand((0,)) - op.other_operand((0,))
    (found,), (want,) = pull(m), plain_pull(m * change / stabilizer(change))
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(pull.spread, plain_pull.spread)
    assert found is not None
    assert pull.absorbed is not None
    total = (found * difference).sum() + pull.absorbed.sum() + (0 if pull.spread is None else pull.spread.sum())
    assert abs(total - (m * change).sum()) < 1e-10


def test_parameters_of_a_rule_are_checked() -> None:
    with pytest.raises(ValueError, match="gamma=0 must be above 0"):
        Gamma(0)
    with pytest.raises(ValueError, match="beta=-1 must not be negative"):
        AlphaBeta(-1)
