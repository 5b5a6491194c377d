"""What a number among thousands of scores stands for: a literal, a pair, or a formula extended by a literal.

Each kind says three things of candidates given by number: what to sort them by where scores are equal (the last key
first), their packed truth vectors, and the formula. Truth vectors and formulas are only made for the few that are
looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.table import Columns, digest_truth


@dataclass(frozen=True)
class Found:
    """A formula with its packed truth vector, AUC - 1/2, and what it is sorted by: AUC, then short, few NOTs, early
    concepts.
    """

    formula: Formula
    truth: bytes
    value: float
    key: tuple[float, int, int, tuple[int, ...], str]

    @classmethod
    def of(cls, columns: Columns, formula: Formula, truth: bytes, value: float) -> Found:
        """With the spelling of a single literal where one has the same truth."""
        formula = columns.literal_of.get(digest_truth(truth), formula).ordered(columns.place)
        places = tuple(sorted(columns.place[name] for name, _ in formula.literals))
        return cls(formula, truth, value, (-value, formula.length, formula.negations, places, str(formula)))


class Candidates(Protocol):
    """What the search asks of candidates; ``index`` are their numbers, an array."""

    def keys(self, index: Array) -> tuple[Array, ...]:
        """What to sort by among equal scores, the most important last."""
        ...

    def truths(self, index: Array) -> Array:
        """Packed truth vectors [len(index), bytes]."""
        ...

    def spell(self, index: int) -> Formula:
        """The formula of one."""
        ...


class Literals:
    """2 J candidates: every column, then every complement."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def keys(self, index: Array) -> tuple[Array, ...]:
        """Concept, NOTs."""
        side, c = np.divmod(index, len(self.columns))
        return self.columns.places[side, c], self.columns.nots[side, c]

    def truths(self, index: Array) -> Array:
        """Truth vectors of candidates, eight samples a byte."""
        side, c = np.divmod(index, len(self.columns))
        return self.columns.sides[side, c]

    def spell(self, index: int) -> Formula:
        """The candidate as a formula: one literal."""
        side, c = divmod(index, len(self.columns))
        return self.columns.spelled[side][c]


@dataclass(frozen=True)
class Pairs:
    """8 k m candidates: cells (a AND b, a AND NOT b, NOT a AND b, NOT a AND NOT b), then their complements, each k x m.

    a is one of k columns from ``start``, b one of m from ``start``. A complement is an OR of the other sides.
    """

    columns: Columns
    start: int
    k: int
    m: int

    def _decode(self, index: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Whether it is an OR; side and column of a; side and column of b."""
        code, place = np.divmod(index, self.k * self.m)
        flip, cell = np.divmod(code, 4)
        a, b = np.divmod(place, self.m)
        return flip, (cell // 2) ^ flip, a + self.start, (cell % 2) ^ flip, b + self.start

    def keys(self, index: Array) -> tuple[Array, ...]:
        """AND or OR, concepts, NOTs."""
        flip, sa, a, sb, b = self._decode(index)
        first, second = self.columns.places[sa, a], self.columns.places[sb, b]
        return (
            flip,
            np.maximum(first, second),
            np.minimum(first, second),
            self.columns.nots[sa, a] + self.columns.nots[sb, b],
        )

    def truths(self, index: Array) -> Array:
        """Truth vectors of candidates, eight samples a byte."""
        flip, sa, a, sb, b = self._decode(index)
        first, second = self.columns.sides[sa, a], self.columns.sides[sb, b]
        truths: Array = np.where(flip[:, None] == 1, first | second, first & second)
        return truths

    def spell(self, index: int) -> Formula:
        """The AND or OR."""
        flip, sa, a, sb, b = (int(part) for part in self._decode(np.array(index)))
        first, second = self.columns.spelled[sa][a], self.columns.spelled[sb][b]
        return first | second if flip else first & second


@dataclass(frozen=True)
class Extensions:
    """4 B J candidates: for every formula f of the beam ``f AND c``, ``f AND NOT c``, ``f OR c``, ``f OR NOT c``."""

    columns: Columns
    beam: Sequence[Found]
    truth: Array  # [B, bytes], of the formulas

    def _decode(self, index: Array) -> tuple[Array, Array, Array, Array]:
        """Formula, whether it is an OR, side and column of the literal."""
        f, rest = np.divmod(index, 4 * len(self.columns))
        op, c = np.divmod(rest, len(self.columns))
        return f, op // 2, op % 2, c

    def keys(self, index: Array) -> tuple[Array, ...]:
        """Column, NOTs, length."""
        f, _, side, c = self._decode(index)
        nots = np.array([one.formula.negations for one in self.beam])
        lengths = np.array([one.formula.length for one in self.beam])
        return c, nots[f] + self.columns.nots[side, c], lengths[f]

    def truths(self, index: Array) -> Array:
        """Truth vectors of candidates, eight samples a byte."""
        f, either, side, c = self._decode(index)
        literal = self.columns.sides[side, c]
        truths: Array = np.where(either[:, None] == 1, self.truth[f] | literal, self.truth[f] & literal)
        return truths

    def spell(self, index: int) -> Formula:
        """The candidate as a formula: one of the beam, extended by a literal."""
        f, either, side, c = (int(part) for part in self._decode(np.array(index)))
        literal = self.columns.spelled[side][c]
        return self.beam[f].formula | literal if either else self.beam[f].formula & literal
