"""Where the values of one direction part into two groups: the concept is there, or it is not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from absence_plugins.methods.directions.histograms import bin_edges

LEAST = 0.002  # share of the positions in the upper group
MOST = 0.7
CLEAR = 0.005  # nats per position that two groups explain better than one: below, there is one group


def split_values(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Thresholds from histograms of standardized values, each direction for itself: int64 [I, BINS] -> [I] and [I].

    Each of the two groups is described by a normal or a uniform distribution, whichever fits; the threshold is the one
    with the best likelihood. Unlike the largest variance between groups it also finds rare concepts. The second
    tensor says by how many nats per position two groups describe the values better than one: near or below 0, the
    values make one group, and the threshold is a guess: where the variance between the two parts is largest.

    >>> from absence_plugins.methods.directions.histograms import count_values
    >>> generator = torch.Generator().manual_seed(0)
    >>> rare = torch.arange(2000) % 50 == 0
    >>> u = torch.randn(2000, generator=generator) + 8 * rare
    >>> threshold, gain = split_values(count_values(((u - u.mean()) / u.std())[:, None]))
    >>> found = (u - u.mean()) / u.std() > threshold
    >>> bool((found == rare).all()), bool(gain > CLEAR)
    (True, True)
    """
    edges = bin_edges(counts)
    centers = (edges[:-1] + edges[1:]) / 2
    share = counts.double() / counts.sum(1, keepdim=True)
    below, first, second = (part.cumsum(1)[:, :-1] for part in (share, share * centers, share * centers**2))
    above, total, squares = 1 - below, (share * centers).sum(1, keepdim=True), (share * centers**2).sum(1, keepdim=True)
    used = counts > 0
    low = edges[:-1][used.to(torch.int8).argmax(1)][:, None]
    high = edges[1:][(counts.shape[1] - 1) - used.flip(1).to(torch.int8).argmax(1)][:, None]
    between = edges[1:-1]
    cost = _cost(below, first / below, second / below, between - low)
    cost = cost + _cost(above, (total - first) / above, (squares - second) / above, high - between)
    allowed = (above >= LEAST) & (above <= MOST) & (below > 0)
    cost = torch.where(allowed & cost.isfinite(), cost, torch.inf)
    # where two groups explain nothing: the largest variance between them, as 2-means
    between_groups = (total * below - first) ** 2 / (below * above)
    spread = torch.where((below > 0) & (above > 0), between_groups, 0.0).argmax(1)
    one = _cost(torch.ones_like(total), total, squares, high - low)[:, 0]
    best, place = cost.min(1)
    gain = torch.where(best.isfinite(), one - best, -torch.inf)
    place = torch.where(gain >= CLEAR, place, spread)
    # in the middle of a gap without values
    same = used.cumsum(1)[:, :-1]
    level = same.gather(1, place[:, None])
    last = (same == level).to(torch.int64).cumsum(1).argmax(1)
    first_same = (same == level).to(torch.int8).argmax(1)
    return (between[first_same] + between[last]) / 2, gain


def _cost(weight: Tensor, mean: Tensor, square: Tensor, width: Tensor) -> Tensor:
    """Negative log-likelihood of a group with a share of the positions, as a normal or uniform distribution."""
    variance = (square - mean**2).clamp(min=3e-6)  # of a bin around 0
    normal = 0.5 * (2 * math.pi * math.e * variance).log()
    return weight * (torch.minimum(normal, width.clamp(min=1e-6).log()) - weight.log())
