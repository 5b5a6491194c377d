"""Every loss against its formula written a second time, and its gradient against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from absence_plugins.methods.directions import losses
from absence_plugins.methods.directions.signals import Moments, estimate_signals, selected

CASES = given(seed=st.integers(0, 10_000), positions=st.integers(1, 6), detectors=st.integers(2, 5))
QUICK = settings(max_examples=12, deadline=None, derandomize=True)


def drawn(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(logits: Tensor) -> list[list[float]]:
    return [[1 / (1 + math.exp(-z)) for z in row] for row in logits.tolist()]


def entropies(y: list[list[float]]) -> list[float]:
    shares = [[value / sum(row) for value in row] for row in y]
    return [-sum(q * math.log2(q) for q in row if q > 0) for row in shares]


def soft_maximum(values: list[float]) -> float:
    below = sum(value**4 for value in values)
    return sum(value**5 for value in values) / below if below else 0.0


@QUICK
@CASES
def test_sparsity_and_its_bound(seed: int, positions: int, detectors: int) -> None:
    logits = drawn(seed, positions, detectors)
    _, log_q = losses.log_shares(logits)
    expected = entropies(probabilities(logits))
    assert float(losses.sparsity(log_q)) == pytest.approx(sum(expected) / positions)
    assert float(losses.sparsity_bound(log_q)) == pytest.approx(soft_maximum(expected))


@QUICK
@CASES
def test_max_activation(seed: int, positions: int, detectors: int) -> None:
    logits = drawn(seed, positions, detectors)
    y = probabilities(logits)
    expected = sum(-sum(v / sum(row) * math.log2(v) for v in row) for row in y) / positions
    assert float(losses.max_activation(*losses.log_shares(logits))) == pytest.approx(expected)


@QUICK
@CASES
def test_virtual_detector_is_the_product(seed: int, positions: int, detectors: int) -> None:
    logits = drawn(seed, positions, detectors)
    y = [[*row, math.prod(1 - v for v in row)] for row in probabilities(logits)]
    assert float(losses.sparsity(losses.log_shares(logits, virtual=True)[1])) == pytest.approx(
        sum(entropies(y)) / positions
    )


@QUICK
@CASES
def test_inactive_and_excessive(seed: int, positions: int, detectors: int) -> None:
    y = drawn(seed, positions, detectors).sigmoid()
    means = [sum(v**1.1 for v in column) / positions for column in y.T.tolist()]
    least = 0.9 / detectors
    expected = sum(max(least - m, 0) / least for m in means) / detectors
    assert float(losses.inactive_classifier(y, 0.9)) == pytest.approx(expected)
    rho = 0.4
    assert float(losses.excessively_active(y, rho)) == pytest.approx(
        soft_maximum([max(m - rho, 0) / (1 - rho) for m in means])
    )
    assert float(losses.excessively_active(y, 1.2)) == 0


@QUICK
@CASES
def test_margin_orthogonality_and_uncertainty(seed: int, positions: int, detectors: int) -> None:
    margins = drawn(seed, detectors).exp()
    assert float(losses.max_margin(margins)) == pytest.approx(sum(1 / m for m in margins.tolist()) / detectors)
    w, s = drawn(seed, 6, detectors), drawn(seed + 1, 6, detectors)
    squares = [
        (float(w[:, i] @ s[:, j]) / float(w[:, i].norm() * s[:, j].norm())) ** 2
        for i in range(detectors)
        for j in range(detectors)
        if i != j
    ]
    assert float(losses.filter_signal_orthogonality(w, s)) == pytest.approx(
        math.sqrt(sum(squares) / len(squares)), abs=1e-6
    )
    outputs = drawn(seed, positions, 4)
    expected = []
    for row in outputs.tolist():
        total = sum(math.exp(v) for v in row)
        expected.append(sum(math.exp(v) / total * math.log2(math.exp(v) / total) for v in row))
    assert float(losses.uncertainty(outputs)) == pytest.approx(sum(expected) / positions)


def test_region_shift_puts_every_position_on_all_hyperplanes() -> None:
    x, w, b, s = drawn(0, 7, 5), drawn(1, 5, 3), drawn(2, 3), drawn(3, 5, 3)
    logits = x @ w - b
    shift = losses.region_shift(logits, w)
    assert torch.allclose(shift, logits @ torch.linalg.pinv(w), atol=1e-3)
    assert torch.allclose((x - shift) @ w - b, torch.zeros(7, 3, dtype=torch.float64), atol=1e-2)
    constrained = losses.region_shift(logits, w, s)
    assert torch.allclose(constrained, logits @ (s @ torch.linalg.pinv(w.T @ s)).T, atol=1e-2)
    outside = constrained - constrained @ torch.linalg.pinv(s).T @ s.T
    assert float(outside.abs().max()) < 1e-8  # only along the signals


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: losses.sparsity(losses.log_shares(z)[1]),
        lambda z: losses.sparsity(losses.log_shares(z, virtual=True)[1]),
        lambda z: losses.sparsity_bound(losses.log_shares(z)[1]),
        lambda z: losses.max_activation(*losses.log_shares(z)),
        lambda z: losses.inactive_classifier(z.sigmoid(), 0.9),
        lambda z: losses.excessively_active(z.sigmoid(), 0.1),
        lambda z: losses.max_margin(z.exp()),
        lambda z: losses.filter_signal_orthogonality(z, z.roll(1, 0) + 0.3),
        lambda z: losses.uncertainty(z),
        lambda z: losses.region_shift(z, torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3) ** 2),
    ],
)
def test_gradients(loss: object) -> None:
    z = drawn(4, 6, 3, scale=1.0).requires_grad_()
    torch.manual_seed(0)
    # the soft maximum measures in units of its largest value; that unit is a constant of the gradient, and exact
    assert torch.autograd.gradcheck(loss, (z,))


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[-1e4, -2e4], [1e4, 1e4]], requires_grad=True)
    log_y, log_q = losses.log_shares(logits)
    total = (
        losses.sparsity(log_q) + losses.max_activation(log_y, log_q) + losses.inactive_classifier(logits.sigmoid(), 0.9)
    )
    (gradient,) = torch.autograd.grad(total, logits)
    assert bool(total.isfinite())
    assert bool(gradient.isfinite().all())


@QUICK
@CASES
def test_leading_axes_are_independent(seed: int, positions: int, detectors: int) -> None:
    logits = drawn(seed, 3, positions, detectors)
    for loss in (
        lambda z: losses.sparsity_bound(losses.log_shares(z)[1]),
        lambda z: losses.max_activation(*losses.log_shares(z)),
        lambda z: losses.excessively_active(z.sigmoid(), 0.3),
        lambda z: losses.uncertainty(z),
    ):
        assert torch.allclose(loss(logits), torch.stack([loss(one) for one in logits]))


def test_signals_are_covariance_over_variance() -> None:
    x, z = drawn(0, 50, 4), drawn(1, 50, 3)
    mask = z > 0
    found = estimate_signals(x, z, mask)
    for i in range(3):
        rows, values = x[mask[:, i]], z[mask[:, i], i]
        centered = values - values.mean()
        expected = ((rows - rows.mean(0)) * centered[:, None]).mean(0) / (centered**2).mean()
        assert torch.allclose(found[:, i], expected)
    pieces = Moments()
    for part in (slice(0, 20), slice(20, 50)):
        pieces.add(x[part], z[part], mask[part])
    assert torch.allclose(pieces.signals()[0], found)
    alone = selected(z, "exclusive")
    assert bool((alone.sum(1) <= 1).all())
    assert bool((alone <= selected(z, "positive")).all())


def test_a_linear_detector_reads_its_own_signal_once() -> None:
    x, w = drawn(2, 60, 4), drawn(3, 4, 2)
    z = x @ w
    signals = estimate_signals(x, z, z > 0)
    assert torch.allclose((w * signals).sum(0), torch.ones(2, dtype=torch.float64))
