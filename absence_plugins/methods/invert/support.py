"""On how many independent samples a formula holds, and fails: what the search asks of every formula before it keeps it.

Where all samples of a part are alone that is a number of samples; else a number of groups, each counted once if the
formula holds on one of its samples. No sum over samples gives that number, so the formulas that would be kept are
counted one by one. A concept is kept as the bits of one integer, so that AND, OR and the count are single operations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from absence_plugins.methods.invert.bits import Array, Bits, unpack
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.inputs import Truth


@dataclass(frozen=True, eq=False)
class Support:
    """Counts independent samples of one part.

    Attributes:
        rows: truth of the concepts per label row.
        place: a concept's column.
        row_of: label row of every cell [C]: of every sample, or of every pair of a group and a label row, in the order
            of the groups.
        starts: first cell of every group [G]; None if every sample is alone.
        least: on so many a formula must hold, and on so many fail.
    """

    rows: Bits
    place: dict[str, int]
    row_of: Array
    starts: Array | None
    least: int
    bits: dict[str, Truth] = field(default_factory=dict)
    known: dict[Formula, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Bits, place: dict[str, int], row_of: Array, groups: Array | None, least: int) -> Support:
        """row_of, groups: label row and group of every sample [n]."""
        if groups is None:
            return cls(rows, place, row_of, None, least)
        cells = np.unique(groups.astype(np.int64) * len(rows) + row_of)
        owner, own = np.divmod(cells, len(rows))
        return cls(rows, place, own, np.flatnonzero(np.diff(owner, prepend=-1)), least)

    def admits(self, formula: Formula) -> bool:
        """Whether it holds, and fails, on enough of them."""
        if formula not in self.known:
            truth: Truth = formula.fold(self._concept)
            self.known[formula] = all(self._reaches(one) for one in (truth.true, truth.false))
        return self.known[formula]

    def _concept(self, name: str) -> Truth:
        """Cells on which a concept holds, and fails, as the bits of two integers."""
        if name not in self.bits:
            own, size = self.rows.truth(self.place[name]), len(self.rows)
            true, false = (np.packbits(unpack(side, size)[self.row_of]).tobytes() for side in (own.true, own.false))
            self.bits[name] = Truth(int.from_bytes(true, "big"), int.from_bytes(false, "big"))
        return self.bits[name]

    def _reaches(self, cells: int) -> bool:
        count = cells.bit_count()
        if self.starts is None or len(self.starts) == len(self.row_of) or count < self.least:
            return count >= self.least
        packed = np.frombuffer(cells.to_bytes(-(-len(self.row_of) // 8), "big"), np.uint8)
        touched = np.bitwise_or.reduceat(np.unpackbits(packed, count=len(self.row_of)), self.starts)
        return int(touched.sum()) >= self.least
