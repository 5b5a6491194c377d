"""Groups of bars with their spread."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.palette import GRID, INK, SERIES
from absence_plugins.report.plots.placing import cut


def bars(groups: Sequence[str], series: Mapping[str, Sequence[Sequence[float]]], label: str) -> Figure:
    """One bar per group and series: the mean of its values, with a line from the lowest to the highest.

    groups: names along the axis; series: per name a list of values for every group; label: of the values, in [0, 1].

    Raises:
        ValueError: a series with another number of groups.

    Example:
        >>> bars(["none", "both"], {"inverted": [[0.4, 0.5], [0.9, 1.0]]}, "accuracy").axes[0].get_ylabel()
        'accuracy'
    """
    for name, values in series.items():
        if len(values) != len(groups):
            raise ValueError(f"series {name!r} has {len(values)} groups, there are {len(groups)}")
    figure = Figure(figsize=(1.5 * len(groups) + 1.2, 2.6), dpi=200, layout="constrained")
    axis = figure.subplots()
    width = 0.8 / max(1, len(series))
    for number, ((name, values), color) in enumerate(zip(series.items(), SERIES, strict=False)):
        places = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        means = [float(np.mean(own)) for own in values]
        axis.bar(places, means, width * 0.9, color=color, label=spell(name), zorder=2)
        for place, own, mean in zip(places, values, means, strict=True):
            axis.plot([place, place], [min(own), max(own)], color=INK, linewidth=0.8, zorder=3)
            axis.text(place, 0.02, f"{mean:.2f}", ha="center", va="bottom", fontsize=6, color="white", zorder=4)
    names = [textwrap.fill(cut(spell(name)), 16) for name in groups]
    axis.set_xticks(range(len(groups)), names, fontsize=7, **set_letters(*names, always=False))
    axis.set_ylim(0, 1.02)
    axis.set_ylabel(spell(label), fontsize=8, **set_letters(spell(label), always=False))
    axis.tick_params(axis="y", labelsize=7)
    axis.grid(axis="y", color=GRID, zorder=0)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside upper right", ncols=len(series), frameon=False, fontsize=7)
    for text in legend.get_texts():
        text.set(**set_letters(text.get_text(), always=False))
    return figure
