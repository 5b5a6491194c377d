"""What a scan found: scores and places of the extreme patches; pixels are cut out of the data set when asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import read_tensors, write_tensors
from absence_plugins.methods.patches.images import image_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("highest", "lowest", "highest_apart", "lowest_apart", "sample")
TENSORS, SETTINGS = "patches.safetensors", "patches.json"
ROWS = 20  # units that a table shows


@dataclass(frozen=True, eq=False)
class Extremes:
    """The k highest (or lowest) patches of every unit.

    Attributes:
        scores: [units, k], best first, in the units of the layer's output.
        positions: [units, k, 3]: image number in the data set, and the upper left corner's y and x.
        size: side of a patch in pixels.
    """

    scores: Tensor
    positions: Tensor
    size: int

    def cut(self, dataset: Any, rows: Sequence[int] | None = None) -> Tensor:
        """The pixels [units, k, C, size, size], as the data set has them; ``rows``: of these rows only.

        Every image is read once.

        >>> images = torch.arange(8.0).reshape(2, 1, 2, 2)
        >>> Extremes(torch.zeros(1, 1), torch.tensor([[[1, 0, 1]]]), 1).cut(images).tolist()
        [[[[[5.0]]]]]
        """
        positions = self.positions if rows is None else self.positions[list(rows)]
        return cut_windows(dataset, positions, self.size)


@dataclass(frozen=True, eq=False, repr=False)
class ExtremePatches(Result):
    """The result of :func:`find_extreme_patches`.

    Attributes:
        highest: the k patches with the highest value of every unit.
        lowest: those with the lowest.
        highest_apart, lowest_apart: the same with at most one patch per image, so that k patches are k samples; what
            ``insertion_test`` pastes.
        sample: a seeded random sample of patches, the same for all units: scores [units, m] in rising order per
            unit, positions [units, m, 3]. The middle column is the median patch.
        units: the units' numbers in the layer; row i of every table is unit ``units[i]``.
        layer: the layer's name.
        settings: size, stride, mode, reduce, channels, side, seed, precision; how the layer was read: :attr:`at`.
        images: numbers of the scanned images; None: all.
    """

    highest: Extremes
    lowest: Extremes
    highest_apart: Extremes
    lowest_apart: Extremes
    sample: Extremes
    units: tuple[int, ...]
    layer: str
    settings: dict[str, Any]
    images: tuple[int, ...] | None = None
    _dataset: Any = field(default=None, compare=False)

    def __repr__(self) -> str:
        units, k = self.highest.scores.shape
        scanned = "all images" if self.images is None else f"{len(self.images)} images"
        return f"ExtremePatches({units} units of {self.layer!r}, {k} highest and lowest of {scanned}, {self.settings})"

    def _heading(self) -> str:
        units, k = self.highest.scores.shape
        scanned = "all images" if self.images is None else f"{len(self.images)} images"
        return f"ExtremePatches: {units} units of {self.layer!r}, {k} highest and lowest patches of {scanned}"

    def _grid(self) -> Grid:
        rows: list[tuple[str, ...]] = [("unit", "highest", "median", "lowest", "of image", "at y, x")]
        for row, unit in enumerate(self.units[:ROWS]):
            image, y, x = self.lowest.positions[row, 0].tolist()
            ends = (self.highest.scores[row, 0], self.sample.scores[row].median(), self.lowest.scores[row, 0])
            rows.append((str(unit), *(f"{float(value):.4g}" for value in ends), str(image), f"{y}, {x}"))
        more = (f"and {len(self.units) - ROWS} more units",) if len(self.units) > ROWS else ()
        foot = (
            "values of the unit on its highest, a typical and its lowest patch; image and place are those of the lowest"
        )
        return Grid(tuple(rows), left=(), foot=(*more, foot))

    @property
    def at(self) -> Layer:
        """The layer as it was read.

        Raises:
            ValueError: patches that an older version saved: it read layers by another rule.
        """
        if "side" not in self.settings:
            raise ValueError(
                f"these patches of layer {self.layer!r} were saved by an older version, which read rectified and "
                "channels-last layers by another rule; scan the layer again"
            )
        return Layer(self.layer, **{name: self.settings[name] for name in ("channels", "side", "reduce")})

    def row(self, unit: int) -> int:
        """Where a unit stands in the tables. Raises ValueError if it was not scanned."""
        if unit not in self.units:
            shown = ", ".join(map(str, self.units[:12])) + (", ..." if len(self.units) > 12 else "")
            raise ValueError(f"unit {unit} was not scanned; there are: {shown}")
        return self.units.index(unit)

    def cut(self, dataset: Any = None) -> tuple[Tensor, Tensor]:
        """The pixels of the highest and of the lowest patches, each [units, k, C, size, size].

        dataset: the one that was scanned; needed after :meth:`load`.
        """
        chosen = self._scanned(dataset)
        return self.highest.cut(chosen), self.lowest.cut(chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        tables = {
            name: {"scores": part.scores.tolist(), "positions": part.positions.tolist()}
            for name, part in (("highest", self.highest), ("lowest", self.lowest))
        }
        return {**self._head(), **tables}

    def _head(self) -> dict[str, Any]:
        images = None if self.images is None else list(self.images)
        return {"layer": self.layer, "units": list(self.units), "images": images, **self.settings}

    def save(self, folder: Path | str) -> Path:
        """Write ``patches.safetensors`` and ``patches.json`` into a folder (made where it is missing); returns it."""
        folder = require_folder(folder, make=True)
        tensors = {
            f"{name}.{kind}": getattr(getattr(self, name), kind) for name in PARTS for kind in ("scores", "positions")
        }
        write_tensors(folder / TENSORS, tensors)
        write_whole(folder / SETTINGS, json.dumps(self._head()) + "\n")
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> ExtremePatches:
        """What :meth:`save` wrote. Raises ValueError where there is none."""
        folder = Path(folder)
        if not (folder / SETTINGS).is_file() or not (folder / TENSORS).is_file():
            raise ValueError(f"{folder} holds no {SETTINGS} and {TENSORS}; name a folder that `save` wrote")
        head = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tensors = read_tensors(folder / TENSORS)
        layer, units, images = (head.pop(name) for name in ("layer", "units", "images"))
        parts = {
            name: Extremes(tensors[f"{name}.scores"], tensors[f"{name}.positions"], head["size"]) for name in PARTS
        }
        return cls(
            **parts,
            units=tuple(units),
            layer=layer,
            settings=head,
            images=None if images is None else tuple(images),
        )

    def figure(self, unit: int | None = None, dataset: Any = None, ax: Any = None) -> Figure:
        """A unit's highest and lowest patches with their values; needs matplotlib.

        unit: its number; None: the first that was scanned. dataset: the one that was scanned; needed after
        :meth:`load`. ax: axes to draw into. Pixels outside [0, 1] are scaled together.
        """
        from absence_plugins.report.plots.patches import patches_figure
        from absence_plugins.report.plots.placing import place_figure

        unit = self.units[0] if unit is None else unit
        row, scanned = self.row(unit), self._scanned(dataset)
        sides = [(part.cut(scanned, [row])[0], part.scores[row]) for part in (self.highest, self.lowest)]
        return place_figure(patches_figure(sides[0], sides[1], f"{self.layer or 'output'}, unit {unit}"), ax)

    def _scanned(self, dataset: Any) -> Any:
        chosen = self._dataset if dataset is None else dataset
        if chosen is None:
            raise ValueError("a loaded result holds no images; pass the data set that was scanned")
        return chosen


def cut_windows(dataset: Any, positions: Tensor, size: int) -> Tensor:
    """Windows [..., C, size, size] at positions [..., 3] (image, y, x); every image is read once."""
    places = positions.reshape(-1, 3)
    pixels: Tensor | None = None
    for number in torch.unique(places[:, 0]).tolist():
        image = image_at(dataset, number)
        for row in (places[:, 0] == number).nonzero()[:, 0].tolist():
            y, x = places[row, 1:].tolist()
            window = image[:, y : y + size, x : x + size]
            if pixels is None:
                pixels = window.new_empty(len(places), *window.shape)
            if window.shape != pixels.shape[1:]:
                raise ValueError(
                    f"image {number} has no {size}x{size} window at y={y}, x={x}; is this the scanned data set?"
                )
            pixels[row] = window
    if pixels is None:
        raise ValueError("there are no positions to cut")
    return pixels.reshape(*positions.shape[:-1], *pixels.shape[1:])
