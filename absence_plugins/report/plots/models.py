"""The matrix model x method as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.palette import EMPTY, GREEN, INK, OCHRE, PALE

GRADES = {
    "right": GREEN,
    "says why it is not": PALE,
    "runs, but the sum or the sign is wrong": OCHRE,
    "does not run": EMPTY,
}


def matrix_figure(rows: Sequence[Sequence[str]], methods: Sequence[str], grades: Sequence[Sequence[str]]) -> Figure:
    """A row per model (its package, its name, a text per method), colored by the grade of every cell.

    grades: keys of ``GRADES``, [models][methods].
    """
    figure = Figure(figsize=(2.4 + 0.95 * len(methods), 0.19 * len(rows) + 1.5), dpi=160, layout="constrained")
    axis = figure.subplots()
    axis.imshow([[to_rgb(GRADES[grade]) for grade in line] for line in grades], aspect="auto")
    for i, row in enumerate(rows):
        for j, text in enumerate(row[2:]):
            axis.text(j, i, text, ha="center", va="center", fontsize=6, color=INK)
    axis.set_xticks(range(len(methods)), methods, rotation=30, ha="left", fontsize=6.5)
    axis.xaxis.tick_top()
    names = [spell(f"{row[0]} {row[1]}") for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=6, **set_letters(*names, always=False))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    handles = [Patch(facecolor=color, label=label) for label, color in GRADES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=6.5)
    return figure
