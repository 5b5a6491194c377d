"""The insertion test as a figure: one line per unit, one mark per arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.palette import DOWN, GRAY, GRID, INK, UP
from absence_plugins.report.plots.placing import take_axes

if TYPE_CHECKING:
    from absence_plugins.methods.insertion.result import UnitInsertion

MARKS = {
    "clean": (INK, "|", 90),
    "highest": (UP, "o", 28),
    "random": (GRAY, "o", 28),
    "median": (GRAY, "s", 22),
    "blank": (GRAY, "D", 20),
    "lowest": (DOWN, "o", 46),
}


def insertion_figure(units: Sequence[UnitInsertion], arms: Sequence[str], layer: str, ax: Any = None) -> Figure:
    """Mean value of each unit (rows) under every arm; flagged units in bold."""
    figure, axis = take_axes(ax, (6.4, 0.32 * len(units) + 1.3))
    for arm in sorted(arms, key=list(MARKS).index):
        color, marker, size = MARKS[arm]
        axis.scatter(
            [one.means[arm] for one in units], range(len(units)), c=color, marker=marker, s=size, label=arm, zorder=3
        )
    axis.set_yticks(range(len(units)), [f"unit {one.unit}   q {one.q:.1g}" for one in units])
    for label, one in zip(axis.get_yticklabels(), units, strict=True):
        label.set_fontweight("bold" if one.flagged else "normal")
    axis.invert_yaxis()
    axis.grid(axis="x", color=GRID)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("mean value of the unit with a patch of this kind pasted in")
    title = spell(f"{layer or 'output'}: does the lowest patch pull the unit down?")
    axis.set_title(title, fontsize=10, loc="left", **set_letters(title, always=False))
    if ax is None:
        figure.legend(loc="outside lower center", ncols=len(arms), frameon=False, fontsize=8)
    else:  # the figure may hold other axes, whose legend this is not
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, frameon=False, fontsize=8)
    return figure
