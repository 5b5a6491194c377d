"""Samples that are probably copies of each other, though their activations alone do not prove it: a warning's numbers.

Near copies (crops, frames, JPEG at another quality): of up to 256 samples, how many have a few neighbors that are
twenty times nearer than the next sample. Of independent samples on a line that happens in 5 %, in more dimensions in
fewer. Copies seen by one or two units: samples of exactly equal activation that have equal labels, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.groups import TELLING, pick_units
from absence_plugins.methods.invert.measures import standardize
from absence_plugins.methods.invert.units import Units

QUERIES = (64, 256)  # samples whose neighbors are sought, the fewer the more there are
DISTANCES = 2**23
NEARER = 20.0
COPIES = 30  # neighbors at most
SHARE = 0.15  # of the samples asked
CHANCE = 0.3  # of equal labels: above it a unit that tells its concept has ties of equal labels, too
TIES = 10


def count_near_copies(activations: Any, seed: int = 0) -> int:
    """About how many of the samples [N, U] have near copies, 0 if fewer than 15 % do; three units or more.

    Only samples with a value of their own in three units are asked, so that zeros, ties and whole numbers tell nothing.

    >>> alone = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    >>> count_near_copies(alone), count_near_copies(torch.cat([alone, alone + 1e-3 * alone.roll(1, 0)]))
    (0, 40)
    """
    table = Units.of(activations)
    samples = len(table)
    if table.count < TELLING or samples < 10 or not table.is_floating:
        return 0
    values = table.pick(pick_units(table.count))
    values = values[:, values.isfinite().all(0)]
    least, most = QUERIES
    asked = np.random.default_rng(seed).permutation(samples)[: min(most, max(least, DISTANCES // samples))]
    own = torch.zeros(len(asked), dtype=torch.long)
    for column in values.T:
        _, place, counts = column.unique(return_inverse=True, return_counts=True)
        own += counts[place[asked]] == 1
    asked = asked[(own >= TELLING).numpy()]
    if len(asked) < 10:
        return 0
    points = standardize(values.T).T
    near = 0
    nearest = min(COPIES + 2, samples)
    for part in np.array_split(asked, -(-len(asked) * samples // DISTANCES)):
        found = torch.cdist(points[part], points).topk(nearest, largest=False).values[:, 1:]  # without itself
        jumps = found[:, 1:] >= NEARER * found[:, :-1]
        near += int(jumps.any(1).sum())
    return round(near / len(asked) * samples) if near >= SHARE * len(asked) else 0


def count_equal_samples(activations: Any, row_of: Array) -> int:
    """How many samples of one or two units have the same activations and labels as another one; 0 where that may be
    chance.

    Activations [N, U], the label row of every sample [N]. Ties of more than 30 samples are not counted (zeros), nor
    fewer than 10 ties, nor labels that are equal for more than 30 % of all pairs of samples.

    >>> rows = np.random.default_rng(0).integers(0, 8, 50)
    >>> count_equal_samples(torch.linspace(0, 1, 25).repeat(2)[:, None], rows)
    0
    >>> count_equal_samples(torch.linspace(0, 1, 25).repeat(2)[:, None], np.tile(rows[:25], 2))
    50
    """
    table = Units.of(activations)
    if table.count >= TELLING or not table.is_floating:
        return 0
    values = table.pick(range(table.count)).numpy()
    _, place, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    small = (counts > 1) & (counts <= COPIES)
    if small.sum() < TIES:
        return 0
    tied = np.flatnonzero(small[place])
    tied = tied[np.argsort(place[tied], kind="stable")]
    same = place[tied][1:] == place[tied][:-1]
    equal = (row_of[tied][1:] == row_of[tied][:-1])[same]
    chance = float(((np.bincount(row_of) / len(row_of)) ** 2).sum())
    return len(tied) if equal.mean() >= 0.95 and chance <= CHANCE else 0
