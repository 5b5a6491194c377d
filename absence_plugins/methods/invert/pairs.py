"""All formulas of two literals: scored, or excluded by a bound, the best of every unit.

Sums over the samples on which two concepts hold are one matrix product per unit, 2 R K^2 operations for R distinct label
rows and K concepts: with a thousand concepts most of the time. So where that is much, the concepts of the best literals
are paired with all others first; what is found sets a floor, and a sample of the rows tells which other pairs can reach
it (:mod:`~absence_plugins.methods.invert.screening`). These are scored exactly, by one product over the rows for as few
concepts as take part in all of them. A unit of which too many remain, as one that no concept fits, gets the whole
product. The result is that of the whole product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.candidates import Pairs
from absence_plugins.methods.invert.measures import Measure
from absence_plugins.methods.invert.ranking import Bounds, Ranking, rank_distinct, rank_some
from absence_plugins.methods.invert.scores import CHUNK
from absence_plugins.methods.invert.screening import Screen, count_cells
from absence_plugins.methods.invert.table import HELD, Columns

FEW = 64  # columns with which everything is scored
SIZES = (2**14, 2**15, 2**16, 2**18)  # samples that screen, each those pairs that the one before leaves
DRAWN = 2**28  # truths of columns on samples that are kept
WORTH = 0.5  # of the pairs more than a half must be excluded
PART = 2  # of the rows at most a half are drawn
COVER = 4  # of the columns at most a quarter scored one by one
ROWS = 8  # columns that are scored rather than screened again
TABLES = 2**25  # pairs of columns screened at a time, over the units together
_TURNED = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7])  # the code of :class:`Pairs` where a and b change places

Rows = dict[tuple[int, int], Tensor]  # unit, column -> sums of d where that column and another one hold [J]


@dataclass(frozen=True, eq=False)
class Problem:
    """A block of units whose pairs are searched.

    Attributes:
        columns: the concepts searched.
        sums: [U, R] numbers d per distinct label row, and their sums over the columns,
        literal: [U, J].
        measure: the score.
        bounds: on how many samples a formula must hold.
        rankings: every unit's best, literals added; pairs are added to them.
    """

    columns: Columns
    sums: Tensor
    literal: Tensor
    measure: Measure
    bounds: Bounds
    rankings: Sequence[Ranking]

    def of(self, units: Sequence[int]) -> Problem:
        """Some of the units."""
        if len(units) == len(self.rankings):
            return self
        index = torch.tensor(units, device=self.sums.device)
        measure = replace(self.measure, fired=self.measure.fired[index])
        rankings = [self.rankings[u] for u in units]
        return replace(self, sums=self.sums[index], literal=self.literal[index], measure=measure, rankings=rankings)

    @property
    def step(self) -> int:
        """Columns whose pairs are ranked together."""
        return max(1, CHUNK // (8 * len(self.columns)))


def search_pairs(problem: Problem, beam: int) -> Rows:
    """Add the best formulas of two literals to every unit's ranking. beam: concepts that are paired first; their sums."""
    columns = problem.columns
    left = list(range(len(problem.rankings)))
    rows: Rows = {}
    if problem.measure.name == "auc" and sizes_of(columns):
        left, rows = _screen(problem, beam)
    if left:
        _score_all(problem.of(left))
    return rows


def _score_all(problem: Problem) -> None:
    """From one product per unit all four ANDs, and the ORs as their complements."""
    columns, bounds, measure = problem.columns, problem.bounds, problem.measure
    j, samples = len(columns), columns.samples
    for start in range(0, j - 1, problem.step):
        stop = min(j, start + problem.step)
        a, b = columns.count[start:stop, None], columns.count[None, start:]
        if j**2 <= HELD:
            both = columns.shared[start:stop, start:].double()
        else:
            both = columns.pairs(start, stop, columns.weight[None])[0]
        later = torch.ones(both.shape, dtype=torch.bool, device=both.device).triu(1)
        counts, allowed = _allow(both, a, b, bounds, samples, later)
        if not bool(allowed.any()):
            continue
        ready = torch.where(allowed, measure.ready(counts), torch.nan)  # what is not allowed is below any floor
        candidates = Pairs(columns, start, *both.shape)
        for u, ranking in enumerate(problem.rankings):
            joint = columns.pairs(start, stop, problem.sums[u : u + 1], is_whole=measure.is_whole)[0]
            first, second = problem.literal[u, start:stop, None], problem.literal[u, None, start:]
            values = measure.rate(_total(joint, first, second), ready, measure.fired[u]).flatten()
            ranking.add(rank_distinct(columns, values, bounds, ranking.floor, ranking.limit, candidates))


