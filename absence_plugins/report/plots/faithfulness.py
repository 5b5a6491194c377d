"""Curves of a faithfulness check, and the table of the planted benchmark, as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from absence_plugins.core.table import format_interval
from absence_plugins.report.plots.palette import EMPTY, INK, MUTED, ORDERS, SHARE_COLORS
from absence_plugins.report.plots.placing import take_axes

if TYPE_CHECKING:
    from absence_plugins.methods.faithfulness.result import AbsenceScores
    from absence_plugins.methods.faithfulness.table import PlantedTable

AXES = {
    "nontarget": ("share of the blanked cells, up to the peak of the best order", "rise of the unit"),
    "reference": ("share of the copied cells, up to the peak of the best order", "fall of the unit"),
}


def curves_figure(scores: AbsenceScores, ax: Any = None) -> Figure:
    """Mean gain over the samples against the share of changed cells, one line per order."""
    figure, axis = take_axes(ax, (4.6, 3.0))
    for name, (label, color, style, width) in ORDERS.items():
        if name in scores.curves:
            curve = scores.curves[name].cpu().numpy()
            axis.plot(np.linspace(0, 1, len(curve)), curve, color=color, linestyle=style, linewidth=width, label=label)
    axis.axhline(0, color=MUTED, linewidth=0.6)
    across, up = AXES[scores.view]
    axis.set_xlabel(across, fontsize=8)
    axis.set_ylabel(up, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_xlim(0, 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7)
    score = f"{scores.score:.2f}{format_interval(scores.interval)}"
    axis.set_title(f"score {score}   (1: best, 0: random)", fontsize=8.5, loc="left")
    return figure


def planted_figure(table: PlantedTable) -> Figure:
    """Methods x problems, a panel per view: color and upper number the share, lower number the faithfulness score."""
    views, methods, problems = table.views, table.methods, table.problems
    width = 2.6 + len(views) * (0.56 * len(problems) + 0.3)
    figure = Figure(figsize=(width, 0.2 * len(methods) + 1.9), dpi=160, layout="constrained")
    axes = figure.subplots(1, len(views), sharey=True, squeeze=False)[0]
    for axis, view in zip(axes, views, strict=True):
        cells = [[table.of(method, problem, view) for problem in problems] for method in methods]
        values = np.array([[np.nan if one.share is None else one.share for one in row] for row in cells])
        picture = axis.imshow(np.ma.masked_invalid(values), cmap=SHARE_COLORS, vmin=0, vmax=1, aspect="auto")
        axis.set_facecolor(EMPTY)
        for i, row in enumerate(cells):
            for j, one in enumerate(row):
                text = one.mark.replace("-", "–") or one.text()
                dark = one.share is not None and one.share > 0.6
                axis.text(j, i, text, ha="center", va="center", fontsize=5, color="white" if dark else INK)
        axis.set_xticks(range(len(problems)), table.short_names, rotation=40, ha="right", fontsize=6.5)
        axis.set_yticks(range(len(methods)), methods, fontsize=6)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        question = "what holds the unit down?" if view == "nontarget" else "what is missing?"
        axis.set_title(f"{view.replace('nontarget', 'non-target')} view: {question}", fontsize=8, loc="left")
        for label in axis.get_yticklabels():
            label.set_fontweight("bold" if label.get_text().startswith("Absence") else "normal")
    bar = figure.colorbar(picture, ax=axes, fraction=0.012, pad=0.01, aspect=40)
    bar.set_label("share of the evidence in the true region", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    bar.outline.set_visible(False)
    figure.supxlabel(
        "share / faithfulness (1: best order, 0: best order that never saw the network); –: no answer, or not measured",
        fontsize=6.5,
    )
    return figure
