"""Labels read once, a part of the samples at a time, into eight concepts a byte: from arrays, files, or functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from absence_plugins.methods.invert.bits import Array, Words, complement
from absence_plugins.methods.invert.inputs import Truth, as_labels, as_truth, check_shape
from absence_plugins.methods.invert.scores import check_lengths
from absence_plugins.methods.invert.stored import is_stored, read_part

ENTRIES = 2**23  # labels looked at at a time


@dataclass(frozen=True, eq=False)
class PackedConcepts:
    """Labels of 0 and 1, eight a byte, in the place of ``concepts`` [N, K]: a million samples by a thousand in 125 MB.

    Attributes:
        packed: uint8 [N, ceil(K / 8)] as ``numpy.packbits(labels, axis=1)`` writes it, also memory-mapped.
        count: K.

    Raises:
        ValueError: another shape, or no uint8.

    >>> PackedConcepts(np.packbits([[True, False, True]], axis=1), 3).read(0, 1)
    array([[ True, False,  True]])
    """

    packed: Any
    count: int

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.packed.shape), self.packed.dtype
        if (
            len(shape) != 2
            or str(dtype).removeprefix("torch.") != "uint8"
            or shape[1] != -(-self.count // 8)
            or self.count < 1
        ):
            raise ValueError(
                f"packed labels are {dtype} {list(shape)} for {self.count} concepts; they must be uint8 [N, "
                f"{-(-self.count // 8)}], as numpy.packbits(labels, axis=1) writes them"
            )

    def __len__(self) -> int:
        return len(self.packed)

    def read(self, first: int, last: int) -> Array:
        """Labels of some samples [last - first, K] bool."""
        return np.unpackbits(np.asarray(self.packed[first:last]), axis=1, count=self.count).view(bool)


def read_labels(concepts: Any, samples: int, count: int) -> Words:
    """Labels of N samples for ``count`` names, from what ``label_units`` takes as ``concepts``.

    Raises:
        ValueError: another number of samples, a shape that is not [N, K], a value that is neither 0 nor 1 nor NaN.
    """
    words: Words | None = None
    at = 0
    for block in _parts(concepts, samples, count):
        truth = as_truth(block, at)
        rows, width = truth.true.shape
        words = Words.empty(samples, width) if words is None else words
        if at + rows > samples:
            check_lengths(samples, at + rows)
        if width != words.concepts:
            raise ValueError(f"{words.concepts} concepts of the first samples, but {width} from sample {at} on; pass one column per name")  # fmt: skip
        words = _write(words, at, truth)
        at += rows
    check_lengths(samples, at)
    assert words is not None
    return words


def _parts(concepts: Any, samples: int, count: int) -> Iterator[Any]:
    """Labels of some of the samples, one part after the other."""
    if hasattr(concepts, "__next__"):
        yield from concepts
        return
    read: Callable[[int, int], Any]
    shape: tuple[int, ...]
    given = concepts
    if isinstance(given, PackedConcepts):
        read, shape = given.read, (len(given), given.count)
    elif hasattr(given, "tocsr"):  # scipy's sparse matrices
        sparse = given.tocsr()
        read, shape = (lambda first, last: sparse[first:last].toarray()), sparse.shape
    elif is_stored(given):
        read, shape = (lambda first, last: read_part(given, slice(first, last))), tuple(given.shape)
        check_shape(shape)
    elif callable(given):
        read, shape = given, (samples, count)
    else:
        labels = as_labels(given)
        read, shape = (lambda first, last: labels[first:last]), tuple(labels.shape)
    check_lengths(samples, shape[0])
    step = max(1, ENTRIES // max(1, shape[1]))
    for first in range(0, samples, step):
        yield read(first, min(first + step, samples))


def _write(words: Words, at: int, truth: Truth) -> Words:
    """With the labels of the samples from ``at`` on."""
    width = -(-words.concepts // 8)
    if words.false is None and not truth.is_known:
        false = np.zeros_like(words.true)
        false[:at, :width] = complement(words.true[:at, :width], words.concepts)
        words = replace(words, false=false)
    for plane, mask in ((words.true, truth.true), (words.false, truth.false)):
        if plane is not None:
            plane[at : at + len(mask), :width] = np.packbits(mask.cpu().numpy(), axis=1)
    return words
