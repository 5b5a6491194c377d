"""Where the values of one direction part into two groups: the concept is there, or it is not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from absence_plugins.methods.directions.histograms import bin_centers, bin_edges

LEAST = 0.002  # share of the positions in the upper group
MOST = 0.7
CLEAR = 0.005  # nats per position that two groups explain better than one: below, there is one group
CHANCE = 15.0  # nats of all positions together; samples of one normal, uniform, Laplace or exponential group reach less
TAIL = 1.5  # times as far from the median as all but LEAST of the positions: what is beyond does not count


def split_values(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thresholds from histograms of standardized values, each direction for itself: int64 [I, BINS] -> three of [I].

    Each of the two groups is described by a normal or a uniform distribution, whichever fits; the threshold is the one
    with the best likelihood. Unlike the largest variance between groups it also finds rare concepts. A few outliers,
    however far, do not move it.

    Returns:
        The thresholds; by how many nats per position two groups describe the values better than one (normal, uniform,
        Laplace or exponential); and whether that is more than chance reaches with so many positions, bool. Where it
        is not, the values make one group, and the threshold is a guess: where the variance between the parts is largest.

    >>> from absence_plugins.methods.directions.histograms import count_values
    >>> generator = torch.Generator().manual_seed(0)
    >>> rare = torch.arange(2000) % 50 == 0
    >>> u = torch.randn(2000, generator=generator) + 8 * rare
    >>> threshold, gain, clear = split_values(count_values(((u - u.mean()) / u.std())[:, None]))
    >>> found = (u - u.mean()) / u.std() > threshold
    >>> bool((found == rare).all()), bool(clear)
    (True, True)
    """
    edges, positions = bin_edges(counts), counts.sum(1, keepdim=True)
    upper = 1 - counts.cumsum(1)[:, :-1].double() / positions
    counts = _leave_out_far(counts)
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
    allowed = (upper >= LEAST) & (upper <= MOST) & (below > 0)
    cost = torch.where(allowed & cost.isfinite(), cost, torch.inf)
    # where two groups explain nothing: the largest variance between them, as 2-means
    between_groups = (total * below - first) ** 2 / (below * above)
    spread = torch.where((below > 0) & (above > 0), between_groups, 0.0).argmax(1)
    one = _cost(torch.ones_like(total), total, squares, high - low)[:, 0]
    one = torch.minimum(one, _pointed_cost(share, centers, total, low, high))
    best, place = cost.min(1)
    gain = torch.where(best.isfinite(), one - best, -torch.inf)
    clear = (gain >= CLEAR) & (gain * positions[:, 0] >= CHANCE)
    place = torch.where(clear, place, spread)
    # in the middle of a gap without values
    same = used.cumsum(1)[:, :-1]
    level = same.gather(1, place[:, None])
    last = (same == level).to(torch.int64).cumsum(1).argmax(1)
    first_same = (same == level).to(torch.int8).argmax(1)
    return (between[first_same] + between[last]) / 2, gain, clear


def find_quantiles(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The bins of the median and of the values below and above which ``LEAST`` of the positions lie, [I] each."""
    below = counts.cumsum(1).double() / counts.sum(1, keepdim=True)
    low, middle, high = ((below <= share).sum(1) for share in (LEAST, 0.5, 1 - LEAST))
    return middle, low.clamp(max=counts.shape[1] - 1), high.clamp(max=counts.shape[1] - 1)


def _leave_out_far(counts: Tensor) -> Tensor:
    """Counts [I, BINS] without the outliers, which are far from all but ``LEAST`` of the positions."""
    centers = bin_centers(counts)
    middle, low, high = (centers[bin_] for bin_ in find_quantiles(counts))
    least = torch.searchsorted(centers, middle - TAIL * (middle - low))[:, None]
    most = torch.searchsorted(centers, middle + TAIL * (high - middle)).clamp(max=len(centers) - 1)[:, None]
    unspread = (low >= high)[:, None]  # nearly all values are one: what is beyond is all that can be told apart
    least, most = least.masked_fill(unspread, 0), most.masked_fill(unspread, len(centers) - 1)
    place = torch.arange(len(centers), device=counts.device)
    return counts * ((place >= least) & (place <= most))


def _pointed_cost(share: Tensor, centers: Tensor, mean: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Negative log-likelihood of all values as one Laplace or one exponential distribution, either way up, [I]."""
    middle = centers[(share.cumsum(1) < 0.5).sum(1).clamp(max=len(centers) - 1)][:, None]
    apart = (share * (centers - middle).abs()).sum(1, keepdim=True)
    scales = torch.cat([2 * apart, mean - low, high - mean], 1)
    return 1 + scales.clamp(min=1e-6).amin(1).log()


def _cost(weight: Tensor, mean: Tensor, square: Tensor, width: Tensor) -> Tensor:
    """Negative log-likelihood of a group with a share of the positions, as a normal or uniform distribution."""
    variance = (square - mean**2).clamp(min=3e-6)  # of a bin around 0
    normal = 0.5 * (2 * math.pi * math.e * variance).log()
    return weight * (torch.minimum(normal, width.clamp(min=1e-6).log()) - weight.log())
