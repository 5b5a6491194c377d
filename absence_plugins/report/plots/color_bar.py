"""The color bar of a map: its range, what its sign means, and how the map is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.transforms import ScaledTranslation

from absence_plugins.report.plots.lettering import FONT, LABEL, LINE, wrap
from absence_plugins.report.plots.palette import BLUES, MUTED, REDS, SIGNED_COLORS
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.picture import EXACT, GROUND, blend

BAR = 0.10  # height, inches
_GAP = 0.05  # to the numbers below


class ColorBar:
    """A map's color bar, ``width`` inches wide: how high it will be, and its drawing.

    Over a photograph the bar shows the map's colors over gray, and says that 0 is the photograph.
    """

    def __init__(self, panel: Panel, width: float, limit: float) -> None:
        self.panel, self.limit = panel, limit
        half = width / 2 - 0.04
        self.negative, self.positive = wrap(panel.negative, half, LABEL), wrap(panel.positive, half, LABEL)
        self.notes = [line for note in panel.notes for line in wrap(note, width, LABEL)]

    @property
    def lines(self) -> int:
        """Lines of text below the bar."""
        return 1 + max(len(self.negative), len(self.positive)) + len(self.notes)

    @property
    def height(self) -> float:
        """Inches from the upper end of the bar to the lower end of its text."""
        return BAR + _GAP + LINE * self.lines

    def draw(self, axes: Axes) -> None:
        """Draw the bar into axes of its size, and its text below them."""
        panel, limit, signed = self.panel, self.limit, self.panel.kind == "signed"
        low = -limit if signed else 0.0
        steps = np.linspace(low, limit, 257)[None]
        if panel.photograph is None:
            axes.imshow(steps, cmap=SIGNED_COLORS, norm=CenteredNorm(0, limit), **EXACT)
        else:
            axes.imshow(blend(steps, GROUND, limit), **EXACT)
        # A limit smaller than the largest value shown cuts it off, and the bar says so.
        shown = panel.shown
        least = "≤ " if float(shown.min()) < low else ""
        most = "≥ " if float(shown.max()) > limit else ""
        zero = "0" if panel.photograph is None else "0: the photo"
        small: dict[str, Any] = {"fontsize": LABEL - 1, "color": MUTED}
        y = BAR + _GAP
        _write(axes, 0, y, [f"{least}−{limit:.3g}" if signed else zero], **small)
        _write(axes, 1, y, [f"{most}{'+' if signed else ''}{limit:.3g}"], ha="right", **small)
        if signed:
            _write(axes, 0.5, y, [zero], ha="center", **small)
        y += LINE
        _write(axes, 0, y, self.negative, fontsize=LABEL, color=BLUES[-1] if signed else MUTED)
        _write(axes, 1, y, self.positive, fontsize=LABEL, color=REDS[-1], ha="right")
        y += LINE * max(len(self.negative), len(self.positive))
        _write(axes, 0, y, self.notes, fontsize=LABEL, color=MUTED)


def _write(axes: Axes, x: float, inches: float, lines: Sequence[str], **style: Any) -> None:
    """Lines of text at a share x of the axes' width, so many inches below their upper end."""
    style |= {"va": "top", "parse_math": False, "usetex": False, "family": FONT}
    for i, line in enumerate(lines):
        below = ScaledTranslation(0, -(inches + i * LINE), axes.figure.dpi_scale_trans)
        axes.text(x, 1, line, transform=axes.transAxes + below, **style)
