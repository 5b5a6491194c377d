"""A block of units at a time: which search finds their formulas, and which of the formulas found names a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.methods.invert.certified import certify_all, cost_of
from absence_plugins.methods.invert.choosing import description_length
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.measures import FIRING, Measure, choose_firing, standardize, sum_rows
from absence_plugins.methods.invert.pairs import sizes_of
from absence_plugins.methods.invert.parts import Data, Part, Score, negate
from absence_plugins.methods.invert.ranking import Bounds, Ranked
from absence_plugins.methods.invert.rating import Rating
from absence_plugins.methods.invert.search import search
from absence_plugins.methods.invert.unknown import MOST, SLOW, Literals, search_known

QUICK = 2e8  # multiplications per unit up to which "auto" enumerates
LONGEST = 4  # literals of a formula that can be proven the best


@dataclass(frozen=True, eq=False)
class Searched:
    """What was found of one unit.

    Attributes:
        ranked: its formulas.
        spread: the variance of its ranks divided by N.
        score: formulas -> (AUC, share) on the searched samples.
        rating: by what formulas are scored there; None if that is AUC.
        threshold: at or above which it fires, on the activations in the direction of the mode; None without one.
    """

    ranked: Ranked
    spread: float
    score: Score
    rating: Rating | None
    threshold: Tensor | None

    def rate(self, data: Data, formulas: Sequence[Formula]) -> list[float]:
        """The score of each on the searched samples."""
        if self.rating is None:
            return [auc for auc, _ in self.score(formulas)]
        found: list[float] = self.rating.score(*data.masks(data.searched, formulas)).tolist()
        return found


@dataclass(frozen=True)
class Wanted:
    """How formulas are searched and chosen; as the arguments of ``label_units``. sign: -1 in the negative mode."""

    length: int
    beam: int
    top: int
    exact_pairs: bool
    min_fraction: float
    max_fraction: float
    min_support: int | None
    prefer: str
    score: str
    search: str
    budget: float
    sign: float

    def bounds(self, data: Data) -> Bounds:
        """On how many samples of the searched part a formula must hold, and what else it must rest on."""
        part, supports = data.searched, data.supports(self.min_support)
        return Bounds.of(self.min_fraction, self.max_fraction, part.fewest(self.min_support), part.size, supports)

    def certifies(self, data: Data) -> bool:
        """Whether formulas of three literals, and of four if so many are asked for, are enumerated."""
        if self.search == "beam" or not self.exact_pairs or self.length > LONGEST:
            return False
        return self.search == "certified" or cost_of(data.columns, self.length) <= QUICK

    def prepare(self, data: Data) -> None:
        """Count what all units ask for: on how many samples two concepts hold."""
        if (
            self.exact_pairs
            and self.length > 1
            and self.score == "auc"
            and data.columns.is_known
            and sizes_of(data.columns)
        ):
            _ = data.columns.shared

    def directed(self, part: Part, block: Tensor) -> Tensor:
        """Of a block [U, N] the part's samples, high where a formula should hold."""
        own = part.block(block)
        return own if self.sign > 0 else negate(own)

    def find(self, data: Data, block: Tensor, bounds: Bounds) -> list[Searched]:
        """Every unit's formulas, of a block [U, N]."""
        options: dict[str, Any] = {"length": self.length, "beam": self.beam, "top": self.top, "bounds": bounds, "exact_pairs": self.exact_pairs}  # fmt: skip
        values = self.directed(data.searched, block)
        sums, squares = data.searched.sums(values)
        thresholds: list[Tensor | None] = [None] * len(block)
        if self.score in FIRING:
            thresholds = [choose_firing(one, data.column_row, data.columns) for one in values]
        ratings = [
            None if self.score == "auc" else Rating.of(self.score, one, threshold)
            for one, threshold in zip(values, thresholds, strict=True)
        ]
        is_known = data.columns.is_known
        if is_known and self.score != "auprc":
            measure, kept = self._measured(data, sums, values, thresholds)
            found = search(data.columns, kept, measure, **options)
            if self.certifies(data):
                certify_all(data.columns, kept, measure, bounds, found, self.length, self.budget)
        else:
            literals = Literals.of(data.columns, data.column_row)
            most = SLOW if self.score == "auprc" and self.search == "auto" else MOST
            affords = most if self.certifies(data) else 0.0
            found = [
                search_known(literals, rating or Rating.of("auc", one), affords=affords, **options)
                for one, rating in zip(values, ratings, strict=True)
            ]
        spreads = (squares / (4.0 * data.searched.size**3)).tolist()
        result = []
        for u, one in enumerate(found):
            score = data.score_of(sums[u] if is_known else Rating.of("auc", values[u]).order)
            result.append(Searched(one, spreads[u], score, ratings[u], thresholds[u]))
        return result

    def _measured(
        self, data: Data, ranks: Tensor, values: Tensor, thresholds: Sequence[Tensor | None]
    ) -> tuple[Measure, Tensor]:
        """The score, and its numbers d summed per label row of the columns [U, R]."""
        size, rows = data.searched.size, data.columns.rows
        if self.score == "auc":
            return Measure.auc(size, ranks), ranks if data.present is None else ranks[:, data.present]
        if self.score == "correlation":
            measure = Measure("correlation", size, torch.zeros(len(values), dtype=torch.float64, device=values.device))
            return measure, sum_rows(standardize(values), data.column_row, rows)
        fires = torch.stack([one >= at for one, at in zip(values, thresholds, strict=True)])
        fired = fires.sum(1).double()
        numbers = size * sum_rows(fires, data.column_row, rows) - fired[:, None] * data.columns.weight
        return Measure(self.score, size, fired), numbers

    def say_nothing_found(self, data: Data, unit: Searched, bounds: Bounds) -> str:
        """What an error says of a unit without a formula."""
        by = (
            ""
            if unit.ranked.gap == 0
            else " that the search found (search='certified', --search certified, looks at all)"
        )
        kind = "samples" if data.groups is None else "groups"
        parts, size, support = " of either part" if data.heldout.size else "", data.searched.size, bounds.support
        widen = f"widen min_fraction={self.min_fraction} and max_fraction={self.max_fraction} (--min-fraction, --max-fraction)"
        if bounds.least > bounds.most:
            return (
                f"no formula of up to {self.length} concepts can hold on between {self.min_fraction:.4g} and "
                f"{self.max_fraction:.4g} of the {size} searched samples: no whole number lies there that leaves at least "
                f"{support} on either side; {widen}"
            )
        narrow = bounds.least > support or bounds.most < size - max(support, 1)
        remedies = [widen] * narrow + ["name concepts that hold, and fail, on more samples"]
        remedies += [f"lower min_support={support} (--min-support)"] * (support > 1)
        return (
            f"no formula of up to {self.length} concepts{by} holds on between {bounds.least} and {bounds.most} of the "
            f"{size} searched samples, and holds and fails on at least {support} {kind}{parts}; {', or '.join(remedies)}"
        )

    def choose(self, data: Data, unit: Searched, bounds: Bounds) -> list[Formula]:
        """The formulas of a unit, the one that names it first."""
        ranked = unit.ranked
        found = ranked.best.found if self.prefer != "short" and not data.heldout.size else ranked.found
        shorter = [(one.formula, data.shorten(one.formula)) for one in found]
        supported = list(dict.fromkeys(short if bounds.admit(short) else whole for whole, short in shorter))
        best = supported[: len(ranked.best.found)]
        if self.prefer != "short":
            return best
        first = {one.length: one for one in reversed(supported)}  # the best of every length; they are in order of score
        rising = self._rising(data, unit, [first[n] for n in sorted(first)])
        explained = self._explained(data, unit, rising)
        lengths = [
            description_length(share, data.known(one), length=one.length, concepts=len(data.columns))
            for one, share in zip(rising, explained, strict=True)
        ]
        chosen = rising[lengths.index(min(lengths))]
        return [chosen, *(one for one in best if one != chosen)][: self.top]

    @staticmethod
    def _rising(data: Data, unit: Searched, formulas: list[Formula]) -> list[Formula]:
        """Of formulas, short ones first, those of a higher score than all that are shorter."""
        kept: list[Formula] = []
        highest = -math.inf
        for one, score in zip(formulas, unit.rate(data, formulas), strict=True):
            if score > highest:
                kept.append(one)
                highest = score
        return kept or formulas[:1]

    def _explained(self, data: Data, unit: Searched, formulas: list[Formula]) -> list[float]:
        """The share of the variance that formulas explain: of the ranks, of the activation, or of the firing.

        0 for a formula where the unit is low (AUC below 0.5, negative correlation): it says the opposite of the name.
        """
        if unit.rating is not None and self.score != "auprc":
            found: list[float] = (
                unit.rating.correlation(*data.masks(data.searched, formulas))
                .nan_to_num()
                .clamp(min=0)
                .square()
                .tolist()
            )
            return found
        if unit.spread <= 0:
            return [0.0] * len(formulas)
        return [max(0.0, auc - 0.5) ** 2 * share * (1 - share) / unit.spread for auc, share in unit.score(formulas)]
