"""Signed maps as figures: red raises the output, blue holds it down, zero is white.

Every function returns a :class:`matplotlib.figure.Figure` and leaves pyplot and ``rcParams`` alone.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from torch import Tensor

from absence_plugins.core.maps import sum_channels, symmetric_range
from absence_plugins.report.plots.palette import BLUES, FRAME, INK, MUTED, REDS, SIGNED_COLORS

Kind = Literal["image", "signed", "absence"]

_DPI = 240
_WIDTH, _PAD = 1.8, 0.02  # of one panel, and of the margin around everything; inches
_INNER = _WIDTH - 2 * _PAD
_HEADING, _TITLE, _LABEL = 10.5, 9.0, 8.5  # points
_FONT = "DejaVu Sans"  # comes with matplotlib: the same figure everywhere
_LINE = 0.155  # inches from one line of text to the next
_BAR = 0.10  # height of the color bar, inches
_ROUNDING = 1e-3  # by which resizing may leave [0, 1]
_EXACT: dict[str, Any] = {"origin": "upper", "aspect": "auto", "interpolation": "nearest"}


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """One picture of a figure or page: an image, a signed map, or an absence map.

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
        limit: The value of the strongest color; by default the largest magnitude in the map. For
            maps with a few very strong pixels ``symmetric_range(map, 0.99)``; the color bar then
            says that values lie beyond its end.

    The sign: above 0 is red and raises the explained output, below 0 is blue and holds it down; an
    absence map is a magnitude and goes from white to red.

    Raises:
        TypeError: ``data`` or ``underlay`` is not a real tensor.
        ValueError: An unknown kind, a wrong shape, NaN or infinity, an image outside [0, 1], a
            negative absence map, a limit that is not above 0.

    Example:
        >>> Panel("signed", torch.tensor([[1.0, -2.0]]), "logit 3", positive="raises logit 3")
        Panel('signed', 'logit 3', 1x2, -2 to 1)
    """

    kind: Kind
    data: Tensor
    title: str
    caption: str = ""
    underlay: Tensor | None = None
    positive: str = ""
    negative: str = ""
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r} is unknown; use one of {', '.join(get_args(Kind))}")
        _check_tensor(self.data, "data", self.title)
        low, high = self._extent
        if self.kind == "image":
            if self.data.dim() == 3 and self.data.shape[0] not in (1, 3):
                raise ValueError(
                    f"image {self.title!r} has {self.data.shape[0]} channels in shape "
                    f"{tuple(self.data.shape)}; an image is [H, W], [1, H, W] or [3, H, W]"
                )
            if low < -_ROUNDING or high > 1 + _ROUNDING:
                raise ValueError(
                    f"image {self.title!r} has values from {low:.3g} to {high:.3g}; undo the input "
                    "normalization so that they lie in [0, 1]"
                )
        if self.kind == "absence" and low < 0:
            raise ValueError(
                f"absence map {self.title!r} has the negative value {low:.3g}; pass magnitudes, "
                "such as (-R).clamp(min=0), or kind='signed'"
            )
        _check_limit(self.limit)
        if self.underlay is not None:
            _check_tensor(self.underlay, "underlay", self.title)
            if self.kind == "image":
                raise ValueError(f"image {self.title!r} has an underlay; only maps have one")
        for name, default in _DEFAULT_WORDS[self.kind].items():
            # the dataclass is frozen; this fills in a default that depends on another field
            object.__setattr__(self, name, getattr(self, name) or default)

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
        """The map as drawn, [H, W] float64 on the CPU, summed over channels."""
        data = self.data.detach().cpu().double()
        return sum_channels(data) if data.dim() == 3 else data


_DEFAULT_WORDS: dict[str, dict[str, str]] = {
    "image": {},
    "signed": {"positive": "raises the output", "negative": "holds the output down"},
    "absence": {"positive": "evidence of absence", "negative": "none"},
}


def panel_figure(panel: Panel, *, limit: float | None = None, labels: bool = True) -> Figure:
    """Draw one panel, a map with its color bar.

    Args:
        panel: What to draw; shapes, units and the sign are those of :class:`Panel`.
        limit: The value of the strongest color, in place of ``panel.limit``.
        labels: Whether title and caption are drawn into the figure.

    Returns:
        A new figure, 1.8 inches wide.

    Raises:
        ValueError: ``limit`` is not above 0.

    Example:
        >>> figure = panel_figure(Panel("signed", torch.tensor([[1.0, -2.0]]), "logit 3"))
        >>> figure.axes[0].images[0].get_clim()
        (-2.0, 2.0)
    """
    return _draw([panel], None, limit, labels)


def row_figure(panels: Sequence[Panel], *, title: str | None = None, limit: float | None = None) -> Figure:
    """Draw panels side by side.

    Every signed map has its own range [-v, v], v its largest magnitude, unless a limit is given.

    Args:
        panels: At least one; shapes, units and the sign are those of :class:`Panel`.
        title: A heading over the whole row.
        limit: One range for all maps of the row, which makes their colors comparable.

    Returns:
        A new figure, about 2 inches wide per panel.

    Raises:
        ValueError: There are no panels, or ``limit`` is not above 0.

    Example:
        >>> maps = [Panel("signed", torch.full((2, 2), v), f"logit {v:.0f}") for v in (1.0, 3.0)]
        >>> [axes.images[0].get_clim()[1] for axes in row_figure(maps).axes[::2]]
        [1.0, 3.0]
    """
    if not panels:
        raise ValueError("panels is empty; a row needs at least one panel")
    return _draw(panels, title, limit, labels=True)


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


def _check_limit(limit: float | None) -> None:
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"limit={limit} must be above 0 and finite; None takes the map's own range")


class _Sheet:
    """A white figure addressed in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")

    def text(self, x: float, y: float, lines: Sequence[str], **style: Any) -> None:
        # parse_math off: a title may hold a dollar sign and must not be taken for TeX
        style |= {"va": "top", "parse_math": False, "usetex": False, "family": _FONT}
        for i, line in enumerate(lines):
            self.figure.text(x / self.width, 1 - (y + i * _LINE) / self.height, line, **style)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        below = 1 - (y + height) / self.height
        place = (x / self.width, below, width / self.width, height / self.height)
        axes = self.figure.add_axes(place, facecolor="white")
        axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set(color=FRAME, linewidth=0.6, visible=True)
        return axes


