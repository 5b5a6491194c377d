"""Where a result's figure is drawn: into axes that the caller has, or into a figure of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.palette import DOWN, INK, MUTED, UP


def take_axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """The caller's axes with their figure, or those of a new figure of ``size`` in inches.

    Raises:
        TypeError: ``ax`` is something else than matplotlib's axes.

    >>> figure, axes = take_axes(None, (2.0, 1.0))
    >>> take_axes(axes, (9.0, 9.0))[0] is figure
    True
    """
    if ax is None:
        figure = Figure(figsize=size, dpi=160, layout="constrained", facecolor="white")
        return figure, figure.subplots()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax is a {type(ax).__name__}; pass matplotlib's axes (figure.subplots()), or leave it out")
    return cast(Figure, getattr(ax.figure, "figure", None) or ax.figure), ax  # of a subfigure the whole figure


def place_figure(figure: Figure, ax: Axes | None) -> Figure:
    """A figure as it is, or, of several axes, as a picture in the caller's axes; returns the figure that holds it.

    >>> place_figure(Figure(), take_axes(None, (2.0, 1.0))[1]).get_size_inches().tolist()
    [2.0, 1.0]
    """
    if ax is None:
        return figure
    holder, axes = take_axes(ax, (1.0, 1.0))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    axes.imshow(canvas.buffer_rgba(), interpolation="antialiased")  # type: ignore[no-untyped-call]
    axes.set_axis_off()
    return holder


def draw_bars(
    ax: Any,
    names: Sequence[str],
    values: Sequence[float],
    label: str,
    *,
    title: str = "",
    colors: Sequence[str] | None = None,
    base: float = 0.0,
) -> Figure:
    """One horizontal bar per name, from ``base`` to its value, the first on top.

    Args:
        ax: the caller's axes, or None.
        names: beside the bars.
        values: as many.
        label: what the values are.
        title: above.
        colors: of the bars; by default red above ``base`` and blue below.
        base: where the bars begin.

    >>> draw_bars(None, ["a", "b"], [0.5, -1.0], "relevance").axes[0].get_xlabel()
    'relevance'
    """
    figure, axes = take_axes(ax, (6.0, 0.26 * max(2, len(names)) + 0.9))
    chosen = colors or [UP if value >= base else DOWN for value in values]
    places = range(len(names))
    axes.barh(places, [value - base for value in values], left=base, color=chosen, height=0.7, zorder=2)
    axes.axvline(base, color=MUTED, linewidth=0.7, zorder=3)
    shown, said = [cut(spell(name)) for name in names], [spell(label), spell(title)]
    axes.set_yticks(places, shown, fontsize=7.5, color=INK, **set_letters(*shown, always=False))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7, colors=MUTED)
    axes.set_xlabel(
        "\n".join(textwrap.wrap(said[0], 90)), fontsize=8, color=MUTED, **set_letters(said[0], always=False)
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    if title:
        plain = set_letters(said[1], always=False)
        axes.set_title("\n".join(textwrap.wrap(said[1], 80)), fontsize=9, loc="left", color=INK, **plain)
    return figure


def cut(text: str, longest: int = 48) -> str:
    """A name that is not too long for a figure.

    >>> cut("espresso maker", 8)
    'espress…'
    """
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
