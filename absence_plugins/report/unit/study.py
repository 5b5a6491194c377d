"""What the units of one layer share: the scan, the test, their values on all images, names, the influence of directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.references import blank_value
from absence_plugins.core.units import Unit
from absence_plugins.methods.directions import DirectionPairs, Influence, influence
from absence_plugins.methods.insertion import InsertionResult, insertion_test
from absence_plugins.methods.invert import UnitLabel, label_units
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches, halves
from absence_plugins.methods.patches.images import image_at
from absence_plugins.report.unit.neuron import ScannedUnit, check_layer, layer_values

DIRECTION_IMAGES = 600  # images to which directions are fitted where none were given
DIRECTION_FIT: dict[str, Any] = {"starts": 12, "steps": 300, "head_batch": 32}  # 40 s on the digits network


@dataclass(frozen=True)
class Settings:
    """How a unit is looked at; scan and test are those of ``find_extreme_patches`` and ``insertion_test``.

    Attributes:
        size, stride, mode, reduce, k: of the patches. ``reduce`` is also how the unit is read everywhere else.
        images_per_unit, protocol: of the insertion test.
        examples: images whose maps are shown, on either side.
        references: with which an image is compared.
        scored: images on either side on which the maps' faithfulness is measured; 0 for none.
        batch_size, workers: images per forward, processes that read ahead.
        seed: of everything that is drawn.
    """

    size: int = 64
    stride: int = 16
    mode: str = "crop"
    reduce: str = "mean"
    k: int = 8
    images_per_unit: int = 100
    protocol: str = "controlled"
    examples: int = 2
    references: int = 8
    scored: int = 8
    batch_size: int = 64
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("examples", "references"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.scored < 0:
            raise ValueError(f"scored={self.scored} must be 0 or more")


@dataclass(frozen=True, eq=False)
class Study:
    """A layer of a model on a data set, for the reports of some of its units; what is computed is computed once.

    Attributes:
        model, layer, dataset: items of the data set are float images [C, H, W] as the model takes them, or tuples that
            begin with one.
        units: whose reports are asked for.
        settings: see :class:`Settings`.
        labels: [N] class of every image; None: references are drawn without regard to classes.
        concepts, names: [N, K] of 0 and 1, and K names; None: units are not named.
        pairs, pairs_layer: fitted direction pairs and their layer; a number: so many are fitted to that layer.
        maps, pictures: callables, "auto" or None; see :func:`~absence_plugins.report.explain_unit`.
        show, prepare: from model inputs to pictures in [0, 1], and back.
        empty: an empty pixel as the model sees it.
        given: a test of (at least) these units.
        progress: show progress bars.

    Raises:
        ValueError: no such layer or unit, a rectifier, lengths that differ, a test of another layer.
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

    def __post_init__(self) -> None:
        check_layer(self.model, self.layer)
        if not self.units:
            raise ValueError("units is empty; name at least one")
        for unit in self.units:
            Unit(self.layer, unit)  # refuses what is no unit number
        for name, value in (("labels", self.labels), ("concepts", self.concepts)):
            if value is not None and len(value) != len(self.dataset):
                raise ValueError(f"{name} has {len(value)} rows for {len(self.dataset)} images; pass one per image")
        if self.concepts is not None and self.concepts.shape[1:] != (len(self.names),):
            raise ValueError(f"{len(self.names)} names for concepts of shape {tuple(self.concepts.shape)}")
        if self.given is not None:
            if self.given.layer != self.layer:
                raise ValueError(f"tested= is of layer {self.given.layer!r}, not of {self.layer!r}")
            if self.given.patches.settings["reduce"] != self.settings.reduce:
                raise ValueError(
                    f"tested= read the units with reduce={self.given.patches.settings['reduce']!r}; pass the same reduce="
                )
            for unit in self.units:
                self.given.of(unit)

    @cached_property
    def tested(self) -> InsertionResult:
        """The insertion test of these units: the one given, or that of a scan of one half of the images."""
        if self.given is not None:
            return self.given
        one = self.settings
        options: dict[str, Any] = {
            "batch_size": one.batch_size, "workers": one.workers, "seed": one.seed, "progress": self.progress
        }  # fmt: skip
        half = None if one.protocol == "paper" else halves(self.dataset, one.seed)[0]
        patches = find_extreme_patches(
            self.model, self.layer, self.dataset, k=one.k, size=one.size, stride=one.stride, mode=one.mode,
            reduce=one.reduce, units=self.units, images=half, **options,
        )  # fmt: skip
        return insertion_test(
            self.model, self.layer, self.dataset, patches, images_per_unit=one.images_per_unit,
            protocol=one.protocol, blank=self.empty, **options,
        )  # fmt: skip

    @property
    def patches(self) -> ExtremePatches:
        """The patches of the test."""
        return self.tested.patches

    @cached_property
    def _values(self) -> tuple[Tensor, Tensor]:
        return layer_values(
            self.model, self.layer, self.dataset, list(self.units), self.settings.reduce,
            batch_size=self.settings.batch_size, workers=self.settings.workers, progress=self.progress,
        )  # fmt: skip

    def values(self, unit: int) -> Tensor:
        """The unit on every image, [N]."""
        return self._values[0][:, self.units.index(unit)]

    def peaks(self, unit: int) -> Tensor:
        """Its highest value at any position, [N]; without positions its value."""
        return self._values[1][:, self.units.index(unit)]

    def neuron(self, unit: int) -> ScannedUnit:
        """The model with the unit as its only output."""
        return ScannedUnit(self.model, self.layer, unit, self.settings.reduce)

    def images(self, numbers: Sequence[int]) -> Tensor:
        """Images of the data set on the model's device, [n, C, H, W]."""
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        return torch.stack([image_at(self.dataset, int(number)) for number in numbers]).to(device)

    def blank(self, images: Tensor) -> Tensor:
        """An empty image for each of these, of the same shape."""
        return blank_value(self.empty, images).to(images).expand_as(images).contiguous()

    def picture(self, image: Tensor) -> Tensor:
        """A model input [C, H, W] as a person sees it, in [0, 1]."""
        return self.show(image.detach().cpu()[None])[0].float().clamp(0, 1)

    @cached_property
    def _labelled(self) -> dict[str, tuple[UnitLabel, ...]]:
        assert self.concepts is not None
        found = {}
        for mode in ("positive", "negative"):
            labels = label_units(
                self._values[0], self.concepts, self.names, mode=mode, max_fraction=0.99, seed=self.settings.seed,
                progress=self.progress,
            )  # fmt: skip
            found[mode] = tuple(replace(one, unit=unit) for one, unit in zip(labels, self.units, strict=True))
        return found

    def label(self, unit: int, mode: str = "positive") -> UnitLabel:
        """The unit's names: what is in images on which it is high, or with mode "negative" low. Concepts must be given."""
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
        pairs = DirectionPairs(self.pairs, seed=self.settings.seed, progress=self.progress, **DIRECTION_FIT)
        return pairs.fit_model(self.model, self.directions_layer, self.sample)

    @property
    def directions_layer(self) -> str:
        """The layer of the pairs; by default the units' own."""
        return self.layer if self.pairs_layer is None else self.pairs_layer

    @cached_property
    def influences(self) -> Influence:
        """Effect of every direction on every unit, [I, U]."""
        units = [Unit(self.layer, unit, reduce=self.settings.reduce) for unit in self.units]  # type: ignore[arg-type]
        return influence(
            self.directions, self.model, self.directions_layer, self.sample, outputs=units,
            seed=self.settings.seed, progress=self.progress,
        )  # fmt: skip
