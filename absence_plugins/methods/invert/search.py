"""The search for formulas of highest score: exact for up to two literals, a beam beyond, one formula per truth
vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.candidates import Candidates, Extensions, Found, Literals, Pairs
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.measures import Measure
from absence_plugins.methods.invert.scores import CHUNK
from absence_plugins.methods.invert.support import Support
from absence_plugins.methods.invert.table import Columns

FIRST = 64  # candidates looked at first; more where many of them say the same
TOGETHER = 256  # of them unpacked at a time,
BYTES = 2**20  # in about so many bytes


@dataclass(frozen=True)
class Bounds:
    """On how many samples a formula must hold, both ends included.

    Attributes:
        least, most: numbers of samples, where all are known.
        shares: of those on which a formula is known.
        support: least number on which it must hold, and fail.
        supports: what counts independent samples, of groups and of the held-out part; none where the numbers of samples
            above say it all.
    """

    least: int
    most: int
    shares: tuple[float, float] = (0.0, 1.0)
    support: int = 1
    supports: tuple[Support, ...] = ()

    @classmethod
    def of(cls, low: float, high: float, support: int, samples: int, supports: tuple[Support, ...] = ()) -> Bounds:
        """From shares of ``samples`` and a least number on either side."""
        slack = 1e-9 * samples  # 0.07 * 100 is 7.000000000000001
        least, most = math.ceil(low * samples - slack), math.floor(high * samples + slack)
        return cls(max(support, least), min(samples - support, most), (low, high), support, supports)

    def allow(self, count: Tensor) -> Tensor:
        """Whether each count lies within the bounds."""
        return (count >= self.least) & (count <= self.most)

    def admit(self, formula: Formula) -> bool:
        """Whether a formula rests on enough independent samples; asked of those that would be kept."""
        return all(one.admits(formula) for one in self.supports)

    def allow_known(self, true: Tensor, false: Tensor) -> Tensor:
        """The same of formulas that hold on ``true`` samples, fail on ``false``, and are unknown on the others."""
        known, (low, high) = true + false, self.shares
        share = (true >= (low - 1e-9) * known) & (true <= (high + 1e-9) * known)
        return share & (true >= self.support) & (false >= self.support)


class Ranking:
    """The best formulas of one unit, one per truth vector, in order: score, then short, few NOTs, early concepts."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: list[Found] = []

    def add(self, more: Iterable[Found]) -> None:
        """Take what is new, or spelled shorter."""
        known = {one.truth: one for one in self.found}
        for one in more:
            if one.truth not in known or one.key < known[one.truth].key:
                known[one.truth] = one
        self.found = sorted(known.values(), key=lambda one: one.key)[: self.limit]

    @property
    def floor(self) -> float:
        """What a pair must reach: the last one's value, or more than that of a last one that is a literal, so
        shorter.
        """
        if len(self.found) < self.limit:
            return -math.inf
        last = self.found[-1]
        return last.value if last.formula.length > 1 else math.nextafter(last.value, math.inf)


class Ranked:
    """One unit's best formulas, and the best of every length (exactly so many literals)."""

    def __init__(self, top: int) -> None:
        self.best = Ranking(top)
        self.gap: float | None = None  # by how much a formula could exceed the best; None if nobody knows
        self.of_length: dict[int, Ranking] = {}

    def add(self, more: Iterable[Found]) -> None:
        """Take what is new, or spelled shorter."""
        more = list(more)
        self.best.add(more)
        for length in {one.formula.length for one in more}:
            ranking = self.of_length.setdefault(length, Ranking(self.best.limit))
            ranking.add(one for one in more if one.formula.length == length)

    @property
    def found(self) -> list[Found]:
        """The best, then the best of shorter lengths that are not among them."""
        known: dict[bytes, Found] = {}
        for one in (*self.best.found, *(each for n in sorted(self.of_length) for each in self.of_length[n].found)):
            known.setdefault(one.truth, one)
        return list(known.values())


