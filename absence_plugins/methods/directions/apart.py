"""Thresholds of concepts that are present independently of each other: each from its own values alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from absence_plugins.methods.directions.histograms import bin_centers, bin_edges, count_values
from absence_plugins.methods.directions.polish import sum_over
from absence_plugins.methods.directions.thresholds import Thresholds, fit_thresholds

LEAST, MOST = 0.002, 0.7  # share of the positions in the upper group
TAIL = 0.02  # share of the lower group's values at its outer end, and of the upper one's, that noise may have spread
OUTLIERS = 0.0005  # of all positions, the most that count as the upper group's tail: fewer than any concept has
PIECE = 64  # directions at once
# Measured on 12 concepts: exclusive ones vary by at most .45 (30 % of the positions empty), independent ones by at least
# .85; and where noise hides the edge between the groups (best possible IoU .7), two groups gain at most .05.
INDEPENDENT, EDGE = 0.6, 0.06


class Apart(Thresholds):
    """Thresholds of concepts that do not exclude each other: present is what is above its own threshold."""

    def label(self, u: Tensor) -> Tensor:
        """Which concepts are at each position: u [P, I] -> bool [P, I]."""
        return u > self.threshold

    def refit(self, chunks: Iterable[Tensor]) -> Thresholds:
        """The same of other values."""
        return split_thresholds(chunks, fit_thresholds(chunks))[0]


def fit_apart(chunks: Iterable[Tensor], found: Thresholds) -> tuple[Thresholds, Tensor]:
    """Thresholds for concepts that do not exclude each other, where they do not: u [n, I] -> the same, bool [I].

    Labels that name at least one concept per position put thresholds too high or too low where several or none are
    present. Where detectors fire as independently of each other as that (:func:`measure_dispersion`), every threshold
    is fitted to its own values (:func:`split_apart`) if these have a clear edge; otherwise ``found`` stays. The second
    tensor says which were fitted so; it is empty where concepts exclude each other.
    """
    if measure_dispersion(chunks, found) < INDEPENDENT:
        return found, torch.zeros(0, dtype=torch.bool)
    return split_thresholds(chunks, found)


def split_thresholds(chunks: Iterable[Tensor], found: Thresholds) -> tuple[Apart, Tensor]:
    """The threshold of every direction from its own values, where these have a clear edge: as :func:`fit_apart`."""
    threshold, gain = split_apart(sum_over(count_values(u) for u in chunks))
    clear = gain > EDGE
    threshold = torch.where(clear, threshold.to(found.threshold), found.threshold)
    sums = (((u * (u > threshold)).sum(0, dtype=torch.float64), (u > threshold).sum(0)) for u in chunks)
    strength, number = (sum_over(part) for part in zip(*sums, strict=True))
    typical = torch.where(number > 0, strength / number.clamp(min=1), found.typical.double())
    return Apart(threshold, typical.to(found.typical)), clear


def note_apart(apart: Tensor) -> tuple[str, ...]:
    """What to say of concepts that do not exclude each other: bool [K], which thresholds have a clear edge, or [0].

    >>> note_apart(torch.zeros(0)), note_apart(torch.ones(3))[0][:62]
    ((), 'the concepts do not exclude each other: each threshold was fit')
    """
    if not len(apart):
        return ()
    said = "the concepts do not exclude each other: each threshold was fitted to its direction's own values"
    vague = int((apart == 0).sum())
    return (
        said + (f"; {vague} of {len(apart)} have no clear edge there, so their thresholds are guesses" * (vague > 0)),
    )


def measure_dispersion(chunks: Iterable[Tensor], found: Thresholds) -> float:
    """The variance of how many detectors fire at a position, relative to that of independent ones: chunks u [n, I].

    1 for concepts that are present independently of each other, 0 for exactly one per position.

    >>> exclusive, half = torch.eye(2).repeat(50, 1), Thresholds(torch.full((2,), 0.5), torch.ones(2))
    >>> both = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> measure_dispersion([exclusive], half), measure_dispersion([both], half)
    (0.0, 1.0)
    """

    def products(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fires = (u > found.threshold).double()
        number = fires.sum(1)
        return fires.sum(0), (number**2).sum(), torch.tensor(float(len(u)), dtype=torch.float64)

    fired, squares, positions = (sum_over(part) for part in zip(*map(products, chunks), strict=True))
    share = fired / float(positions)
    alone = float((share * (1 - share)).sum())
    return (float(squares / float(positions)) - float(share.sum()) ** 2) / max(alone, 1e-12)


def split_apart(counts: Tensor, fewest: int = 1) -> tuple[Tensor, Tensor]:
    """Thresholds from histograms of values of variance 1, and how clear they are: int64 [I, BINS] -> [I] and [I].

    The one with the best likelihood of two groups, each normal or uniform up to its outer tail, the upper one also
    half-normal, with at least ``fewest`` positions. The second tensor is by how many nats per position they are
    likelier than one normal distribution.

    >>> generator = torch.Generator().manual_seed(0)
    >>> rare = torch.arange(4000) % 10 == 0
    >>> u = torch.rand(4000, generator=generator) + rare + 0.02 * torch.randn(4000, generator=generator)
    >>> threshold, gain = split_apart(count_values(((u - u.mean()) / u.std())[:, None]))
    >>> bool((threshold * u.std() + u.mean() - 1).abs() < 0.1), bool(gain > EDGE)
    (True, True)
    """
    threshold, gain = zip(*(_split(some, fewest) for some in torch.split(counts, PIECE)), strict=True)
    return torch.cat(threshold), torch.cat(gain)


def _split(counts: Tensor, fewest: int) -> tuple[Tensor, Tensor]:
    edges, centers = bin_edges(counts), bin_centers(counts)
    cuts, used = edges[1:-1], counts > 0
    share = counts.double() / counts.sum(1, keepdim=True)
    below, first, second = (part.cumsum(1)[:, :-1] for part in (share, share * centers, share * centers**2))
    total, squares = ((share * part).sum(1, keepdim=True) for part in (centers, centers**2))
    above, rest, more = 1 - below, total - first, squares - second
    low = torch.where(used, edges[:-1], torch.inf).amin(1, keepdim=True)
    high = torch.where(used, edges[1:], -torch.inf).amax(1, keepdim=True)
    at = (below >= TAIL).to(torch.int8).argmax(1, keepdim=True)
    begin, tail = cuts[at], below.gather(1, at)
    lower = torch.minimum(
        of_uniform(tail, begin - low) + of_uniform(below - tail, cuts - begin), of_normal(below, first, second)
    )
    at = torch.searchsorted(below.contiguous(), 1 - (TAIL * above).clamp(max=OUTLIERS)).clamp(max=len(cuts) - 1)
    end, tail = cuts[at], 1 - below.gather(1, at)
    upper = torch.minimum(
        of_uniform(above - tail, end - cuts) + of_uniform(tail, high - end), of_uniform(above, high - cuts)
    )
    upper = torch.minimum(upper, of_normal(above, rest, more))
    upper = torch.minimum(upper, of_half_normal(above, more - 2 * cuts * rest + cuts**2 * above))
    allowed = (above >= (fewest / counts.sum(1, keepdim=True)).clamp(min=LEAST)) & (above <= MOST) & (cuts > begin)
    best, place = torch.where(allowed, lower + upper, torch.inf).min(1)
    one = torch.ones_like(total)
    return cuts[place], of_normal(one, total, squares)[:, 0] - best


def of_uniform(weight: Tensor, width: Tensor) -> Tensor:
    """Negative log-likelihood of a share of the positions, spread evenly."""
    return torch.where(weight > 0, weight * (width.clamp(min=1e-6).log() - weight.clamp(min=1e-12).log()), 0.0)


def of_normal(weight: Tensor, total: Tensor, square: Tensor) -> Tensor:
    """The same, normally distributed; ``total``, ``square``: the sums of values and of their squares over all
    positions.
    """
    weight = weight.clamp(min=1e-9)
    variance = (square / weight - (total / weight) ** 2).clamp(min=3e-6)  # of a bin around 0
    return weight * (0.5 * (2 * math.pi * math.e * variance).log() - weight.log())


def of_half_normal(weight: Tensor, square: Tensor) -> Tensor:
    """The same, falling from the threshold on; ``square``: the squared distances from it."""
    weight = weight.clamp(min=1e-9)
    return weight * (0.5 * (math.pi * math.e / 2 * (square / weight).clamp(min=3e-6)).log() - weight.log())
