"""Curves of a faithfulness check as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from absence_plugins.methods.faithfulness.result import AbsenceScores

LINES = {
    "best": ("best order found", "#57606a", "--", 1.1),
    "random": ("random order", "#8c959f", "-", 1.3),
    "standard": ("standard map", "#d9a036", "-", 1.5),
    "map": ("this map", "#b31d28", "-", 2.0),
}
AXES = {
    "nontarget": ("share of the content that is blanked", "rise of the unit"),
    "reference": ("share of the missing content that is copied in", "fall of the unit"),
}


def curves_figure(scores: AbsenceScores) -> Figure:
    """Mean gain over the samples against the share of changed cells, one line per order."""
    figure = Figure(figsize=(4.6, 3.0), dpi=160, layout="constrained")
    axis = figure.subplots()
    for name, (label, color, style, width) in LINES.items():
        if name in scores.curves:
            curve = scores.curves[name].cpu().numpy()
            axis.plot(np.linspace(0, 1, len(curve)), curve, color=color, linestyle=style, linewidth=width, label=label)
    axis.axhline(0, color="#57606a", linewidth=0.6)
    across, up = AXES[scores.view]
    axis.set_xlabel(across, fontsize=8)
    axis.set_ylabel(up, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_xlim(0, 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7)
    score = f"{scores.score:.2f}  [{scores.interval[0]:.2f}, {scores.interval[1]:.2f}]"
    axis.set_title(f"score {score}   (1: best, 0: random)", fontsize=8.5, loc="left")
    return figure
