"""What the units of one layer share: the scan, the test, their values on all images, names, the influence of
directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.checks import check_choice, check_integer, check_integers
from absence_plugins.core.devices import device_of
from absence_plugins.core.empties import blank_value
from absence_plugins.core.units import Layer, UnitModel
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.directions import DirectionPairs, Influence, influence
from absence_plugins.methods.directions.few import MOST
from absence_plugins.methods.directions.saving import share_pairs
from absence_plugins.methods.insertion import InsertionResult, insertion_test
from absence_plugins.methods.invert import UnitLabel, label_units
from absence_plugins.methods.layer_values import layer_values
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches, halves
from absence_plugins.methods.patches.images import checked, image_at, read
from absence_plugins.methods.ranks import alone, from_first
from absence_plugins.report.unit.neuron import Look, look_at
from absence_plugins.report.unit.recent import RecentImages
from absence_plugins.report.unit.references import Nearest

DIRECTION_IMAGES = 600  # images to which directions are fitted where none were given
HEAD_BATCH = 32  # images whose features go through the head
DIRECTION_STARTS = 12  # of up to MOST directions

FEW_PASTED, FEW_IMAGES = 20, 100  # below these a page says that its verdicts are uncertain


@dataclass(frozen=True)
class Settings:
    """How a unit is looked at; scan and test are those of ``find_extreme_patches`` and ``insertion_test``.

    Attributes:
        size, stride, mode, k: of the patches.
        reduce, channels, side: how the layer is read, everywhere: see :class:`~absence_plugins.Layer`.
        images_per_unit, protocol: of the insertion test.
        examples: images whose maps are shown, on either side.
        references: with which an image is compared.
        nearest_in: where the nearest of them are searched: "pixels", or "features", what the model's last module with
            weights sees (a forward more of up to 400 images per example).
        scored: images on either side on which the maps' faithfulness is measured; 0 for none.
        batch_size, workers: images per forward, processes that read ahead.
        seed: of everything that is drawn.
    """

    size: int = 64
    stride: int = 16
    mode: str = "crop"
    reduce: str = "mean"
    channels: str = "auto"
    side: str = "auto"
    k: int = 8
    images_per_unit: int = 100
    protocol: str = "controlled"
    examples: int = 2
    references: int = 8
    nearest_in: str = "pixels"
    scored: int = 8
    batch_size: int = 64
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_integers(examples=self.examples, references=self.references)
        check_integer("scored", self.scored, least=0)
        check_choice("nearest_in", self.nearest_in, ("pixels", "features"))


@dataclass(frozen=True, eq=False)
class Study:
    """A layer of a model on a data set, for the reports of some of its units; what is computed is computed once.

    Attributes:
        model, layer, dataset: items of the data set are float images [C, H, W] as the model takes them, or tuples that
            begin with one.
        units: whose reports are asked for.
        settings: see :class:`Settings`.
        labels: [N] class of every image; None: references are drawn without regard to classes.
        groups: [N] integers or strings, equal for images that are not independent, which no split divides; None: each
            is alone.
        concepts, names: [N, K] of 0 and 1, and K names; None: units are not named.
        pairs, pairs_layer: fitted direction pairs and their layer; a number: so many are fitted to that layer.
        maps, pictures: callables, "auto" or None; see :func:`~absence_plugins.report.explain_unit`.
        show, prepare: from model inputs to pictures in [0, 1], and back.
        empty: an empty pixel as the model sees it.
        given: a test of (at least) these units.
        progress: show progress bars.
        looked: what ``look_at`` found, if it was called before; it warns once.

    Raises:
        ValueError: no such layer or unit, lengths that differ, a test of another layer, or of one read in another way.
    """

    model: nn.Module
    layer: str
    dataset: Any
    units: tuple[int, ...]
    settings: Settings
    labels: Tensor | None = None
    concepts: Tensor | None = None
    names: tuple[str, ...] = ()
    pairs: DirectionPairs | int | None = None
    pairs_layer: str | None = None
    maps: Any = "auto"
    pictures: Any = "auto"
    show: Callable[[Tensor], Tensor] = lambda images: images
    prepare: Callable[[Tensor], Tensor] = lambda images: images
    empty: Any = 0.0
    given: InsertionResult | None = None
    progress: bool = True
    looked: Look | None = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.units:
            raise ValueError("units is empty; name at least one")
        for unit in self.units:
            self.at[unit]  # rejects an index that is not a unit
        look = self.look  # rejects and warns before the scan
        if self.given is None and max(self.units) >= look.units > 0:
            raise ValueError(
                f"layer {self.layer!r} has units 0 to {look.units - 1}; there is no unit {max(self.units)}: it has "
                f"{look.units} channels"
            )
        side, size = min(image_at(self.dataset, 0).shape[-2:]), self.settings.size
        if self.given is None and size > side:
            raise ValueError(
                f"patches of size={size} do not fit into images of {side} pixels; pass size= (on the command line "
                f"--patch), for example {max(1, side // 4)}, and a stride= of about a third of it"
            )
        for name, value in (("labels", self.labels), ("concepts", self.concepts)):
            if value is not None and len(value) != len(self.dataset):
                raise ValueError(f"{name} has {len(value)} rows for {len(self.dataset)} images; pass one per image")
        if self.concepts is not None and self.concepts.shape[1:] != (len(self.names),):
            raise ValueError(f"{len(self.names)} names for concepts of shape {tuple(self.concepts.shape)}")
        if self.given is not None:
            if self.given.layer != self.layer:
                raise ValueError(f"tested= is of layer {self.given.layer!r}, not of {self.layer!r}")
            for name in ("reduce", "channels", "side"):
                theirs = getattr(self.given.patches.at, name)
                if theirs != getattr(self.settings, name):
                    raise ValueError(f"tested= read the units with {name}={theirs!r}; pass the same {name}=")
            for unit in self.units:
                self.given.of(unit)

    @property
    def at(self) -> Layer:
        """The layer, with how it is read."""
        one = self.settings
        return Layer(self.layer, reduce=one.reduce, channels=one.channels, side=one.side)  # type: ignore[arg-type]

    @cached_property
    def look(self) -> Look:
        """How many units the layer has, and whether its values look rectified."""
        return self.looked or look_at(self.model, self.at, self.dataset)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of any of its units must know; found without any scan."""
        total, half = len(self.dataset), len(self.dataset) // 2
        pasted = min(self.settings.images_per_unit, total if self.settings.protocol == "paper" else half)
        if self.given is not None:
            pasted = max((one.images for one in self.given), default=pasted)
        few = (
            f"Few images make uncertain verdicts: {pasted} were pasted into per unit, of {total:,} in all; other "
            "images may say otherwise."
        )
        notes = [self.look.note] if self.look.note else []
        return (*notes, few) if pasted < FEW_PASTED or total < FEW_IMAGES else tuple(notes)

    def file_of(self, number: int) -> str | None:
        """An image's file below the data set's folder; None where the data set knows none."""
        files = getattr(self.dataset, "files", None)
        if files is None or len(files) != len(self.dataset):
            return None
        path, folder = Path(files[number]), getattr(self.dataset, "folder", None)
        return path.relative_to(folder).as_posix() if folder is not None and path.is_relative_to(folder) else path.name

    def name_of(self, number: int) -> str:
        """What an image is called: its file, where the data set knows files, else its number."""
        return self.file_of(number) or f"Image {number}"

    @property
    def blank_words(self) -> str:
        """What a blank pixel is, in words."""
        value = self.blank(self.images([0]))
        seen = [*map(float, self.picture(value[0]).flatten(1).mean(1))]
        inner = sorted({round(float(one), 3) for one in value[0].flatten(1).mean(1)})
        as_input = f"{', '.join(f'{one:.3g}' for one in inner)} as the model sees it"
        if max(seen) < 1 / 255:
            return f"black ({as_input})"
        if inner == [0.0]:
            levels = ", ".join(f"{255 * one:.0f}" for one in seen)
            return f"the mean color of the normalization ({as_input}; {levels} of 255 in the picture)"
        return f"a level of {', '.join(f'{one:.2f}' for one in seen)} from 0 (black) to 1 (white) ({as_input})"

    @cached_property
    def tested(self) -> InsertionResult:
        """The insertion test of these units: the one given, or that of a scan of one half of the images."""
        if self.given is not None:
            return self.given
        one = self.settings
        options: dict[str, Any] = {
            "batch_size": one.batch_size, "workers": one.workers, "seed": one.seed, "progress": self.progress
        }  # fmt: skip
        half = None if one.protocol == "paper" else halves(self.dataset, one.seed, self.groups)[0]
        patches = find_extreme_patches(
            self.model, self.at, self.dataset, k=one.k, size=one.size, stride=one.stride, mode=one.mode,
            units=self.units, images=half, **options,
        )  # fmt: skip
        return insertion_test(
            self.model, self.layer, self.dataset, patches, images_per_unit=one.images_per_unit,
            protocol=one.protocol, blank=self.empty, groups=self.groups, **options,
        )  # fmt: skip

    @property
    def patches(self) -> ExtremePatches:
        """The patches of the test."""
        return self.tested.patches

    @cached_property
    def _values(self) -> tuple[Tensor, Tensor]:
        layer, units, count, size = self.at, list(self.units), len(self.dataset), self.settings.batch_size
        highest = Layer.of(layer, reduce="max")

        def inputs(wanted: Sequence[range]) -> Iterator[Tensor]:
            items = read(self.dataset, [*map(list, wanted)], self.settings.workers)
            for numbers, found in zip(wanted, items, strict=True):
                yield torch.stack([checked(item, number) for number, item in zip(numbers, found, strict=True)])

        def rows(maps: Tensor) -> Tensor:
            if max(units) >= maps.shape[1]:
                layer[max(units)].select(maps)  # says how many channels there are
            return torch.stack([layer.reduced(maps), highest.reduced(maps)], 1)[:, :, units]

        batches = Batches(count, size, inputs)
        both = layer_values(self.model, layer, batches, rows=rows, progress=self.progress)
        return both[:, 0].clone(), both[:, 1].clone()

    def values(self, unit: int) -> Tensor:
        """The unit on every image, [N]."""
        return self._values[0][:, self.units.index(unit)]

    def peaks(self, unit: int) -> Tensor:
        """Its highest value at any position, [N]; without positions its value."""
        return self._values[1][:, self.units.index(unit)]

    def neuron(self, unit: int) -> UnitModel:
        """The model with the unit as its only output."""
        return self.at[unit].of(self.model)

    @cached_property
    def recent(self) -> RecentImages:
        """The data set's images one by one; of those asked for last a bounded number is kept."""
        return RecentImages(self.dataset)

    @cached_property
    def nearest(self) -> Nearest:
        """The references of the unit whose report is made."""
        return Nearest()

    def images(self, numbers: Sequence[int]) -> Tensor:
        """Images of the data set on the model's device, [n, C, H, W]."""
        return torch.stack([self.recent[int(number)] for number in numbers]).to(device_of(self.model))

    def blank(self, images: Tensor) -> Tensor:
        """An empty image for each of these, of the same shape."""
        return blank_value(self.empty, images).to(images).expand_as(images).contiguous()

    def picture(self, image: Tensor) -> Tensor:
        """A model input [C, H, W] as a person sees it, in [0, 1]."""
        return self.show(image.detach().cpu()[None])[0].float().clamp(0, 1)

    def compute_shared(self) -> None:
        """Compute now, all ranks together, what the units share; else it is computed when it is first asked for."""
        _ = self.tested, self._values
        if self.concepts is not None:
            _ = self._labelled
        if self.pairs is not None:
            with suppress(ValueError):  # the page says it
                _ = self.influences

    @cached_property
    def _labelled(self) -> dict[str, tuple[UnitLabel, ...]]:
        return from_first(self._label_all)

    def _label_all(self) -> dict[str, tuple[UnitLabel, ...]]:
        assert self.concepts is not None
        found = {}
        for mode in ("positive", "negative"):
            labels = label_units(
                self._values[0], self.concepts, self.names, mode=mode, max_fraction=0.99, seed=self.settings.seed,
                groups=self.groups, progress=self.progress,
            )  # fmt: skip
            found[mode] = tuple(replace(one, unit=unit) for one, unit in zip(labels, self.units, strict=True))
        return found

    def label(self, unit: int, mode: str = "positive") -> UnitLabel:
        """The unit's names: what is in images on which it is high, or with mode "negative" low. Concepts must be
        given.
        """
        return self._labelled[mode][self.units.index(unit)]

    @cached_property
    def sample(self) -> Tensor:
        """Images for the directions, a seeded sample."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        chosen = torch.randperm(len(self.dataset), generator=generator)[:DIRECTION_IMAGES].sort().values
        return self.images(chosen.tolist())

    @cached_property
    def directions(self) -> DirectionPairs:
        """The pairs given, or fitted to a sample of the images."""
        if isinstance(self.pairs, DirectionPairs):
            return self.pairs
        assert self.pairs is not None
        starts = DIRECTION_STARTS if self.pairs <= MOST else None
        pairs = DirectionPairs(
            self.pairs, seed=self.settings.seed, starts=starts, progress=self.progress, head_batch=HEAD_BATCH
        )
        return share_pairs(DirectionPairs, lambda: pairs.fit_model(self.model, self.directions_at, self.sample))

    @property
    def directions_layer(self) -> str:
        """The layer of the pairs; by default the units' own."""
        return self.layer if self.pairs_layer is None else self.pairs_layer

    @property
    def directions_at(self) -> Layer:
        """The layer of the pairs, with how it is read: the units' own as they are."""
        own = self.directions_layer == self.layer
        return Layer.of(self.at, reduce="mean") if own else Layer(self.directions_layer)

    @cached_property
    def influences(self) -> Influence:
        """Effect of every direction on every unit, [I, U]; of several ranks the first measures it."""
        units, pairs = [self.at[unit] for unit in self.units], self.directions

        def measure() -> Influence:
            with alone():
                return influence(
                    pairs, self.model, self.directions_at, self.sample, outputs=units,
                    seed=self.settings.seed, progress=self.progress,
                )  # fmt: skip

        return from_first(measure)
