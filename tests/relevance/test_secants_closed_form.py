"""Secants whose values are known on paper, at the places where a formula could break."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from secant_examples import C, V, example
from test_secants import build, check, exchanged
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.relevance.operation import SECANTS, Operation, RelevanceError
from absence_plugins.relevance.secants import arithmetic
from absence_plugins.relevance.secants.arithmetic import slope

INF = math.inf


def of(name: str, function: Any, here: tuple[Any, ...], there: tuple[Any, ...], **kwargs: Any) -> Operation:
    varying = tuple((i,) for i, (a, b) in enumerate(zip(here, there, strict=True)) if a is not b)
    return Operation(
        name, function, here, kwargs, there, kwargs, function(*here, **kwargs), function(*there, **kwargs), varying
    )


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pulled(op: Operation, m: Any = None) -> Tensor:
    found = SECANTS[op.name](op)(torch.ones_like(op.output) if m is None else m)[0]
    assert found is not None
    return found


# -- elementwise --------------------------------------------------------------------------------------------------


def test_slope_across_the_kink_of_selu_is_the_divided_difference() -> None:
    a, other = tensor(2e-6, 1e-9), tensor(-1e-6, -2e-9)
    op = of("selu", F.selu, (a,), (other,))
    torch.testing.assert_close(pulled(op), (op.output - op.other_output) / (a - other), rtol=1e-12, atol=0)


def test_slope_of_equal_values_is_the_derivative() -> None:
    a = tensor(-1.0, 0.5, 2.0)
    for name in ("gelu", "tanh", "relu", "hardswish", "softplus"):
        function = getattr(F, name)
        with torch.enable_grad():
            leaf = a.clone().requires_grad_()
            (want,) = torch.autograd.grad(function(leaf).sum(), leaf)
        torch.testing.assert_close(pulled(of(name, function, (a,), (a.clone(),))), want)


def test_slope_near_a_pole_is_the_divided_difference() -> None:
    a, other = tensor(1e-6, 1e-12), tensor(1e-5, 3e-7)
    op = of("log", torch.log, (a,), (other,))
    torch.testing.assert_close(pulled(op), (a / other).log() / (a - other), rtol=1e-10, atol=0)


def test_no_noise_where_two_values_differ_by_rounding() -> None:
    a = torch.linspace(-4, 4, 999)
    found = pulled(of("gelu", F.gelu, (a,), (torch.nextafter(a, torch.tensor(INF)),)))
    with torch.enable_grad():
        leaf = a.clone().requires_grad_()
        (want,) = torch.autograd.grad(F.gelu(leaf).sum(), leaf)
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "every other"])
@pytest.mark.parametrize("smooth", [True, False])
def test_large_tensors_are_done_in_pieces(layout: str, smooth: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays in the cache is faster; the values are those of all at once. With gaps in memory it is all at once."""
    generator = torch.Generator().manual_seed(0)
    a, step = (torch.randn(2, 5, 7, 6, generator=generator) for _ in range(2))
    other = torch.where(a > 1, a, a + 0.02 * step)
    if layout == "channels last":
        a, other = (one.contiguous(memory_format=torch.channels_last) for one in (a, other))
    if layout == "every other":
        a, other = (one[..., ::2] for one in (a, other))
    y, other_y = F.silu(a), F.silu(other)
    sizes: list[int] = []

    def gradient(value: Tensor) -> Tensor:
        sizes.append(value.numel())
        return arithmetic.derivative(F.silu, value)

    whole = slope(F.silu, a, other, y, other_y, smooth=smooth, gradient=gradient)
    assert max(sizes) > 50
    sizes.clear()
    monkeypatch.setattr(arithmetic, "PIECE", 50)
    found = slope(F.silu, a, other, y, other_y, smooth=smooth, gradient=gradient)
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=0)
    assert found.stride() == whole.stride()
    assert (max(sizes) <= 50) == (layout != "every other")
    back = slope(F.silu, other, a, other_y, y, smooth=smooth, gradient=gradient)
    assert torch.equal(found, back)


