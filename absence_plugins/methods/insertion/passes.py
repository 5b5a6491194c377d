"""The passes of an insertion test over images: where the units are high, patches pasted, patches painted over.

Every pass does the blocks that are not done; under ``torchrun`` ranks take them in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from absence_plugins.core.interrupts import uncut
from absence_plugins.methods.identity import number_of
from absence_plugins.methods.insertion.measure import Measure, Paste
from absence_plugins.methods.insertion.pasting import SOFT, blended, feathered, place, place_elsewhere
from absence_plugins.methods.insertion.plan import Block, Plan, draw_elsewhere, make_blocks, make_plan
from absence_plugins.methods.insertion.progress import UNITS_AT_ONCE, Progress
from absence_plugins.methods.insertion.statistics import ARMS
from absence_plugins.methods.patches import ExtremePatches
from absence_plugins.methods.patches.images import checked, read
from absence_plugins.methods.patches.result import cut_windows
from absence_plugins.methods.ranks import ranks

Work = TypeVar("Work")


@dataclass
class Passes:
    """One insertion test as it runs; what it finds goes into ``state``."""

    measure: Measure
    patches: ExtremePatches
    dataset: Any
    empty: Tensor
    protocol: str
    seed: int
    workers: int
    progress: bool
    save: Callable[[], None]
    state: Progress

    @property
    def size(self) -> int:
        """Of the patches."""
        return int(self.patches.settings["size"])

    def find_highest(self, blocks: Sequence[list[int]]) -> None:
        """The images on which each unit is highest, the highest first."""
        starts = [0]
        for block in blocks:
            starts.append(starts[-1] + len(block))
        rest = [(row, block) for row, block in enumerate(blocks) if not self.state.blocks[row]]
        for (row, block), images in self.images(rest, lambda one: one[1], "images on which units are high"):
            values = self.measure.values(images)
            if not bool(torch.isfinite(values).all()):
                bad = int((~torch.isfinite(values)).any(1).nonzero()[0, 0])
                raise ValueError(f"the layer's output for image {block[bad]} is NaN or infinite")
            hashes = torch.tensor([number_of(image) for image in images])
            with uncut():
                self.state.best.update(values.T, torch.tensor(block))
                self.state.seen[starts[row] : starts[row + 1]] = hashes
                self.state.blocks[row] = 1
            self.save()

    def images(
        self, rest: Sequence[Work], numbers: Callable[[Work], list[int]], what: str
    ) -> Iterator[tuple[Work, list[Tensor]]]:
        """This rank's share of some work, with the images of each."""
        rank, world = ranks()
        own = rest[rank::world]
        items = read(self.dataset, [numbers(one) for one in own], self.workers)
        for one, found in zip(tqdm(own, desc=what, disable=not self.progress or rank > 0), items, strict=True):
            yield one, [checked(item, number) for number, item in zip(numbers(one), found, strict=True)]

    def test_part(self, part: int) -> Plan:
        """Paste the patches of some units, and paint over them in their own images; returns what was pasted where."""
        rows = range(part * UNITS_AT_ONCE, min((part + 1) * UNITS_AT_ONCE, len(self.patches.units)))
        plan = make_plan(self.patches, rows, self.state.best.keys, self.seed, self.protocol)
        self.paste(plan, part)
        self.paint_over(rows)
        return plan

    def paste(self, plan: Plan, part: int) -> None:
        """The units' values of the images with each arm's patch."""
        arms, rows = ARMS[self.protocol][1:], slice(plan.rows.start, plan.rows.stop)
        blocks = make_blocks(plan.images, len(arms), self.measure.batch_size)
        rest = [block for block in blocks if not bool(self.state.pasted[rows][block.index].all())]
        if not rest:
            return
        pixels = self.cut(plan, part)
        is_hard = self.protocol == "paper"
        alpha = torch.ones(self.size, self.size) if is_hard else feathered(self.size, self.size // SOFT)
        for block, images in self.images(rest, lambda one: one.images, "pasting"):
            pastes = []
            for at, (image, cells) in enumerate(zip(images, block.cells, strict=True)):
                for row, slot in cells:
                    y, x = place(image.shape[1], image.shape[2], self.size, plan.draws[row, slot], is_hard)
                    for arm in arms:
                        patch = self.blank(image) if arm == "blank" else pixels[arm][row, plan.choice[arm][row, slot]]
                        pastes.append(Paste(at, y, x, blended(image, patch, y, x, alpha)))
            found = self.values_of(block, plan.rows, images, pastes)
            self.keep(block, plan.rows, found, self.state.values, self.state.pasted)

    def cut(self, plan: Plan, part: int) -> dict[str, Tensor]:
        """The pixels of the patches, by arm. Raises ValueError if they are others than when the test began."""
        pixels = {arm: cut_windows(self.dataset, places, self.size) for arm, places in plan.positions.items()}
        cut = number_of(torch.cat([one.flatten() for one in pixels.values()]))
        if self.state.cut[part] not in (0, cut):
            raise ValueError(
                "the patches that are pasted come from other images than when the test began: the images differ, or "
                "change from one reading to the next"
            )
        self.state.cut[part] = cut
        return pixels

    def paint_over(self, rows: range) -> None:
        """The mirror test: the unit where its lowest patch is painted over in its own image, and where another place
        is.
        """
        places = self.patches.lowest_apart.positions[rows.start : rows.stop]
        done, alpha = self.state.mirrored[rows.start : rows.stop], feathered(self.size, self.size // SOFT)
        blocks = make_blocks(places[:, :, 0], 2, self.measure.batch_size)
        rest = [block for block in blocks if not bool(done[block.index].all())]
        draws = draw_elsewhere(places, self.seed) if rest else torch.empty(0)
        for block, images in self.images(rest, lambda one: one.images, "mirror test"):
            pastes = []
            for at, (image, cells) in enumerate(zip(images, block.cells, strict=True)):
                for row, slot in cells:
                    y, x = places[row, slot, 1:].tolist()
                    other = place_elsewhere(image.shape[1], image.shape[2], self.size, y, x, draws[row, slot])
                    for down, right in ((y, x), other):
                        pixels = blended(image, self.blank(image), down, right, alpha)
                        pastes.append(Paste(at, down, right, pixels))
            found = self.values_of(block, rows, images, pastes)
            self.keep(block, rows, found, self.state.mirror, self.state.mirrored)

    def blank(self, image: Tensor) -> Tensor:
        """An empty patch."""
        return self.empty.expand(image.shape[0], 1, 1).expand(-1, self.size, self.size)

    def values_of(self, block: Block, rows: range, images: Sequence[Tensor], pastes: Sequence[Paste]) -> Tensor:
        """Of each cell's unit, what it says of the cell's images [cells, images of a cell]."""
        every = self.measure.pasted_values(images, pastes).reshape(len(block.index[0]), -1, len(self.patches.units))
        columns = torch.tensor(block.index[0]) + rows.start
        return every[torch.arange(len(columns)), :, columns]

    def keep(self, block: Block, rows: range, found: Tensor, values: Tensor, done: Tensor) -> None:
        """Note what was found, and that it is done."""
        with uncut():
            values[rows.start : rows.stop][block.index] = found
            done[rows.start : rows.stop][block.index] = 1
        self.save()
