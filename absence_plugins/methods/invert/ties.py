"""Samples in the order of a unit's activation, of which some are equal: mid-ranks among any of them, by counting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from absence_plugins.methods.invert.bits import Array

NARROW = 2**30  # up to so many samples twice their number is an int32


@dataclass(frozen=True, eq=False)
class Ties:
    """Samples in rising order, in ties of equal ones.

    Attributes:
        starts: the first place of every tie, also of the ties of one sample [L].
        counts: how many samples it has [L].
        size: n.

    >>> Ties.of(np.array([0.5, 0.5, 2.0])).counts.tolist()
    [2, 1]
    """

    starts: Array
    counts: Array
    size: int

    @classmethod
    def of(cls, values: Array) -> Ties:
        """Of numbers [n] in rising order."""
        opens = np.ones(len(values), bool)
        np.not_equal(values[1:], values[:-1], out=opens[1:])
        starts = np.flatnonzero(opens)
        return cls(starts, np.diff(starts, append=len(values)), len(values))

    @cached_property
    def several(self) -> tuple[Array, Array, Array]:
        """First and last places of the ties of more than one sample [T], and the places of all samples in them."""
        tied = self.counts > 1
        first, counts = self.starts[tied], self.counts[tied]
        inside = np.arange(counts.sum()) + np.repeat(first - counts.cumsum() + counts, counts)
        return first, first + counts - 1, inside

    def place(self, chosen: Array) -> Placed:
        """Where every sample stands among the chosen ones [n] bool."""
        first, last, inside = self.several
        upto = chosen.view(np.int8).cumsum(dtype=np.int32 if self.size < NARROW else np.int64)
        before, after = upto[first] - chosen[first], upto[last]
        upto += upto
        upto -= chosen.view(np.int8)
        middle = before + after
        upto[inside] = np.repeat(middle, last - first + 1)
        return Placed(upto, after - before, middle)


@dataclass(frozen=True, eq=False)
class Placed:
    """Where samples stand among some of them.

    Attributes:
        below: per sample, how many of these are below it or in its tie, added to how many are below [n]. Whole numbers;
            less their number these are the rank numbers d of those samples.
        tied: how many of these are in every tie of more than one sample [T].
        level: ``below`` of these ties [T].

    >>> Ties.of(np.array([0.5, 0.5, 2.0])).place(np.array([True, True, True])).below.tolist()
    [2, 2, 5]
    """

    below: Array
    tied: Array
    level: Array

    def sum(self, holds: Array) -> int:
        """Of :attr:`below` where ``holds`` [n] bool."""
        return int((self.below * holds.view(np.int8)).sum(dtype=np.int64))
