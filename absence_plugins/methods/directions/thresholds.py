"""From sources to detectors: the thresholds at which each agrees best with the labels that all give together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.methods.directions.histograms import BINS, bin_centers, bin_edges, count_values
from absence_plugins.methods.directions.polish import sum_over

ROUNDS = 8
RARE, DENSE = 0.1, 2.0  # share of the positions; ratio of densities at the edge of a concept's values
START_SHARE = 0.1  # of 1/I positions, so that a rare concept's start is its own strength, too
ALSO = 0.5  # of the way from the threshold to the typical strength: present, whatever else is


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Where sources u [P, I] of mean 0 and variance 1 begin to count as present.

    Attributes:
        threshold: [I], the value above which a source's detector fires.
        typical: [I], the mean value where the source is present.
    """

    threshold: Tensor
    typical: Tensor

    def label(self, u: Tensor) -> Tensor:
        """Which concepts are at each position: u [P, I] -> bool [P, I].

        The one with the largest (u_i - threshold_i) / (typical_i - threshold_i), and all with more than half of that.

        >>> Thresholds(torch.tensor([1.0, 1.0]), torch.tensor([3.0, 3.0])).label(torch.tensor([[0.0, 1.5], [4.0, 2.5]]))
        tensor([[False,  True],
                [ True,  True]])
        """
        relative = (u - self.threshold) / (self.typical - self.threshold).clamp(min=1e-6)
        labels = relative > ALSO
        return labels.scatter_(1, relative.argmax(1, keepdim=True), True)

    def refit(self, chunks: Iterable[Tensor]) -> Thresholds:
        """Thresholds of the same kind for other values: chunks u [n, I], read often."""
        return fit_thresholds(chunks)


def fit_thresholds(chunks: Iterable[Tensor], rounds: int = ROUNDS) -> Thresholds:
    """Label positions and move every threshold to where it agrees best with its own labels, in turns.

    ``chunks``: u [n, I] of mean 0 and variance 1, read once a round. The agreement is the intersection over union.
    """
    counts = sum_over(count_values(u) for u in chunks)
    found = start_thresholds(counts)
    for _ in range(rounds):
        sums = [_sums(u, found.label(u)) for u in chunks]
        own, strength, number = (sum_over(part) for part in zip(*sums, strict=True))
        typical = torch.where(number > 0, strength / number.clamp(min=1), found.typical.double())
        threshold = lower_rare(counts, best_threshold(counts, own), typical)
        found = Thresholds(threshold.to(found.threshold), typical.to(found.typical))
    return found


def _sums(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return count_values(u, labels), (u * labels).sum(0, dtype=torch.float64), labels.sum(0)


def start_thresholds(counts: Tensor) -> Thresholds:
    """Before there are labels: half the mean of the largest values, a tenth of 1/I of all. ``counts`` [I, BINS].

    Rather too high than too low: a position whose concept is below its threshold still has the largest value of all.
    """
    above = counts.flip(1).cumsum(1).flip(1)
    share = START_SHARE / len(counts)
    top = counts * (above <= (share * above[:, :1]).clamp(min=1))
    typical = (top * bin_centers(counts)).sum(1) / top.sum(1).clamp(min=1)
    return Thresholds((typical / 2).float(), typical.float())


def lower_rare(counts: Tensor, threshold: Tensor, typical: Tensor) -> Tensor:
    """Thresholds [I] of rare concepts, moved down to where the values become dense; int [I, BINS], [I], [I] -> [I].

    A rare concept beside others is seldom the strongest of its position, so its own labels miss the weak part of its
    values. Above an edge they are as dense as everywhere above the threshold; below it the positions without the
    concept begin. The edge is where the number of values down to it, less DENSE times that number at the density above,
    is smallest (CUSUM), no further down than the typical value is up.
    """
    edges, above = bin_edges(counts)[:-1], counts.flip(1).cumsum(1).flip(1).double()
    at = torch.searchsorted(edges, threshold).clamp(max=BINS - 1)[:, None]
    number, start, reach = above.gather(1, at), edges[at], (typical - threshold).clamp(min=0)[:, None]
    density = number / (2 * reach).clamp(min=1e-6)
    excess = above - number - DENSE * density * (start - edges)
    below = (edges <= start) & (edges >= start - reach)
    lowered = edges[excess.masked_fill(~below, float("inf")).argmin(1)]
    rare = number[:, 0] < RARE * above[:, 0]
    return torch.where(rare, torch.minimum(threshold, lowered), threshold)


def best_threshold(counts: Tensor, own: Tensor) -> Tensor:
    """The value whose excess has the best intersection over union with labels: int [I, BINS], all and own -> [I].

    In the middle, where a gap without any value has the best one.

    >>> u = torch.tensor([[0.0], [1.0], [3.0]])
    >>> best_threshold(count_values(u), count_values(u, u > 2)).round(decimals=1)
    tensor([2.], dtype=torch.float64)
    """
    edges = bin_edges(counts)
    fires = counts.flip(1).cumsum(1).flip(1)  # at or above a bin's lower edge
    hits = own.flip(1).cumsum(1).flip(1)
    agreement = hits.double() / (fires + own.sum(1, keepdim=True) - hits).clamp(min=1)
    best = agreement >= agreement.amax(1, keepdim=True) - 1e-12
    first = best.to(torch.int8).argmax(1)
    runs = (~best).to(torch.int64) * torch.arange(BINS, device=counts.device)
    later = torch.arange(BINS, device=counts.device) > first[:, None]
    last = torch.where(later & ~best, runs, BINS).amin(1) - 1
    return (edges[first] + edges[last]) / 2
