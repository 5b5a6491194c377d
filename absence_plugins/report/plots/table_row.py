"""A row of a table: one bar per column, with its name, its value here and in the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core.columns import Column
from absence_plugins.core.kinds import TableKind
from absence_plugins.report.plots.entries import check_same_shape, say_number, take_entries, take_references
from absence_plugins.report.plots.lettering import LINE, TITLE, fit, measure, set_letters, spell, wrap
from absence_plugins.report.plots.palette import BLUES, DOWN, FRAME, INK, MUTED, REDS, UP
from absence_plugins.report.plots.placing import place_figure
from absence_plugins.report.plots.sheet import Sheet

MOST = 20  # columns with a bar of their own
SIZE, SMALL = 8.0, 7.0  # points
_ROW, _GAP, _PAD, _BARS = 0.205, 0.17, 0.04, 2.9  # inches
_WIDEST = {"name": 2.2, "here": 1.35, "word": 0.9, "reference": 1.6}  # inches


@dataclass(frozen=True)
class ColumnLine:
    """One line of the figure.

    Attributes:
        name: of the column.
        here: its value in x.
        word: how that compares with the reference: "↓ below", "↑ above", "≠ other", "= same"; "" without one.
        reference: its value there: the mean of several, or the most frequent category.
        value: R of the column, the sum over its entries.
        rest: how many columns this one line stands for, 0 for one of its own.
    """

    name: str
    here: str
    word: str
    reference: str
    value: float
    rest: int = 0


def table_figure(
    kind: TableKind,
    signed: Tensor,
    x: Tensor,
    reference: Tensor | None = None,
    *,
    most: int = MOST,
    ax: Any = None,
    title: str = "",
    positive: str = "raises the output",
    negative: str = "holds the output down",
) -> Figure:
    """Draw a row of a table: a bar per column, the strongest on top, with its value here and in the reference.

    Args:
        kind: the columns.
        signed: R, [E], in units of the explained output; a column's bar is the sum over its entries.
        x: the row, [E].
        reference: what it is compared with, [E], or several [k, E] (the mean, of a category the most frequent one);
            None: none is shown.
        most: so many columns get a bar of their own. The others share one, so that the bars sum to the whole map.
        ax: axes to draw into; None: a new figure.
        title: above.
        positive: what red means.
        negative: what blue means.

    The sign: a bar to the right, red, raises the output; one to the left, blue, holds it down. The word between the
    values says whether the row stands below or above the reference, which is another question.

    Raises:
        TypeError: no table, or no tensors.
        ValueError: shapes that do not fit the columns, NaN, ``most`` below 1.

    Example:
        >>> import torch
        >>> kind = TableKind((Column("age", mean=40.0, std=10.0), Column("pulse", mean=70.0, std=10.0)))
        >>> figure = table_figure(kind, torch.tensor([0.5, -2.0]), torch.tensor([1.0, -1.0]), torch.zeros(2))
        >>> [round(float(bar.get_width()), 3) for bar in figure.axes[1].patches]
        [-2.0, 0.5]
    """
    lines, references = table_lines(kind, signed, x, reference, most)
    return place_figure(_draw(lines, references, len(kind.columns), title, positive, negative), ax)


def table_lines(
    kind: TableKind, signed: Tensor, x: Tensor, reference: Tensor | None, most: int = MOST
) -> tuple[list[ColumnLine], int]:
    """The lines of :func:`table_figure`, the strongest first, and the number of references.

    Raises:
        TypeError, ValueError: as :func:`table_figure`.
    """
    if not isinstance(kind, TableKind):
        raise TypeError(f"kind is a {type(kind).__name__}; a row needs a TableKind, the others have kind_figure")
    if most < 1:
        raise ValueError(f"most={most} must be at least 1 column")
    maps, here = take_entries(signed, "signed").squeeze(0), take_entries(x, "x").squeeze(0)
    maps, here = maps.reshape(-1) if maps.dim() == 0 else maps, here.reshape(-1) if here.dim() == 0 else here
    check_same_shape(maps, here)
    kind.check(here[None])
    there = take_references(reference, here)
    values = kind.things(maps)
    order = values.abs().argsort(descending=True, stable=True).tolist()
    lines = [_line(kind.columns[i], kind.places[i], float(values[i]), here, there) for i in order[:most]]
    rest = order[most:]
    if rest:
        left = values[rest]
        said = f"{say_number(float(left.min()))} to {say_number(float(left.max()))} each"
        name = f"other {len(rest)} column{'s' * (len(rest) > 1)}"
        lines.append(ColumnLine(name, said, "", "", float(left.sum()), len(rest)))
    return lines, 0 if there is None else len(there)


def _line(column: Column, place: slice, value: float, here: Tensor, there: Tensor | None) -> ColumnLine:
    own = _say(column, here[place])
    if there is None:
        return ColumnLine(column.name, own, "", "", value)
    if column.categories:
        words = Counter(_say(column, one[place]) for one in there)
        most, count = words.most_common(1)[0]
        said = most if count == len(there) else f"{most} ({count} of {len(there)})"
        return ColumnLine(column.name, own, "= same" if most == own else "≠ other", said, value)
    mean = there[:, place].mean(0)
    difference = float(here[place] - mean)
    is_same = abs(difference) <= 1e-6 * max(abs(float(mean)), 1e-6)
    word = "= same" if is_same else "↓ below" if difference * column.std < 0 else "↑ above"
    return ColumnLine(column.name, own, word, _say(column, mean), value)


def _say(column: Column, entries: Tensor) -> str:
    said = column.says(entries)
    return said if column.categories else said.replace("-", "−", 1) if said.startswith("-") else said


def _draw(
    lines: Sequence[ColumnLine], references: int, columns: int, title: str, positive: str, negative: str
) -> Figure:
    heads = {"name": "column", "here": "here", "word": "", "reference": "reference"}
    if references > 1:
        heads["reference"] = f"mean of {references} references"
    shown = ["name", "here", *(["word", "reference"] if references else [])]
    cells = {
        name: [fit(getattr(line, name), 3.0 if line.rest else _WIDEST[name], SIZE) for line in lines] for name in shown
    }
    own = [place for place, line in enumerate(lines) if not line.rest]
    widths = {
        name: max(measure(heads[name], SMALL), *(measure(cells[name][i], SIZE) for i in own), 0.3) for name in shown
    }
    widths["name"] = max(measure(cell, SIZE) for cell in [*cells["name"], heads["name"]])
    starts, across = {}, _PAD
    for name in shown:
        starts[name] = across
        across += widths[name] + _GAP
    rest_ends = [measure(cells["here"][i], SIZE) + starts["here"] for i, line in enumerate(lines) if line.rest]
    across = max([across, *(end + _GAP for end in rest_ends)])
    width = across + _BARS + _PAD

    heading = wrap(title, width - 2 * _PAD, TITLE, "bold") if title else []
    top = _PAD + len(heading) * LINE + (0.07 if heading else 0.0)
    bars_top = top + _ROW
    foot = bars_top + len(lines) * _ROW + 0.1
    total = sum(line.value for line in lines)
    sum_said = f"All {columns} columns sum to {say_number(total)}." if columns > 1 else ""
    legend = wrap(f"red: {positive}", width / 2 - 0.1, SIZE), wrap(f"blue: {negative}", width / 2 - 0.1, SIZE)
    deep = max(map(len, legend))
    sheet = Sheet(width, foot + (deep + bool(sum_said)) * LINE + _PAD)
    sheet.text(_PAD, _PAD, heading, fontsize=TITLE, weight="bold", color=INK)
    canvas = sheet.canvas()
    for name in shown:
        _write(canvas, starts[name], top + _ROW / 2, heads[name], SMALL, MUTED)
        for i, line in enumerate(lines):
            color = MUTED if line.rest or name == "word" else INK
            _write(canvas, starts[name], bars_top + (i + 0.5) * _ROW, cells[name][i], SIZE, color)
    canvas.plot([_PAD, width - _PAD], [bars_top] * 2, color=FRAME, linewidth=0.6)
    _write(canvas, across, top + _ROW / 2, "relevance R", SMALL, MUTED)
    _draw_bars(sheet.axes(across, bars_top, _BARS, len(lines) * _ROW), lines)
    sheet.text(_PAD, foot, legend[1], fontsize=SIZE, color=BLUES[-1])
    sheet.text(width - _PAD, foot, legend[0], fontsize=SIZE, color=REDS[-1], ha="right")
    sheet.text(_PAD, foot + deep * LINE, [sum_said] if sum_said else [], fontsize=SMALL, color=MUTED)
    return sheet.figure


def _write(axes: Axes, x: float, y: float, text: str, size: float, color: str) -> None:
    axes.text(x, y, text, fontsize=size, color=color, va="center", **set_letters(text))


def _draw_bars(axes: Axes, lines: Sequence[ColumnLine]) -> None:
    values = [line.value for line in lines]
    places = range(len(lines))
    numbers = [spell(say_number(value)) for value in values]
    room = max(measure(number, SMALL) for number in numbers) + 0.1  # inches beside a bar, for its number
    low, high = min(0.0, *values), max(0.0, *values)
    below, above = (room if low < 0 else 0.03), room
    inch = ((high - low) or 1.0) / (_BARS - below - above)
    bars = axes.barh(places, values, height=0.66, color=[UP if value >= 0 else DOWN for value in values], zorder=2)
    for line, bar in zip(lines, bars, strict=True):
        if line.rest:
            bar.set(alpha=0.45, hatch="////", edgecolor="white", linewidth=0)
    for place, value, number in zip(places, values, numbers, strict=True):
        style: dict[str, Any] = {"fontsize": SMALL, "color": MUTED, "va": "center", **set_letters(number)}
        axes.text(
            value + (0.05 if value >= 0 else -0.05) * inch, place, number, ha="left" if value >= 0 else "right", **style
        )
    axes.axvline(0, color=MUTED, linewidth=0.7, zorder=3)
    axes.set(xlim=(low - below * inch, high + above * inch), ylim=(len(lines) - 0.5, -0.5))
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_visible(False)