def test_a_square_root_of_zero_on_both_sides_gets_nothing() -> None:
    assert pulled(of("sqrt", torch.sqrt, (tensor(0.0, 4.0),), (tensor(0.0, 1.0),))).tolist() == [0.0, 1 / 3]
    assert pulled(of("pow", torch.pow, (tensor(0.0), 0.5), (tensor(0.0), 0.5))).item() == 0.0


def test_signed_zeros_are_equal() -> None:
    zero = torch.tensor([0.0])
    for name in ("abs", "relu", "sign", "leaky_relu"):
        function = getattr(torch, name, None) or getattr(F, name)
        op = of(name, function, (zero,), (-zero,))
        assert torch.equal(pulled(op), pulled(exchanged(op)))


# -- products -----------------------------------------------------------------------------------------------------


def test_a_quotient_whose_denominator_changes_its_sign_stays_exact() -> None:
    op = of("div", torch.div, (tensor(3.0), tensor(2.0)), (tensor(1.0), tensor(-2.0)))
    check(op, 0, 1e-15)


@pytest.mark.parametrize("place", [0, 1])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_product_with_a_reciprocal_is_exact_and_symmetric(place: int, seed: int) -> None:
    operands = (V(3, 1), V(3, 4)) if place == 0 else (V(3, 4), V(3, 1))  # of any sign
    op = replace(build("mul", example(torch.mul, *operands), seed, torch.float64, "apart"), reciprocal=(place,))
    check(op, seed, 1e-12)


def test_a_handwritten_norm_is_bounded_against_a_constant_reference() -> None:
    """c * rsqrt(var), known as a quotient, has the multipliers of c / sqrt(var)."""
    c, other = torch.randn(1, 8, dtype=torch.float64), torch.full((1, 8), 1e-4, dtype=torch.float64)

    def scale(t: Tensor) -> Tensor:
        return (t.square().mean(1, keepdim=True) + 1e-8).rsqrt()

    op = replace(of("mul", torch.mul, (c, scale(c)), (other, scale(other))), reciprocal=(1,))
    quotient = of("div", torch.div, (c, 1 / scale(c)), (other, 1 / scale(other)))
    m = torch.ones_like(c)
    torch.testing.assert_close(pulled(op, m), pulled(quotient, m))
    assert pulled(op, m).max() < 10
    assert pulled(replace(op, reciprocal=None), m).max() > 1000
    of_scale, of_root = SECANTS["mul"](op)(m)[1], SECANTS["div"](quotient)(m)[1]
    assert of_scale is not None
    assert of_root is not None
    # d(1/s) = -ds / (s s')
    torch.testing.assert_close(of_root, -of_scale * scale(c) * scale(other))


def test_powers_of_three_factors_in_one_contraction_are_exact() -> None:
    for seed in range(5):
        check(
            build("einsum", example(torch.einsum, "i,i,i->", V(4), V(4), V(4)), seed, torch.float64, "large"),
            seed,
            1e-13,
        )


def test_a_contraction_of_five_varying_operands_is_refused() -> None:
    op = build("einsum", example(torch.einsum, "i,i,i,i,i->", *[V(2)] * 5), 0, torch.float64, "apart")
    with pytest.raises(RelevanceError, match="contract them two by two"):
        SECANTS["einsum"](op)


# -- softmax ------------------------------------------------------------------------------------------------------


def _steps(z: Tensor, other: Tensor) -> Tensor:
    """L by divided differences, in the plain form."""
    p, q = z.softmax(-1), other.softmax(-1)
    log_p, log_q = z.log_softmax(-1), other.log_softmax(-1)
    return torch.where((log_p - log_q).abs() < 1e-6, (p + q) / 2, (p - q) / (log_p - log_q))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.sampled_from([0.0, 5.0, 300.0]))
