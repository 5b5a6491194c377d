"""A white figure addressed in inches from its top left corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from absence_plugins.report.plots.lettering import LINE, set_letters
from absence_plugins.report.plots.palette import FRAME

DPI = 240


class Sheet:
    """A white figure of so many inches.

    >>> Sheet(2.0, 1.0).axes(0.5, 0.25, 1.0, 0.5).get_position()
    Bbox([[0.25, 0.25], [0.75, 0.75]])
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")

    def text(self, x: float, y: float, lines: Sequence[str], **style: Any) -> None:
        """Spelled lines, the top of the first one ``y`` inches below the top."""
        style |= {"va": "top", **set_letters(*lines, weight=style.get("weight", "normal"))}
        for i, line in enumerate(lines):
            self.figure.text(x / self.width, 1 - (y + i * LINE) / self.height, line, **style)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Framed axes without ticks, their top left corner at (x, y)."""
        below = 1 - (y + height) / self.height
        axes = self.figure.add_axes((x / self.width, below, width / self.width, height / self.height))
        clear_frame(axes)
        return axes

    def canvas(self) -> Axes:
        """Axes without a frame over the whole figure, in inches from the top left corner."""
        axes = self.figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        return axes


def clear_frame(axes: Axes) -> None:
    """A thin frame around white, without ticks, whatever the settings are."""
    axes.set_facecolor("white")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=0.6, visible=True)
