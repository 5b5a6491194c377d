"""Labels as bits: a million samples by a thousand concepts take 125 MB, in rows of samples or in rows of concepts.

:class:`Words` are labels as they are read, a row per sample; equal rows are merged (:func:`merge_words`), and the
distinct ones turned into :class:`Bits`, a row per concept, of which formulas and products are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.inputs import Truth

Array = np.ndarray[Any, Any]
TURNED = 2**13  # samples turned, or compared, at a time; a multiple of 8
MULTIPLIER = 0x9E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class Words:
    """Labels of N samples, eight concepts a byte.

    Attributes:
        true: uint8 [N, bytes], where concepts hold, as ``numpy.packbits`` writes them; bytes is a multiple of 8.
        false: the same where they fail; None if everything is known.
        concepts: K.
    """

    true: Array
    false: Array | None
    concepts: int

    def __len__(self) -> int:
        return len(self.true)

    @classmethod
    def empty(cls, samples: int, concepts: int) -> Words:
        """No concept holds, everything is known."""
        return cls(np.zeros((samples, -(-concepts // 64) * 8), np.uint8), None, concepts)

    @property
    def planes(self) -> tuple[Array, ...]:
        """What tells rows apart."""
        return (self.true,) if self.false is None else (self.true, self.false)

    def take(self, index: Array) -> Words:
        """Some of the samples."""
        return Words(self.true[index], None if self.false is None else self.false[index], self.concepts)


@dataclass(frozen=True, eq=False)
class Bits:
    """Truth of K concepts on R samples (or label rows), eight of these a byte; spare bits are 0.

    Attributes:
        true: uint8 [K, bytes], where concepts hold.
        false: the same where they fail; None: wherever they do not hold.
        size: R.

    >>> bits = Bits.of(np.array([[True, False], [True, True]]))
    >>> bits.truth(1).true, unpack(bits.truth(1).false, 2).tolist()
    (array([64], dtype=uint8), [True, False])
    """

    true: Array
    false: Array | None
    size: int

    def __len__(self) -> int:
        return self.size

    @classmethod
    def of(cls, labels: Array) -> Bits:
        """Of labels [R, K] bool, all known."""
        return cls(np.packbits(labels.T, axis=1), None, len(labels))

    def truth(self, k: int) -> Truth:
        """One concept's, packed [bytes]. AND, OR and NOT of these are those of the samples."""
        true: Array = self.true[k]
        return Truth(true, complement(true, self.size) if self.false is None else self.false[k])

    def fold_packed(self, formula: Formula, place: Mapping[str, int]) -> Truth:
        """A formula's truth, packed; place: the number of each concept."""
        truth: Truth = formula.fold(lambda name: self.truth(place[name]))
        return truth

    def fold(self, formula: Formula, place: Mapping[str, int]) -> Truth:
        """A formula's truth, [R] bool."""
        packed = self.fold_packed(formula, place)
        return Truth(unpack(packed.true, self.size), unpack(packed.false, self.size))

    def counts(self, plane: Array | None = None) -> Array:
        """How many bits of each concept are set [K]."""
        own = self.true if plane is None else plane
        return np.array([count_bits(row) for row in own])

    @cached_property
    def failing(self) -> Array:
        """Where concepts fail, packed [K, bytes]."""
        return complement(self.true, self.size) if self.false is None else self.false

    def take(self, chosen: Array) -> Bits:
        """Of some samples, [R] bool."""
        if chosen.all():
            return self

        index = chosen.nonzero()[0]

        def pick(plane: Array) -> Array:
            made = np.empty((len(plane), -(-len(index) // 8)), np.uint8)
            for own, row in zip(made, plane, strict=True):
                own[:] = np.packbits(unpack(row, self.size).take(index))
            return made

        return Bits(pick(self.true), None if self.false is None else pick(self.false), len(index))


def unpack(packed: Array, size: int) -> Array:
    """Bits [..., bytes] as bool [..., size]."""
    return np.unpackbits(packed, axis=-1, count=size).view(bool)


def count_bits(packed: Array) -> int:
    """How many bits are set."""
    return int.from_bytes(packed.tobytes(), "big").bit_count()


def complement(packed: Array, size: int) -> Array:
    """The bits that are not set, spare ones left 0."""
    turned: Array = ~packed
    if size % 8:
        turned[..., -1] &= np.uint8(0xFF << (8 - size % 8) & 0xFF)  # a plain number is int64 in numpy 1
    return turned


def merge_rows(labels: Array) -> tuple[Bits, Array]:
    """Distinct rows of labels [N, K] bool and, for every sample, the number of its row [N].

    >>> rows, row_of = merge_rows(np.array([[True, False], [False, True], [True, False]]))
    >>> len(rows), bool(row_of[0] == row_of[2])
    (2, True)
    """
    words = Words.empty(*labels.shape)
    packed = np.packbits(labels, axis=1)
    words.true[:, : packed.shape[1]] = packed
    return merge_words(words)


def merge_words(words: Words) -> tuple[Bits, Array]:
    """Distinct rows, and every sample's row [N]; where no two samples have the same, rows and samples are one.

    Rows are told apart by a 64-bit hash, and that equal hashes are equal rows is checked.
    """
    digest = np.zeros(len(words), np.uint64)
    with np.errstate(over="ignore"):
        for column in (column for plane in words.planes for column in plane.view(np.uint64).T):
            digest = (digest ^ column) * np.uint64(MULTIPLIER)
            digest ^= digest >> np.uint64(29)
    _, first, row_of = np.unique(digest, return_index=True, return_inverse=True)
    if not all(_is_same(plane, first, row_of) for plane in words.planes):
        whole = np.concatenate(words.planes, 1).view(np.uint64)
        _, first, row_of = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(words):
        return _turn(words), np.arange(len(words))
    return _turn(words.take(first)), row_of.reshape(-1).astype(np.int64)


def _is_same(plane: Array, first: Array, row_of: Array) -> bool:
    """Whether every sample has the bytes of its row."""
    parts = range(0, len(plane), TURNED)
    return all(np.array_equal(plane[first[row_of[at : at + TURNED]]], plane[at : at + TURNED]) for at in parts)


def _turn(words: Words) -> Bits:
    """Rows of samples to rows of concepts, a part of the samples at a time."""

    def turn(plane: Array) -> Array:
        made = np.empty((words.concepts, -(-len(plane) // 8)), np.uint8)
        for at in range(0, len(plane), TURNED):
            part = torch.from_numpy(np.unpackbits(plane[at : at + TURNED], axis=1, count=words.concepts))
            packed = np.packbits(part.T.contiguous().numpy(), axis=1)
            made[:, at // 8 : at // 8 + packed.shape[1]] = packed
        return made

    return Bits(turn(words.true), None if words.false is None else turn(words.false), len(words))