def _draw(panels: Sequence[Panel], title: str | None, limit: float | None, labels: bool) -> Figure:
    _check_limit(limit)
    gap = 0.16
    whole = len(panels) * (_WIDTH + gap) - gap
    heading = _wrap(title or "", whole - 2 * _PAD, _HEADING, "bold")
    titles = [_wrap(p.title, _INNER, _TITLE, "bold") if labels else [] for p in panels]
    captions = [_wrap(p.caption, _INNER, _LABEL) if labels else [] for p in panels]
    lines = [max(map(len, _bar_words(p)), default=0) for p in panels]
    picture = _INNER * max(_ratio(panel) for panel in panels)

    top = _PAD + (len(heading) * 1.2 * _LINE + 0.08 if heading else 0.0)
    most = max(map(len, titles))
    below_titles = top + most * _LINE + (0.04 if most else 0.0)
    below_picture = below_titles + picture
    below_bars = below_picture + (0.15 + _BAR + _LINE * (1 + max(lines)) if max(lines) else 0.0)
    below_captions = below_bars + (0.08 + max(map(len, captions)) * _LINE if any(captions) else 0.0)

    sheet = _Sheet(whole, below_captions + _PAD)
    sheet.text(_PAD, _PAD, heading, fontsize=_HEADING, weight="bold", color=INK)
    for i, panel in enumerate(panels):
        x = _PAD + i * (_WIDTH + gap)
        above = (most - len(titles[i])) * _LINE  # short titles stand on their picture
        sheet.text(x, top + above, titles[i], fontsize=_TITLE, weight="bold", color=INK)
        _draw_picture(sheet, panel, x, below_titles, picture, limit)
        sheet.text(x, below_bars + 0.08, captions[i], fontsize=_LABEL, color=MUTED)
    return sheet.figure


