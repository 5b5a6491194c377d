"""From sources to detectors: the thresholds at which each agrees best with the labels that all give together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.methods.directions.histograms import BINS, bin_edges, count_values
from absence_plugins.methods.directions.polish import sum_over

ROUNDS = 6
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
        threshold = best_threshold(counts, own)
        found = Thresholds(threshold.to(found.threshold), typical.to(found.typical))
    return found


def _sums(u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return count_values(u, labels), (u * labels).sum(0, dtype=torch.float64), labels.sum(0)


def start_thresholds(counts: Tensor) -> Thresholds:
    """Before there are labels: the values of the 1/I largest count as present, half their mean as threshold.

    ``counts`` [I, BINS].
    """
    edges = bin_edges(counts)
    above = counts.flip(1).cumsum(1).flip(1)
    top = counts * (above * len(counts) <= above[:, :1]) if len(counts) > 1 else counts * (above > 0)
    top[:, -1] += top.sum(1) == 0
    typical = (top * (edges[:-1] + edges[1:]) / 2).sum(1) / top.sum(1)
    return Thresholds((typical / 2).float(), typical.float())


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
