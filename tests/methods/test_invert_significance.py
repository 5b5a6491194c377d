"""Permutation p-values: equal to counting where counts are small, near it where moments are used."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from absence_plugins.methods.invert import significance
from absence_plugins.methods.invert.groups import average, center_ranks, collapse, strata_of
from absence_plugins.methods.invert.significance import permutation_p


def count(values: np.ndarray, drawn: int, total: float) -> float:
    sums = [values[list(chosen)].sum() for chosen in itertools.combinations(range(len(values)), drawn)]
    return float(np.mean(np.array(sums) >= total - 1e-9))


def test_small_counts_and_ties_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "LIKELY", 2.0)
    rng = np.random.default_rng(0)
    for _ in range(150):
        n = int(rng.integers(3, 12))
        values = center_ranks(rng.integers(0, rng.integers(1, 20) + 1, n).astype(float))
        holds = rng.random(n) < rng.uniform(0.1, 0.9)
        if 0 < holds.sum() < n and np.ptp(values) > 0:
            expected = count(values, int(holds.sum()), float(values @ holds))
            assert permutation_p(values, holds) == pytest.approx(expected, rel=1e-12)


def test_an_only_positive_has_no_p_below_one_over_the_samples() -> None:
    values = center_ranks(np.arange(100.0))
    assert permutation_p(values, np.arange(100) == 99) == pytest.approx(0.01)
    sparse = center_ranks(np.array([0.0] * 198 + [1.0, 2.0]))  # two that are not 0, both positive
    assert permutation_p(sparse, np.arange(200) >= 198) == pytest.approx(1 / (200 * 199 / 2))


@pytest.mark.parametrize(
    ("samples", "nonzero", "positives"),
    [(1000, 1000, 40), (1000, 1000, 500), (2000, 150, 60), (5000, 200, 200), (5000, 50, 2500), (20000, 400, 20)],
)
def test_moments_agree_with_random_draws(samples: int, nonzero: int, positives: int) -> None:
    rng = np.random.default_rng(samples + nonzero)
    activations = np.zeros(samples)
    activations[:nonzero] = rng.random(nonzero) + 0.1
    values = center_ranks(activations)
    sums = np.array([values[rng.choice(samples, positives, replace=False, shuffle=False)].sum() for _ in range(4000)])
    for share in (0.2, 0.05, 0.01):
        total = float(np.quantile(sums, 1 - share))
        drawn = (sums >= total).mean()
        p = significance._drawn_p(significance.Distinct.of(values), positives, total)
        assert p == pytest.approx(drawn, abs=4 * np.sqrt(drawn / 4000) + 0.06 * drawn)


@pytest.mark.parametrize(
    ("samples", "holding", "rate"),
    [(3000, 450, 0.4), (3000, 900, 0.45), (20000, 990, 0.03), (40, 7, 0.4), (9000, 4000, 0.4)],
)
def test_two_values_are_hypergeometric(samples: int, holding: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    holds = np.arange(samples) < holding
    fires = rng.random(samples) < rate + 0.1 * holds
    expected = hypergeom.sf(fires[holds].sum() - 1, samples, fires.sum(), holding)
    for values in (center_ranks(fires.astype(float)), fires.astype(float)):
        assert permutation_p(values, holds) == pytest.approx(expected, rel=1e-6)


def test_over_a_thousand_samples_outside_the_tie_are_counted_without_overflow() -> None:
    # 1,096 of one value, 4 of a higher one, 1,900 of the tie between; 900 drawn: hypergeometric in two steps
    values = np.repeat([0.0, 1.0, 2.0], [1096, 1900, 4])
    for ones, twos in ((580, 4), (600, 3), (640, 0)):
        holds = np.concatenate([np.arange(1096) < 900 - ones - twos, np.arange(1900) < ones, np.arange(4) < twos])
        drawn = np.arange(5)
        rest = hypergeom.sf(ones + 2 * twos - 2 * drawn - 1, 2996, 1900, 900 - drawn)
        expected = float(hypergeom.pmf(drawn, 3000, 4, 900) @ rest)
        assert permutation_p(values, holds) == pytest.approx(expected, rel=1e-6)


def test_nan_never_becomes_a_p() -> None:
    for values, holds in (([0, np.nan, 1], [0, 1, 1]), ([0, np.inf, 1], [0, 1, 1]), ([0, 1, 2], [0, np.nan, 1])):
        with pytest.raises(ValueError, match="NaN and infinity have no permutation p-value"):
            permutation_p(np.array(values), np.array(holds))


def test_constant_values_tell_nothing() -> None:
    assert permutation_p(np.zeros(5), np.array([0, 0, 1, 1, 1])) == 1.0
    assert permutation_p(np.arange(5), np.ones(5)) == 1.0


def test_groups_of_shares_agree_with_random_draws() -> None:
    rng = np.random.default_rng(3)
    values, share = center_ranks(rng.normal(size=40)), rng.integers(0, 4, 40) / 3
    drawn = np.array([rng.permutation(values) @ share for _ in range(20_000)])
    for level in (0.3, 0.05, 0.01):
        total = float(np.quantile(drawn, 1 - level))
        assert significance._mixed_p(values, share, total) == pytest.approx((drawn >= total).mean(), rel=0.25)
    large = center_ranks(rng.normal(size=600))
    assert 0 <= permutation_p(large, rng.integers(0, 3, 600) / 2) <= 1


def test_values_change_places_within_strata_only() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [4, 4, 1])
    orders = np.array([
        [*one, *(4 + np.array(two)), 8] for one in itertools.permutations(range(4)) for two in itertools.permutations(range(4))
    ])  # fmt: skip
    asked = 0
    for _ in range(150):
        values = center_ranks(rng.normal(size=9))
        holds = rng.choice([0.0, 1.0, 0.5], 9)
        expected = (values[orders] @ holds >= values @ holds - 1e-9).mean()
        if expected < 0.15:
            assert permutation_p(values, holds, strata) == pytest.approx(expected, abs=4 * np.sqrt(expected / 9999))
            asked += 1
    assert asked > 3


@pytest.mark.parametrize("share", [(1.0, 0.0), (0.7, 0.1)])
def test_groups_of_unequal_size_are_calibrated(share: tuple[float, float]) -> None:
    sizes = np.repeat([1, 30], [10, 60]) if share[0] == 1 else np.repeat([1, 30], [20, 60])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    likely, found, runs = np.where(sizes == 1, *share), 0, 120
    for run in range(runs):
        rng = np.random.default_rng(run)
        holds = (rng.random(len(sizes)) < likely)[groups]
        ranks = collapse(center_ranks(rng.normal(size=len(groups))), groups)  # a mean of 30 varies less than one alone
        found += permutation_p(ranks, average(holds, groups), strata_of(groups)) <= 0.05
    assert found <= binom.ppf(0.999, runs, 0.05)
    if share[0] == 1:
        assert found == 0  # the size says all of the concept, so nothing can be told apart
