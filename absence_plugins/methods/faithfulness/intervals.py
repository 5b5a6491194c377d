"""Intervals of a ratio of sums over few samples that hold the truth as often as they say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from absence_plugins.core.table import format_interval

RESAMPLES = 2000
LEVEL = 0.95
FEW = 5  # with fewer samples that differ from the rest a resample often has none of them
SAME = 0.05  # of the mean size: samples that lie nearer to one ratio share it


@dataclass(frozen=True)
class Ratio:
    """A number and its 95 % interval over the inputs.

    NaN where it does not exist; infinite limits where the samples are too few, or one of them weighs too much, to bound
    it.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}{format_interval((self.low, self.high))}"


def bound_ratio(above: Tensor, below: Tensor, drawn: Tensor, tiny: float, top: float = math.inf) -> Ratio:
    """sum(above) / sum(below) with its 95 % interval; NaN where the sum below is not above rounding.

    The interval is the hull of two: the studentized bootstrap, t = (s* - s) / se*, which corrects the skew; and
    Fieller's, with a t quantile of (sum below)^2 / sum(below^2) - 1 degrees of freedom, the number of samples that
    carry the denominator. Either alone holds the truth too seldom below 20 samples. A ratio that cannot exceed ``top``
    is cut there. Where at least half of the samples, and all but fewer than five, share one ratio m (within 0.05), the
    spread says nothing about the rest, and the limits are also Fieller's with one more sample of mean size: once as far
    above m as a ratio can be (``top``; without one 2 m, or m + 1 where that is more), once as far below m, or 0 where
    that is lower. Of ``top`` the half is not asked for. Measured coverage: docs/faithfulness.

    Source: Fieller, JRSS B 1954; Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 12; one more sample:
    Agresti and Coull, The American Statistician 1998.

    above, below: [N] float64; drawn: [resamples, N] indices; tiny: what one sample's value may be off by rounding.
    Fewer than two samples have no interval.

    >>> above, below = torch.tensor([1.0, 1.5, 2.0, 1.0, 1.5, 2.0]).double(), torch.full((6,), 2.0).double()
    >>> drawn = torch.randint(6, (2000, 6), generator=torch.Generator().manual_seed(0))
    >>> print(bound_ratio(above, below, drawn, 1e-9))
    0.75 [0.46, 1.04]
    """
    count, total = len(below), float(below.sum())
    if not total > tiny * count:
        return Ratio(math.nan, math.nan, math.nan)
    value = float(above.sum()) / total
    if count < 2:
        return Ratio(value, math.nan, math.nan)
    freedom = total**2 / float(below.square().sum()) - 1
    limits = [_bound_by_bootstrap(above, below, drawn), _bound_by_fieller(above, below, freedom)]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    for shared in _find_shared(above, below, top):
        reach = top - shared if math.isfinite(top) else max(abs(shared), 1.0)
        size = below.mean()
        for end in (min(0.0, shared - reach), shared + reach):
            more = _bound_by_fieller(torch.cat([above, (end * size)[None]]), torch.cat([below, size[None]]), freedom)
            low, high = min(low, more[0]), max(high, more[1])
    return Ratio(value, min(low, value), max(min(high, top), value))


def _find_shared(above: Tensor, below: Tensor, top: float) -> list[float]:
    """The ratios near which all samples are but fewer than FEW: ``top``, or that of at least half of the samples."""
    size = below.mean()
    room = below > 1e-3 * size
    # all but FEW - 1 share it, so one of the first FEW with a ratio has it
    some = (above[room][:FEW] / below[room][:FEW]).tolist()
    found: list[float] = []
    for ratio in [top] * math.isfinite(top) + some:
        shares = (above - ratio * below).abs() <= SAME * size
        is_shared = ratio == top or 2 * int((shares & room).sum()) >= int(room.sum())
        if int((~shares).sum()) < FEW and is_shared and all(abs(ratio - other) > SAME for other in found):
            found.append(ratio)
    return found


def _bound_by_fieller(above: Tensor, below: Tensor, freedom: float) -> tuple[float, float]:
    """All ratios s for which the mean of above - s below differs from 0 by less than its t quantile of errors."""
    count = len(above)
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, max(freedom, 0.5))) ** 2
    (above_spread, both), (_, below_spread) = (torch.cov(torch.stack([above, below])) * quantile / count).tolist()
    mean_above, mean_below = float(above.mean()), float(below.mean())
    square, half, rest = (
        mean_below**2 - below_spread,
        mean_above * mean_below - both,
        mean_above**2 - above_spread,
    )
    if square <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(half**2 - square * rest, 0.0))
    return (half - root) / square, (half + root) / square


def _bound_by_bootstrap(above: Tensor, below: Tensor, drawn: Tensor) -> tuple[float, float]:
    """Studentized; nothing (inf, -inf) where most resamples have no spread."""
    value, error = _with_error(above, below)
    values, errors = _with_error(above[drawn], below[drawn])
    usable = (errors > 1e-12 * (value.abs() + errors)) & torch.isfinite(values)
    if float(error) == 0 or int(usable.sum()) < len(drawn) / 2:
        return math.inf, -math.inf
    quantiles = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=values.dtype)
    low, high = ((values - value) / errors)[usable].quantile(quantiles)
    return float(value - high * error), float(value - low * error)


def _with_error(above: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    """The ratio of the sums over the last axis, and its standard error by linearization."""
    count, total = above.shape[-1], below.sum(-1)
    value = above.sum(-1) / total
    left = above - value[..., None] * below
    return value, (left.square().sum(-1) * count / (count - 1)).sqrt() / total
