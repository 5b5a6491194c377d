"""The colors of every figure and page: red raises the output, blue lowers it, zero is white."""

from __future__ import annotations

from matplotlib.colors import LinearSegmentedColormap

from absence_plugins.core.signed_colors import BLUES as BLUES
from absence_plugins.core.signed_colors import REDS as REDS

# An odd number of colors: with the usual 256 no entry is the middle one and zero is not quite white.
SIGNED_COLORS = LinearSegmentedColormap.from_list("signed", [*BLUES[:0:-1], *REDS], N=257)
# Behind letters and lines: both signs end where dark letters can still be read.
SOFT_COLORS = LinearSegmentedColormap.from_list("soft", [*BLUES[2:0:-1], *REDS[:3]], N=257)
SHARE_COLORS = LinearSegmentedColormap.from_list("white to red", REDS)  # of a share in [0, 1]

UP, DOWN = REDS[3], BLUES[3]
INK, MUTED, GRAY, FRAME, GRID, EMPTY = "#1f2328", "#57606a", "#8c959f", "#c9d1d9", "#e6e8eb", "#eef0f2"
PALE, OCHRE, GREEN = "#b9c0c7", "#d9a036", "#5a9a5a"  # series without a sign
SERIES = (GRAY, DOWN, OCHRE, GREEN)

# The orders of a faithfulness check: label, color, line style, width.
ORDERS = {
    "best": ("best order found", MUTED, "--", 1.1),
    "random": ("random order", GRAY, "-", 1.3),
    "placebo": ("this map where it says nothing", PALE, ":", 1.3),
    "standard": ("standard map", OCHRE, "-", 1.5),
    "map": ("this map", REDS[4], "-", 2.0),
}
