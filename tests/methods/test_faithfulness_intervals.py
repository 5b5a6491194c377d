"""The 95 % interval of a score holds the true score as often as it says, from six samples on."""

from __future__ import annotations

import math

import pytest
import torch
from faithfulness_coverage import MADE, SCORED, SHARED, cover, make_pairs, score_many, score_patches
from scipy import stats
from torch import Tensor

from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.faithfulness.intervals import bound_ratio


def least(draws: int) -> float:
    """The share of draws below which a true 95 % falls once in a thousand."""
    return float(stats.binom.ppf(0.001, draws, 0.95)) / draws


def resamples(count: int) -> Tensor:
    return torch.randint(count, (500, count), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [6, 60])
def test_the_interval_holds_the_true_score(count: int) -> None:
    """The percentile bootstrap held it in 78 % of the draws of 6 samples, and in 86 % of those of 60."""
    held, bounded = cover(score_many("a map with some truth", 400), count, 200, 200)
    assert held >= least(200)
    assert bounded >= 0.95


@pytest.mark.parametrize("kind", SHARED)
def test_it_holds_where_most_samples_share_a_score(kind: str) -> None:
    """Resamples without one of the others have no spread: it held the truth in 42 % of the draws of 6, at width 0."""
    pairs = make_pairs(kind)
    for count in (6, 20):
        assert cover(pairs, count, 60, 60)[0] >= least(60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SCORED, "planted patches", *MADE])
def test_it_holds_for_every_kind_of_score_and_size(kind: str) -> None:
    """The table of docs/faithfulness.md, which was made with 1,000 draws and resamples and two more sizes."""
    pairs = score_many(kind) if kind in SCORED else make_pairs(kind) if kind in MADE else score_patches()
    found = {count: cover(pairs, count, 250, 400) for count in (6, 20, 60)}
    print(f"| {kind} | " + " | ".join(f"{held:.1%} ({bounded:.0%})" for held, bounded in found.values()) + " |")
    assert all(held >= least(250) for held, _ in found.values()), found


def test_a_limit_is_where_the_t_test_turns() -> None:
    """Fieller's limits, by plain algebra; equal sizes, so n - 1 degrees of freedom, and wide enough to be the hull's."""
    above = torch.tensor([0.2, 0.5, -0.1, 0.9, 0.4, 0.6, 0.3, 0.1], dtype=torch.float64)
    below = torch.ones(8, dtype=torch.float64)
    empty = torch.arange(8).expand(4, 8)  # every resample is the sample: the bootstrap adds nothing
    found = bound_ratio(above, below, empty, 1e-9)
    half = float(stats.t.ppf(0.975, 7) * above.std() / math.sqrt(8))
    assert (found.low, found.high) == pytest.approx((float(above.mean()) - half, float(above.mean()) + half))


def test_one_sample_that_weighs_too_much_bounds_nothing() -> None:
    sizes = torch.tensor([100.0, 1, 1, 1, 1, 1], dtype=torch.float64)
    found = bound_ratio(0.5 * sizes, sizes, resamples(6), 1e-9, 1.0)
    assert (found.low, found.high) == (-math.inf, 1.0)
    assert str(found) == "0.50 [no interval: too few samples]"


@pytest.mark.parametrize("top", [1.0, math.inf])
@pytest.mark.parametrize("ratio", [0.0, -0.3, 0.7, 1.0])
def test_samples_that_share_a_score_do_not_make_it_certain(ratio: float, top: float) -> None:
    """By hand, of equal sizes: the limits are those of the t test with one more sample, at either end of what can be."""
    for count in (6, 24):
        ones = torch.ones(count, dtype=torch.float64)
        found = bound_ratio(ratio * ones, ones, resamples(count), 1e-9, top)
        reach = top - ratio if top == 1.0 else max(abs(ratio), 1.0)
        limits = []
        for end in (min(0.0, ratio - reach), ratio + reach):
            more = torch.tensor([*[ratio] * count, end]).double()
            half = float(stats.t.ppf(0.975, count - 1) * more.std() / math.sqrt(count + 1))
            limits += [float(more.mean()) - half, float(more.mean()) + half]
        assert found.value == pytest.approx(ratio)
        assert (found.low, found.high) == pytest.approx((min(limits), min(max(limits), top)))


def test_a_dead_unit_has_no_certain_score() -> None:
    """Of a ReLU that is off on these samples the gradient is 0, as a random order; elsewhere it is not."""
    weights = torch.tensor([1.0, 1.0, -1.0, -2.0, -0.5, -3.0])

    def unit(x: Tensor) -> Tensor:
        return torch.relu(x @ weights + 3.0)

    x = torch.rand(400, 6, generator=torch.Generator().manual_seed(100)) * 2
    x = x[unit(x) == 0][:6]
    found = absence_scores(torch.nn.Identity(), x, unit, torch.zeros_like(x), progress=False, steps=6)
    assert found.score == pytest.approx(0)
    assert found.interval[0] < -0.3 < 0.3 < found.interval[1]
    assert "0.00 [0.00, 0.00]" not in found.sentence()


def test_samples_that_are_all_at_the_ceiling_do_not_make_it_certain() -> None:
    widths = []
    for count in (6, 24, 200):
        ones = torch.ones(count, dtype=torch.float64)
        found = bound_ratio(ones, ones, resamples(count), 1e-9, 1.0)
        assert found.value == found.high == 1.0
        widths.append(1 - found.low)
    assert widths[0] > 0.3 > widths[1] > 0.05 > widths[2] > 0
    assert math.isnan(bound_ratio(ones[:1], ones[:1], resamples(1), 1e-9, 1.0).low)
    assert math.isnan(bound_ratio(ones, 0 * ones, resamples(200), 1e-9).value)
