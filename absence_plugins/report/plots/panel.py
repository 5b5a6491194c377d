"""One picture of a figure or page, checked: an image, or a map and the cells in which it is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from absence_plugins.core.maps import split_by_sign, sum_channels, symmetric_range
from absence_plugins.core.pooling import (
    check_cell,
    choose_resolution,
    find_strongest,
    number_regions,
    spread_cells,
    sum_cells,
    sum_regions,
)

Kind = Literal["image", "signed", "absence"]

_OUTLINED = 64 * 64  # cells or regions at most, of an outlined map
_WEAK = 0.05  # a sign with a smaller share of the evidence is not outlined
_ROUNDING = 1e-3  # by which resizing may leave [0, 1]
_DEFAULT_WORDS: dict[str, dict[str, str]] = {
    "image": {},
    "signed": {"positive": "raises the output", "negative": "holds the output down"},
    "absence": {"positive": "evidence of absence", "negative": "none"},
}


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """One picture of a figure or page: an image, a signed map, or an absence map.

    A map of a digit is read pixel by pixel. A map of a photograph is grain at its pixels: it is shown in cells or
    regions, each the sum over its pixels, so that a complete map stays complete.

    Attributes:
        kind: ``"image"``; ``"signed"``, a map of both signs; ``"absence"``, magnitudes >= 0.
        data: For an image ``[H, W]``, ``[1, H, W]`` or ``[3, H, W]`` in [0, 1]. For a map
            ``[H, W]`` or ``[C, H, W]``, summed over C, in units of the explained output.
        title: What it is, a few words.
        caption: What it says, one short line.
        underlay: An image ``[H, W]`` or ``[C, H, W]`` whose outline is drawn over a map, in thin
            gray; the map stays visible and its zero stays white.
        positive: What red means, in words for the color bar.
        negative: What blue means; an absence map has no blue.
        limit: The value of the strongest color; by default the largest magnitude that is shown. For
            maps with a few very strong pixels ``symmetric_range(map, 0.99)``; the color bar then
            says that values lie beyond its end.
        resolution: The side of the cells in which a map is shown, in pixels;
            :func:`~absence_plugins.core.pooling.choose_resolution` chooses it for a size. The figure states it.
        photograph: An image in [0, 1] of the map's height and width. It lies under the map in gray, the map is the more
            opaque the stronger it is, and its zero shows the photograph. Outlines surround the strongest cells that
            together hold half of the evidence of a sign: solid for red, dashed for blue; none for a sign with less than
            a 20th of the evidence.
        regions: Integer labels ``[H, W]``, such as of superpixels, in place of square cells. A region's sum is divided
            among its pixels, so that a large region is no stronger than its evidence.

    The sign: above 0 is red and raises the explained output, below 0 is blue and holds it down; an
    absence map is a magnitude and goes from white to red.

    Raises:
        TypeError: ``data``, ``underlay`` or ``photograph`` is not a real tensor, ``resolution`` no whole number,
            ``regions`` no integers.
        ValueError: An unknown kind, a wrong shape, NaN or infinity, an image outside [0, 1], a
            negative absence map, a limit that is not above 0, a photograph or regions of another size than the map.

    Example:
        >>> Panel("signed", torch.tensor([[1.0, -2.0]]), "logit 3", positive="raises logit 3")
        Panel('signed', 'logit 3', 1x2, -2 to 1)
        >>> Panel("signed", torch.tensor([[1.0, -2.0, 5.0]]), "logit 3", resolution=2).shown
        tensor([[-1.,  5.]], dtype=torch.float64)
    """

    kind: Kind
    data: Tensor
    title: str
    caption: str = ""
    underlay: Tensor | None = None
    positive: str = ""
    negative: str = ""
    limit: float | None = None
    resolution: int = 1
    photograph: Tensor | None = None
    regions: Tensor | None = None

    @classmethod
    def over(
        cls, picture: Tensor | None, kind: Kind, data: Tensor, title: str, caption: str = "", **options: Any
    ) -> Panel:
        """A map and the image that was explained, drawn as its size asks for.

        Up to 64 pixels a side the map is shown at its pixels, with the image in outline; above, in cells over the
        photograph.

        Args:
            picture: ``[H, W]`` or ``[C, H, W]`` in [0, 1], or None. One that is no gray or color image of the map's
                size is drawn in outline.
            kind: As of the class.
            data: The map.
            title: As of the class.
            caption: As of the class.
            options: Further fields of the class; ``resolution`` replaces the one that is chosen.

        Raises:
            TypeError: As the class.
            ValueError: As the class.

        Example:
            >>> panel = Panel.over(torch.ones(3, 224, 224), "signed", torch.zeros(3, 224, 224), "logit 3")
            >>> panel.resolution, panel.photograph is None
            (16, False)
        """
        _check_tensor(data, "data", title)
        rows, columns = data.shape[-2:]
        chosen = choose_resolution(rows, columns)
        regions = options.get("regions")
        if regions is None:
            options = {"resolution": chosen, **options}
        if picture is not None:
            _check_tensor(picture, "picture", title)
            is_coarse = regions is not None or chosen > 1 or options["resolution"] > 1
            is_image = picture.dim() == 2 or picture.shape[0] in (1, 3)
            is_below = is_coarse and is_image and picture.shape[-2:] == data.shape[-2:]
            options["photograph" if is_below else "underlay"] = picture
        return cls(kind, data, title, caption, **options)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r} is unknown; use one of {', '.join(get_args(Kind))}")
        _check_tensor(self.data, "data", self.title)
        if self.kind == "image":
            _check_picture(self.data, f"image {self.title!r}")
        low = self._extent[0]
        if self.kind == "absence" and low < 0:
            raise ValueError(
                f"absence map {self.title!r} has the negative value {low:.3g}; pass magnitudes, "
                "such as (-R).clamp(min=0), or kind='signed'"
            )
        check_limit(self.limit)
        self._check_companions()
        for name, default in _DEFAULT_WORDS[self.kind].items():
            # the dataclass is frozen; this fills in a default that depends on another field
            object.__setattr__(self, name, getattr(self, name) or default)

    def _check_companions(self) -> None:
        """What accompanies a map: outline, photograph, cells, regions."""
        check_cell(self.resolution)
        given = {"an underlay": self.underlay, "a photograph": self.photograph, "regions": self.regions}
        if self.kind == "image":
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"image {self.title!r} has {name}; only maps have one")
            if self.resolution != 1:
                raise ValueError(f"image {self.title!r} has resolution={self.resolution}; only maps are shown in cells")
        if self.underlay is not None:
            _check_tensor(self.underlay, "underlay", self.title)
        size = self.data.shape[-2:]
        if self.photograph is not None:
            _check_tensor(self.photograph, "photograph", self.title)
            _check_picture(self.photograph, f"photograph of {self.title!r}")
            if self.underlay is not None:
                raise ValueError(f"map {self.title!r} has a photograph and an underlay; pass one of them")
            if self.photograph.shape[-2:] != size:
                raise ValueError(
                    f"photograph of {self.title!r} has {_said(self.photograph.shape)} pixels, the map {_said(size)}; "
                    "pass the image at the size at which it was explained"
                )
        if self.regions is not None:
            if not isinstance(self.regions, Tensor):
                raise TypeError(f"regions of {self.title!r} is {type(self.regions).__name__}; pass a torch.Tensor")
            if self.resolution != 1:
                raise ValueError(f"map {self.title!r} has regions and resolution={self.resolution}; pass one of them")
            sum_regions(self.map, self.regions.detach().cpu())

    def __repr__(self) -> str:
        size = "x".join(map(str, self.data.shape))
        low, high = self._extent
        return f"Panel({self.kind!r}, {self.title!r}, {size}, {low:.3g} to {high:.3g})"

    @property
    def _extent(self) -> tuple[float, float]:
        data = self.data.detach()
        return float(data.min()), float(data.max())

    @property
    def map(self) -> Tensor:
        """The map as computed, [H, W] float64 on the CPU, summed over channels."""
        data = self.data.detach().cpu().double()
        return sum_channels(data) if data.dim() == 3 else data

    @property
    def shown(self) -> Tensor:
        """The map as shown, float64: one value per cell, [ceil(H / resolution), ceil(W / resolution)].

        With regions [H, W], each region's sum divided among its pixels. In both cases the sum is that of :attr:`map`.
        """
        if self.regions is None:
            return sum_cells(self.map, self.resolution)
        sums, sizes = sum_regions(self.map, self.regions.detach().cpu())
        return sums / sizes

    @property
    def totals(self) -> Tensor:
        """What a place stands for when one points at it, on the grid of :attr:`shown`: the sum of its cell or
        region.
        """
        return self.shown if self.regions is None else sum_regions(self.map, self.regions.detach().cpu())[0]

    @property
    def at_pixels(self) -> Tensor:
        """What is shown, at every pixel [H, W]."""
        return spread_cells(self.shown, self.resolution, self.data.shape[-2:])

    @property
    def range(self) -> float:
        """The value of the strongest color: ``limit``, or the largest magnitude that is shown."""
        return symmetric_range(self.shown) if self.limit is None else self.limit

    @property
    def outlined(self) -> bool:
        """Whether the strongest places are outlined: over a photograph, where they are not single pixels by
        thousands.
        """
        if self.photograph is None:
            return False
        places = self.shown.numel() if self.regions is None else len(number_regions(self.regions)[1])
        return places <= _OUTLINED

    def strongest(self) -> tuple[Tensor, Tensor]:
        """Where a photograph's map is outlined: the fewest cells, or regions, with half of what raises, and of what
        lowers.

        Two boolean masks [H, W], at the pixels. That of a sign with less than a 20th of all evidence is empty.

        Example:
            >>> [where.tolist() for where in Panel("signed", torch.tensor([[4.0, 3.0, -1.0]]), "map").strongest()]
            [[[True, False, False]], [[False, False, True]]]
        """
        halves = []
        for magnitude, share in zip(split_by_sign(self.totals), self._shares, strict=True):
            if share < _WEAK:
                halves.append(torch.zeros(self.data.shape[-2:], dtype=torch.bool))
                continue
            if self.regions is None:
                halves.append(spread_cells(find_strongest(magnitude), self.resolution, self.data.shape[-2:]))
                continue
            number, sizes = number_regions(self.regions.detach().cpu())
            each = magnitude.new_zeros(len(sizes))
            each[number.flatten()] = magnitude.flatten()
            halves.append(find_strongest(each)[number])
        return halves[0], halves[1]

    @property
    def _shares(self) -> tuple[float, float]:
        """How much of all evidence that is shown raises, and how much lowers."""
        up, down = (float(part.sum()) for part in split_by_sign(self.shown))
        return (up / (up + down), down / (up + down)) if up + down > 0 else (0.0, 0.0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of how the map is drawn: its resolution, and what the outlines are; "" of an
        image.
        """
        found = []
        if self.kind == "image":
            return ()
        if self.regions is not None:
            found.append("Each region: its sum, spread over its pixels.")
        elif self.resolution > 1:
            found.append(f"Each square: the sum over {self.resolution} x {self.resolution} pixels.")
        if not bool(self.shown.any()):
            found.append("There is no evidence: the map is 0 everywhere.")
        elif self.outlined:
            red, blue = self._shares
            signs = ["of all red (solid)"] * (red >= _WEAK) + ["of all blue (dashed)"] * (blue >= _WEAK)
            found.append(f"Outlined: half {', '.join(signs)}.")
            for name, share in (("Red", red), ("Blue", blue)):
                if 0 < share < _WEAK:
                    said = f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
                    found.append(f"{name} is {said} of the evidence.")
        return tuple(found)


