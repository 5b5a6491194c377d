"""A volume as three slices through its strongest voxel: the input, the reference, and the relevance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core.kinds import VolumeKind
from absence_plugins.report.plots.color_bar import BAR, ColorBar
from absence_plugins.report.plots.entries import check_same_shape, say_number, take_entries, take_references
from absence_plugins.report.plots.lettering import HEADING, LINE, fit, measure, set_letters, wrap
from absence_plugins.report.plots.palette import INK, MUTED, OCHRE, SIGNED_COLORS
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.placing import place_figure
from absence_plugins.report.plots.sheet import Sheet

SIZE, SMALL = 7.5, 6.5  # points
# Of the slice across each axis: the axes that run down and across it.
PLANES = ((1, 2), (0, 2), (0, 1))
_LEFT, _PAD, _ROOM, _HIGH, _GAP, _UNDER, _BAR = 0.6, 0.05, 6.6, 1.8, 0.42, 0.18, 3.4  # inches
_LEAST = 0.75  # height of a row, for its name
_MOST_APART = 8.0  # the longest side of a slice is drawn at most so many times as long as the shortest


@dataclass(frozen=True)
class Volumes:
    """A volume's voxels, summed or averaged over its channels, all [D, H, W], and the strongest voxel of the map.

    Attributes:
        signed: R, summed over channels.
        x: the input's mean over channels.
        reference: that of the references' mean, or None.
        references: how many there are.
        place: where abs(R) is largest, the first of equal ones.
    """

    signed: Tensor
    x: Tensor
    reference: Tensor | None
    references: int
    place: tuple[int, int, int]


def volume_figure(
    kind: VolumeKind,
    signed: Tensor,
    x: Tensor,
    reference: Tensor | None = None,
    *,
    ax: Any = None,
    title: str = "",
    positive: str = "raises the output",
    negative: str = "holds the output down",
) -> Figure:
    """Draw a volume as the three slices through the voxel with the strongest R: x, the reference, R.

    Args:
        kind: the axes' names and the size of a voxel, which the slices' proportions respect.
        signed: R, [C, D, H, W] (summed over C) or [D, H, W], in units of the explained output.
        x: the volume, of the same shape (averaged over C).
        reference: what it is compared with, of x's shape, or several [k, ...] (their mean); None: none is shown.
        ax: axes to draw into; None: a new figure.
        title: above.
        positive: what red means.
        negative: what blue means.

    The sign: red raises the output, blue holds it down, white is 0. The range of colors is that of the whole volume.
    A cross marks the strongest voxel.

    Raises:
        TypeError: no volume, or no tensors.
        ValueError: shapes that do not fit each other, NaN.

    Example:
        >>> signed = torch.zeros(2, 3, 4)
        >>> signed[1, 2, 0] = -1.0
        >>> figure = volume_figure(VolumeKind(), signed, torch.zeros(2, 3, 4))
        >>> [axes.get_title(loc="left") for axes in figure.axes[:3]]
        ['depth 1 of 2', 'height 2 of 3', 'width 0 of 4']
    """
    found = read_volumes(kind, signed, x, reference)
    return place_figure(_draw(kind, found, title, positive, negative), ax)


def read_volumes(kind: VolumeKind, signed: Tensor, x: Tensor, reference: Tensor | None) -> Volumes:
    """What :func:`volume_figure` draws; arguments and errors are those of it."""
    if not isinstance(kind, VolumeKind):
        raise TypeError(f"kind is a {type(kind).__name__}; a volume needs a VolumeKind, the others have kind_figure")
    maps, values = take_entries(signed, "signed"), take_entries(x, "x")
    check_same_shape(maps, values)
    if values.dim() not in (3, 4):
        raise ValueError(f"x has shape {tuple(x.shape)}; pass one volume, [C, D, H, W] or [D, H, W]")
    there = take_references(reference, values)
    mean = None if there is None else there.mean(0)
    total = maps.sum(0) if maps.dim() == 4 else maps
    if values.dim() == 4:
        values, mean = values.mean(0), None if mean is None else mean.mean(0)
    flat = int(total.abs().argmax())
    rows, columns = total.shape[1:]
    place = (flat // (rows * columns), flat // columns % rows, flat % columns)
    return Volumes(total, values, mean, 0 if there is None else len(there), place)


def gray_range(found: Volumes) -> tuple[float, float]:
    """The values of x and of its reference that are black and white."""
    shown = [found.x] if found.reference is None else [found.x, found.reference]
    low, high = min(float(one.min()) for one in shown), max(float(one.max()) for one in shown)
    return (low, high) if high > low else (low, low + 1.0)


def slice_sizes(kind: VolumeKind, shape: torch.Size) -> list[tuple[float, float]]:
    """Height and width of the three slices, in units of the spacing.

    >>> slice_sizes(VolumeKind(spacing=(2.0, 1.0, 1.0)), torch.Size([5, 10, 20]))
    [(10.0, 20.0), (10.0, 20.0), (10.0, 10.0)]
    """
    lengths = [count * size for count, size in zip(shape, kind.spacing or (1.0, 1.0, 1.0), strict=True)]
    least = max(lengths) / _MOST_APART
    return [(max(lengths[down], least), max(lengths[across], least)) for down, across in PLANES]


def name_slice(kind: VolumeKind, axis: int, place: int, count: int) -> str:
    """What a slice is called.

    >>> name_slice(VolumeKind(spacing=(2.5, 1.0, 1.0)), 0, 4, 16)
    'depth 4 of 16 (10 mm)'
    """
    said = f"{kind.axes[axis]} {place} of {count}"
    return said if kind.spacing is None else f"{said} ({place * kind.spacing[axis]:.4g} {kind.unit})"


@dataclass(frozen=True)
class _Layout:
    """Where the slices stand: their heights and widths, where each begins, and the height of a row, in inches."""

    inches: tuple[tuple[float, float], ...]
    starts: tuple[float, ...]
    titles: tuple[str, ...]
    high: float
    width: float


def _lay_out(kind: VolumeKind, found: Volumes) -> _Layout:
    sizes = slice_sizes(kind, found.signed.shape)
    scale = min((_ROOM - 2 * _GAP) / sum(width for _, width in sizes), _HIGH / max(height for height, _ in sizes))
    inches = tuple((height * scale, width * scale) for height, width in sizes)
    titles = tuple(
        fit(name_slice(kind, axis, found.place[axis], found.signed.shape[axis]), 2.0, SIZE) for axis in range(3)
    )
    starts, across = [], _LEFT
    for (_, width), title in zip(inches, titles, strict=True):
        starts.append(across)
        across += max(width, measure(title, SIZE)) + _GAP
    high = max(_LEAST, *(height for height, _ in inches))
    return _Layout(inches, tuple(starts), titles, high, max(across - _GAP + _PAD, 5.6))


def _draw(kind: VolumeKind, found: Volumes, title: str, positive: str, negative: str) -> Figure:
    layout = _lay_out(kind, found)
    rows = [("input", found.x), ("relevance R", found.signed)]
    if found.reference is not None:
        named = "reference" if found.references == 1 else f"mean of {found.references}"
        rows.insert(1, (named, found.reference))
    width = layout.width
    heading = wrap(title, width - 2 * _PAD, HEADING - 1, "bold") if title else []
    top = _PAD + len(heading) * LINE + 0.25
    below = top + len(rows) * (layout.high + _UNDER) + 0.14
    limit = float(found.signed.abs().max()) or 1.0
    bar_width = min(_BAR, 0.55 * width)
    panel = Panel("signed", found.signed.flatten(1), "map", positive=positive, negative=negative)
    bar = ColorBar(panel, bar_width, limit)
    notes = [line for note in _notes(found) for line in wrap(note, width - bar_width - 0.4, SMALL)]
    sheet = Sheet(width, below + max(bar.height, len(notes) * LINE) + _PAD)
    sheet.text(_PAD, _PAD, heading, fontsize=HEADING - 1, weight="bold", color=INK)
    for number, (name, volume) in enumerate(rows):
        y = top + number * (layout.high + _UNDER)
        is_map = volume is found.signed
        for axis, (own_height, own_width) in enumerate(layout.inches):
            axes = sheet.axes(layout.starts[axis], y, own_width, own_height)
            _draw_slice(axes, volume, axis, found, limit if is_map else None)
            _name_axes(axes, kind, axis, is_map, (own_height, own_width))
            if number == 0:
                said = layout.titles[axis]
                axes.set_title(said, loc="left", fontsize=SIZE, color=INK, pad=3, **set_letters(said))
        said = fit(name, layout.high, SIZE, "bold")
        sheet.figure.text(
            (_PAD + 0.09) / sheet.width, 1 - (y + layout.high / 2) / sheet.height, said, rotation=90, ha="center",
            va="center", fontsize=SIZE, weight="bold", color=INK, **set_letters(said, weight="bold"),
        )  # fmt: skip
    bar.draw(sheet.axes(_PAD, below, bar_width, BAR))
    sheet.text(bar_width + 0.35, below - 0.02, notes, fontsize=SMALL, color=MUTED)
    return sheet.figure


def _notes(found: Volumes) -> list[str]:
    compared = [] if found.references < 2 else [f"Middle row: the mean of {found.references} references."]
    total = float(found.signed.abs().sum())
    if total == 0:
        return compared
    seen = torch.zeros(found.signed.shape, dtype=torch.bool)
    for axis, place in enumerate(found.place):
        seen.select(axis, place).fill_(True)
    share = float(found.signed.abs()[seen].sum()) / total
    return [
        *compared,
        f"The cross: the strongest voxel, R = {say_number(float(found.signed[found.place]))}.",
        f"The three slices hold {share:.0%} of all |R|. All of R sums to {say_number(float(found.signed.sum()))}.",
    ]


def _draw_slice(axes: Axes, volume: Tensor, axis: int, found: Volumes, limit: float | None) -> None:
    shown = volume.select(axis, found.place[axis])
    rows, columns = shown.shape
    frame = axes.get_window_extent()
    shrinks = rows > frame.height or columns > frame.width
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "antialiased" if shrinks else "nearest"}
    if limit is None:
        low, high = gray_range(found)
        axes.imshow(shown.numpy(), cmap="gray", vmin=low, vmax=high, **style)
    else:
        axes.imshow(shown.numpy(), cmap=SIGNED_COLORS, norm=CenteredNorm(0, limit), **style)
    down, across = (found.place[one] for one in PLANES[axis])
    color = OCHRE if limit is None else MUTED
    # With a gap around the voxel, so that it can be seen.
    gaps = [max(0.5, 0.04 * count) + 0.5 for count in (rows, columns)]
    for start, end in ((-0.5, across - gaps[1]), (across + gaps[1], columns - 0.5)):
        if end > start:
            axes.plot([start, end], [down, down], color=color, linewidth=0.6, solid_capstyle="butt")
    for start, end in ((-0.5, down - gaps[0]), (down + gaps[0], rows - 0.5)):
        if end > start:
            axes.plot([across, across], [start, end], color=color, linewidth=0.6, solid_capstyle="butt")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def _name_axes(axes: Axes, kind: VolumeKind, axis: int, is_last: bool, inches: tuple[float, float]) -> None:
    down, across = PLANES[axis]
    said = fit(kind.axes[down], inches[0], SMALL)
    axes.set_ylabel(said, fontsize=SMALL, color=MUTED, labelpad=2, **set_letters(said))
    if is_last:
        said = fit(kind.axes[across], inches[1] + 0.2, SMALL)
        axes.set_xlabel(said, fontsize=SMALL, color=MUTED, labelpad=2, **set_letters(said))
