"""The 95 % interval of a score holds the true score as often as it says, from six samples on."""

from __future__ import annotations

import math

import pytest
import torch
from faithfulness_coverage import MADE, SCORED, cover, make_pairs, score_many, score_patches
from scipy import stats
from torch import Tensor

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
