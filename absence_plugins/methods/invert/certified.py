"""The best formula of three or four literals, proven: every one of them is scored or bounded.

k concepts divide the samples into 2^k cells. What falls into a cell (its samples n, and their sum S of numbers d)
follows by inclusion and exclusion from the sums over the samples on which one, two, ... k of the concepts hold. A
formula is a set of cells (:mod:`~absence_plugins.methods.invert.shapes`), so one matrix product per concept (of four
literals: per pair) over the samples on which it holds, and one with the table of shapes, score all formulas: for K =
200 concepts 84 million of three literals, for K = 50 192 million of four.

The concepts are taken in the order of their bounds (:mod:`~absence_plugins.methods.invert.bounding`): all formulas of
the first one and those after it, then all of the second one and those after it. The search ends where the bound of what
is left over is not above the best found, or the budget is used up; what is left of the difference is the gap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.bounding import SLACK, bound_columns, bound_unions
from absence_plugins.methods.invert.candidates import Found
from absence_plugins.methods.invert.measures import Measure
from absence_plugins.methods.invert.ranking import Bounds, Ranked
from absence_plugins.methods.invert.shapes import PER_SET, shapes_of, sum_cells
from absence_plugins.methods.invert.table import Columns

TOGETHER = 2**18  # formulas times units scored at a time
TABLES = 2**22  # entries of the tables of pairs, over the units together
TRIPLES = 2**26  # entries of the tables of triples, which four literals need


def cost_of(columns: Columns, length: int) -> float:
    """About how many multiplications all sets of three columns take, per unit; with ``length`` 4 those of four, too."""
    j = len(columns)
    count = torch.minimum(columns.count, columns.samples - columns.count) / columns.samples * columns.rows
    later = torch.arange(j - 1, -1, -1, dtype=torch.float64, device=count.device)
    four = math.comb(j, 4) * (4.0 * PER_SET[4] + columns.rows / 2) if length > 3 else 0.0
    return float((count * later**2).sum()) + four


def certify_all(
    columns: Columns, sums: Tensor, measure: Measure, bounds: Bounds, ranked: Sequence[Ranked], length: int, budget: float
) -> None:  # fmt: skip
    """Add to every unit's formulas the best of three (four) literals, and set how far beyond its best another could be.

    A unit's gap is 0.0 where no formula can be better, so that the best is proven; else an upper bound of what the
    score of a formula that was not scored exceeds the best by.

    Args:
        columns: the concepts searched.
        sums: [U, R] numbers d per distinct label row.
        measure: the score.
        bounds: on how many samples a formula must hold.
        ranked: what was found of up to two literals (all of these), and by the beam; added to in place.
        length: 1 to 4; with 1 and 2 nothing is left to score.
        budget: formulas that may be scored per unit.
    """
    j = len(columns)
    is_whole = sum(math.comb(j, k) * PER_SET[k] for k in range(3, length + 1)) <= budget and (length < 4 or _fits(j))
    step = 1
    if is_whole:  # several units share the counts
        step = max(1, TABLES // j**2 if length < 4 else min(TABLES // j**2, TRIPLES // j**3 - 1))
    for at in range(0, len(sums), step):
        part = ranked[at : at + step]
        own = Measure(measure.name, measure.samples, measure.fired[at : at + step])
        if is_whole:
            _enumerate(columns, sums[at : at + step], own, bounds, part, length)
        for one in part:
            one.gap = 0.0 if is_whole else _branch(columns, sums[at : at + step], own, bounds, one, length, budget)


def _fits(concepts: int) -> bool:
    """Whether the tables of triples of one unit fit into memory."""
    return 2 * concepts**3 <= TRIPLES


def _enumerate(
    columns: Columns, sums: Tensor, measure: Measure, bounds: Bounds, ranked: Sequence[Ranked], length: int
) -> None:
    """Score every formula."""
    j = len(columns)
    if length < 3 or j < 3:
        return
    order = torch.arange(j, device=sums.device)
    enumeration = Enumeration(columns, sums, order, measure.is_whole, is_kept=length > 3)
    for k in range(3, min(length, j) + 1):
        for first in range(j - k + 1):
            for part in enumeration.sets(k, first):
                _rank(columns, part, enumeration, measure, bounds, ranked)


def _branch(
    columns: Columns, sums: Tensor, measure: Measure, bounds: Bounds, ranked: Ranked, length: int, budget: float
) -> float:
    """Score formulas of one unit, best bounds first, until no other can be better or the budget ends: the gap."""
    j = len(columns)
    single = bound_columns(columns, sums, measure, bounds)[0]
    order = single.argsort(descending=True, stable=True)
    single = single[order]
    enumeration = Enumeration(columns, sums, order, measure.is_whole, is_kept=length > 3 and _fits(j))
    spent, left = 0.0, [-1.0]
    for k in range(3, min(length, j) + 1):
        unions = bound_unions(columns, sums, measure, bounds)[0][order][:, order] if k == 4 else None
        for first in range(j - k + 1):
            ceiling = float(single[first:].max())
            if unions is not None:
                ceiling = max(ceiling, float(unions[first:, first:].max()))
            size = math.comb(j - first - 1, k - 1) * PER_SET[k]
            if not _above(ceiling, ranked) or spent + size > budget or (k == 4 and not _fits(j)):
                left.append(ceiling)
                break
            spent += size
            for part in enumeration.sets(k, first):
                _rank(columns, part, enumeration, measure, bounds, [ranked])
    return _above(max(left), ranked)


def _above(ceiling: float, ranked: Ranked) -> float:
    """By how much a bound is above the best found; 0 where that is rounding."""
    over = ceiling - (ranked.best.found[0].value if ranked.best.found else -1.0)
    return over if over > 2 * SLACK else 0.0


@dataclass(frozen=True, eq=False)
class Sets:
    """Some sets of k columns: their numbers [k, T], and the sums [2^k, 1 + U, T] where all of a subset m hold.

    The first of 1 + U is the count, the others are the sums of d.
    """

    index: Tensor
    sums: Tensor


class Enumeration:
    """Sums over one to four columns, in a given order, each turned to the side on which it holds less often.

    is_kept: whether the tables of triples are kept, for four columns.
    """

    def __init__(self, columns: Columns, sums: Tensor, order: Tensor, is_whole: bool, *, is_kept: bool) -> None:
        self.columns, self.order, self.is_whole, self.is_kept = columns, order, is_whole, is_kept
        self.turned = columns.count * 2 > columns.samples
        self.values = (columns.values ^ self.turned[:, None])[order].double()
        self.both = torch.cat([columns.weight[None], sums])  # the count, then the sums of the units
        self.total = self.both.sum(1)
        self.single = self.both @ self.values.T  # [1 + U, J]
        self.double = torch.stack([(self.values * one) @ self.values.T for one in self.both])
        self.three: dict[int, Tensor] = {}

    def sets(self, k: int, first: int) -> Iterator[Sets]:
        """All sets of k columns of which ``first`` is the first, in parts of bounded size."""
        m = len(self.order) - first - 1
        if k == 3:
            rest = torch.triu_indices(m, m, 1, device=self.values.device)
            highest = self._triples(first)[:, rest[0], rest[1]]
        else:
            rest, highest = self._quads(first)
        index = torch.cat([torch.full_like(rest[:1], first), rest + first + 1])
        step = max(1, TOGETHER // (PER_SET[k] // 2 * (len(self.both) - 1)))
        for at in range(0, index.shape[1], step):
            part = index[:, at : at + step]
            subsets = [self._sum(part, [i for i in range(k) if m >> i & 1]) for m in range(2**k - 1)]
            yield Sets(part, torch.stack([*subsets, highest[:, at : at + step]]))

    def _sum(self, index: Tensor, chosen: list[int]) -> Tensor:
        """[1 + U, T] where all of the chosen ones of the columns hold: of up to three."""
        if not chosen:
            return self.total[:, None].expand(-1, index.shape[1])
        a, *rest = (index[i] for i in chosen)
        if not rest:
            return self.single[:, a]
        if len(rest) == 1:
            return self.double[:, a, rest[0]]
        result = torch.empty(len(self.both), index.shape[1], dtype=torch.float64, device=index.device)
        b, c = rest
        for first in sorted(set(a.tolist())):
            own = a == first
            result[:, own] = self._triples(first)[:, b[own] - first - 1, c[own] - first - 1]
        return result

    def _triples(self, first: int) -> Tensor:
        """[1 + U, m, m] sums where column ``first`` and two after it hold."""
        if first in self.three:
            return self.three[first]
        found = self._products(self.values[first], first + 1)
        if self.is_kept:
            self.three[first] = found
        return found

    def _quads(self, first: int) -> tuple[Tensor, Tensor]:
        """Three columns after ``first``, counted from it, and the sums where all four hold."""
        index, sums = [], []
        m = len(self.order) - first - 1
        for b in range(m - 2):
            rest = torch.triu_indices(m - b - 1, m - b - 1, 1, device=self.values.device)
            joint = self._products(self.values[first] * self.values[first + 1 + b], first + 2 + b)
            index.append(torch.cat([torch.full_like(rest[:1], b), rest + b + 1]))
            sums.append(joint[:, rest[0], rest[1]])
        return torch.cat(index, 1), torch.cat(sums, 1)

    def _products(self, holds: Tensor, start: int) -> Tensor:
        """[1 + U, m, m] of the columns from ``start`` on, over the rows [R] on which ``holds`` is 1."""
        rows = holds.nonzero()[:, 0]
        later, weight = self.values[start:, rows], self.columns.weight[rows]
        scale = 2.0 ** np.ceil(np.log2(self.columns.samples**2 / 2 + 1))
        if len(self.both) == 2 and self.is_whole and self.columns.samples * scale < 2.0**52:
            both = (later * (weight * scale + self.both[1, rows])) @ later.T  # in the digits of one product
            count = (both / scale).round()
            return torch.stack([count, both - count * scale])
        return torch.stack([(later * one) @ later.T for one in self.both[:, rows]])


def _rank(
    columns: Columns, sets: Sets, enumeration: Enumeration, measure: Measure, bounds: Bounds, ranked: Sequence[Ranked]
) -> None:  # fmt: skip
    """Add what beats the last of every unit's best."""
    k = len(sets.index)
    shapes, device = shapes_of(k), sets.sums.device
    cells = sets.sums
    sum_cells(cells)
    table = torch.from_numpy(shapes.cells).to(device) @ cells.flatten(1)
    count, *totals = table.reshape(len(table), *cells.shape[1:]).unbind(1)
    occupied = ((cells[:, 0] > 0.5).long() << torch.arange(2**k, device=device)[:, None]).sum(0)
    drops = torch.from_numpy(shapes.drops).to(device)
    samples = measure.samples
    ready = measure.ready(count)
    allowed = bounds.allow(count), bounds.allow(samples - count)
    for u, total in enumerate(totals):
        value = measure.rate(total, ready, measure.fired[u])
        for flip in (0, 1):
            if flip:
                value = -value if measure.is_odd else measure.rate(-total, measure.ready(samples - count), measure.fired[u])  # fmt: skip
            shape, place = ((value >= ranked[u].best.floor) & allowed[flip]).nonzero(as_tuple=True)
            if not len(shape):
                continue
            real = (drops[shape] & occupied[place, None] != 0).all(1)  # no literal can go
            shape, place = shape[real], place[real]
            scores = value[shape, place]
            best = scores.argsort(descending=True, stable=True)
            made = (
                _spell(columns, enumeration, sets.index[:, place[i]], int(shape[i]), flip, float(scores[i])) for i in best
            )  # fmt: skip
            supported = (one for one in made if bounds.admit(one.formula))
            ranked[u].add(itertools.islice(supported, 4 * ranked[u].best.limit))


def _spell(columns: Columns, enumeration: Enumeration, index: Tensor, shape: int, flip: int, value: float) -> Found:
    """A formula of some columns with its truth vector; flip: the complement of that shape."""
    shapes = shapes_of(len(index))
    numbers = enumeration.order[index].tolist()
    turned = enumeration.turned[numbers].tolist()
    sides = [int(sign) ^ int(turn) ^ flip for sign, turn in zip(shapes.signs[shape], turned, strict=True)]
    tree = (shapes.duals if flip else shapes.trees)[shape]
    truth = tree.fold(lambda name: columns.sides[sides[int(name)], numbers[int(name)]])
    formula = tree.fold(lambda name: columns.spelled[sides[int(name)]][numbers[int(name)]])
    return Found.of(columns, formula, truth.tobytes(), value)
