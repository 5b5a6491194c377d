"""Samples that are not independent: exact copies, and a split that leaves every group on one side."""

from __future__ import annotations

import numpy as np
import torch

from absence_plugins.methods.invert.table import Array, merge_rows

TELLING = 3  # units in which copies, and no other samples, have one value
ASKED = 16  # units that are asked


def find_copies(activations: torch.Tensor) -> Array | None:
    """Groups of samples [N] that are exact copies of each other, judged by their activations [N, U]; None without any.

    Samples are copies if they have the same value in every unit, and if in three of up to 16 units asked no other
    sample has that value; so zeros, ties and whole numbers make no copies. Fewer than three units tell nothing.

    >>> find_copies(torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]])).tolist()
    [0, 1, 0]
    """
    if activations.shape[1] < TELLING or not activations.is_floating_point():
        return None
    values = (activations + 0.0).cpu().contiguous().numpy()  # no -0.0
    _, first, row_of, counts = _equal_rows(values)
    if len(first) == len(values):
        return None
    units = np.unique(np.linspace(0, values.shape[1] - 1, ASKED).astype(int))
    telling = np.zeros(len(first), int)
    for u in units:
        _, of, own = np.unique(values[:, u], return_inverse=True, return_counts=True)
        telling += own[of.reshape(-1)[first]] == counts
    is_copied = (counts > 1) & (telling >= min(TELLING, len(units)))
    if not is_copied.any():
        return None
    alone = ~is_copied[row_of]
    numbers = np.where(alone, len(first) + np.arange(len(values)), row_of)
    order = {number: g for g, number in enumerate(dict.fromkeys(numbers.tolist()))}
    return np.array([order[number] for number in numbers.tolist()])


def _equal_rows(values: Array) -> tuple[Array, Array, Array, Array]:
    """Distinct rows: their bytes, the first sample and the number of samples of each, and every sample's row."""
    packed = values.view(np.uint8).reshape(len(values), -1)
    rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]
    distinct, first, row_of, counts = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    return distinct, first, row_of.reshape(-1), counts


def split(rows: Array, row_of: Array, holdout: float, seed: int, groups: Array | None = None) -> Array:
    """Which samples are held out, [N] bool: a random share, of every rare concept too, never a part of a group.

    rows [R, K] bool, row_of [N]: the labels, merged; groups [N] numbers. The samples are lined up by their labels, the
    concept first on which fewest (or all but fewest) samples agree, at random within equal labels; then every
    1/holdout-th one is taken. So the rarest concept is shared out exactly, the next ones nearly so. Groups are lined up
    likewise, by what holds on one of their samples, and ``holdout`` is then a share of the groups.

    >>> split(np.array([[True], [False]]), np.array([0, 0, 1, 1, 1, 1]), 0.5, seed=0)[:2].sum()
    np.int64(1)
    """
    if holdout == 0:
        return np.zeros(len(row_of), bool)
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        of_group = np.logical_or.reduceat(rows[row_of[order]], starts)
        chosen: Array = split(*merge_rows(of_group), holdout, seed)[groups]
        return chosen
    generator = np.random.default_rng(seed)
    has = np.bincount(row_of, minlength=len(rows)).astype(np.float64) @ rows
    rarest = np.argsort(np.minimum(has, len(row_of) - has), kind="stable")[:64]
    bits = np.zeros((len(rows), 64), bool)
    bits[:, : len(rarest)] = rows[:, rarest]
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