def search(
    columns: Columns, sums: Tensor, measure: Measure, *, length: int, beam: int, top: int, bounds: Bounds, exact_pairs: bool
) -> list[Ranked]:  # fmt: skip
    """The best distinct formulas of every unit: ``sums`` [U, R] of numbers d per distinct row -> ``top`` each.

    Level 1 is every literal. Level 2 with ``exact_pairs`` is every formula of two literals. A beam extends the best
    ``beam`` formulas that were not extended before by ``AND c``, ``AND NOT c``, ``OR c``, ``OR NOT c``; beside it runs
    a second one that starts from the best pairs, so that the result is never below the first beam's.
    """
    best = [Ranked(top) for _ in sums]
    pool = [Ranking(top + 2 * beam) for _ in sums]
    literal = columns.products(sums, is_whole=measure.is_whole)
    _literals(columns, literal, measure, bounds, pool)
    plain = [ranking.found[:beam] for ranking in pool]
    seeded: list[list[Found]] = [[] for _ in sums]
    walked: list[set[bytes]] = [set() for _ in sums]
    extended: list[set[bytes]] = [set() for _ in sums]
    pairs = [Ranking(top + 2 * beam) for _ in sums] if exact_pairs and length > 1 else []
    for u, ranking in enumerate(pairs):
        ranking.add(pool[u].found)
    if pairs:
        _pairs(columns, sums, literal, measure, bounds, pairs)
    for u, ranked in enumerate(best):
        ranked.add(pairs[u].found if pairs else pool[u].found)
    if pairs and length == 2:
        return best
    for level in range(2, length + 1):
        wanted = [
            top if level == length else max(top, 3 * beam + len(a) + len(b))
            for a, b in zip(walked, extended, strict=True)
        ]
        grown = _extensions(columns, sums, literal, measure, bounds, plain, wanted)
        aside: list[list[Found]] = [[] for _ in sums]
        if any(seeded):
            aside = _extensions(columns, sums, literal, measure, bounds, seeded, wanted)
        for u, ranked in enumerate(best):
            ranked.add((*grown[u], *aside[u]))
            extended[u] |= {one.truth for one in seeded[u]}
            walked[u] |= {one.truth for one in plain[u]}
            plain[u] = [one for one in grown[u] if one.truth not in walked[u]][:beam]
            if pairs:
                following = pairs[u].found if level == 2 else (*grown[u], *aside[u])
                fresh, done = Ranking(beam), extended[u] | walked[u]
                fresh.add(one for one in following if one.truth not in done)
                already = {one.truth for one in plain[u]}
                seeded[u] = [one for one in fresh.found if one.truth not in already]
    return best


def _best_first(values: Tensor, floor: float) -> Iterator[tuple[Array, Array]]:
    """Numbers and values of the entries of ``values`` from ``floor`` on, in falling chunks that split no tie."""
    index = (values >= floor).nonzero()[:, 0] if floor > -torch.inf else (values > -torch.inf).nonzero()[:, 0]
    kept = values[index]
    below, count = torch.inf, FIRST
    while len(kept):
        low = float(kept.topk(count).values[-1]) if count < len(kept) else -torch.inf
        chosen = (kept >= low) & (kept < below)
        yield index[chosen].cpu().numpy(), kept[chosen].cpu().numpy()
        if low == -torch.inf:
            return
        below, count = low, 8 * count


