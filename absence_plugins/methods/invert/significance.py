"""How probable a rank sum is by chance: permutation p-values, exact where counts are small or ties are many.

Under the null hypothesis the activations of the samples (or groups of samples) are exchanged at random among the
labels. The sum T of the activations' numbers over the n1 samples on which a formula holds is then the sum of n1 numbers
drawn from N without replacement. Of two values T is hypergeometric, however many samples there are. Otherwise its
distribution is computed exactly where that is cheap, and else by its first three moments (Pearson's type III), given
how many of the drawn numbers are among those of the largest tie. A normal distribution is only used where each of n1, N
- n1 and the samples outside the largest tie is above 1,000.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import gammaincc, gammaln, ndtr

from absence_plugins.methods.invert.bits import Array

ENOUGH = 1000  # on each side, and outside the largest tie: from here on the distribution of T is normal
LIKELY = 0.25  # a p-value above it is not computed exactly
STEPS = 5e6  # additions that an exact p-value may cost
TIED = 0.2  # share of the samples in one tie from which on T is asked given how many come from it
ORDERINGS = 8  # groups of which all orderings are listed
GROUPS = 500  # of mixed groups up to so many are permuted at random
DRAWS = 9999
STRAIGHT = 1e-3  # a skewness up to here is none
NOT_FINITE = "values and holds must be finite; NaN and infinity have no permutation p-value"


@dataclass(frozen=True, eq=False)
class Distinct:
    """Values [N], the distinct ones among them in rising order, and how often each occurs."""

    values: Array
    levels: Array
    counts: Array

    @classmethod
    def of(cls, values: Any) -> Distinct:
        """Themselves, or of values [N]. Raises ValueError for NaN and infinity."""
        if isinstance(values, cls):
            return values
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            raise ValueError(NOT_FINITE)
        return cls(values, *np.unique(values, return_counts=True))

    @cached_property
    def centered(self) -> Array:
        """The values less their mean."""
        centered: Array = self.values - self.mean
        return centered

    @cached_property
    def mean(self) -> float:
        """Of the values."""
        return float(self.values.mean())

    @cached_property
    def tied(self) -> tuple[float, int]:
        """The value that occurs most often, and how often."""
        most = int(self.counts.argmax())
        return float(self.levels[most]), int(self.counts[most])

    @cached_property
    def powers(self) -> tuple[float, float]:
        """Sums of the squares and of the third powers of these."""
        square = self.centered * self.centered
        return float(square.sum()), float((square * self.centered).sum())


def permutation_p(values: Array | Distinct, holds: Array, strata: Array | None = None) -> float:
    """One-sided p-value of "``values`` are no higher where ``holds``" over all rearrangements of the values.

    Args:
        values: [N] whole numbers, such as mid-ranks times two; with what is known of them.
        holds: [N] of 0 and 1, or, for groups of samples, the share of the group in [0, 1].
        strata: [N] whole numbers; only values of one stratum change places. The mean of a large group varies less than
            that of a small one, so they are not exchangeable (:func:`~.groups.strata_of`). None: all are one.

    Returns:
        P(T >= observed T) for T = sum of values times holds; 1 where all values or all of ``holds`` are the same.

    Raises:
        ValueError: values or shares that are NaN or infinite.

    >>> round(permutation_p(np.array([1, 2, 3, 4, 5]), np.array([0, 0, 0, 1, 1])), 3)  # one of ten pairs
    0.1
    """
    known = Distinct.of(values)
    holds = np.asarray(holds)
    is_drawn = holds.dtype == bool
    drawn = int(np.count_nonzero(holds))
    holds = holds.astype(np.float64)
    if not is_drawn and not np.isfinite(holds).all():
        raise ValueError(NOT_FINITE)
    if len(known.levels) < 2 or (drawn in (0, len(holds)) if is_drawn else np.ptp(holds) == 0):
        return 1.0
    if strata is not None and np.ptp(strata) > 0:
        return _stratified_p(known.values, holds, strata)
    total = float(known.values @ holds)
    if is_drawn or ((holds == 0) | (holds == 1)).all():
        return float(_drawn_p(known, drawn, total))
    return _mixed_p(known.values, holds, total)


def ranks_p(size: int, levels: Array, counts: Array, drawn: int, total: float) -> float | None:
    """:func:`permutation_p` of rank numbers d of which only the ties are listed, to 1e-11; None if these do not say it.

    The third powers of all d of a tie of c samples at d, if these were not tied, would add up to c d^3 + (c^3 - c) d, the
    squares to c d^2 + (c^3 - c) / 3; and all these to 0 and (N^3 - N) / 3. So what the ties change is known from them.

    Args:
        size: N.
        levels: d of every tie [T].
        counts: how many samples each has [T]; 0 and 1 change nothing.
        drawn: on how many samples a formula holds.
        total: the sum of their d.

    Returns:
        The p-value where it is that of a normal distribution; None where there are too few samples for that.

    >>> ranks_p(10, np.array([]), np.array([]), 5, 25.0) is None  # to be counted
    True
    """
    largest = int(counts.max(initial=1))
    distinct = size - int(counts.sum()) + np.count_nonzero(counts)
    if distinct < 3 or min(drawn, size - drawn, size - largest) < ENOUGH:
        return None
    lost = counts.astype(np.float64) ** 3 - counts
    powers = (float(size) ** 3 - size - float(lost.sum())) / 3, -float(levels @ lost)
    share = drawn / size
    second = np.array(size * share * (1 - share))
    return float(_tail(size, powers, second, second * (1 - 2 * share), np.array(total)))


def _drawn_p(known: Distinct, drawn: int, total: float) -> float:
    """P(sum of ``drawn`` of the values >= total)."""
    values, sorted_values, counts = known.values, known.levels, known.counts
    if len(counts) == 2:
        return _two_values_p(sorted_values, counts, drawn, total)
    tied, count = known.tied
    if min(drawn, len(values) - drawn, len(values) - count) >= ENOUGH:
        return _by_moments(known, drawn, total)
    others = values[values != tied] - tied
    excess = total - drawn * tied  # what the others must add up to
    is_tied = count >= TIED * len(values)
    p = _given_the_tie(others, count, drawn, excess) if is_tied else _by_moments(known, drawn, total)
    if p > LIKELY:
        return p
    if 2 * drawn > len(values):  # those that are not drawn sum to the rest, at most
        exact = _exact(-others, count, len(values) - drawn, excess - float(others.sum()))
    else:
        exact = _exact(others, count, drawn, excess)
    return p if exact is None else exact


def _two_values_p(values: Array, counts: Array, drawn: int, total: float) -> float:
    """The same of a smaller and a larger value, with how many there are of each: hypergeometric."""
    small, large = (int(count) for count in counts)
    observed = round((total - drawn * values[0]) / (values[1] - values[0]))  # how many of the larger value are drawn
    j = np.arange(max(0, drawn - small, observed), min(drawn, large) + 1)
    return float(np.minimum(1.0, np.exp(_log_hypergeometric(j, large, small, drawn)).sum()))


def _exact(others: Array, count: int, drawn: int, excess: float) -> float | None:
    """P(sum of ``drawn`` of others and ``count`` zeros >= excess) by counting subsets of the others; None if too many.

    ``shares[j, s]`` is, of all subsets of j of the others looked at so far, the share whose values, less j times the
    smallest one, sum to s. Shares do not overflow, as counts do from 1,030 others on.
    """
    size, most = len(others), min(drawn, len(others))
    base = float(others.min())
    steps = np.rint(others - base).astype(np.int64)
    unit = max(1, int(np.gcd.reduce(steps)))
    steps = np.sort(steps // unit)
    longest = int(steps[size - most :].sum())
    if size * (most + 1.0) * (longest + 1.0) > STEPS:
        return None
    shares = np.zeros((most + 1, longest + 1))
    shares[0, 0] = 1
    j = np.arange(most + 1)[:, None]
    for i, step in enumerate(steps, 1):  # the i-th one is in a share of j / i of the subsets of j of the first i
        before = shares[:-1, : longest + 1 - step] * (j[1:] / i)
        shares *= np.maximum(0, i - j) / i
        shares[1:, step:] += before
    result = 0.0
    for k in range(max(0, drawn - count), most + 1):
        wanted = max(0, int(np.ceil((excess - k * base) / unit - 1e-9)))
        share = shares[k, wanted:].sum() if wanted <= longest else 0.0
        result += share * float(np.exp(_log_hypergeometric(np.array(k), size, count, drawn)))
    return float(np.minimum(1.0, result))


def _given_the_tie(others: Array, count: int, drawn: int, excess: float) -> float:
    """The same by moments of the sum of j of the others, over the distribution of j; exact for j up to 1."""
    size = len(others)
    j = np.arange(max(0, drawn - count), min(drawn, size) + 1)
    weight = np.exp(_log_hypergeometric(j, size, count, drawn))
    j, weight = j[weight > 1e-300], weight[weight > 1e-300]
    tail = _moments_tail(Distinct.of(others), j, np.full(len(j), excess))
    tail[j == 0] = float(excess <= 0)
    tail[j == 1] = float((others >= excess).mean())
    tail[j == size] = float(others.sum() >= excess)
    return float(np.minimum(1.0, weight @ tail))  # NaN stays NaN


def _by_moments(known: Distinct, drawn: int, total: float) -> float:
    return float(_moments_tail(known, np.array([drawn]), np.array([total]))[0])


def _moments_tail(known: Distinct, drawn: Array, total: Array) -> Array:
    """P(sum of ``drawn`` values >= total) from mean, variance and skewness of the sum (over the rearrangements)."""
    n = len(known.values)
    share = drawn / n
    return _tail(n, known.powers, n * share * (1 - share), n * share * (1 - share) * (1 - 2 * share), total - drawn * known.mean)  # fmt: skip


def _tail(n: int, powers: tuple[float, float], second: Array, third: Array, excess: Array) -> Array:
    """Pearson's type III with the moments of sum x_i y_pi(i): ``second`` and ``third`` are sums of y^2 and y^3, y
    centered.

    A negative skewness counts as 0: the upper tail is then lighter than the normal one, which is on the safe side.
    """
    return _type_three(*_moments(n, powers, second, third), excess)


def _moments(n: int, powers: tuple[float, float], second: Array, third: Array) -> tuple[Array, Array]:
    """Variance and third central moment of that sum; powers: sums of squares and third powers of the centered values."""
    variance = second * powers[0] / max(1, n - 1)
    return variance, n * third * powers[1] / max(1, (n - 1) * (n - 2))


def _type_three(variance: Array, skewness: Array, excess: Array) -> Array:
    """P(a sum with these moments exceeds its mean by ``excess``)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        deviation = np.sqrt(variance)
        z = np.where(deviation > 0, (excess - 1) / deviation, np.where(excess <= 0, -np.inf, np.inf))
        skew = np.clip(np.nan_to_num(skewness / deviation**3), 0, None)
        shape = 4 / np.maximum(skew, STRAIGHT) ** 2
        tail: Array = gammaincc(shape, np.maximum(0, shape + np.nan_to_num(z) * np.sqrt(shape)))
    return np.where((skew > STRAIGHT) & np.isfinite(z), tail, ndtr(-z))


