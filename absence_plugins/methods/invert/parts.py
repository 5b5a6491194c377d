"""The two parts of the samples: one that is searched, one that judges, and how many samples a formula must rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.bits import Array, Bits, unpack
from absence_plugins.methods.invert.digits import Truths
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.groups import split
from absence_plugins.methods.invert.inputs import Truth, refuse_constant
from absence_plugins.methods.invert.scores import Order, auc_of, known_auc, rank_sums
from absence_plugins.methods.invert.support import Support
from absence_plugins.methods.invert.table import Columns, columns_of
from absence_plugins.methods.invert.thresholds import GivenConcepts
from absence_plugins.methods.invert.units import Units

Score = Callable[[Sequence[Formula]], list[tuple[float, float]]]

FEWEST = 5  # samples (or groups) on which a formula must hold, and fail, in either part
SHARE = 10  # of parts of fewer than 50, a tenth


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the samples.

    Attributes:
        index: their numbers [n].
        row_of: the label row of each [n], on the device of the activations.
        weight: samples per label row [R], there.
        groups: the group of each [n], 0 to G - 1; None if every sample is alone.
    """

    index: Tensor
    row_of: Tensor
    weight: Tensor
    groups: Array | None

    @classmethod
    def of(cls, device: torch.device, row_of: Array, chosen: Array, rows: int, groups: Array | None) -> Part:
        """The samples ``chosen`` [N] bool of all."""
        own = row_of[chosen]
        weight = np.bincount(own, minlength=rows).astype(np.float64)
        numbers = None if groups is None else np.unique(groups[chosen], return_inverse=True)[1].reshape(-1)
        there = [torch.from_numpy(array).to(device) for array in (chosen.nonzero()[0], own, weight)]
        return cls(there[0], there[1], there[2], numbers)

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.index)

    @cached_property
    def occurring(self) -> Array:
        """The label rows that occur, packed."""
        return np.packbits(self.weight.cpu().numpy() > 0)

    @cached_property
    def own_rows(self) -> Array:
        """:attr:`row_of` as an array."""
        rows: Array = self.row_of.cpu().numpy()
        return rows

    @property
    def independent(self) -> int:
        """Number of groups, or of samples where every one is alone."""
        return self.size if self.groups is None else int(self.groups.max(initial=-1)) + 1

    def fewest(self, support: int | None) -> int:
        """On how many independent samples a formula must hold, and fail: ``support``, or 5, of fewer than 50 a
        tenth.
        """
        return max(1, min(FEWEST, self.independent // SHARE)) if support is None else support

    def block(self, block: Tensor) -> Tensor:
        """Of [U, N] the part's samples."""
        return block if len(self.index) == block.shape[1] else block.index_select(1, self.index)

    def sums(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Rank sums per row [U, R], and the sum of squares of all d [U], of the part's activations [U, n]."""
        return rank_sums(values, self.row_of, len(self.weight))


@dataclass(frozen=True, eq=False)
class Data:
    """What is searched: activations [N, U], labels by distinct rows, the two parts.

    Attributes:
        table: activations of the units.
        rows: truth of the concepts per distinct label row.
        names, place: of the concepts, and their columns.
        searched, heldout: the parts.
        columns: the concepts that vary in the searched part.
        present: the rows that occur there; None for all.
        column_row: row of ``columns`` of every searched sample.
        groups: number of groups; None without.
    """

    table: Units
    rows: Bits
    place: dict[str, int]
    searched: Part
    heldout: Part
    columns: Columns
    present: Tensor | None
    column_row: Tensor
    groups: int | None

    @classmethod
    def of(
        cls,
        table: Units,
        given: GivenConcepts,
        holdout: float,
        seed: int,
        groups: Array | None,
    ) -> Data:
        """Raises ValueError for a part of fewer than two samples, or without a concept that varies."""
        rows, row_of, names, is_heldout = given.rows, given.row_of, given.names, given.is_heldout
        failing = rows.failing
        refuse_constant(rows.true.any(1), failing.any(1), rows.counts() + rows.counts(failing) == len(rows), names)
        if is_heldout is None:
            is_heldout = split(rows, row_of, holdout, seed, groups)
        parts = [Part.of(table.device, row_of, chosen, len(rows), groups) for chosen in (~is_heldout, is_heldout)]
        searched, heldout = parts
        if searched.independent < 2 or (holdout > 0 and heldout.independent < 2):
            raise ValueError(
                f"holdout={holdout} leaves {searched.size} samples to search and {heldout.size} held out of {len(table)}, in "
                f"{searched.independent} and {heldout.independent} groups; both need two"
            )
        weight = searched.weight.cpu().numpy()
        present = weight > 0
        columns = columns_of(rows.take(present), weight[present], names, table.device)
        if columns is None:
            raise ValueError(f"no concept varies among the {searched.size} samples of the search; hold out less, or pass more samples")  # fmt: skip
        there = None if present.all() else torch.from_numpy(present.nonzero()[0]).to(table.device)
        number = torch.from_numpy(present.cumsum() - 1).to(table.device)
        place = {name: k for k, name in enumerate(names)}
        total = None if groups is None else int(groups.max()) + 1
        return cls(table, rows, place, searched, heldout, columns, there, number[searched.row_of], total)

    def truth(self, formula: Formula) -> Truth:
        """Of a formula per label row [R]."""
        return self.rows.fold(formula, self.place)

    def masks(self, part: Part, formulas: Sequence[Formula]) -> tuple[Tensor, Tensor]:
        """Where formulas hold and where they fail, per sample of a part [M, n] each."""
        truths = [self.truth(one) for one in formulas]
        true, false = (np.stack(masks) for masks in zip(*((one.true, one.false) for one in truths), strict=True))
        there = part.row_of.device
        return torch.from_numpy(true).to(there)[:, part.row_of], torch.from_numpy(false).to(there)[:, part.row_of]

    def known(self, formula: Formula) -> float:
        """Independent samples of the searched part on which a formula is known."""
        if self.columns.is_known:
            return self.searched.independent
        share = float(self.searched.weight.cpu().numpy() @ self.truth(formula).known) / self.searched.size
        return self.searched.independent * share

    def supports(self, least: int | None) -> tuple[Support, ...]:
        """What counts independent samples of the parts, where the numbers of searched samples do not say it all."""
        parts = [self.searched] if self.groups is not None else []
        parts += [self.heldout] if self.heldout.size else []
        return tuple(
            Support.of(self.rows, self.place, part.own_rows, part.groups, part.fewest(least)) for part in parts
        )

    def shorten(self, formula: Formula) -> Formula:
        """Without literals that change nothing on the searched samples; the exact search leaves none of up to two."""
        if formula.length < 3:
            return formula
        truth = self._searched_truth(formula)
        index = formula.length - 1
        while index >= 0 and formula.length > 1:
            rest = formula.without(index)
            if rest is not None and np.array_equal(self._searched_truth(rest), truth):
                formula, index = rest, rest.length
            index -= 1
        return formula

    def _searched_truth(self, formula: Formula) -> Array:
        """Where it holds, and where it fails, on the rows that occur in the searched part: packed [2, bytes]."""
        truth = self.rows.fold_packed(formula, self.place)
        return np.stack([truth.true, truth.false]) & self.searched.occurring

    def score_of(self, own: Tensor | Order) -> Score:
        """Formulas -> (AUC, share) of each on the searched samples; own: a unit's rank sums per row, or its order."""
        part = self.searched
        sums: dict[Formula, Tensor] = {}

        def score(formulas: Sequence[Formula]) -> list[tuple[float, float]]:
            if not isinstance(own, Order):
                asked = [one for one in dict.fromkeys(formulas) if one not in sums]
                if asked:
                    packed = np.stack([self.rows.fold_packed(one, self.place).true for one in asked])
                    holds = torch.from_numpy(unpack(packed, len(self.rows)).view(np.int8)).to(own.device)
                    both = torch.stack([part.weight, own])
                    made = Truths(slice(0, len(self.rows)), holds).multiply(both, is_whole=True)
                    sums.update(zip(asked, made.T, strict=True))
                count, total = torch.stack([sums[one] for one in formulas], 1)
                return list(zip(auc_of(total, count, part.size).tolist(), (count / part.size).tolist(), strict=True))
            masks = self.masks(part, formulas)
            count, failed = (mask.sum(1) for mask in masks)
            share = (count / (count + failed)).tolist()
            return list(zip(known_auc(own, *masks).tolist(), share, strict=True))

        return score


def negate(values: Tensor) -> Tensor:
    """-values; of unsigned integers what is sorted the same way."""
    return -values if values.is_floating_point() else -values.long()
