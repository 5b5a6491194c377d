"""``insertion_test``: lowest patches pasted into images on which a unit is high, beside every control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.checks import check_choice, check_integer, check_number, check_running, check_seed
from absence_plugins.core.devices import device_of
from absence_plugins.core.empties import blank_value
from absence_plugins.core.interrupts import uncut
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import Checkpoint, keep_state
from absence_plugins.methods.identity import (
    check_seen,
    digest_of,
    identify_data,
    identify_model,
    number_of,
)
from absence_plugins.methods.insertion.copies import FEWEST_IMAGES, choose_disjoint, find_members
from absence_plugins.methods.insertion.pasting import SOFT, feathered, pasted, place
from absence_plugins.methods.insertion.progress import FILE, UNITS_AT_ONCE, Progress, identify_patches
from absence_plugins.methods.insertion.result import InsertionResult
from absence_plugins.methods.insertion.statistics import ARMS, PROTOCOLS, unit_results
from absence_plugins.methods.patches import ExtremePatches
from absence_plugins.methods.patches.images import checked, image_at, read
from absence_plugins.methods.patches.result import cut_windows
from absence_plugins.methods.ranks import ranks

RANDOM_PATCHES = 16  # per unit


def insertion_test(
    model: nn.Module,
    layer: str | Layer,
    dataset: Any,
    patches: ExtremePatches,
    *,
    images_per_unit: int = 100,
    protocol: str = "controlled",
    test: str = "t",
    alpha: float = 0.05,
    blank: Any = 0.0,
    split_seed: int = 0,
    seed: int = 0,
    groups: Any = None,
    batch_size: int = 64,
    checkpoint: Path | str | None = None,
    save_every: float = 60.0,
    workers: int = 0,
    progress: bool = True,
) -> InsertionResult:
    """Does a unit's lowest patch, pasted into images on which the unit is high, pull it down more than other patches
    do?

    For every unit the ``images_per_unit`` images on which it is highest get, at the same place, one patch per arm: one
    of the unit's lowest, of its highest, a random one, one of its median ones, a blank one. The unit is flagged as an
    encoded absence if the lowest patch pulls it further down than *every* control, over images (paired) and over
    patches, after Benjamini-Hochberg over the units, and if painting the lowest patches over in their own images
    raises the unit more than painting over other places (the mirror test). Of every image at most one patch is used.

    Source: Hesse et al., ICML 2026, section 5; ``protocol="paper"`` is theirs: hard edges, corners, patches and images
    from the same data, an unpaired two-sided t-test of random against lowest in half precision, no correction.

    Args:
        model: runs in evaluation mode up to the layer; it is as before afterwards.
        layer: the one that was scanned; it is read as the scan read it.
        dataset: the one that was scanned.
        patches: of :func:`find_extreme_patches`. Images that it did not scan are tested on; if it scanned all, one
            half of the data set (``split_seed``) is scanned again for patches, and the other half is tested on.
        images_per_unit: fewer are used where there are fewer.
        protocol: "controlled" or "paper".
        test: over images: "t" (paired t) or "wilcoxon".
        alpha: false discovery rate of the flagged units.
        blank: an empty pixel as the model sees it: a number, one per channel, or a torchvision ``Normalize``.
        split_seed: of the halves.
        seed: of places and random patches.
        groups: [N] integers or strings, equal for images that are not independent: copies, crops, frames of one video.
            A group lies in one half, one of its images is tested on, and its patches count once ("controlled"). Without
            groups exact copies in a tensor are found, with an :class:`~absence_plugins.core.AbsenceWarning`.
        batch_size: images per forward.
        checkpoint: a folder for the state of the test (it may be the scan's); a test that was stopped is resumed,
            to the same bits. ``test`` and ``alpha`` come after it and may change.
        save_every: seconds between two saves of the state.
        workers: processes that read images ahead.
        progress: show progress bars.

    Returns:
        An :class:`InsertionResult`: one :class:`UnitInsertion` per unit.

    Sign: ``effect`` = mean(random) - mean(lowest); positive: the lowest patch pulls the unit down.

    Raises:
        ValueError: another layer than was scanned, a setting that does not exist, fewer than three images to test on,
            a checkpoint of another test.

    >>> generator = torch.Generator().manual_seed(0)
    >>> images = (torch.rand(40, 1, 8, 8, generator=generator) > 0.97).float()  # few bright dots
    >>> from absence_plugins.methods.patches import find_extreme_patches
    >>> hates_dots = nn.Conv2d(1, 1, 1)
    >>> hates_dots.weight.data, hates_dots.bias.data = torch.full((1, 1, 1, 1), -1.0), torch.ones(1)
    >>> found = find_extreme_patches(hates_dots, "", images, k=4, size=3, stride=1, images=range(20), progress=False)
    >>> result = insertion_test(hates_dots, "", images, found, images_per_unit=20, progress=False)
    >>> result[0].flagged, result[0].effect > 0
    (True, True)
    """
    images_per_unit = _check(layer, patches, images_per_unit, protocol, test)
    check_running(seed, workers, save_every)
    check_seed(split_seed, "split_seed")
    check_integer("batch_size", batch_size)
    check_number("alpha", alpha, 0, 1)
    members = find_members(dataset, groups)
    with own_folder(checkpoint):
        if protocol == "paper":
            chosen, numbers = patches, list(range(len(dataset)))
        else:
            rescan = None if checkpoint is None else Path(checkpoint) / "rescan"
            chosen, numbers = choose_disjoint(
                model, dataset, patches, members, split_seed, batch_size, rescan, save_every, workers, progress
            )
        if len(numbers) < FEWEST_IMAGES:
            independent = "" if len(torch.unique(members)) == len(members) else " independent"
            raise ValueError(
                f"{len(numbers)}{independent} images are left to test on; at least {FEWEST_IMAGES} are needed"
            )
        first = image_at(dataset, numbers[0])
        device, at = device_of(model, first), patches.at
        slots, arms = min(images_per_unit, len(numbers)), ARMS[protocol]
        empty = blank_value(blank, first[None])
        state = Progress.empty(chosen, len(numbers), slots, len(arms), seed)
        keeper = None
        if checkpoint is not None:
            settings = {
                "layer": at.name,
                "protocol": protocol,
                "images": f"{len(numbers)} of {len(dataset)}, {digest_of(torch.tensor(numbers))}",
                **dict(images_per_unit=images_per_unit, batch_size=batch_size, seed=seed),
                **{name: chosen.settings[name] for name in ("size", "reduce", "channels", "side")},
                "blank": digest_of(empty),
            }
            belongs = identify_patches(chosen) | identify_model(model, first[None], at)
            belongs |= identify_data(dataset, pixels=first)
            writes = ranks()[0] == 0  # under ``torchrun`` every rank tests everything, and rank 0 saves
            keeper = Checkpoint(checkpoint, settings, FILE, belongs=belongs, writes=writes, save_every=save_every)
            state.read(keeper.load(FILE))
            if not keeper.has_compared("data", "identity"):
                check_seen(state.seen, lambda number: image_at(dataset, number), numbers, checkpoint)
        with keep_state(keeper, FILE, state.tensors) as save, at.reading(model) as run:
            bench = _Bench(
                *(run, device, chosen, dataset, empty, protocol, seed, batch_size, workers, progress), save, state
            )
            bench.highest_images(numbers)
            plans = [bench.test_part(part) for part in range(len(state.pasted))]
    sources = {arm: torch.cat([plan.sources[arm] for plan in plans]) for arm in plans[0].sources}
    if protocol != "paper":
        sources = {arm: members[images] for arm, images in sources.items()}  # patches of one group are one sample
    mirror = state.mirror if protocol == "controlled" else None
    units = unit_results(chosen.units, state.values, sources, mirror, protocol, test, alpha)
    return InsertionResult(tuple(units), state.values, state.best.keys, arms, protocol, at.name, alpha, chosen)


def _check(layer: str | Layer, patches: ExtremePatches, images_per_unit: int, protocol: str, test: str) -> int:
    """The checked ``images_per_unit``."""
    if Layer.of(layer).name != patches.layer:
        raise ValueError(f"the patches are those of layer {patches.layer!r}, not of {Layer.of(layer).name!r}")
    if isinstance(layer, Layer) and layer != patches.at:
        raise ValueError(f"the patches were scanned with {patches.at!r}, not with {layer!r}; pass the same layer")
    check_choice("protocol", protocol, PROTOCOLS)
    check_choice("test", test, ("t", "wilcoxon"))
    return check_integer("images_per_unit", images_per_unit, least=FEWEST_IMAGES)


@dataclass
class _Plan:
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


@dataclass
class _Bench:
    run: Any
    device: torch.device
    patches: ExtremePatches
    dataset: Any
    blank: Tensor
    protocol: str
    seed: int
    batch_size: int
    workers: int
    progress: bool
    save: Callable[[], None]
    state: Progress

    @property
    def size(self) -> int:
        return int(self.patches.settings["size"])

    def values(self, images: list[Tensor]) -> Tensor:
        """[n, units of the scan] on the CPU; images of different sizes go through one by one."""
        alike = len({image.shape for image in images}) == 1
        parts = torch.split(torch.stack(images), self.batch_size) if alike else [image[None] for image in images]
        found = [self.patches.at.reduced(self.run(part.to(self.device))).float().cpu() for part in parts]
        return torch.cat(found)[:, list(self.patches.units)]

    def highest_images(self, numbers: list[int]) -> None:
        """Numbers of the images on which each unit is highest, the highest first."""
        blocks = [numbers[start : start + self.batch_size] for start in range(0, len(numbers), self.batch_size)]
        blocks = blocks[self.state.blocks :]
        items = read(self.dataset, blocks, self.workers)
        for block, found in zip(
            tqdm(blocks, desc="images on which units are high", disable=not self.progress), items, strict=True
        ):
            images = [checked(item, number) for number, item in zip(block, found, strict=True)]
            values = self.values(images)
            if not bool(torch.isfinite(values).all()):
                bad = int((~torch.isfinite(values)).any(1).nonzero()[0, 0])
                raise ValueError(f"the layer's output for image {block[bad]} is NaN or infinite")
            hashes = torch.tensor([number_of(image) for image in images])
            with uncut():
                self.state.best.update(values.T, torch.tensor(block))
                start = self.state.blocks * self.batch_size
                self.state.seen[start : start + len(block)] = hashes
                self.state.blocks += 1
            self.save()

    def test_part(self, part: int) -> _Plan:
        """Paste the patches of some units, and paint over them in their own images; returns what was pasted where."""
        rows = range(part * UNITS_AT_ONCE, min((part + 1) * UNITS_AT_ONCE, len(self.patches.units)))
        plan = self.plan(rows, self.state.best.keys)
        self.paste(plan, part)
        if self.protocol == "controlled":
            self.mirror(plan.rows, part)
        return plan

    def plan(self, rows: range, where: Tensor) -> _Plan:
        """Which patch goes where; every unit draws from a generator of its own."""
        images = where[rows.start : rows.stop]
        units, slots = images.shape
        low, high, sample = self.patches.lowest_apart, self.patches.highest_apart, self.patches.sample
        if self.protocol == "paper":
            low, high = self.patches.lowest, self.patches.highest
        positions = {"lowest": low.positions[list(rows)], "highest": high.positions[list(rows)]}
        draws = torch.empty(units, slots, 3)
        choice = {
            arm: torch.empty(units, slots, dtype=torch.int64) for arm in ("lowest", "highest", "random", "median")
        }
        columns = sample.positions.shape[1]
        drawn = torch.empty(units, min(RANDOM_PATCHES, columns), dtype=torch.int64)
        for row, unit in enumerate(self.patches.units[rows.start : rows.stop]):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + unit)
            draws[row] = torch.rand(slots, 3, generator=generator)
            drawn[row] = torch.randperm(columns, generator=generator)[: drawn.shape[1]]
            for arm, many in (
                ("lowest", low.scores.shape[1]),
                ("highest", high.scores.shape[1]),
                ("random", drawn.shape[1]),
            ):
                turns = torch.arange(slots) % many  # each as often as any other
                choice[arm][row] = turns[torch.randperm(slots, generator=generator)]
            choice["median"][row] = choice["lowest"][row]
        k = low.scores.shape[1]
        middle = (torch.arange(k) + (columns - k) // 2).clamp(0, columns - 1)
        own = sample.positions[list(rows)]
        positions["random"] = own.gather(1, drawn[:, :, None].expand(-1, -1, 3))
        positions["median"] = own[:, middle]
        if self.protocol == "paper":
            del positions["median"], choice["median"]
        sources = {arm: positions[arm][:, :, 0].gather(1, chosen) for arm, chosen in choice.items()}
        return _Plan(rows, images, positions, choice, sources, draws)

    def paste(self, plan: _Plan, part: int) -> None:
        """The unit's values; every image is read once, with all its variants in one batch."""
        arms = ARMS[self.protocol]
        wanted = torch.unique(plan.images).tolist()[self.state.pasted[part] :]
        if not wanted:
            return
        pixels = {arm: cut_windows(self.dataset, places, self.size) for arm, places in plan.positions.items()}
        cut = number_of(torch.cat([one.flatten() for one in pixels.values()]))
        if self.state.cut[part] not in (0, cut):
            raise ValueError(
                "the patches that are pasted come from other images than when the test began: the images differ, or "
                "change from one reading to the next"
            )
        self.state.cut[part] = cut
        alpha = (
            torch.ones(self.size, self.size) if self.protocol == "paper" else feathered(self.size, self.size // SOFT)
        )
        items = read(self.dataset, [[number] for number in wanted], self.workers)
        for number, (item,) in zip(tqdm(wanted, desc="pasting", disable=not self.progress), items, strict=True):
            image = checked(item, number)
            cells = (plan.images == number).nonzero().tolist()
            variants = [image]
            for cell in cells:
                variants += self._variants(image, plan, pixels, cell, arms[1:], alpha)
            values = self.values(variants)
            with uncut():
                for index, (row, slot) in enumerate(cells):
                    column = plan.rows.start + row
                    start = 1 + index * (len(arms) - 1)
                    self.state.values[column, slot, 0] = values[0, column]
                    self.state.values[column, slot, 1:] = values[start : start + len(arms) - 1, column]
                self.state.pasted[part] += 1
            self.save()

    def _variants(
        self,
        image: Tensor,
        plan: _Plan,
        pixels: dict[str, Tensor],
        cell: list[int],
        arms: Sequence[str],
        alpha: Tensor,
    ) -> Iterator[Tensor]:
        row, slot = cell
        y, x = place(image.shape[1], image.shape[2], self.size, plan.draws[row, slot], self.protocol == "paper")
        for arm in arms:
            patch = self._blank(image) if arm == "blank" else pixels[arm][row, plan.choice[arm][row, slot]]
            yield pasted(image, patch, y, x, alpha)

    def _blank(self, image: Tensor) -> Tensor:
        return self.blank.expand(image.shape[0], 1, 1).expand(-1, self.size, self.size)

    def mirror(self, rows: range, part: int) -> None:
        """The unit where its lowest patch is painted over in its own image, and where another place is."""
        places = self.patches.lowest_apart.positions[list(rows)]
        alpha = feathered(self.size, self.size // SOFT)
        wanted = torch.unique(places[:, :, 0]).tolist()[self.state.mirrored[part] :]
        generator = torch.Generator()
        generator.set_state(self.state.generators[part].clone())  # given a view, torch reads at a wrong place
        items = read(self.dataset, [[number] for number in wanted], self.workers)
        for number, (item,) in zip(tqdm(wanted, desc="mirror test", disable=not self.progress), items, strict=True):
            image, cells = checked(item, number), (places[:, :, 0] == number).nonzero().tolist()
            variants = []
            for row, slot in cells:
                y, x = places[row, slot, 1:].tolist()
                other = _elsewhere(image.shape[1], image.shape[2], self.size, y, x, generator)
                variants += [pasted(image, self._blank(image), down, right, alpha) for down, right in ((y, x), other)]
            values = self.values(variants)
            with uncut():
                for index, (row, slot) in enumerate(cells):
                    self.state.mirror[rows.start + row, slot] = values[2 * index : 2 * index + 2, rows.start + row]
                self.state.mirrored[part] += 1
                self.state.generators[part] = generator.get_state()
            self.save()


def _elsewhere(height: int, width: int, size: int, y: int, x: int, generator: torch.Generator) -> tuple[int, int]:
    """A random window that overlaps (y, x) as little as it can among a few tries."""
    spots = torch.rand(16, 2, generator=generator) * torch.tensor([height - size + 1, width - size + 1])
    apart = (spots.long() - torch.tensor([y, x])).abs().clamp(max=size).amax(1)
    row, column = spots.long()[int(apart.argmax())].tolist()
    return row, column
