"""How far an insertion test is, so that one that was stopped can be resumed, bit-identical, by any number of ranks.

Images come in fixed blocks, and ranks take blocks in turn, so what runs in one forward does not depend on how many
ranks there are. Every rank saves what it knows; merging is a union.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.identity import SHORT, Identity, digest_of
from absence_plugins.methods.patches import ExtremePatches
from absence_plugins.methods.patches.result import PARTS
from absence_plugins.methods.patches.windows import RunningExtremes
from absence_plugins.methods.ranks import gather, ranks

UNITS_AT_ONCE = 512  # whose patches are in memory together: a part
FILE = "insertion"


@dataclass
class Progress:
    """What a test knows so far.

    Attributes:
        best: the images on which each unit is highest; their numbers are its keys.
        blocks: [blocks] uint8, of images that went into ``best``.
        values: [units, slots, arms without the clean one]; NaN where nothing was pasted yet.
        pasted: [units, slots] uint8, what is in ``values``.
        mirror: [units, patches, 2] of the mirror test; NaN where it was not made yet.
        mirrored: [units, patches] uint8.
        seen: [images] int64, a hash of every image of the test that was read, 0 of the others.
        cut: [parts] int64, a hash of the patches that are pasted, 0 where they were not cut yet.
    """

    best: RunningExtremes
    blocks: Tensor
    values: Tensor
    pasted: Tensor
    mirror: Tensor
    mirrored: Tensor
    seen: Tensor
    cut: Tensor

    @classmethod
    def empty(cls, patches: ExtremePatches, images: int, blocks: int, slots: int, arms: int) -> Progress:
        """Before the first image; ``arms``: without the clean one."""
        units, many = patches.lowest_apart.positions.shape[:2]
        return cls(
            best=RunningExtremes(units, slots),
            blocks=torch.zeros(blocks, dtype=torch.uint8),
            values=torch.full((units, slots, arms), torch.nan),
            pasted=torch.zeros(units, slots, dtype=torch.uint8),
            mirror=torch.full((units, many, 2), torch.nan),
            mirrored=torch.zeros(units, many, dtype=torch.uint8),
            seen=torch.zeros(images, dtype=torch.int64),
            cut=torch.zeros(len(range(0, units, UNITS_AT_ONCE)), dtype=torch.int64),
        )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, as a checkpoint holds them."""
        names = ("blocks", "values", "pasted", "mirror", "mirrored", "seen", "cut")
        return {
            "best.scores": self.best.scores,
            "best.keys": self.best.keys,
            **{name: getattr(self, name) for name in names},
        }

    def merge(self, other: dict[str, Tensor]) -> None:
        """Take in what another rank, or an earlier run, knows."""
        self.best.update(other["best.scores"], other["best.keys"])
        self.blocks |= other["blocks"]
        for values, done in (("values", "pasted"), ("mirror", "mirrored")):
            known = other[done].bool()
            getattr(self, values)[known] = other[values][known]
            getattr(self, done)[known] = 1
        self.seen = torch.where(self.seen == 0, other["seen"], self.seen)
        self.cut = torch.where(self.cut == 0, other["cut"], self.cut)

    def share(self) -> None:
        """Give every rank what all ranks know."""
        for found in gather(self.tensors()):
            self.merge(found)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to paste."""
        return bool(self.pasted.all() and self.mirrored.all())


def open_test(
    folder: Path | str, settings: dict[str, Any], belongs: Identity, state: Progress, save_every: float
) -> Checkpoint:
    """The checkpoint of a test, in which every rank saves its state; takes in the states of all ranks.

    Raises:
        ValueError: the folder is a file, or holds another test.
    """
    keeper = Checkpoint(folder, settings, FILE, belongs=belongs, writes=ranks()[0] == 0, save_every=save_every)
    keeper.writes = True  # the settings come from rank 0, a state from everyone
    for found in keeper.load_all(f"{FILE}-rank-"):
        state.merge(found)
    return keeper


def identify_patches(patches: ExtremePatches) -> Identity:
    """Where the patches of every unit lie; not their scores, which are not used, and whose last bits differ
    elsewhere.
    """
    tables = [getattr(patches, part).positions for part in PARTS]
    places = {str(unit): digest_of(*(table[row] for table in tables))[:SHORT] for row, unit in enumerate(patches.units)}
    return Identity({"patches": digest_of(torch.tensor(patches.units), *tables)}, {"patches": places})
