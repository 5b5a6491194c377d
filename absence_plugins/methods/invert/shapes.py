"""All formulas of three or four different concepts, as sets of the cells into which these divide the samples.

A formula is an AND of literals and ORs, or the complement of one, which is an OR. Cell m of k concepts holds the
samples on which exactly the concepts of the bits of m hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.formula import AND, OR, Formula

PER_SET = {3: 64, 4: 832}  # formulas of so many concepts


@dataclass(frozen=True, eq=False)
class Shapes:
    """The F formulas of k concepts whose outermost operator is AND: 32 of three, 416 of four.

    Attributes:
        trees, duals: of each, concepts named "0" to "k - 1" without NOT, and the same with AND and OR exchanged, which
            is the complement if all signs are turned.
        signs: [F, k], 1 where a concept is negated.
        cells: [F, 2^k] of 0 and 1.
        drops: [F, k], the cells in which the formula without a literal differs from it, as bits.
    """

    trees: tuple[Formula, ...]
    duals: tuple[Formula, ...]
    signs: Array
    cells: Array
    drops: Array


@lru_cache(maxsize=2)
def shapes_of(k: int) -> Shapes:
    """For k concepts.

    >>> [len(shapes_of(k).trees) for k in (3, 4)]
    [32, 416]
    """
    holds = {str(i): np.array([bool(m >> i & 1) for m in range(2**k)]) for i in range(k)}
    weight = 2 ** np.arange(2**k, dtype=np.int64)
    found = []
    for tree in _trees(tuple(range(k)), AND):
        for signs in itertools.product((0, 1), repeat=k):
            signed = {name: one ^ bool(sign) for (name, one), sign in zip(holds.items(), signs, strict=True)}
            truth = tree.fold(signed.__getitem__)
            rests = {name: tree.without(i) for i, (name, _) in enumerate(tree.literals)}
            drops = [int(weight @ (truth ^ rests[str(i)].fold(signed.__getitem__))) for i in range(k)]  # type: ignore[union-attr]
            found.append((tree, _exchange(tree), signs, truth, drops))
    trees, duals, turned, cells, dropped = zip(*found, strict=True)
    return Shapes(trees, duals, np.array(turned), np.array(cells, float), np.array(dropped))


def _trees(concepts: tuple[int, ...], operator: str) -> Iterator[Formula]:
    """Every formula without NOT in which each concept stands once, with this operator outermost."""
    if len(concepts) == 1:
        yield Formula(str(concepts[0]))
        return
    for blocks in _partitions(concepts):
        if len(blocks) > 1:
            inner = [list(_trees(block, OR if operator == AND else AND)) for block in blocks]
            for parts in itertools.product(*inner):
                yield Formula(operator=operator, parts=parts)


def _partitions(items: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for size in range(len(rest) + 1):
        for others in itertools.combinations(rest, size):
            left = tuple(one for one in rest if one not in others)
            for blocks in _partitions(left):
                yield [(first, *others), *blocks]


def _exchange(tree: Formula) -> Formula:
    """AND for OR, and OR for AND."""
    if not tree.operator:
        return tree
    return Formula(operator=OR if tree.operator == AND else AND, parts=tuple(_exchange(one) for one in tree.parts))


def sum_cells(subsets: Any) -> None:
    """In place, from the sums where all concepts of a subset m hold (entry m), those of the cells.

    >>> parts = [np.array([10.0]), np.array([4.0]), np.array([5.0]), np.array([1.0])]  # all, a, b, a and b
    >>> sum_cells(parts)
    >>> [float(one[0]) for one in parts]  # neither, a alone, b alone, both
    [2.0, 3.0, 4.0, 1.0]
    """
    size = len(subsets)
    bit = 1
    while bit < size:
        for m in range(size):
            if not m & bit:
                subsets[m] -= subsets[m | bit]
        bit *= 2
