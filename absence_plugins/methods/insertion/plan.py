"""What an insertion test pastes where: drawn before the first image is read, and in which blocks it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.methods.patches import ExtremePatches

RANDOM_PATCHES = 16  # per unit
TRIES = 16  # windows, of which the one farthest from the patch is painted over in the mirror test


@dataclass(frozen=True)
class Plan:
    """What is pasted: for every unit of a part, image and arm.

    Attributes:
        rows: the units' rows.
        images: [units, slots] image numbers.
        positions: by arm, [units, patches, 3] (image, y, x).
        choice: by arm, [units, slots]: which of the patches.
        sources: by arm, [units, slots]: the number of the image that the patch comes from.
        draws: [units, slots, 3], the place.
    """

    rows: range
    images: Tensor
    positions: dict[str, Tensor]
    choice: dict[str, Tensor]
    sources: dict[str, Tensor]
    draws: Tensor


def make_plan(patches: ExtremePatches, rows: range, where: Tensor, seed: int, protocol: str) -> Plan:
    """Which patch goes where; every unit draws from a generator of its own.

    Args:
        patches: of the scan.
        rows: of the units.
        where: [all units, slots], the images on which each is highest.
        seed: of places and random patches.
        protocol: which patches there are.
    """
    images = where[rows.start : rows.stop]
    units, slots = images.shape
    low, high, sample = patches.lowest_apart, patches.highest_apart, patches.sample
    if protocol == "paper":
        low, high = patches.lowest, patches.highest
    positions = {"lowest": low.positions[list(rows)], "highest": high.positions[list(rows)]}
    draws = torch.empty(units, slots, 3)
    choice = {arm: torch.empty(units, slots, dtype=torch.int64) for arm in ("lowest", "highest", "random", "median")}
    columns = sample.positions.shape[1]
    drawn = torch.empty(units, min(RANDOM_PATCHES, columns), dtype=torch.int64)
    many = {"lowest": low.scores.shape[1], "highest": high.scores.shape[1], "random": drawn.shape[1]}
    for row, unit in enumerate(patches.units[rows.start : rows.stop]):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + unit)
        draws[row] = torch.rand(slots, 3, generator=generator)
        drawn[row] = torch.randperm(columns, generator=generator)[: drawn.shape[1]]
        for arm, amount in many.items():
            turns = torch.arange(slots) % amount  # each as often as any other
            choice[arm][row] = turns[torch.randperm(slots, generator=generator)]
        choice["median"][row] = choice["lowest"][row]
    k = low.scores.shape[1]
    middle = (torch.arange(k) + (columns - k) // 2).clamp(0, columns - 1)
    own = sample.positions[list(rows)]
    positions["random"] = own.gather(1, drawn[:, :, None].expand(-1, -1, 3))
    positions["median"] = own[:, middle]
    if protocol == "paper":
        del positions["median"], choice["median"]
    sources = {arm: positions[arm][:, :, 0].gather(1, chosen) for arm, chosen in choice.items()}
    return Plan(rows, images, positions, choice, sources, draws)


@dataclass(frozen=True)
class Block:
    """What is pasted together: images, and their cells (row of a part, slot), image by image."""

    images: list[int]
    cells: list[list[tuple[int, int]]]

    @property
    def index(self) -> tuple[list[int], list[int]]:
        """Rows and slots of all cells."""
        every = [cell for cells in self.cells for cell in cells]
        return [row for row, _ in every], [slot for _, slot in every]


def make_blocks(images: Tensor, each: int, batch_size: int) -> list[Block]:
    """The cells of a table [units, slots] of image numbers in blocks: as many images, in order, as fill one batch.

    Args:
        images: the table.
        each: images that are made of a cell.
        batch_size: the most images of a block; an image with more cells is a block of its own.

    >>> [block.images for block in make_blocks(torch.tensor([[4, 2], [2, 7]]), 1, 2)]
    [[2], [4, 7]]
    """
    cells: dict[int, list[tuple[int, int]]] = {}
    for row, numbers in enumerate(images.tolist()):
        for slot, number in enumerate(numbers):
            cells.setdefault(number, []).append((row, slot))
    blocks: list[Block] = []
    room = 0
    for number in sorted(cells):
        needed = each * len(cells[number])
        if needed > room:
            blocks.append(Block([], []))
            room = batch_size
        blocks[-1].images.append(number)
        blocks[-1].cells.append(cells[number])
        room -= needed
    return blocks


def draw_elsewhere(places: Tensor, seed: int) -> Tensor:
    """For every patch [units, patches, 3] of the mirror test, windows [units, patches, TRIES, 2] to choose from."""
    generator = torch.Generator().manual_seed(seed + 1)
    drawn = torch.empty(*places.shape[:2], TRIES, 2)
    for block in make_blocks(places[:, :, 0], 1, 1):
        for row, slot in zip(*block.index, strict=True):
            drawn[row, slot] = torch.rand(TRIES, 2, generator=generator)
    return drawn


def numbers_of(blocks: Sequence[Block]) -> list[list[int]]:
    """The images of every block."""
    return [block.images for block in blocks]