def _draw_picture(sheet: _Sheet, panel: Panel, x: float, y: float, height: float, limit: float | None) -> None:
    rows, columns = panel.data.shape[-2:]
    scale = min(_INNER / columns, height / rows)
    axes = sheet.axes(x + (_INNER - columns * scale) / 2, y, columns * scale, rows * scale)
    # Shrinking averages, enlarging keeps the pixels that were computed.
    shrinks = max(columns, rows) > _DPI * _WIDTH
    style = _EXACT | ({"interpolation": "antialiased"} if shrinks else {})
    if panel.kind == "image":
        data = panel.data.detach().cpu().float().clamp(0, 1)
        data = data.permute(1, 2, 0) if data.dim() == 3 else data[..., None]
        axes.imshow(data.expand(rows, columns, 3).numpy(), **style)
        return
    chosen = limit if limit is not None else panel.limit
    values = panel.map
    norm = CenteredNorm(0, symmetric_range(values) if chosen is None else chosen)
    axes.imshow(values.numpy(), cmap=SIGNED_COLORS, norm=norm, **style)
    if panel.underlay is not None:
        _draw_outline(axes, panel.underlay, rows, columns)
    _draw_bar(sheet, panel, norm, x, y + height + 0.09)


def _draw_outline(axes: Axes, underlay: Tensor, rows: int, columns: int) -> None:
    image = underlay.detach().cpu().double()
    gray = image.mean(0) if image.dim() == 3 else image
    # A coarse copy: the outline of a photograph, not of its grain.
    coarse = (min(32, gray.shape[0]), min(32, gray.shape[1]))
    gray = torch.nn.functional.adaptive_avg_pool2d(gray[None], coarse)[0]
    low, high = float(gray.min()), float(gray.max())
    if high == low or min(coarse) < 2:
        return
    across = (np.arange(coarse[1]) + 0.5) * columns / coarse[1] - 0.5
    down = (np.arange(coarse[0]) + 0.5) * rows / coarse[0] - 0.5
    axes.contour(across, down, gray.numpy(), levels=[(low + high) / 2], colors=[MUTED], linewidths=0.7, alpha=0.6)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def _draw_bar(sheet: _Sheet, panel: Panel, norm: CenteredNorm, x: float, y: float) -> None:
    limit = float(norm.halfrange or 0)
    values = panel.map
    signed = panel.kind == "signed"
    low = -limit if signed else 0.0
    axes = sheet.axes(x, y, _INNER, _BAR)
    axes.imshow(np.linspace(low, limit, 257)[None], cmap=SIGNED_COLORS, norm=norm, **_EXACT)
    right = x + _INNER
    y += _BAR + 0.05
    # A limit smaller than the map's largest value cuts it off, and the bar says so.
    least = "≤ " if float(values.min()) < low else ""
    most = "≥ " if float(values.max()) > limit else ""
    small = {"fontsize": _LABEL - 1, "color": MUTED}
    sheet.text(x, y, [f"{least}−{limit:.3g}" if signed else "0"], **small)
    sheet.text(right, y, [f"{most}{'+' if signed else ''}{limit:.3g}"], ha="right", **small)
    if signed:
        sheet.text(x + _INNER / 2, y, ["0"], ha="center", **small)
    y += _LINE
    negative, positive = _bar_words(panel)
    sheet.text(x, y, negative, fontsize=_LABEL, color=BLUES[-1] if signed else MUTED)
    sheet.text(right, y, positive, fontsize=_LABEL, color=REDS[-1], ha="right")


def _bar_words(panel: Panel) -> list[list[str]]:
    if panel.kind == "image":
        return []
    half = _INNER / 2 - 0.04
    return [_wrap(panel.negative, half, _LABEL), _wrap(panel.positive, half, _LABEL)]


def _ratio(panel: Panel) -> float:
    rows, columns = panel.data.shape[-2:]
    return float(min(max(rows / columns, 0.1), 1.5))


def _wrap(text: str, inches: float, size: float, weight: str = "normal") -> list[str]:
    """The text in the longest lines that fit; a word that is too long is cut."""
    for characters in range(int(inches * 72 / size * 3), 1, -1):  # few letters are below a third em
        lines = textwrap.wrap(text, characters)
        if all(sum(_advance(letter, weight) for letter in line) * size / 72 <= inches for line in lines):
            return lines
    return textwrap.wrap(text, 1)


@lru_cache(maxsize=4096)
def _advance(letter: str, weight: str) -> float:
    """By how much a letter lengthens a line, in units of the font size."""
    font = FontProperties(family=_FONT, size=100, weight=weight)
    lengths = [text_to_path.get_text_width_height_descent(s, font, False)[0] for s in (f"|{letter}|", "||")]
    return float(lengths[0] - lengths[1]) / 100
