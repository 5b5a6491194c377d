"""The color bar of a map: its range, what its sign means, and how the map is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Colormap
from matplotlib.transforms import ScaledTranslation

from absence_plugins.report.plots.lettering import LABEL, LINE, set_letters, wrap
from absence_plugins.report.plots.palette import BLUES, MUTED, REDS, SIGNED_COLORS
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.picture import EXACT, GROUND, color_by_strength

BAR = 0.10  # height, inches
SMALL = LABEL - 1  # points
_GAP = 0.05  # to the numbers below
_SHARES = (0.5, 0.58, 0.42, 0.66, 0.34)


class ColorBar:
    """A map's color bar, ``width`` inches wide: how high it will be, and its drawing.

    Over a photograph the bar shows the map's colors over gray, and says that 0 is the photograph.
    """

    def __init__(self, panel: Panel, width: float, limit: float, colors: Colormap = SIGNED_COLORS) -> None:
        self.panel, self.limit, self.colors = panel, limit, colors
        room = width - 0.08
        # The longer text may take more than half of the width, where that saves a line.
        shares = [(wrap(panel.negative, s * room, LABEL), wrap(panel.positive, (1 - s) * room, LABEL)) for s in _SHARES]
        self.negative, self.positive = min(shares, key=lambda both: max(map(len, both)))
        self.notes = [line for note in panel.notes for line in wrap(note, width, SMALL)]

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
            axes.imshow(steps, cmap=self.colors, norm=CenteredNorm(0, limit), **EXACT)
        else:
            axes.set_facecolor(GROUND)
            axes.imshow(color_by_strength(steps, limit), **EXACT)
        left, middle, right = bar_ends(panel, limit)
        small: dict[str, Any] = {"fontsize": SMALL, "color": MUTED}
        y = BAR + _GAP
        write_below(axes, 0, y, [left], **small)
        write_below(axes, 0.5, y, [middle], ha="center", **small)
        write_below(axes, 1, y, [right], ha="right", **small)
        y += LINE
        write_below(axes, 0, y, self.negative, fontsize=LABEL, color=BLUES[-1] if signed else MUTED)
        write_below(axes, 1, y, self.positive, fontsize=LABEL, color=REDS[-1], ha="right")
        y += LINE * max(len(self.negative), len(self.positive))
        write_below(axes, 0, y, self.notes, fontsize=SMALL, color=MUTED)


def bar_ends(panel: Panel, limit: float) -> tuple[str, str, str]:
    """What stands under a color bar: left, in the middle, and right.

    Example:
        >>> import torch
        >>> bar_ends(Panel("signed", torch.tensor([[1.0, -3.0]]), "map"), 2.0)
        ('≤ −2', '0', '+2')
    """
    # A limit smaller than the largest value shown cuts it off, and the bar says so.
    shown = panel.shown
    most = "≥ " if float(shown.max()) > limit else ""
    zero = "0" if panel.photograph is None else "0: the photo"
    if panel.kind != "signed":
        return zero, "", f"{most}{limit:.3g}"
    least = "≤ " if float(shown.min()) < -limit else ""
    return f"{least}−{limit:.3g}", zero, f"{most}+{limit:.3g}"


def write_below(axes: Axes, x: float, inches: float, lines: Sequence[str], *, y: float = 1, **style: Any) -> None:
    """Spelled lines of text at a share x of the axes' width, so many inches below their share y of the height."""
    style |= {"va": "top", **set_letters(*lines)}
    for i, line in enumerate(lines):
        below = ScaledTranslation(0, -(inches + i * LINE), axes.figure.dpi_scale_trans)
        axes.text(x, y, line, transform=axes.transAxes + below, **style)
