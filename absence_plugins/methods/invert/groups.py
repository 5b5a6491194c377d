"""Samples that are not independent: exact copies, and a split that leaves every group on one side."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np

from absence_plugins.methods.invert.bits import MULTIPLIER, Array, Bits, unpack
from absence_plugins.methods.invert.units import Units

TELLING = 3  # units in which copies, and no other samples, have one value
ASKED = 16  # units that are asked
ROWS = 2**24  # activations compared at a time


def find_copies(activations: Any) -> Array | None:
    """Groups of samples [N] that are exact copies of each other, judged by their activations [N, U]; None without any.

    Samples are copies if they have the same value in every unit, and if in three of up to 16 units asked no other
    sample has that value; so zeros, ties and whole numbers make no copies. Fewer than three units tell nothing.

    >>> find_copies(np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]])).tolist()
    [0, 1, 0]
    """
    table = Units.of(activations)
    if table.count < TELLING or not table.is_floating:
        return None
    asked = (table.pick(pick_units(table.count)) + 0.0).numpy()  # no -0.0
    digest = np.zeros(len(asked), np.uint64)
    with np.errstate(over="ignore"):
        for column in asked.T:
            bits = np.ascontiguousarray(column).view(f"u{column.itemsize}").astype(np.uint64)
            digest = (digest ^ bits) * np.uint64(MULTIPLIER)
            digest ^= digest >> np.uint64(29)
    _, of, counts = np.unique(digest, return_inverse=True, return_counts=True)
    alike = counts[of.reshape(-1)] > 1
    if not alike.any():
        return None
    numbers = _number_rows(table, alike)
    first, row_of, counts = np.unique(numbers, return_index=True, return_inverse=True, return_counts=True)[1:]
    row_of = row_of.reshape(-1)
    if len(first) == len(table):
        return None
    telling = np.zeros(len(first), int)
    for column in asked.T:
        _, of, own = np.unique(column, return_inverse=True, return_counts=True)
        telling += own[of.reshape(-1)[first]] == counts
    is_copied = (counts > 1) & (telling >= min(TELLING, asked.shape[1]))
    if not is_copied.any():
        return None
    alone = ~is_copied[row_of]
    numbers = np.where(alone, len(first) + np.arange(len(table)), row_of)
    order = {number: g for g, number in enumerate(dict.fromkeys(numbers.tolist()))}
    return np.array([order[number] for number in numbers.tolist()])


def pick_units(count: int) -> list[int]:
    """Of so many units those that are asked, from the first to the last."""
    units: list[int] = np.unique(np.linspace(0, count - 1, ASKED).astype(int)).tolist()
    return units


def _number_rows(table: Units, alike: Array) -> Array:
    """A number per sample [N], equal for equal rows; alike: the samples that may equal another one."""
    numbers = np.arange(len(table))
    known: dict[bytes, int] = {}
    step = max(1, ROWS // table.count)
    for first in range(0, len(table), step):
        asked = np.flatnonzero(alike[first : first + step])
        if len(asked):
            rows = table.rows(first, min(first + step, len(table)))
            for i in asked.tolist():
                numbers[first + i] = known.setdefault(
                    blake2b((rows[i] + 0.0).tobytes(), digest_size=16).digest(), first + i
                )
    return numbers


def split(rows: Bits, row_of: Array, holdout: float, seed: int, groups: Array | None = None) -> Array:
    """Which samples are held out, [N] bool: a random share, of every rare concept too, never a part of a group.

    rows of K concepts, row_of [N]: the labels, merged; groups [N] numbers. The samples are lined up by their labels,
    the concept first on which fewest (or all but fewest) samples agree, at random within equal labels; then every
    1/holdout-th one is taken. So the rarest concept is shared out exactly, the next ones nearly so. Groups are lined up
    likewise, by what holds on one of their samples, and ``holdout`` is then a share of the groups.

    >>> split(Bits.of(np.array([[True], [False]])), np.array([0, 0, 1, 1, 1, 1]), 0.5, seed=0)[:2].sum()
    np.int64(1)
    """
    if holdout == 0:
        return np.zeros(len(row_of), bool)
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        own = row_of[order]
        held = (np.logical_or.reduceat(unpack(plane, len(rows))[own], starts) for plane in rows.true)
        of_group = Bits(np.stack([np.packbits(one) for one in held]), None, len(starts))
        chosen: Array = split(of_group, np.arange(len(starts)), holdout, seed)[groups]
        return chosen
    generator = np.random.default_rng(seed)
    weight = np.bincount(row_of, minlength=len(rows)).astype(np.float64)
    has = np.array([weight @ unpack(plane, len(rows)) for plane in rows.true])
    rarest = np.argsort(np.minimum(has, len(row_of) - has), kind="stable")[:64]
    bits = np.zeros((len(rows), 64), bool)
    bits[:, : len(rarest)] = unpack(rows.true[rarest], len(rows)).T
    lined_up = np.packbits(bits, axis=1).view(">u8")[:, 0][row_of]
    shuffled = generator.permutation(len(row_of))
    by_labels = shuffled[np.argsort(lined_up[shuffled], kind="stable")]
    passed = np.floor(np.arange(len(row_of) + 1) * holdout + generator.random())
    taken = np.zeros(len(row_of), bool)
    taken[by_labels] = np.diff(passed) > 0
    return taken


def collapse(values: Array, groups: Array | None) -> Array:
    """Of whole numbers [N] per sample those of the groups: twice the mid-ranks of their means, centered, [G].

    So copies change nothing, and the order alone counts, as of samples.

    >>> collapse(np.array([-2.0, 0.0, 0.0, 2.0]), np.array([0, 1, 1, 1])).tolist()
    [-1.0, 1.0]
    """
    if groups is None:
        return values
    return center_ranks(average(values, groups))


def average(values: Array, groups: Array | None) -> Array:
    """Means over the groups [G] of values [N], or the values themselves.

    >>> average(np.array([1, 0, 0]), np.array([0, 0, 1])).tolist()
    [0.5, 0.0]
    """
    return values if groups is None else np.bincount(groups, weights=values) / np.bincount(groups)


def strata_of(groups: Array | None) -> Array | None:
    """Of the groups [G] those of about the same size, within a factor of 1.25; None without groups.

    >>> strata_of(np.array([0, 1, 1, 1, 2])).tolist()
    [0, 4, 0]
    """
    return None if groups is None else np.floor(np.log(np.bincount(groups)) / np.log(1.25) + 1e-9).astype(int)


def center_ranks(values: Array) -> Array:
    """(number smaller) + (number smaller or equal) - N of every value [N].

    >>> center_ranks(np.array([5.0, 1.0, 5.0])).tolist()
    [1.0, -2.0, 1.0]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    upto = counts.cumsum()
    centered: Array = (2 * upto - counts - len(values)).astype(np.float64)
    return centered[place.reshape(-1)]
