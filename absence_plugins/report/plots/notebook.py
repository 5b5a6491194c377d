"""Figures in a notebook: a cell that ends in a figure shows it, also where nothing has told matplotlib to."""

from __future__ import annotations

import io
import sys
from typing import Any

from matplotlib.figure import Figure

DPI = 110


def show_figures() -> None:
    """In an IPython kernel show figures as PNG, unless ``%matplotlib`` or pyplot have said how; elsewhere do
    nothing.
    """
    find: Any = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = find() if find is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return
    formatter = shell.display_formatter.formatters["image/png"]
    if formatter.for_type(Figure) is None:
        formatter.for_type(Figure, write_png)


def write_png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    # tight: at this resolution hinting makes letters wider than they were measured
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", bbox_inches="tight", pad_inches=0.05)
    return buffer.getvalue()