def _allow(both: Tensor, a: Tensor, b: Tensor, bounds: Bounds, samples: int, real: Tensor) -> tuple[Tensor, Tensor]:
    """On how many samples the cells and their complements hold [8, ...], and which of them are formulas."""
    count, (first, second) = count_cells(both, a, b, samples)
    # a cell that is empty, or all of one of its sides, is nothing or a literal
    real = real & (count > 0) & (count < first) & (count < second)
    counts = torch.cat([count, samples - count])
    return counts, torch.cat([real, real]) & bounds.allow(counts)


def _total(joint: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Sums over the cells a AND b, a AND NOT b, NOT a AND b, NOT a AND NOT b, and over their complements [8, ...]."""
    total = torch.stack([joint, first - joint, second - joint, joint - first - second])
    return torch.cat([total, -total])


@dataclass(frozen=True, eq=False)
class Scored:
    """Some formulas of two literals of one unit.

    Attributes:
        place: as a number: (code J + a) J + b, code that of :class:`Pairs`, column a before column b.
        value: their scores.
    """

    place: Tensor
    value: Tensor

    def above(self, floor: float) -> Scored:
        """Those of at least that score."""
        kept = self.value >= floor
        return Scored(self.place[kept], self.value[kept])

    @classmethod
    def join(cls, parts: Sequence[Scored]) -> Scored:
        """All of them, each once, in order."""
        if not parts:
            return cls(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.float64))
        place = torch.cat([one.place for one in parts])
        value = torch.cat([one.value for one in parts])
        order = place.argsort(stable=True)
        place, value = place[order], value[order]
        new = torch.ones(len(place), dtype=torch.bool, device=place.device)
        new[1:] = place[1:] != place[:-1]
        return cls(place[new], value[new])

    def rank(self, problem: Problem, ranking: Ranking) -> None:
        """Add them to a ranking, as many columns at a time as where all are scored."""
        j, step = len(problem.columns), problem.step
        code, a, b = self.place // j**2, self.place // j % j, self.place % j
        for start in range(0, j - 1, step):
            k, m = min(step, j - start), j - start
            own = (a >= start) & (a < start + k) & (self.value >= ranking.floor)
            if bool(own.any()):
                numbers = (code[own] * k + a[own] - start) * m + b[own] - start
                order = numbers.argsort()
                pairs = Pairs(problem.columns, start, k, m)
                ranking.add(
                    rank_some(
                        problem.columns, numbers[order], self.value[own][order], problem.bounds, ranking.limit, pairs
                    )
                )


def _score_rows(
    problem: Problem, asked: Sequence[tuple[int, int]], floors: Sequence[float]
) -> tuple[list[list[Scored]], Rows]:
    """Of every unit the pairs of columns with all others that have its floor; asked: units and columns; their sums."""
    columns, measure = problem.columns, problem.measure
    j, samples = len(columns), columns.samples
    found: list[list[Scored]] = [[] for _ in floors]
    if not asked:
        return found, {}
    device = problem.sums.device
    owner, chosen = (torch.tensor(side, device=device) for side in zip(*asked, strict=True))
    joint = columns.rows_of(chosen, problem.sums, owner)
    least = torch.tensor(floors, dtype=torch.float64, device=device)
    every = torch.arange(j, device=device)
    step = max(1, CHUNK // (64 * j))
    for at in range(0, len(asked), step):
        own, a = owner[at : at + step], chosen[at : at + step]
        counts, allowed = _allow(
            columns.shared[a].double(),
            columns.count[a][:, None],
            columns.count,
            problem.bounds,
            samples,
            a[:, None] != every,
        )
        total = _total(joint[at : at + step], problem.literal[own, a][:, None], problem.literal[own])
        values = measure.rate(
            total, torch.where(allowed, measure.ready(counts), torch.nan), measure.fired[own][:, None]
        )
        code, row, b = (values >= least[own][:, None]).nonzero(as_tuple=True)
        value, first = values[code, row, b], a[row]
        code = torch.where(b < first, _TURNED.to(device)[code], code)
        place = (code * j + torch.minimum(first, b)) * j + torch.maximum(first, b)
        for u in torch.unique(own[row]).tolist():
            mine = own[row] == u
            found[u].append(Scored(place[mine], value[mine]))
    return found, dict(zip(asked, joint, strict=True))


def _screen(problem: Problem, beam: int) -> tuple[list[int], Rows]:
    """Rank the pairs of units of which a sample excludes most; those of which it does not, and sums."""
    columns, rankings = problem.columns, problem.rankings
    first = [_best_columns(columns, ranking, beam) for ranking in rankings]
    asked = [(u, c) for u, own in enumerate(first) for c in own]
    scored, rows = _score_rows(problem, asked, [one.floor for one in rankings])
    floors = []
    for ranking, own in zip(rankings, scored, strict=True):
        seeded = ranking.copy()
        Scored.join(own).rank(problem, seeded)
        floors.append(seeded.floor)
    able = [u for u, floor in enumerate(floors) if floor > 0]
    reachable = _reachable(problem.of(able), [first[u] for u in able], [floors[u] for u in able])
    rest = dict(zip(able, reachable, strict=True))
    asked = [(u, c) for u, own in rest.items() for c in own or ()]
    more, _ = _score_rows(problem, asked, floors)
    done = [u for u, own in rest.items() if own is not None]
    for u in done:
        Scored.join([*(one.above(floors[u]) for one in scored[u]), *more[u]]).rank(problem, rankings[u])
    return sorted({*range(len(rankings))} - {*done}), rows


def _best_columns(columns: Columns, ranking: Ranking, beam: int) -> list[int]:
    """The columns of a unit's best literals."""
    return list(dict.fromkeys(columns.column_of[one.formula.name] for one in ranking.found[:beam]))


def _reachable(problem: Problem, paired: Sequence[Sequence[int]], floors: Sequence[float]) -> list[list[int] | None]:
    """Of every unit columns that are in all pairs that can reach its floor, those ``paired`` already left out; None for
    a unit of too many.

    A sample that is expected to leave most of a unit's pairs is not tried.
    """
    result: list[list[int] | None] = []
    step = max(1, TABLES // len(problem.columns) ** 2)
    for at in range(0, len(floors), step):
        part = problem.of(range(at, min(at + step, len(floors))))
        result += _narrow(part, paired[at : at + step], floors[at : at + step])
    return result


def _narrow(problem: Problem, paired: Sequence[Sequence[int]], floors: Sequence[float]) -> list[list[int] | None]:
    """The same of some units together."""
    columns, j = problem.columns, len(problem.columns)
    left: dict[int, Tensor] = {}
    chosen: dict[int, list[int]] = {}
    for size in sizes_of(columns):
        units = [u for u in range(len(floors)) if u not in chosen or len(chosen[u]) > ROWS]
        if not units:
            break
        part = problem.of(units)
        screen = Screen(columns, part.sums, part.literal, problem.bounds, size)
        tried = {u: p for p, u in enumerate(units) if screen.expect(p, left.get(u), floors[u]) < WORTH}
        new = [u for u in tried if u not in left]
        found = screen.pairs([tried[u] for u in new], [floors[u] for u in new]) if new else []
        for u, pairs in zip(new, found, strict=True):
            left[u] = _without(pairs, paired[u])
        for u, p in tried.items():
            left[u] = left[u] if u in new else screen.among(p, left[u], chosen[u], floors[u])
            chosen[u] = _cover(left[u], j)
    return [None if len(chosen.get(u, range(j))) > j // COVER else chosen[u] for u in range(len(floors))]


def sizes_of(columns: Columns) -> list[int]:
    """Samples that screen, one after the other; none where screening does not pay."""
    if len(columns) < FEW or len(columns) ** 2 > HELD:
        return []
    most = min(columns.rows // PART, DRAWN // len(columns))
    return [size for size in SIZES if size <= most]


def _without(pairs: Tensor, paired: Sequence[int]) -> Tensor:
    """Pairs [2, P] without those of some columns."""
    there = torch.tensor(list(paired), device=pairs.device)
    kept: Tensor = pairs[:, ~torch.isin(pairs, there).any(0)]
    return kept


def _cover(pairs: Tensor, columns: int) -> list[int]:
    """Columns of which every pair [2, P] has one: those in most pairs first."""
    first, second = pairs.cpu().numpy()
    met = np.zeros((columns, columns), bool)
    met[first, second] = met[second, first] = True
    left = met.sum(1)
    chosen: list[int] = []
    while left.any():
        most = int(left.argmax())
        chosen.append(most)
        left -= met[most]
        left[most] = 0
        met[most] = met[:, most] = False
    return chosen