def _stratified_p(values: Array, holds: Array, strata: Array) -> float:
    """Rearrangements within strata: random ones, or the moments of the sum, which are those of the strata, added."""
    parts = [np.flatnonzero(strata == one) for one in np.unique(strata)]
    parts = [one for one in parts if np.ptp(values[one]) > 0 and np.ptp(holds[one]) > 0]
    if not parts:
        return 1.0
    variance = skewness = excess = np.array(0.0)
    for one in parts:
        own, y = Distinct.of(values[one]), holds[one] - holds[one].mean()
        moments = _moments(len(one), own.powers, (y**2).sum(), (y**3).sum())
        variance, skewness, excess = variance + moments[0], skewness + moments[1], excess + own.centered @ y
    p = float(_type_three(variance, skewness, excess))
    if len(values) > GROUPS or p > LIKELY:
        return p
    generator = np.random.default_rng(0)
    slack = 1e-9 * max(1.0, np.abs(values).sum())
    drawn = np.zeros(DRAWS)
    for one in parts:
        means = values[one].mean() * holds[one].sum()
        drawn += generator.permuted(np.broadcast_to(values[one], (DRAWS, len(one))), axis=1) @ holds[one] - means
    counted = float((1 + (drawn >= float(excess) - slack).sum()) / (DRAWS + 1))
    return p if counted < 10 / DRAWS else counted


def _mixed_p(values: Array, holds: Array, total: float) -> float:
    """Groups in which a formula holds on some samples and fails on others: all orderings, or random ones, or
    moments.
    """
    n = len(values)
    slack = 1e-9 * max(1.0, np.abs(values).sum())
    if n <= ORDERINGS:
        orders = np.array(list(itertools.permutations(range(n))))
        return float((values[orders] @ holds >= total - slack).mean())
    known, y = Distinct.of(values), holds - holds.mean()
    p = float(_tail(n, known.powers, np.array((y**2).sum()), np.array((y**3).sum()), np.array(known.centered @ y)))
    if n > GROUPS or p < 10 / DRAWS:
        return p
    generator = np.random.default_rng(0)
    drawn = generator.permuted(np.broadcast_to(values, (DRAWS, n)), axis=1) @ holds
    return float((1 + (drawn >= total - slack).sum()) / (DRAWS + 1))


def _log_hypergeometric(j: Array, size: int, count: int, drawn: int) -> Array:
    """log P(j of ``drawn`` are among ``size``, the others among ``count``)."""

    def choose(n: float, k: Array) -> Array:
        chosen: Array = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        return chosen

    return choose(size, j) + choose(count, drawn - j) - choose(size + count, np.array(drawn))