def check_limit(limit: float | None) -> None:
    """Raises ValueError for a color limit that is not above 0 and finite."""
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"limit={limit} must be above 0 and finite; None takes the map's own range")


def _check_tensor(value: Tensor, name: str, title: str) -> None:
    if not isinstance(value, Tensor) or value.is_complex():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} of {title!r} is {kind}; pass a real torch.Tensor")
    if value.dim() not in (2, 3) or value.numel() == 0:
        raise ValueError(
            f"{name} of {title!r} has shape {tuple(value.shape)}; pass [H, W] or [C, H, W], of a batch one sample"
        )
    if not bool(torch.isfinite(value).all()):
        count = int((~torch.isfinite(value)).sum())
        raise ValueError(
            f"{name} of {title!r} has {count} values that are NaN or infinite; fix what produced "
            "them, or decide what they mean with torch.nan_to_num"
        )


def _check_picture(value: Tensor, said: str) -> None:
    if value.dim() == 3 and value.shape[0] not in (1, 3):
        raise ValueError(
            f"{said} has {value.shape[0]} channels in shape "
            f"{tuple(value.shape)}; an image is [H, W], [1, H, W] or [3, H, W]"
        )
    low, high = float(value.detach().min()), float(value.detach().max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"{said} has values from {low:.3g} to {high:.3g}; undo the input normalization so that they lie in [0, 1]"
        )


def _said(shape: torch.Size) -> str:
    return f"{shape[-2]} x {shape[-1]}"
