"""Signed maps as figures: red raises the output, blue holds it down, zero is white or the photograph.

Every function that makes a :class:`matplotlib.figure.Figure` leaves pyplot and ``rcParams`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.axes._base import _AxesBase
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from absence_plugins.report.plots.color_bar import BAR, ColorBar, write_below
from absence_plugins.report.plots.lettering import HEADING, LABEL, LINE, TITLE, set_letters, wrap
from absence_plugins.report.plots.palette import INK, MUTED
from absence_plugins.report.plots.panel import Panel, check_limit
from absence_plugins.report.plots.picture import draw_picture
from absence_plugins.report.plots.sheet import Sheet, clear_frame

_WIDTH, _PAD = 2.45, 0.02  # of one panel, and of the margin around everything; inches
_INNER = _WIDTH - 2 * _PAD
_ABOVE_BAR, _BELOW_BAR, _ABOVE_CAPTION = 0.09, 0.06, 0.08  # inches


def panel_figure(panel: Panel, *, limit: float | None = None, labels: bool = True) -> Figure:
    """Draw one panel, a map with its color bar.

    Args:
        panel: What to draw; shapes, units and the sign are those of :class:`Panel`.
        limit: The value of the strongest color, in place of ``panel.limit``.
        labels: Whether title and caption are drawn into the figure.

    Returns:
        A new figure, 2.45 inches and 588 pixels wide.

    Raises:
        ValueError: ``limit`` is not above 0.

    Example:
        >>> import torch
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
        A new figure, about 2.6 inches wide per panel.

    Raises:
        ValueError: There are no panels, or ``limit`` is not above 0.

    Example:
        >>> import torch
        >>> maps = [Panel("signed", torch.full((2, 2), v), f"logit {v:.0f}") for v in (1.0, 3.0)]
        >>> [axes.images[0].get_clim()[1] for axes in row_figure(maps).axes[::2]]
        [1.0, 3.0]
    """
    if not panels:
        raise ValueError("panels is empty; a row needs at least one panel")
    return _draw(panels, title, limit, labels=True)


def draw_panel(axes: Axes, panel: Panel, *, limit: float | None = None, labels: bool = True) -> None:
    """Draw one panel into axes of a figure of one's own: a picture, and under a map its color bar.

    Args:
        axes: Empty axes; they get the panel's proportions. The text below takes about an inch.
        panel: What to draw; shapes, units and the sign are those of :class:`Panel`.
        limit: The value of the strongest color, in place of ``panel.limit``.
        labels: Whether the title is drawn above, and the caption below.

    Raises:
        ValueError: ``limit`` is not above 0.

    Example:
        >>> import torch
        >>> axes = Figure(layout="constrained").subplots()
        >>> draw_panel(axes, Panel("signed", torch.tensor([[1.0, -2.0]]), "logit 3"))
        >>> axes.get_title(loc="left"), axes.images[0].get_clim()
        ('logit 3', (-2.0, 2.0))
    """
    check_limit(limit)
    clear_frame(axes)
    chosen = panel.range if limit is None else limit
    rows, columns = panel.data.shape[-2:]
    aspect = max(1.0, columns / rows * 0.1)  # a row of numbers gets some height
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect=aspect)
    axes.apply_aspect()
    draw_picture(axes, panel, chosen)
    axes.set_aspect(aspect)
    width = axes.get_window_extent().width / axes.figure.dpi
    below = 0.0
    if panel.kind != "image":
        bar = ColorBar(panel, width, chosen)
        place = axes.inset_axes((0, 0, 1, 0.1))
        place.set_axes_locator(_below(axes, _ABOVE_BAR, BAR))
        clear_frame(place)
        bar.draw(place)
        below = _ABOVE_BAR + bar.height
    if labels:
        title = "\n".join(wrap(panel.title, width, TITLE, "bold"))
        axes.set_title(title, loc="left", fontsize=TITLE, weight="bold", color=INK, **set_letters(title, weight="bold"))
        caption = wrap(panel.caption, width, LABEL)
        write_below(axes, 0, below + _ABOVE_CAPTION, caption, y=0, fontsize=LABEL, color=MUTED)


def _below(axes: Axes, gap: float, height: float) -> Callable[[_AxesBase, RendererBase], Bbox]:
    """Where axes as wide as these stand, so many inches below them, whatever a layout makes of their size."""

    def place(inner: _AxesBase, renderer: RendererBase) -> Bbox:
        figure = inner.figure
        frame, inch = axes.get_window_extent(), figure.dpi
        top = frame.y0 - gap * inch
        return Bbox([[frame.x0, top - height * inch], [frame.x1, top]]).transformed(figure.transSubfigure.inverted())

    return place


def _draw(panels: Sequence[Panel], title: str | None, limit: float | None, labels: bool) -> Figure:
    check_limit(limit)
    gap = 0.16
    whole = len(panels) * (_WIDTH + gap) - gap
    heading = wrap(title or "", whole - 2 * _PAD, HEADING, "bold")
    titles = [wrap(p.title, _INNER, TITLE, "bold") if labels else [] for p in panels]
    captions = [wrap(p.caption, _INNER, LABEL) if labels else [] for p in panels]
    limits = [limit if limit is not None else 1.0 if p.kind == "image" else p.range for p in panels]
    bars = [None if p.kind == "image" else ColorBar(p, _INNER, v) for p, v in zip(panels, limits, strict=True)]
    picture = _INNER * max(_ratio(panel) for panel in panels)

    top = _PAD + (len(heading) * 1.2 * LINE + 0.08 if heading else 0.0)
    most = max(map(len, titles))
    below_titles = top + most * LINE + (0.04 if most else 0.0)
    below_picture = below_titles + picture
    # A caption stands below its own panel.
    ends = [below_picture + (_ABOVE_BAR + bar.height + _BELOW_BAR if bar else 0.0) for bar in bars]
    lowest = max(
        end + (_ABOVE_CAPTION + len(lines) * LINE if lines else 0.0) for end, lines in zip(ends, captions, strict=True)
    )

    sheet = Sheet(whole, lowest + _PAD)
    sheet.text(_PAD, _PAD, heading, fontsize=HEADING, weight="bold", color=INK)
    for i, (panel, bar) in enumerate(zip(panels, bars, strict=True)):
        x = _PAD + i * (_WIDTH + gap)
        above = (most - len(titles[i])) * LINE  # short titles stand on their picture
        sheet.text(x, top + above, titles[i], fontsize=TITLE, weight="bold", color=INK)
        rows, columns = panel.data.shape[-2:]
        scale = min(_INNER / columns, picture / rows)
        middle = x + (_INNER - columns * scale) / 2
        draw_picture(sheet.axes(middle, below_titles, columns * scale, rows * scale), panel, limits[i])
        if bar is not None:
            bar.draw(sheet.axes(x, below_picture + _ABOVE_BAR, _INNER, BAR))
        sheet.text(x, ends[i] + _ABOVE_CAPTION, captions[i], fontsize=LABEL, color=MUTED)
    return sheet.figure


def _ratio(panel: Panel) -> float:
    rows, columns = panel.data.shape[-2:]
    return float(min(max(rows / columns, 0.1), 1.5))
