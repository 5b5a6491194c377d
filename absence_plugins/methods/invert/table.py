"""The concepts as they are searched: constant and repeated ones left out, truth vectors as packed bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.bits import Array, Bits, complement, unpack
from absence_plugins.methods.invert.digits import Truths, with_ones
from absence_plugins.methods.invert.drawn import Drawn
from absence_plugins.methods.invert.formula import Formula

HELD = 2**25  # label entries kept unpacked; more are unpacked block by block each time
ACROSS = 2**14  # label rows of a block; a multiple of 8
TOGETHER = 128  # columns of which pairs are multiplied at a time
ROWS = 1024  # rows of a table of pairs multiplied at a time


@dataclass(frozen=True, eq=False)
class Columns:
    """The concepts as they are searched: one column per truth vector up to its complement.

    Attributes:
        spelled: J literals for the columns, and J for their complements: NOT, or a concept that is the complement.
        nots: [2, J] number of NOTs of these; places: their concepts' numbers.
        sides: [2, J, bytes] packed truth vectors over the R distinct rows, of the columns and of their complements;
            where labels are unknown twice as long: where one holds, then where it may hold.
        is_known: whether everything is known.
        weight: [R] float64, samples per row, on the device of the activations.
        count: [J] float64, samples on which a column holds, there.
        place: a concept's column number, for the order in print.
        literal_of: truth vector, by :func:`digest_truth` -> literal.
    """

    spelled: tuple[tuple[Formula, ...], tuple[Formula, ...]]
    nots: Array
    places: Array
    sides: Array
    is_known: bool
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
        return torch.from_numpy(found).to(self.weight.device)

    @property
    def rows(self) -> int:
        """Number of distinct label rows."""
        return len(self.weight)

    @cached_property
    def values(self) -> Tensor:
        """[J, R] bool, on the device of the activations: for searches that need everything at once."""
        return self._unpack(self.sides[0], slice(0, self.rows))

    @cached_property
    def fails(self) -> Tensor | None:
        """[J, R] bool, where a column is known to fail; None if everything is known."""
        return None if self.is_known else self._unpack(self.sides[1], slice(0, self.rows))

    @cached_property
    def _whole(self) -> Truths | None:
        """All columns over all rows, if they are few."""
        part = slice(0, self.rows)
        return Truths(part, with_ones(self.values)) if len(self) * self.rows <= HELD else None

    def _blocks(self) -> Iterator[Truths]:
        """Columns, and one that always holds, over some of the rows at a time."""
        if self._whole is not None:
            yield self._whole
            return
        for at in range(0, self.rows, ACROSS):
            part = slice(at, min(at + ACROSS, self.rows))
            yield Truths(part, with_ones(self._unpack(self.sides[0], part)))

    @cached_property
    def shared(self) -> Tensor:
        """int32 [J, J]: samples on which two columns hold."""
        j = len(self)
        made = torch.zeros(j, j, dtype=torch.float64, device=self.weight.device)
        for block in self._blocks():
            weight = self.weight[block.part]
            for start in range(0, j, TOGETHER):
                part = slice(start, min(start + TOGETHER, j))
                own = slice(0, part.stop - start)
                made[part, start:] += block.after(start).multiply_shared(own, weight, is_whole=True)[:, :-1]
        made = made.triu().int()
        return made + made.triu(1).T

    @cached_property
    def _drawn(self) -> dict[int, Drawn]:
        return {}

    def draw(self, samples: int) -> Drawn:
        """So many samples, drawn once, and the columns' truths on them."""
        if samples not in self._drawn:
            self._drawn[samples] = Drawn.of(self.sides[0], self.weight, samples)
        return self._drawn[samples]

    def _unpack(self, packed: Array, part: slice) -> Tensor:
        """Some rows of packed truth vectors [..., bytes], bool [..., n]."""
        own = unpack(packed[..., part.start // 8 : -(-part.stop // 8)], part.stop - part.start)
        return torch.from_numpy(own).to(self.weight.device)

    def products(self, left: Tensor, *, is_whole: bool = True) -> Tensor:
        """Numbers [M, R] float64 times the columns: [M, J]; exact if they are whole."""
        made = torch.zeros(len(left), len(self) + 1, dtype=torch.float64, device=left.device)
        for block in self._blocks():
            made += block.multiply(left[:, block.part], is_whole=is_whole)
        return made[:, :-1]

    def joint(self, packed: Array, sums: Tensor, owner: Tensor, *, is_whole: bool) -> tuple[Tensor, Tensor]:
        """Of formulas with packed truth [M, bytes]: samples shared with every column [M, J + 1], and their sum of
        ``sums`` [U, R], those of the unit ``owner`` [M]; the last column is that of the formula itself.
        """
        made = torch.zeros(2, len(packed), len(self) + 1, dtype=torch.float64, device=self.weight.device)
        for block in self._blocks():
            part = block.part
            holds = self._unpack(packed, part)
            made += torch.stack(
                block.multiply_masked(holds, self.weight[part], sums[:, part], owner, is_whole=is_whole)
            )
        return made[0], made[1]

    def rows_of(self, chosen: Tensor, numbers: Tensor, owner: Tensor) -> Tensor:
        """Sums of whole ``numbers`` [U, R], those of ``owner`` [M], where column ``chosen`` [M] and a column hold: [M,
        J].
        """
        made = torch.zeros(len(chosen), len(self), dtype=torch.float64, device=numbers.device)
        for block in self._blocks():
            own = numbers[:, block.part]
            for at in range(0, len(chosen), ROWS):
                one = slice(at, at + ROWS)
                made[one] += block.multiply_rows(chosen[one], own, owner[one])[:, :-1]
        return made

    def pairs(self, start: int, stop: int, numbers: Tensor, *, is_whole: bool = True) -> Tensor:
        """Sums of ``numbers`` [U, R] where two columns hold, one of start to stop, one from start on: [U, stop - start,
        J - start].
        """
        size = (len(numbers), stop - start, len(self) - start)
        made = torch.zeros(size, dtype=torch.float64, device=numbers.device)
        for block in self._blocks():
            later = block.after(start)
            for total, own in zip(made, numbers[:, block.part], strict=True):
                for at in range(0, stop - start, TOGETHER):
                    one = slice(at, min(at + TOGETHER, stop - start))
                    total[one] += later.multiply_shared(one, own, is_whole=is_whole)[:, :-1]
        return made


def columns_of(rows: Bits, weight: Array, names: Sequence[str], device: torch.device) -> Columns | None:
    """The columns that vary over ``rows`` [R, K], with ``weight`` [R] samples each; None if there are none.

    With unknown labels a truth vector is twice as long: where it holds, then where it may hold. AND and OR of formulas
    are still those of the vectors, bit by bit.
    """
    true, false = rows.true, rows.failing
    is_known = rows.false is None or bool(np.array_equal(complement(true, len(rows)), false))
    varies: Array = np.asarray(true.any(1) & false.any(1))
    sides: list[tuple[Array, Array]] = []
    keys: list[tuple[bytes, bytes]] = []
    literal_of: dict[bytes, Formula] = {}
    for k, name in enumerate(names):
        packed, opposite = true[k], false[k]
        if not is_known:
            packed, opposite = (
                np.concatenate([one, complement(other, len(rows))])
                for one, other in ((packed, opposite), (opposite, packed))
            )
        key = digest_truth(packed)
        known = literal_of.get(key)
        if not varies[k] or (known is not None and not known.negated):
            continue  # constant, or the same as an earlier concept
        literal_of[key] = Formula(name)
        if known is None:
            keys.append((key, digest_truth(opposite)))
            literal_of[keys[-1][1]] = Formula(name, negated=True)
            sides.append((packed, opposite))
    if not sides:
        return None
    spelled = [tuple(literal_of[key] for key in side) for side in zip(*keys, strict=True)]
    place = {name: k for k, name in enumerate(names)}
    columns = Columns(
        spelled=(spelled[0], spelled[1]),
        nots=np.array([[int(one.negated) for one in side] for side in spelled]),
        places=np.array([[place[one.name] for one in side] for side in spelled]),
        sides=np.array([[pair[side] for pair in sides] for side in (0, 1)]),
        is_known=is_known,
        weight=torch.from_numpy(weight.astype(np.float64)).to(device),
        count=torch.empty(0),
        samples=int(weight.sum()),
        place=place,
        literal_of=literal_of,
    )
    return replace(columns, count=columns.products(columns.weight[None])[0])


def digest_truth(packed: Any) -> bytes:
    """What stands for a packed truth vector, which is long."""
    return blake2b(packed, digest_size=16).digest()
