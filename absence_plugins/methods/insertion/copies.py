"""Images that are not independent: which groups they form, and which of them are tested on."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.groups import as_groups
from absence_plugins.data.groups import find_equal_rows
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches, halves

FEWEST_IMAGES = 3


def find_members(dataset: Any, groups: Any) -> Tensor:
    """The group of every image [N]: those given, or exact copies in a tensor (with a warning), or each alone.

    >>> find_members(range(3), None).tolist(), find_members(range(3), [5, 1, 5]).tolist()
    ([0, 1, 2], [1, 0, 1])
    """
    if groups is not None or not isinstance(dataset, Tensor):
        given = as_groups(groups, len(dataset))
        return torch.arange(len(dataset)) if given is None else given
    numbers = torch.tensor(find_equal_rows(dataset))
    if (distinct := len(torch.unique(numbers))) < len(numbers):
        warnings.warn(
            f"{len(numbers) - distinct} of {len(numbers)} images are exact copies of others: copies stay in one half and "
            f"count once ({distinct} independent images). Leave copies out, or name the groups of crops, frames or near "
            "copies in groups=",
            AbsenceWarning,
            stacklevel=3,
        )
    return numbers


def drop_copies(images: Iterable[int], members: Tensor, seen: Collection[int] = ()) -> list[int]:
    """The first image of every group, of groups that were not ``seen``.

    >>> drop_copies(range(4), torch.tensor([0, 1, 1, 2]), {0})
    [1, 3]
    """
    done = set(seen)
    found = []
    for number in images:
        group = int(members[number])
        if group not in done:
            done.add(group)
            found.append(number)
    return found


def choose_disjoint(
    model: nn.Module,
    dataset: Any,
    patches: ExtremePatches,
    members: Tensor,
    split_seed: int,
    batch_size: int,
    checkpoint: Path | None,
    save_every: float,
    workers: int,
    progress: bool,
) -> tuple[ExtremePatches, list[int]]:
    """Patches, and the images that had no part in choosing them: of every group without a part the first image."""
    scanned = list(range(len(dataset)) if patches.images is None else patches.images)
    rest = drop_copies(range(len(dataset)), members, set(members[scanned].tolist()))
    if len(rest) >= FEWEST_IMAGES or (rest and len(torch.unique(members)) == len(members)):
        return patches, rest
    selection, others = halves(dataset, split_seed, members)
    rest = drop_copies(others, members)
    options = {name: patches.settings[name] for name in ("size", "stride", "mode", "seed", "precision")}
    again = find_extreme_patches(
        model,
        patches.at,
        dataset,
        k=patches.lowest.scores.shape[1],
        units=patches.units,
        images=selection,
        batch_size=batch_size,
        checkpoint=checkpoint,
        save_every=save_every,
        workers=workers,
        progress=progress,
        **options,
    )
    return again, rest
