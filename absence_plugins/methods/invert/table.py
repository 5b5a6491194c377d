"""Labels made small: equal rows merged, constant and repeated concepts left out, truth vectors as packed bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.inputs import Truth
from absence_plugins.methods.invert.scores import CHUNK

Array = np.ndarray[Any, Any]
HELD = 2**25  # label entries kept as float64 (256 MB); more are converted block by block each time
_MULTIPLIER = 0x9E3779B97F4A7C15


def merge_rows(labels: Array) -> tuple[Array, Array]:
    """Distinct rows of labels [N, K] bool and, for every sample, the number of its row: [R, K], [N].

    Rows are told apart by a 64-bit hash, and that equal hashes are equal rows is checked.

    >>> rows, row_of = merge_rows(np.array([[True, False], [False, True], [True, False]]))
    >>> len(rows), bool(row_of[0] == row_of[2])
    (2, True)
    """
    packed = np.packbits(labels, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    words = padded.view(np.uint64)
    digest = np.zeros(len(words), np.uint64)
    with np.errstate(over="ignore"):
        for column in words.T:
            digest = (digest ^ column) * np.uint64(_MULTIPLIER)
            digest ^= digest >> np.uint64(29)
    _, first, row_of = np.unique(digest, return_index=True, return_inverse=True)
    if not np.array_equal(words[first][row_of], words):
        _, first, row_of = np.unique(words, axis=0, return_index=True, return_inverse=True)
    return labels[first], row_of.reshape(-1).astype(np.int64)


def merge_truths(labels: Truth) -> tuple[Truth, Array]:
    """Distinct rows of labels [N, K], arrays, that may be unknown, and every sample's row: as :func:`merge_rows`."""
    if labels.is_known:
        rows, row_of = merge_rows(labels.true)
        return Truth(rows, ~rows), row_of
    rows, row_of = merge_rows(np.concatenate([labels.true, labels.false], 1))
    true, false = np.split(rows, 2, axis=1)
    return Truth(true, false), row_of


@dataclass(frozen=True, eq=False)
class Columns:
    """The concepts as they are searched: one column per truth vector up to its complement.

    Attributes:
        spelled: J literals for the columns, and J for their complements: NOT, or a concept that is the complement.
        nots: [2, J] number of NOTs of these; places: their concepts' numbers.
        sides: [2, J, bytes] packed truth vectors over the R distinct rows, of the columns and of their complements.
        values: [J, R] bool, on the device of the activations; ``double`` the same in float64 if it is small enough.
        fails: [J, R] bool, where a column is known to fail; None if everything is known.
        weight: [R] float64, samples per row.
        count: [J] float64, samples on which a column holds.
        place: a concept's column number, for the order in print.
        literal_of: truth vector -> literal.
    """

    spelled: tuple[tuple[Formula, ...], tuple[Formula, ...]]
    nots: Array
    places: Array
    sides: Array
    values: Tensor
    fails: Tensor | None
    double: Tensor | None
    weight: Tensor
    count: Tensor
    samples: int
    place: dict[str, int]
    literal_of: dict[bytes, Formula]

    def __len__(self) -> int:
        return len(self.spelled[0])

    @cached_property
    def column_of(self) -> dict[str, int]:
        """The column of every concept by which formulas are spelled."""
        return {literal.name: c for side in self.spelled for c, literal in enumerate(side)}

    def repeats(self, formulas: Sequence[Formula]) -> Tensor:
        """[M, J] bool: whether a formula has that column's concept already, so that it is not extended by it again."""
        found = np.zeros((len(formulas), len(self)), bool)
        for row, formula in zip(found, formulas, strict=True):
            row[[self.column_of[name] for name, _ in formula.literals]] = True
        return torch.from_numpy(found).to(self.values.device)

    @property
    def rows(self) -> int:
        """Number of distinct label rows."""
        return len(self.weight)

    def block(self, start: int, stop: int) -> Tensor:
        """Columns start to stop as float64 [stop - start, R]."""
        return self.values[start:stop].double() if self.double is None else self.double[start:stop]

    def products(self, left: Tensor) -> Tensor:
        """[M, R] float64 times the columns: [M, J]. Sums of whole numbers, exact."""
        step = len(self) if self.double is not None else max(1, CHUNK // self.rows)
        parts = [left @ self.block(at, min(len(self), at + step)).T for at in range(0, len(self), step)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def joint(self, holds: Tensor, sums: Tensor, is_whole: bool = True) -> tuple[Tensor, Tensor]:
        """Of formulas that hold on rows ``holds`` [M, R]: samples shared with every column, and their sum of ``sums``
        [M, R].

        Both come out of one product, written into the upper and lower digits of a float64, where they fit and the sums
        are whole numbers.
        """
        scale = 2.0 ** math.ceil(math.log2(self.samples**2 / 2 + 1))  # a sum of d is at most N^2 / 4
        if self.samples * scale >= 2.0**52 or not is_whole:
            return self.products(holds * self.weight), self.products(holds * sums)
        both = self.products(holds * (self.weight * scale + sums))
        count = (both / scale).round()
        return count, both - count * scale


def columns_of(rows: Truth, weight: Array, names: Sequence[str], device: torch.device) -> Columns | None:
    """The columns that vary over ``rows`` [R, K], with ``weight`` [R] samples each; None if there are none.

    With unknown labels a truth vector is twice as long: where it holds, then where it may hold. AND and OR of formulas
    are still those of the vectors, bit by bit.
    """
    true, false = np.ascontiguousarray(rows.true.T), np.ascontiguousarray(rows.false.T)
    is_known = bool((true | false).all())
    packed = np.packbits(true if is_known else np.concatenate([true, ~false], 1), axis=1)
    opposite = np.packbits(false if is_known else np.concatenate([false, ~true], 1), axis=1)
    varies: Array = np.asarray(true.any(1) & false.any(1))
    kept: list[int] = []
    literal_of: dict[bytes, Formula] = {}
    for k, name in enumerate(names):
        key = packed[k].tobytes()
        known = literal_of.get(key)
        if not varies[k] or (known is not None and not known.negated):
            continue  # constant, or the same as an earlier concept
        literal_of[key] = Formula(name)
        if known is None:
            literal_of[opposite[k].tobytes()] = Formula(name, negated=True)
            kept.append(k)
    if not kept:
        return None
    sides = np.stack([packed[kept], opposite[kept]])
    spelled = [tuple(literal_of[truth.tobytes()] for truth in side) for side in sides]
    place = {name: k for k, name in enumerate(names)}
    values = torch.from_numpy(true[kept] if len(kept) < len(true) else true).to(device)
    double = values.double() if values.numel() <= HELD else None
    weights = torch.from_numpy(weight.astype(np.float64)).to(device)
    columns = Columns(
        spelled=(spelled[0], spelled[1]),
        nots=np.array([[int(one.negated) for one in side] for side in spelled]),
        places=np.array([[place[one.name] for one in side] for side in spelled]),
        sides=sides,
        values=values,
        fails=None if is_known else torch.from_numpy(false[kept]).to(device),
        double=double,
        weight=weights,
        count=torch.empty(0),
        samples=int(weight.sum()),
        place=place,
        literal_of=literal_of,
    )
    if weight.max() == 1:
        count = torch.tensor([np.count_nonzero(column) for column in true[kept]], dtype=torch.float64).to(device)
    else:
        count = columns.products(weights[None])[0]
    return replace(columns, count=count)