def test_softmax_is_the_plain_formula(seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, other = (torch.randn(3, 6, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    other, m = other + shift, torch.randn(3, 6, generator=generator, dtype=torch.float64)
    mean = _steps(z, other)
    share = mean / mean.sum(-1, keepdim=True)
    want = {
        "softmax": mean * (m - (share * m).sum(-1, keepdim=True)),
        "log_softmax": m - share * m.sum(-1, keepdim=True),
    }
    for name, expected in want.items():
        op = of(name, getattr(torch, name), (z,), (other,), dim=-1)
        torch.testing.assert_close(pulled(op, m), expected, atol=1e-10, rtol=1e-8)
        check(op, seed, 1e-12)
    op = of("logsumexp", torch.logsumexp, (z,), (other,), dim=-1)
    torch.testing.assert_close(pulled(op, m[:, 0]), m[:, :1] * share, atol=1e-10, rtol=1e-8)


def test_masked_positions_get_nothing() -> None:
    z, other = tensor(1.0, -INF, 2.0, -INF), tensor(0.0, -INF, 2.5, -INF)
    for name in ("softmax", "log_softmax", "logsumexp"):
        op = of(name, getattr(torch, name), (z,), (other,), dim=-1)
        m = torch.ones_like(op.output)
        if name != "logsumexp":
            m = torch.where(torch.isneginf(z), 0.0, torch.arange(4, dtype=torch.float64))
        found = pulled(op, m)
        assert found.isfinite().all()
        assert found[1] == found[3] == 0
        change = torch.where(m == 0, 0.0, m * (op.output - op.other_output)) if m.ndim else op.output - op.other_output
        difference = torch.where(torch.isneginf(z), 0.0, z - other)
        assert abs((found * difference).sum() - change.sum()) < 1e-14
        assert torch.equal(found, pulled(exchanged(op), m))


def test_logits_that_exp_cannot_hold() -> None:
    z, other = tensor(2000.0, -2000.0, 0.0), tensor(-2000.0, 2000.0, 0.0)
    for name in ("softmax", "log_softmax"):
        op = of(name, getattr(torch, name), (z,), (other,), dim=-1)
        check(op, 1, 1e-12)
        assert pulled(op, tensor(1.0, 2.0, 3.0)).isfinite().all()


def test_attention_with_rows_that_see_nothing() -> None:
    allowed = torch.tensor([[True, True], [False, False]])
    call = example(F.scaled_dot_product_attention, V(1, 2, 3), V(1, 2, 3), V(1, 2, 3), attn_mask=allowed)
    op = build("scaled_dot_product_attention", call, 0, torch.float64, "apart")
    if torch.__version__ < "2.5":  # such a row is NaN in torch itself
        assert op.output.isnan()[:, 1].all()
        return
    assert op.output.isfinite().all()
    check(op, 0, 1e-12)


def test_attention_equals_its_three_steps() -> None:
    call = example(F.scaled_dot_product_attention, V(1, 2, 4), C(1, 3, 4), C(1, 3, 5))
    op = build("scaled_dot_product_attention", call, 0, torch.float64, "apart")
    q, k, v = op.args
    z, other = q @ k.mT / 2, op.other_args[0] @ k.mT / 2
    m = torch.randn_like(op.output)
    mean = _steps(z, other)
    of_p = m @ v.mT
    of_z = mean * (of_p - (mean * of_p).sum(-1, keepdim=True) / mean.sum(-1, keepdim=True))
    torch.testing.assert_close(pulled(op, m), of_z @ k / 2)


# -- maxima -------------------------------------------------------------------------------------------------------


def test_a_rise_goes_to_the_winner_of_x_and_a_fall_to_that_of_r() -> None:
    x, r = tensor([5.0, 1.0], [0.0, 2.0]), tensor([3.0, 4.0], [6.0, 1.0])
    op = of("amax", torch.amax, (x,), (r,), dim=1)
    # 5 against 4: a rise of 1, x's winner rose by 2. 2 against 6: a fall of 4, r's winner fell by 6.
    torch.testing.assert_close(pulled(op), tensor([1 / 2, 0.0], [4 / 6, 0.0]))
    op = of("amin", torch.amin, (-x,), (-r,), dim=1)
    torch.testing.assert_close(pulled(op), tensor([1 / 2, 0.0], [4 / 6, 0.0]))
    pool = of("max_pool1d", F.max_pool1d, (x[:, None],), (r[:, None],), kernel_size=2)
    torch.testing.assert_close(pulled(pool)[:, 0], tensor([1 / 2, 0.0], [4 / 6, 0.0]))


def test_equal_maxima_keep_the_multiplier_only_where_the_winner_stays() -> None:
    x, r = tensor([5.0, 1.0], [5.0, 1.0]), tensor([5.0, 2.0], [1.0, 5.0])
    assert pulled(of("amax", torch.amax, (x,), (r,), dim=1)).tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_maximum_of_two_shares_by_the_slope_of_relu() -> None:
    op = of("maximum", torch.maximum, (tensor(3.0), tensor(1.0)), (tensor(0.0), tensor(2.0)))
    first, second = SECANTS["maximum"](op)(tensor(1.0))
    assert first is not None
    assert second is not None
    assert first.item() == 0.5  # a - b goes from -2 to 2: relu from 0 to 2
    assert second.item() == 0.5


# -- norms --------------------------------------------------------------------------------------------------------


def test_layer_norm_stays_bounded_against_a_constant_reference() -> None:
    """As c * rsqrt(var) the multiplier of a blank reference is 1 / sqrt(eps) times as large."""
    x, r = torch.randn(1, 64, dtype=torch.float64), torch.zeros(1, 64, dtype=torch.float64)
    op = of("layer_norm", torch.layer_norm, (x, (64,)), (r, (64,)))
    op = Operation(**{**vars(op), "varying": ((0,),)})
    found = pulled(op, torch.ones_like(x) * x.sign())
    assert found.abs().max() < 10


def test_the_pull_of_one_output_of_several() -> None:
    x, h, c = V(3, 2, 3), V(1, 2, 4), V(1, 2, 4)
    weights = [C(16, 3), C(16, 4), C(16), C(16)]
    op = build(
        "lstm",
        example(torch._VF.lstm, x, [h, c], weights, True, 1, 0.0, False, False, False),
        0,
        torch.float64,
        "apart",
    )
    for index in range(3):
        m = tuple(torch.randn_like(o) if i == index else None for i, o in enumerate(op.output))
        found = SECANTS["lstm"](op)(m)
        total = sum((f * (op.operand(p) - op.other_operand(p))).sum() for f, p in zip(found, op.varying, strict=True))
        want = (m[index] * (op.output[index] - op.other_output[index])).sum()
        assert abs(total - want) < 1e-12


def _refused(name: str, call: Any, message: str) -> None:
    op = build(name, call, 0, torch.float64, "apart")
    with pytest.raises(RelevanceError, match=message):
        SECANTS[name](op)


def test_refusals_name_the_remedy() -> None:
    weights = [C(16, 3), C(16, 4), C(16), C(16)]
    _refused(
        "batch_norm", example(torch.batch_norm, V(4, 3), None, None, None, None, True, 0.1, 1e-5, True), "model.eval"
    )
    _refused("rrelu", example(torch.rrelu, V(4, 3), 0.1, 0.3, True), "model.eval")
    _refused(
        "scaled_dot_product_attention",
        example(F.scaled_dot_product_attention, V(1, 2, 3), V(1, 2, 3), V(1, 2, 3), dropout_p=0.5),
        "model.eval",
    )
    lstm = torch._VF.lstm
    state = [V(2, 2, 4), V(2, 2, 4)]
    two = [*weights, C(16, 4), C(16, 4), C(16), C(16)]
    _refused("lstm", example(lstm, V(3, 2, 3), state, two, True, 2, 0.5, True, False, False), "model.eval")
    varying = [V(16, 3), *weights[1:]]
    state = [V(1, 2, 4), V(1, 2, 4)]
    _refused("lstm", example(lstm, V(3, 2, 3), state, varying, True, 1, 0.0, False, False, False), "weights")
    sizes = torch.tensor([2, 1])
    _refused("lstm", example(lstm, V(3, 3), sizes, state, weights, True, 1, 0.0, False, False), "padded sequence")
    _refused("linalg_matrix_norm", example(torch.linalg.matrix_norm, V(3, 4), "nuc"), "order 'nuc' has no rule")
    _refused("norm", example(torch.norm, V(3, 4), 0), "order 0 has no rule")
