"""A signal as a line per channel, over its relevance as colored spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from absence_plugins.core.kinds import SignalKind
from absence_plugins.report.plots.color_bar import BAR, ColorBar
from absence_plugins.report.plots.entries import check_same_shape, say_number, take_entries, take_references
from absence_plugins.report.plots.lettering import HEADING, LINE, fit, set_letters, wrap
from absence_plugins.report.plots.palette import DOWN, FRAME, GRAY, INK, MUTED, SOFT_COLORS, UP
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.placing import place_figure
from absence_plugins.report.plots.pooled import bin_starts, pool_extremes, pool_strongest
from absence_plugins.report.plots.sheet import Sheet

MOST = 12  # channels
SIZE, SMALL = 7.5, 6.5  # points
BINS = 800  # columns of a long signal
_WIDTH, _PAD, _LEFT, _BAR = 7.4, 0.05, 0.78, 3.4  # inches
_CURVE, _BETWEEN, _AXIS = 0.34, 0.07, 0.4
_RIGHT = 0.14  # half of a tick's label
_UNITS = ((1.0, "ms", 1e-3), (300.0, "s", 1.0), (3 * 3600.0, "min", 60.0), (float("inf"), "h", 3600.0))


@dataclass(frozen=True)
class _Signal:
    """What is drawn: channels [C, T], their references' mean, and the time of the samples' borders [T + 1]."""

    signed: Tensor
    x: Tensor
    reference: Tensor | None
    borders: Tensor
    axis: str
    names: tuple[str, ...]
    references: int


def signal_figure(
    kind: SignalKind,
    signed: Tensor,
    x: Tensor,
    reference: Tensor | None = None,
    *,
    curve: bool = False,
    ax: Any = None,
    title: str = "",
    positive: str = "raises the output",
    negative: str = "holds the output down",
) -> Figure:
    """Draw a signal channel by channel: dark line x, gray line the reference, behind them R in color.

    Args:
        kind: rate, channels' names, unit.
        signed: R, [C, T] or [T], in units of the explained output.
        x: the signal, of the same shape.
        reference: what it is compared with, of x's shape, or several [k, ...] (their mean is drawn); None: none is.
        curve: draw R as a curve below every channel, too.
        ax: axes to draw into; None: a new figure.
        title: above.
        positive: what red means.
        negative: what blue means.

    A signal of more than 800 samples is drawn in 800 columns: of each the range of x, and the strongest R of either
    sign, so that nothing strong disappears. Of more than 12 channels those with the most evidence are shown.

    The sign: red raises the output, blue holds it down; all channels have one range of colors.

    Raises:
        TypeError: no signal, or no tensors.
        ValueError: shapes that do not fit each other or the channels' names, NaN.

    Example:
        >>> figure = signal_figure(SignalKind(rate=2.0), torch.tensor([0.0, -2.0]), torch.tensor([1.0, 3.0]))
        >>> figure.axes[0].images[0].get_array().tolist(), figure.axes[0].get_xlabel()
        ([[0.0, -2.0]], 'time (s)')
    """
    if not isinstance(kind, SignalKind):
        raise TypeError(f"kind is a {type(kind).__name__}; a signal needs a SignalKind, the others have kind_figure")
    maps, values = take_entries(signed, "signed"), take_entries(x, "x")
    check_same_shape(maps, values)
    if values.dim() not in (1, 2):
        raise ValueError(f"x has shape {tuple(x.shape)}; pass one signal, [C, T] or [T]")
    kind.check(values[None])
    there = take_references(reference, values)
    mean = None if there is None else there.mean(0)
    if values.dim() == 1:
        maps, values, mean = maps[None], values[None], None if mean is None else mean[None]
    names = kind.channels or ("",) * (len(values) == 1) or tuple(f"channel {place}" for place in range(len(values)))
    borders, axis = time_axis(kind, values.shape[1])
    found = _Signal(maps, values, mean, borders, axis, names, 0 if there is None else len(there))
    return place_figure(_draw(found, kind, curve, title, positive, negative), ax)


def time_axis(kind: SignalKind, length: int) -> tuple[Tensor, str]:
    """The borders of the samples [T + 1] in a unit that suits their whole time, and the axis's name.

    >>> time_axis(SignalKind(rate=1000.0), 2)
    (tensor([-0.5000,  0.5000,  1.5000], dtype=torch.float64), 'time (ms)')
    """
    places = torch.arange(length + 1, dtype=torch.float64) - 0.5
    if kind.rate is None:
        return places, "sample"
    unit, size = next((unit, size) for limit, unit, size in _UNITS if length / kind.rate < limit)
    return places / kind.rate / size, f"time ({unit})"


def _draw(found: _Signal, kind: SignalKind, curve: bool, title: str, positive: str, negative: str) -> Figure:
    strength = found.signed.abs().sum(1)
    chosen = sorted(strength.argsort(descending=True, stable=True)[:MOST].tolist())
    limit = float(found.signed[chosen].abs().max()) or 1.0
    panel = Panel("signed", found.signed[chosen], "map", positive=positive, negative=negative)
    bar = ColorBar(panel, _BAR, limit, SOFT_COLORS)
    high = 1.5 if len(chosen) == 1 else 0.95 if len(chosen) <= 4 else 0.62
    step = high + _BETWEEN + (_CURVE if curve else 0.0)
    heading = wrap(title, _WIDTH - 2 * _PAD, HEADING - 1, "bold") if title else []
    top = _PAD + len(heading) * LINE + (0.08 if heading else 0.03)
    below = top + len(chosen) * step + _AXIS
    notes = [line for note in _notes(found, chosen) for line in wrap(note, _WIDTH - _BAR - 0.4, SMALL)]
    sheet = Sheet(_WIDTH, below + max(bar.height, len(notes) * LINE) + _PAD)
    sheet.text(_PAD, _PAD, heading, fontsize=HEADING - 1, weight="bold", color=INK)
    for row, channel in enumerate(chosen):
        axes = sheet.axes(_LEFT, top + row * step, _WIDTH - _LEFT - _RIGHT, high)
        _draw_channel(axes, found, channel, limit)
        _name(axes, found.names[channel], kind.unit, high)
        last = axes
        if curve:
            last = sheet.axes(_LEFT, top + row * step + high, _WIDTH - _LEFT - _RIGHT, _CURVE)
            _draw_curve(last, found, channel, limit)
        if row == len(chosen) - 1:
            last.tick_params(axis="x", labelsize=SIZE, colors=MUTED, length=2.5, width=0.6)
            last.xaxis.set_major_locator(_ticks(9))
            last.set_xlabel(found.axis, fontsize=SIZE, color=MUTED, labelpad=1.5, **set_letters(found.axis))
    bar.draw(sheet.axes(_PAD, below, _BAR, BAR))
    sheet.text(_BAR + 0.35, below - 0.02, notes, fontsize=SMALL, color=MUTED)
    return sheet.figure


def _ticks(most: int) -> MaxNLocator:
    return MaxNLocator(most, steps=[1, 2, 2.5, 5, 10])


def _notes(found: _Signal, chosen: list[int]) -> list[str]:
    compared = {0: "", 1: " Gray line: the reference."}
    gray = compared.get(found.references, f" Gray line: the mean of {found.references} references.")
    notes = [f"Dark line: the input.{gray} Behind: R."]
    length = found.x.shape[1]
    if length > BINS:
        notes.append(f"Each of the {BINS} columns shows the strongest R of about {round(length / BINS)} samples.")
    rest = len(found.x) - len(chosen)
    total = float(found.signed.sum())
    if rest:
        left = total - float(found.signed[chosen].sum())
        notes.append(f"{rest} weaker channels are not shown; R there sums to {say_number(left)}.")
    return [*notes, f"All of R sums to {say_number(total)}."]


def _draw_channel(axes: Axes, found: _Signal, channel: int, limit: float) -> None:
    borders, x = found.borders, found.x[channel]
    colors = pool_strongest(found.signed[channel], BINS).numpy()[None]
    shown = [x] if found.reference is None else [x, found.reference[channel]]
    low, high = min(float(one.min()) for one in shown), max(float(one.max()) for one in shown)
    room = (high - low) * 0.08 or 0.5
    start, end = float(borders[0]), float(borders[-1])
    axes.imshow(
        colors, cmap=SOFT_COLORS, norm=CenteredNorm(0, limit), aspect="auto", interpolation="nearest", origin="lower",
        extent=(start, end, low - room, high + room), zorder=0,
    )  # fmt: skip
    axes.set(xlim=(start, end), ylim=(low - room, high + room))
    for line, color, width in zip(shown[::-1], (GRAY, INK)[-len(shown) :], (0.8, 0.9)[-len(shown) :], strict=True):
        axes.plot(*_outline(line, borders), color=color, linewidth=width, solid_joinstyle="round", zorder=2)
    axes.yaxis.set_major_locator(_ticks(3))
    axes.tick_params(axis="y", labelsize=SMALL, colors=MUTED, length=2, width=0.6)


def _outline(line: Tensor, borders: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A line's points; of a long one the smallest and the largest value of every column, in turn."""
    middles = (borders[:-1] + borders[1:]) / 2
    if len(line) <= BINS:
        return middles.numpy(), line.numpy()
    low, high = pool_extremes(line, BINS)
    starts = bin_starts(len(line), BINS)
    places = (borders[starts[:-1]] + borders[starts[1:]]) / 2
    return places.repeat_interleave(2).numpy(), torch.stack([low, high], 1).flatten().numpy()


