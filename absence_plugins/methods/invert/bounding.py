"""How good a formula that was not scored can be: what lies within x takes at best the highest-ranked samples of x.

Let T be the samples on which a formula holds, within x, |T| = s. The sum S(T) of its numbers d is at most that of the s
highest of x, P(s). Each score of :class:`~absence_plugins.methods.invert.measures.Measure` rises with S, so the largest
one of P(s), s over all sizes that are allowed, bounds the score of every such T. P is concave: between two of its
corners it is below the line that leaves the first one with the slope of the highest d there; and at a given S >= 0 the
scores have no maximum inside an interval of s, so its two ends are asked. The complement of a T that contains x lies
outside of x, and is bounded likewise by the lowest samples.

An AND of literals and ORs lies within each of its literals. One of four that has none is (a OR b) AND (c OR d), within
a OR b. Corners are the distinct label rows for literals, up to 128 bins of them for a OR b.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.measures import Measure
from absence_plugins.methods.invert.ranking import Bounds
from absence_plugins.methods.invert.scores import CHUNK
from absence_plugins.methods.invert.table import Columns

BINS = 128  # at most, in tables of up to 2^22 entries
SLACK = 1e-12  # rounding of sums that are not whole


def bound_columns(columns: Columns, sums: Tensor, measure: Measure, bounds: Bounds) -> Tensor:
    """[U, J]: at least the score of every formula that lies within column j, or its complement, or contains one.

    Args:
        columns: the concepts searched.
        sums: [U, R] numbers d per distinct label row.
        measure: the score, of the U units.
        bounds: on how many samples a formula must hold.
    """
    result = torch.full((len(sums), len(columns)), -torch.inf, dtype=torch.float64, device=sums.device)
    step = max(1, CHUNK // columns.rows)
    for u, own in enumerate(sums):
        means = own / columns.weight
        order = means.argsort(descending=True)
        first, weight = means[order][:, None], columns.weight[order][:, None]
        for at in range(0, len(columns), step):
            values = columns.values[at : at + step, order].T
            for holds in (values, ~values):
                count = holds * weight
                high = _bound(count, count * first, first, measure, measure.fired[u], bounds)
                result[u, at : at + step] = torch.maximum(result[u, at : at + step], high)
    return result


def bound_unions(columns: Columns, sums: Tensor, measure: Measure, bounds: Bounds) -> Tensor:
    """[U, J, J]: at least the score of every formula within an OR of columns i and j, or of their complements, or
    around an AND of these.
    """
    rows, j = columns.rows, len(columns)
    result = torch.full((len(sums), j, j), -torch.inf, dtype=torch.float64, device=sums.device)
    if j < 2:
        return result
    first, second = torch.triu_indices(j, j, 1, device=sums.device)
    neither = torch.cat([~columns.values, columns.values]).double()  # on which a side fails
    for u, own in enumerate(sums):
        means = own / columns.weight
        order = means.argsort(descending=True)
        edges = np.linspace(0, rows, min(BINS, rows, max(4, CHUNK // (2 * j * j))) + 1).astype(int)
        inside: list[list[Tensor]] = [[], []]
        for low, high in itertools.pairwise(edges):
            part = order[low:high]
            block = neither[:, part]
            for kept, weights in zip(inside, (columns.weight[part], own[part]), strict=True):
                product = weights.sum() - (block * weights) @ block.T
                kept.append(torch.stack([product[x : x + j, y : y + j][first, second] for x in (0, j) for y in (0, j)]).flatten())  # fmt: skip
        highest = means[order[edges[:-1]]][:, None]
        lowest = means[order[edges[1:] - 1]][:, None]
        best = _bound(
            torch.stack(inside[0]), torch.stack(inside[1]), highest, measure, measure.fired[u], bounds, lowest
        )
        best = best.reshape(4, -1).amax(0)
        result[u, first, second] = result[u, second, first] = best
    return result


def _bound(
    count: Tensor, total: Tensor, highest: Tensor, measure: Measure, fired: Tensor, bounds: Bounds, lowest: Tensor | None = None
) -> Tensor:  # fmt: skip
    """[M] of M sets of samples, from the samples in each bin [B, M], bins from the highest d on, and their sum of d.

    highest, lowest: [B, 1] of d in a bin; one where all are the same.
    """
    lowest = highest if lowest is None else lowest
    within = _ends(count, total, highest, measure, fired, (bounds.least, bounds.most), is_complement=False)
    sides = (measure.samples - bounds.most, measure.samples - bounds.least)
    turned = (count.flip(0), -total.flip(0), -lowest.flip(0))
    around = _ends(*turned, measure, fired, sides, is_complement=True)
    return (torch.maximum(within, around) + SLACK).clamp(max=0.5 if measure.name == "auc" else 1.0)


def _ends(
    count: Tensor, total: Tensor, slope: Tensor, measure: Measure, fired: Tensor, sides: tuple[int, int], *, is_complement: bool
) -> Tensor:  # fmt: skip
    """The largest score of subsets of so many samples; with ``is_complement`` that of what they leave."""
    upto = count.cumsum(0)
    start = upto - count
    base = total.cumsum(0) - total
    low, high = (start + 1).clamp(min=sides[0]), upto.clamp(max=sides[1])
    allowed = (low <= high) & (count > 0)
    most = torch.maximum(base + (low - start) * slope, base + (high - start) * slope).clamp(min=0)
    asked = (measure.samples - low, measure.samples - high) if is_complement else (low, high)
    return torch.maximum(*(measure.values(most, one, fired, allowed).amax(0) for one in asked))
