"""The best formula of three literals, proven: every one of them is scored, and where that is too many, bounded.

Three concepts divide the samples into eight cells. What falls into a cell (its samples n, and their sum S of rank
numbers d) follows by inclusion and exclusion from the sums over one, two and all three concepts. A formula of three
literals is a cell (a AND b AND c, in eight signs), or a literal and one cell more (a OR (b AND c), in 24), or the
complement of such a one, whose AUC is one minus theirs. So one matrix product per concept, over the samples on which it
holds, scores all 64 formulas of a triple: for K = 200 concepts 84 million formulas.

Where the budget ends before the concepts do, the formulas left over are bounded. Each is f AND l or f OR l (or the
complement) of a pair f = x AND y of the concepts left over. With T the samples on which f AND l holds, |T| = s,
AUC(T) - 1/2 = S(T) / (2 s (N - s)) = mean of d over T / (2 (N - s)). T lies in f, so the mean is at most that of the s
highest-ranked samples of f; that mean falls as s grows, and 1 / (N - s) rises. So for s between s0 and s1

    AUC(T) - 1/2 <= mean of d over the s0 highest of f / (2 (N - s1)),

and the largest of these over the steps from one rank bin to the next, within the bounds of s, bounds all extensions.
The lowest ones bound the complement, and of f OR l the complement is an AND of the samples outside of f.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.candidates import Found
from absence_plugins.methods.invert.search import Bounds, Ranked
from absence_plugins.methods.invert.table import Array, Columns

TOGETHER = 2**18  # triples times units scored at a time
TABLES = 2**22  # entries of the tables of pairs, over the units together
PER_TRIPLE = 64  # formulas
CELLS = tuple(itertools.product((0, 1), repeat=3))  # sides of a, b, c: 0 holds, 1 fails
BINS = 128  # of ranks, for the bound
SLACK = 1e-12


@dataclass(frozen=True, eq=False)
class Triples:
    """Some triples a < b < c of columns: their numbers [3, T], and the sums over one, two and three columns.

    Attributes:
        index: a, b, c.
        counts: samples: seven tensors [T] (a, b, c, ab, ac, bc, abc).
        sums: of rank numbers, [U, T] each.
    """

    index: Tensor
    counts: tuple[Tensor, ...]
    sums: tuple[Tensor, ...]


def cost_of(columns: Columns) -> float:
    """Multiplications that the products of all triples take, per unit."""
    count = torch.minimum(columns.count, columns.samples - columns.count) / columns.samples * columns.rows
    later = torch.arange(len(columns) - 1, -1, -1, dtype=torch.float64, device=count.device)
    return float((count * later**2).sum())


def certify_all(columns: Columns, sums: Tensor, bounds: Bounds, ranked: Sequence[Ranked], budget: float) -> None:
    """:func:`certify`, a few units at a time; sets every unit's gap. With a budget of 0, of up to two literals: 0."""
    step = max(1, TABLES // len(columns) ** 2)
    for at in range(0, len(sums), step):
        part = ranked[at : at + step]
        gaps = certify(columns, sums[at : at + step], bounds, part, budget) if budget else [0.0] * len(part)
        for one, gap in zip(part, gaps, strict=True):
            one.gap = gap


def certify(columns: Columns, sums: Tensor, bounds: Bounds, ranked: Sequence[Ranked], budget: float) -> list[float]:
    """Add to every unit's formulas the best of three literals, and return how far beyond its best another could be.

    Args:
        columns: the concepts searched.
        sums: [U, R] rank numbers per distinct label row.
        bounds: on how many samples a formula must hold.
        ranked: what was found of up to two literals (all of these), and by the beam; added to in place.
        budget: formulas that may be scored per unit.

    Returns:
        Per unit 0.0 where every formula was scored, so that the best is proven; else an upper bound of what the AUC of
        a formula that was not scored exceeds the best by, at least 0.0.
    """
    triples = Enumeration(columns, sums)
    spent = 0.0
    for a in range(len(columns) - 2):
        size = (len(columns) - a - 1) * (len(columns) - a - 2) // 2
        if spent + PER_TRIPLE * size > budget:
            ceiling = bound_pairs(columns, sums, bounds, a)
            found = [one.best.found[0].value if one.best.found else -0.5 for one in ranked]
            return [max(0.0, float(high) - value) for high, value in zip(ceiling, found, strict=True)]
        spent += PER_TRIPLE * size
        triples.add(a)
        if triples.waiting * len(sums) >= TOGETHER or a == len(columns) - 3:
            for part in triples.take():
                _rank(columns, part, bounds, ranked)
    return [0.0] * len(sums)


class Enumeration:
    """Sums over one, two and three columns; each column is turned to the side on which it holds less often."""

    def __init__(self, columns: Columns, sums: Tensor) -> None:
        self.columns, self.units = columns, sums
        self.turned = columns.count * 2 > columns.samples
        self.values = (columns.values ^ self.turned[:, None]).double()
        both = torch.cat([columns.weight[None], sums])  # the count, then the sums of the units
        self.single = both @ self.values.T  # [1 + U, J]
        self.double = torch.stack([(self.values * one) @ self.values.T for one in both])
        self.kept: list[tuple[int, Tensor]] = []

    @property
    def waiting(self) -> int:
        """Triples added and not taken."""
        return sum(len(one[0]) for _, one in self.kept)

    def add(self, a: int) -> None:
        """All triples whose first column is ``a``."""
        rows = self.values[a].nonzero()[:, 0]
        later = self.values[a + 1 :, rows]
        b, c = torch.triu_indices(len(later), len(later), 1, device=later.device)
        triple = []
        scale = 2.0 ** np.ceil(np.log2(self.columns.samples**2 / 2 + 1))
        weight = self.columns.weight[rows]
        if len(self.units) == 1 and self.columns.samples * scale < 2.0**52:  # both sums in the digits of one product
            joint = ((later * (weight * scale + self.units[0, rows])) @ later.T)[b, c]
            count = (joint / scale).round()
            triple = [count, joint - count * scale]
        else:
            triple = [((later * one) @ later.T)[b, c] for one in (weight, *self.units[:, rows])]
        self.kept.append((a, torch.stack(triple)))

    def take(self) -> Iterator[Triples]:
        """What was added, in parts of bounded size."""
        kept, self.kept = self.kept, []
        device = self.values.device
        index, sums = [], []
        for a, triple in kept:
            m = len(self.columns) - a - 1
            later = torch.triu_indices(m, m, 1, device=device) + a + 1
            index.append(torch.cat([torch.full_like(later[:1], a), later]))
            sums.append(triple)
        numbers, three = torch.cat(index, 1), torch.cat(sums, 1)
        step = max(1, TOGETHER // len(self.units))
        for at in range(0, numbers.shape[1], step):
            a, b, c = own = numbers[:, at : at + step]
            parts = (self.single[:, a], self.single[:, b], self.single[:, c], self.double[:, a, b], self.double[:, a, c],
                     self.double[:, b, c], three[:, at : at + step])  # fmt: skip
            yield Triples(own, tuple(one[0] for one in parts), tuple(one[1:] for one in parts))


def _cells(parts: Sequence[Tensor], total: float) -> dict[tuple[int, ...], Tensor]:
    """What falls into the eight cells, by inclusion and exclusion."""
    a, b, c, ab, ac, bc, abc = parts
    return {
        (0, 0, 0): abc, (0, 0, 1): ab - abc, (0, 1, 0): ac - abc, (1, 0, 0): bc - abc,
        (0, 1, 1): a - ab - ac + abc, (1, 0, 1): b - ab - bc + abc, (1, 1, 0): c - ac - bc + abc,
        (1, 1, 1): total - a - b - c + ab + ac + bc - abc,
    }  # fmt: skip


def _rank(columns: Columns, triples: Triples, bounds: Bounds, ranked: Sequence[Ranked]) -> None:
    """Add what beats the last of every unit's best: 8 cells, and 24 times a literal and one cell more."""
    samples = columns.samples
    count, total = _cells(triples.counts, samples), _cells(triples.sums, 0.0)
    floors = torch.tensor([one.best.floor for one in ranked], dtype=torch.float64, device=columns.weight.device)[
        :, None
    ]
    for cell in CELLS:
        _add(columns, triples, cell, None, (count[cell], total[cell]), bounds, ranked, floors)
        for z in range(3):
            # z is turned: the literal on the other side, and of its opposite side this cell
            side = 1 - cell[z]
            n, s = triples.counts[z], triples.sums[z]
            n, s = (n, s) if side == 0 else (samples - n, -s)
            _add(columns, triples, cell, z, (n + count[cell], s + total[cell]), bounds, ranked, floors)


def _add(
    columns: Columns, triples: Triples, cell: tuple[int, ...], extra: int | None, sums: tuple[Tensor, Tensor],
    bounds: Bounds, ranked: Sequence[Ranked], floors: Tensor,
) -> None:  # fmt: skip
    """One shape of formula over all triples, and its complement, for all units."""
    n, s = sums
    value = s / (2 * n * (columns.samples - n))
    high = value >= floors
    low = value <= -floors
    for mask, flip in ((high, False), (low, True)):
        unit, place = (mask & bounds.allow(columns.samples - n if flip else n)).nonzero(as_tuple=True)
        if not len(unit):
            continue
        real = _is_new(triples, cell, extra, place, columns.samples)
        for u in sorted(set(unit[real].tolist())):
            own = place[real & (unit == u)]
            scores = -value[u, own] if flip else value[u, own]
            best = scores.argsort(descending=True, stable=True)[: 4 * ranked[u].best.limit]
            made = [_spell(columns, triples, int(own[i]), cell, extra, flip, float(scores[i])) for i in best]
            ranked[u].add(made)
            floors[u] = max(float(floors[u]), ranked[u].best.floor)


def _is_new(triples: Triples, cell: tuple[int, ...], extra: int | None, place: Tensor, samples: int) -> Tensor:
    """Whether no literal of the formula can go: neither the cell nor what it would merge with is empty."""
    count = _cells([one[place] for one in triples.counts], samples)
    result = count[cell] > 0
    for k in range(3):
        if k != extra:
            result &= count[tuple(1 - side if i == k else side for i, side in enumerate(cell))] > 0
    return result


def _spell(
    columns: Columns, triples: Triples, place: int, cell: tuple[int, ...], extra: int | None, flip: bool, value: float
) -> Found:
    """The formula of one triple with its truth vector."""
    index = triples.index[:, place].tolist()
    turned = [int(columns.count[j] * 2 > columns.samples) for j in index]
    sides = [side ^ turn ^ int(flip) for side, turn in zip(cell, turned, strict=True)]
    if extra is not None:
        sides[extra] ^= 1
    literals = [columns.spelled[side][j] for side, j in zip(sides, index, strict=True)]
    bits = [columns.sides[side, j] for side, j in zip(sides, index, strict=True)]
    rest = [k for k in range(3) if k != extra]
    formula, truth = literals[rest[0]], bits[rest[0]]
    for k in rest[1:]:
        formula, truth = (formula | literals[k], truth | bits[k]) if flip else (formula & literals[k], truth & bits[k])
    if extra is not None:  # (b AND c) OR a; its complement is an AND of an OR
        formula, truth = (formula & literals[extra], truth & bits[extra]) if flip else (formula | literals[extra], truth | bits[extra])  # fmt: skip
    return Found.of(columns, formula, truth.tobytes(), value)


def bound_pairs(columns: Columns, sums: Tensor, bounds: Bounds, start: int) -> Tensor:
    """[U] upper bounds of AUC - 1/2 of every f AND l, f OR l, and complements, f a pair of the columns from ``start``."""
    values = columns.values[start:]
    rows, j = columns.rows, len(values)
    result = torch.full((len(sums),), -0.5, dtype=torch.float64, device=values.device)
    if j < 2:
        return result
    first, second = torch.triu_indices(j, j, 1, device=values.device)
    both = torch.cat([values, ~values]).double()
    for u, own in enumerate(sums):
        order = (own / columns.weight).argsort()
        edges = np.linspace(0, rows, min(BINS, rows) + 1).astype(int)
        count: list[Tensor] = []
        total: list[Tensor] = []
        for low, high in itertools.pairwise(edges):
            part = order[low:high]
            block = both[:, part]
            for kept, weights in ((count, columns.weight[part]), (total, own[part])):
                product = (block * weights) @ block.T
                kept.append(
                    torch.stack(
                        [product[x : x + j, y : y + j][first, second] for x in (0, j) for y in (0, j)]
                    ).flatten()
                )
        within = torch.stack(count), torch.stack(total)  # [bins, cells]
        outside = _bin_sums(columns.weight, order, edges), _bin_sums(own, order, edges)
        highest = torch.stack([(own / columns.weight)[order[high - 1]] for high in edges[1:]])[:, None]
        lowest = torch.stack([(own / columns.weight)[order[low]] for low in edges[:-1]])[:, None]
        for n, s in (within, (outside[0][:, None] - within[0], outside[1][:, None] - within[1])):
            for flip in (False, True):  # the highest of it as what holds, the lowest as what fails
                least, most = (columns.samples - bounds.most, columns.samples - bounds.least) if flip else (bounds.least, bounds.most)  # fmt: skip
                turned = (n, -s, -lowest) if flip else (n.flip(0), s.flip(0), highest.flip(0))
                result[u] = torch.maximum(result[u], _steps(*turned, least, most, columns.samples).max())
    return result.clamp(max=0.5)


def _bin_sums(values: Tensor, order: Tensor, edges: Array) -> Tensor:
    return torch.stack([values[order[low:high]].sum() for low, high in itertools.pairwise(edges)])


def _steps(n: Tensor, s: Tensor, first: Tensor, least: int, most: int, samples: int) -> Tensor:
    """Bound of AUC - 1/2 for subsets: n, s [bins, M] from the end on that side, and the largest d of a bin [bins, 1]."""
    count = torch.nn.functional.pad(n.cumsum(0), (0, 0, 1, 0))
    total = torch.nn.functional.pad(s.cumsum(0), (0, 0, 1, 0))
    mean = total / count.clamp(min=1)
    best = torch.full_like(n[0], -0.5)
    for step in range(len(n)):
        s0, s1 = count[step].clamp(min=least), count[step + 1].clamp(max=most)
        top = torch.where(count[step] > 0, mean[step], first[step])
        bound = top / (2 * (samples - s1)).clamp(min=1)
        best = torch.maximum(best, torch.where((s0 <= s1) & (n[step] > 0), bound, -0.5))
    return best + SLACK