def _draw_curve(axes: Axes, found: _Signal, channel: int, limit: float) -> None:
    borders, values = found.borders, pool_strongest(found.signed[channel], BINS)
    edges = borders if len(values) == len(borders) - 1 else borders[bin_starts(len(borders) - 1, BINS)]
    for part, color in ((values.clamp(min=0), UP), (values.clamp(max=0), DOWN)):
        axes.stairs(part.numpy(), edges.numpy(), fill=True, color=color, linewidth=0)
    axes.axhline(0, color=FRAME, linewidth=0.6)
    axes.set(xlim=(float(borders[0]), float(borders[-1])), ylim=(-1.1 * limit, 1.1 * limit))
    axes.set_yticks([0], ["R"], fontsize=SMALL, color=MUTED)
    axes.tick_params(axis="y", length=0)


def _name(axes: Axes, name: str, unit: str, high: float) -> None:
    """A channel's name beside its axis, and the unit of its values."""
    said = f"{name} ({unit})" if name and unit else name or unit
    if not said:
        return
    shown = fit(said, high, SIZE)
    axes.text(
        -(_LEFT - 0.16) / (_WIDTH - _LEFT - _RIGHT), 0.5, shown, rotation=90, ha="center", va="center",
        transform=axes.transAxes, fontsize=SIZE, color=INK, **set_letters(shown),
    )  # fmt: skip
