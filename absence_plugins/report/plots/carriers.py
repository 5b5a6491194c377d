"""Units that carry a decision: as bars, as maps through each of them, as a graph of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.maps import row_figure
from absence_plugins.report.plots.palette import DOWN, EMPTY, FRAME, INK, MUTED, UP
from absence_plugins.report.plots.placing import cut, draw_bars, place_figure, take_axes
from absence_plugins.report.plots.signed import signed_panels

if TYPE_CHECKING:
    from absence_plugins.methods.carriers import Carrier, CarrierGraph, Carriers, ConditionalMaps, UnitExamples

WIDEST = 5.0  # of an edge, in points
RADIUS = 150.0  # area of a circle, in square points
MAPS = 6  # side by side


def carriers_figure(found: Carriers, *, ax: Any = None, layer: str, sample: int = 0, count: int = 12) -> Figure:
    """The strongest units of a layer as bars; red raises the output, blue holds it down."""
    units = found.strongest(layer, count, sample=sample)
    names = [f"unit {one.unit}" + (" (silent here)" if one.is_silent else "") for one in units]
    total, rest = float(found.difference[sample]), float(found.layers[layer].rest[sample])
    around = "" if abs(rest) <= 1e-5 * abs(total) else f" and {rest:+.3g} around the layer"
    return draw_bars(
        ax,
        names,
        [one.relevance for one in units],
        f"relevance of the units of {layer}: red raises the output, blue holds it down; all units{around} sum to {total:+.4g}",
        title="Which units carry the difference to the references",
    )


def examples_figure(found: UnitExamples, *, ax: Any = None) -> Figure:
    """The unit's relevance on the samples where it does most, and least."""
    numbers = list(dict.fromkeys((*found.highest, *reversed(found.lowest))))
    return draw_bars(
        ax,
        [f"sample {number} ({float(found.values[number]):.3g})" for number in numbers],
        [float(found.relevance[number]) for number in numbers],
        "relevance of the unit: red raises the output, blue holds it down; in brackets its activation",
        title=f"{found.unit.describe()}, by what it does",
    )


def conditional_figure(
    found: ConditionalMaps, *, ax: Any = None, sample: int = 0, image: Tensor | None = None
) -> Figure:
    """The maps of one sample through each unit, on one scale; red raises the output through the unit."""
    if not 0 <= sample < found.maps.shape[1]:
        raise ValueError(f"sample={sample} does not exist; there are {found.maps.shape[1]}, from 0")
    picture = image[min(sample, len(image) - 1)] if image is not None and image.dim() == 4 else image
    panels: list[Any] = []
    for number, unit in list(enumerate(found.units))[:MAPS]:
        title = f"through unit {unit}: {float(found.relevance[sample, number]):+.3g}"
        panels.append(signed_panels(found.maps[number, sample].cpu(), picture, title=title)[-1])
    rest = found.rest[sample].cpu()
    panels.append(signed_panels(rest, picture, title=f"all other paths: {float(rest.sum()):+.3g}")[-1])
    first = signed_panels(rest, picture)[:-1]
    limit = max(panel.range for panel in panels[:-1])  # the other paths together are often stronger
    return place_figure(row_figure([*first, *panels], title=f"Through units of {found.layer}", limit=limit), ax)


def graph_figure(found: CarrierGraph, *, ax: Any = None) -> Figure:
    """Layers as columns; a circle is a unit, red where it raises the output; an edge is as wide as its relevance."""
    columns = [*found.nodes.items()]
    rows = max(len(units) for _, units in columns)
    figure, axes = take_axes(ax, (1.9 * (len(columns) + 1) + 0.6, 0.62 * rows + 1.1))
    places: dict[tuple[str, int], tuple[float, float]] = {}
    for column, (name, units) in enumerate(columns):
        for row, one in enumerate(units):
            places[name, one.unit] = (float(column), (rows - 1) / 2 - row + (len(units) - 1) / 2 - (rows - 1) / 2)
    end = (float(len(columns)), 0.0)
    flows = [(places[edge.source], places[edge.target], edge.relevance) for edge in found.edges]
    flows += [(places[one.layer, one.unit], end, one.relevance) for one in columns[-1][1]]
    most = max((abs(value) for _, _, value in flows), default=0.0) or 1.0
    for start, stop, value in flows:
        axes.plot(*zip(start, stop, strict=True), color=UP if value >= 0 else DOWN, linewidth=WIDEST * abs(value) / most,
                  solid_capstyle="round", alpha=0.75, zorder=1)  # fmt: skip
    for _, units in columns:
        for one in units:
            _draw_node(axes, places[one.layer, one.unit], one)
    axes.scatter(*end, s=RADIUS * 1.6, color=EMPTY, edgecolors=INK, linewidths=0.9, zorder=2)
    axes.annotate(f"output {found.difference:+.3g}", end, (0, -14), textcoords="offset points", fontsize=7, ha="center",
                  va="top", color=INK)  # fmt: skip
    names = [cut(spell(name), 18) for name, _ in columns]
    axes.set_xticks(range(len(columns)), names, fontsize=7.5, color=INK, **set_letters(*names, always=False))
    axes.set(xlim=(-0.5, len(columns) + 0.5), ylim=(-rows / 2 - 0.35, rows / 2 + 0.1), yticks=[])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.set_title(
        "Red raises the output, blue holds it down; hollow: silent here", fontsize=7.5, loc="left", color=MUTED
    )
    return figure


def _draw_node(axes: Any, place: tuple[float, float], one: Carrier) -> None:
    color = UP if one.relevance >= 0 else DOWN
    face = "white" if one.is_silent else color
    axes.scatter(*place, s=RADIUS, color=face, edgecolors=color, linewidths=1.6, zorder=2)
    words = f"{one.unit}: {one.relevance:+.3g}"
    box = {"facecolor": "white", "edgecolor": FRAME, "linewidth": 0.0, "pad": 0.6, "alpha": 0.8}
    axes.annotate(words, place, (0, -11), textcoords="offset points", fontsize=6.5, ha="center", va="top", color=INK,
                  bbox=box, zorder=3)  # fmt: skip
