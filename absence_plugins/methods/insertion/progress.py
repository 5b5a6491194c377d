"""How far an insertion test is, so that one that was stopped can be resumed, bit-identical."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.methods.identity import SHORT, Identity, digest_of
from absence_plugins.methods.patches import ExtremePatches
from absence_plugins.methods.patches.result import PARTS
from absence_plugins.methods.patches.windows import RunningExtremes

UNITS_AT_ONCE = 512  # whose patches are in memory together: a part
FILE = "insertion"


@dataclass
class Progress:
    """What a test knows so far; images come in a fixed order, so a number says which are done.

    Attributes:
        best: the images on which each unit is highest; their numbers are its keys.
        blocks: of images that went into ``best``.
        values: [units, slots, arms]; NaN where nothing was pasted yet.
        pasted: images done, by part of the units.
        mirror: [units, patches, 2] of the mirror test; NaN where it was not made yet.
        mirrored: images done, by part.
        generators: state of the generator that draws the mirror's places, by part [parts, bytes].
        seen: [images] int64, a hash of every image of the test that was read, 0 of the others.
        cut: [parts] int64, a hash of the patches that are pasted, 0 where they were not cut yet.
    """

    best: RunningExtremes
    blocks: int
    values: Tensor
    pasted: list[int]
    mirror: Tensor
    mirrored: list[int]
    generators: Tensor
    seen: Tensor
    cut: Tensor

    @classmethod
    def empty(cls, patches: ExtremePatches, images: int, slots: int, arms: int, seed: int) -> Progress:
        """Before the first image."""
        units = len(patches.units)
        parts = len(range(0, units, UNITS_AT_ONCE))
        return cls(
            best=RunningExtremes(units, slots),
            blocks=0,
            values=torch.full((units, slots, arms), torch.nan),
            pasted=[0] * parts,
            mirror=torch.full((*patches.lowest_apart.positions.shape[:2], 2), torch.nan),
            mirrored=[0] * parts,
            generators=torch.Generator().manual_seed(seed + 1).get_state().repeat(parts, 1),
            seen=torch.zeros(images, dtype=torch.int64),
            cut=torch.zeros(parts, dtype=torch.int64),
        )

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, as a checkpoint holds them."""
        return {
            "best.scores": self.best.scores,
            "best.keys": self.best.keys,
            "values": self.values,
            "mirror": self.mirror,
            "generators": self.generators,
            "seen": self.seen,
            "cut": self.cut,
            "done": torch.tensor([self.blocks, *self.pasted, *self.mirrored]),
        }

    def read(self, found: dict[str, Tensor]) -> None:
        """Resume from :meth:`tensors`; {} is the beginning."""
        if not found:
            return
        self.best.scores, self.best.keys = found["best.scores"], found["best.keys"]
        self.values, self.mirror, self.generators = found["values"], found["mirror"], found["generators"]
        self.seen, self.cut = found["seen"], found["cut"]
        self.blocks, *rest = found["done"].tolist()
        self.pasted, self.mirrored = rest[: len(self.pasted)], rest[len(self.pasted) :]


def identify_patches(patches: ExtremePatches) -> Identity:
    """Where the patches of every unit lie; not their scores, which are not used, and whose last bits differ
    elsewhere.
    """
    tables = [getattr(patches, part).positions for part in PARTS]
    places = {str(unit): digest_of(*(table[row] for table in tables))[:SHORT] for row, unit in enumerate(patches.units)}
    return Identity({"patches": digest_of(torch.tensor(patches.units), *tables)}, {"patches": places})
