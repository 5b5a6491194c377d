"""Where the values of one direction part into two groups: the concept is there, or it is not."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.methods.directions.apart import (
    LEAST,
    TAIL,
    of_half_normal,
    of_normal,
    of_uniform,
    split_apart,
)
from absence_plugins.methods.directions.histograms import bin_centers, bin_edges
from absence_plugins.methods.directions.signals import FEWEST

CLEAR = 0.005  # nats per position that two groups explain better than one: below, there is one group
CHANCE = 15.0  # nats of all positions together; samples of one group reach less
NARROW = 0.5  # widest tail that noise makes of a uniform group, relative to it; a wider one may be a rare concept
BEYOND = 1.5  # times as far from the median as all but LEAST of the positions: what is beyond does not count


def split_values(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thresholds from histograms of standardized values, each direction for itself: int64 [I, BINS] -> three of [I].

    The threshold of the best likelihood of two groups, the upper one of at least 8 positions
    (:func:`~absence_plugins.methods.directions.apart.split_apart`). Unlike the largest variance between groups it also
    finds rare concepts. A few outliers, however far, do not move it.

    Returns:
        The thresholds; by how many nats per position two groups describe the values better than one (normal,
        half-normal, Laplace, gamma, or uniform with or without tails); and whether that is more than chance reaches
        with so many positions, bool. Where it is not, the values make one group, and the threshold is a guess: where
        the variance between the parts is largest.

    >>> from absence_plugins.methods.directions.histograms import count_values
    >>> generator = torch.Generator().manual_seed(0)
    >>> rare = torch.arange(2000) % 50 == 0
    >>> u = torch.randn(2000, generator=generator) + 8 * rare
    >>> threshold, gain, clear = split_values(count_values(((u - u.mean()) / u.std())[:, None]))
    >>> found = (u - u.mean()) / u.std() > threshold
    >>> bool((found == rare).all()), bool(clear)
    (True, True)
    """
    positions, near = counts.sum(1), _leave_out_far(counts)
    threshold, gain = split_apart(near, FEWEST)
    gain = gain - _gain_of_one(near)
    clear = (gain >= CLEAR) & (gain * positions >= CHANCE)
    between = bin_edges(counts)[1:-1]
    place = torch.where(clear, torch.searchsorted(between, threshold), _split_spread(near))
    # in the middle of a gap without values
    same = (near > 0).cumsum(1)[:, :-1]
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
    least = torch.searchsorted(centers, middle - BEYOND * (middle - low))[:, None]
    most = torch.searchsorted(centers, middle + BEYOND * (high - middle)).clamp(max=len(centers) - 1)[:, None]
    unspread = (low >= high)[:, None]  # nearly all values are one: what is beyond is all that can be told apart
    least, most = least.masked_fill(unspread, 0), most.masked_fill(unspread, len(centers) - 1)
    place = torch.arange(len(centers), device=counts.device)
    return counts * ((place >= least) & (place <= most))


def _split_spread(counts: Tensor) -> Tensor:
    """The bins [I] above which the second group begins where the variance between two is largest, as in 2-means."""
    share = counts.double() / counts.sum(1, keepdim=True)
    below, first = (part.cumsum(1)[:, :-1] for part in (share, share * bin_centers(counts)))
    total = (share * bin_centers(counts)).sum(1, keepdim=True)
    variance = (total * below - first) ** 2 / (below * (1 - below))
    return torch.where((below > 0) & (below < 1), variance, 0.0).argmax(1)


def _gain_of_one(counts: Tensor) -> Tensor:
    """By how many nats per position the best single group is likelier than a normal distribution: [I, BINS] -> [I]."""
    edges, centers, used = bin_edges(counts), bin_centers(counts), counts > 0
    share = counts.double() / counts.sum(1, keepdim=True)
    mean, square = ((share * part).sum(1, keepdim=True) for part in (centers, centers**2))
    low = torch.where(used, edges[:-1], torch.inf).amin(1, keepdim=True)
    high = torch.where(used, edges[1:], -torch.inf).amax(1, keepdim=True)
    one, below = torch.ones_like(mean), share.cumsum(1)

    def quantile(part: float) -> Tensor:
        return edges[1:][(below < part).sum(1, keepdim=True).clamp(max=len(centers) - 1)]

    def tailed(first: Tensor, last: Tensor) -> Tensor:
        """A uniform distribution from ``first`` to ``last``, with a tail on either side."""
        lower, upper = ((share * outside).sum(1, keepdim=True) for outside in (centers <= first, centers > last))
        cost = of_uniform(lower, first - low) + of_uniform(1 - lower - upper, last - first)
        cost = cost + of_uniform(upper, high - last)
        return torch.where(torch.maximum(first - low, high - last) <= NARROW * (last - first), cost, torch.inf)

    normal = of_normal(one, mean, square)
    costs = [
        normal,
        tailed(low, high),
        tailed(quantile(TAIL), quantile(1 - TAIL)),
        tailed(low, quantile(1 - TAIL)),
        tailed(quantile(TAIL), high),
        *(of_half_normal(one, square - 2 * edge * mean + edge**2) for edge in (low, high)),
        *(_gamma_cost(share, distance) for distance in (centers - low, high - centers)),
        _laplace_cost(share, centers),
    ]
    best: Tensor = (normal - torch.cat(costs, 1).amin(1, keepdim=True))[:, 0]
    return best


def _laplace_cost(share: Tensor, centers: Tensor) -> Tensor:
    """Negative log-likelihood of all values as one Laplace distribution, [I, 1]."""
    middle = centers[(share.cumsum(1) < 0.5).sum(1).clamp(max=len(centers) - 1)][:, None]
    apart = (share * (centers - middle).abs()).sum(1, keepdim=True)
    return 1 + (2 * apart).clamp(min=1e-6).log()


def _gamma_cost(share: Tensor, distance: Tensor) -> Tensor:
    """The same of a gamma distribution (exponential where its shape is 1) of distances from one end [I, BINS], [I, 1].

    The shape as in Minka, "Estimating a Gamma distribution" (2002), the start of his iteration.
    """
    distance = distance.clamp(min=1e-6)
    mean, logs = ((share * part).sum(1, keepdim=True) for part in (distance, distance.log()))
    gap = (mean.log() - logs).clamp(min=1e-6)
    shape = (3 - gap + ((gap - 3) ** 2 + 24 * gap).sqrt()) / (12 * gap)
    return shape.lgamma() + shape * (mean / shape).log() - (shape - 1) * logs + shape
