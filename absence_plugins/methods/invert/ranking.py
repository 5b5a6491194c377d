"""What was found of a unit, in order: score, then short, few NOTs, early concepts; one formula per truth vector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.candidates import Candidates, Found
from absence_plugins.methods.invert.formula import Formula
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

    def copy(self) -> Ranking:
        """Another one of the same formulas."""
        made = Ranking(self.limit)
        made.found = [*self.found]
        return made

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


def _best_first(index: Tensor, kept: Tensor) -> Iterator[tuple[Array, Array]]:
    """Numbers of candidates and their values, in falling chunks that split no tie."""
    below, count = torch.inf, FIRST
    while len(kept):
        low = float(kept.topk(count).values[-1]) if count < len(kept) else -torch.inf
        chosen = (kept >= low) & (kept < below)
        yield index[chosen].cpu().numpy(), kept[chosen].cpu().numpy()
        if low == -torch.inf:
            return
        below, count = low, 8 * count


def rank_distinct(
    columns: Columns, values: Tensor, bounds: Bounds, floor: float, wanted: int, candidates: Candidates
) -> list[Found]:
    """The best ``wanted`` candidates of different truth that have support, by their ``values`` from ``floor`` on."""
    index = (values >= floor).nonzero()[:, 0] if floor > -torch.inf else (values > -torch.inf).nonzero()[:, 0]
    return rank_some(columns, index, values[index], bounds, wanted, candidates)


def rank_some(
    columns: Columns, numbers: Tensor, values: Tensor, bounds: Bounds, wanted: int, candidates: Candidates
) -> list[Found]:
    """The same of candidates of some ``numbers``, in rising order."""
    found: dict[bytes, Found] = {}
    for index, value in _best_first(numbers, values):
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