def _distinct(
    columns: Columns, values: Tensor, bounds: Bounds, floor: float, wanted: int, candidates: Candidates
) -> list[Found]:
    """The best ``wanted`` candidates of different truth that have support, by their ``values``."""
    found: dict[bytes, Found] = {}
    for index, value in _best_first(values, floor):
        order = np.lexsort((*candidates.keys(index), -value))
        index, value = index[order], value[order]
        step = max(8, min(TOGETHER, BYTES // columns.sides.shape[2]))
        for start in range(0, len(index), step):
            part = slice(start, start + step)
            for i, v, packed in zip(index[part], value[part], candidates.truths(index[part]), strict=True):
                if len(found) >= wanted:
                    return list(found.values())
                truth = packed.tobytes()
                if truth not in found:
                    made = Found.of(columns, candidates.spell(int(i)), truth, float(v))
                    if bounds.admit(made.formula):
                        found[truth] = made
    return list(found.values())


def _literals(columns: Columns, total: Tensor, measure: Measure, bounds: Bounds, rankings: Sequence[Ranking]) -> None:
    """Every concept and its NOT."""
    count = torch.cat([columns.count, columns.samples - columns.count])
    values = measure.values(torch.cat([total, -total], 1), count, measure.fired[:, None], bounds.allow(count))
    candidates = Literals(columns)
    for ranking, own in zip(rankings, values, strict=True):
        ranking.add(_distinct(columns, own, bounds, -torch.inf, ranking.limit, candidates))


def _pairs(
    columns: Columns, sums: Tensor, literal: Tensor, measure: Measure, bounds: Bounds, rankings: Sequence[Ranking]
) -> None:
    """Every formula of two literals: from one product per unit all four ANDs, and the ORs as their complements."""
    j, samples = len(columns), columns.samples
    step = max(1, CHUNK // (8 * j))
    for start in range(0, j - 1, step):
        stop = min(j, start + step)
        a, b = columns.count[start:stop, None], columns.count[None, start:]
        both = columns.pairs(start, stop, columns.weight[None])[0]
        # cells: a AND b, a AND NOT b, NOT a AND b, NOT a AND NOT b
        count = torch.stack([both, a - both, b - both, samples - a - b + both])
        sides = ((a, b), (a, samples - b), (samples - a, b), (samples - a, samples - b))
        later = torch.ones(both.shape, dtype=torch.bool, device=sums.device).triu(1)
        # a cell that is empty, or all of one of its sides, is nothing or a literal
        real = torch.stack([later & (n > 0) & (n < x) & (n < y) for n, (x, y) in zip(count, sides, strict=True)])
        allowed = torch.cat([real & bounds.allow(count), real & bounds.allow(samples - count)])
        if not bool(allowed.any()):
            continue
        counts = torch.cat([count, samples - count])
        ready = torch.where(allowed, measure.ready(counts), torch.nan)  # what is not allowed is below any floor
        candidates = Pairs(columns, start, *both.shape)
        for u, ranking in enumerate(rankings):
            joint = columns.pairs(start, stop, sums[u : u + 1], is_whole=measure.is_whole)[0]
            first, second = literal[u, start:stop, None], literal[u, None, start:]
            total = torch.stack([joint, first - joint, second - joint, joint - first - second])
            values = measure.rate(torch.cat([total, -total]), ready, measure.fired[u]).flatten()
            ranking.add(_distinct(columns, values, bounds, ranking.floor, ranking.limit, candidates))


def _extensions(
    columns: Columns,
    sums: Tensor,
    literal: Tensor,
    measure: Measure,
    bounds: Bounds,
    beams: Sequence[Sequence[Found]],
    wanted: Sequence[int],
) -> list[list[Found]]:
    """The best distinct extensions of every unit's formulas by a literal of another concept, if it changes anything."""
    result: list[list[Found]] = []
    widest = max(1, max(map(len, beams)))
    step = max(1, CHUNK // (8 * widest * len(columns)))
    for start in range(0, len(beams), step):
        part = beams[start : start + step]
        sizes = [len(beam) for beam in part]
        if not any(sizes):
            result += [[] for _ in part]
            continue
        packed = np.stack([np.frombuffer(one.truth, np.uint8) for beam in part for one in beam])
        owner = torch.repeat_interleave(torch.arange(len(part)), torch.tensor(sizes)).to(sums.device) + start
        joint = columns.joint(packed, sums, owner, is_whole=measure.is_whole)
        (count, n), (total, s) = ((one[:, :-1], one[:, -1:]) for one in joint)
        c, sc = columns.count, literal[owner]
        counts = torch.stack([count, n - count, n + c - count, columns.samples - c + count], 1)
        totals = torch.stack([total, s - total, s + sc - total, total - sc], 1)
        allowed = bounds.allow(counts) & (counts != n[:, :, None])
        allowed &= ~columns.repeats([one.formula for beam in part for one in beam])[:, None]
        values = measure.values(totals, counts, measure.fired[owner][:, None, None], allowed)
        at = 0
        for own, size, limit in zip(part, sizes, wanted[start : start + step], strict=True):
            candidates = Extensions(columns, own, packed[at : at + size])
            scores = values[at : at + size].flatten()
            result.append(_distinct(columns, scores, bounds, -torch.inf, limit, candidates) if size else [])
            at += size
    return result
