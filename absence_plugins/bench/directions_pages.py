"""The rows of ``absence-plugins bench directions`` as tables and as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absence_plugins.bench.directions_rows import Row
from absence_plugins.bench.pages import replaced
from absence_plugins.core.table import align
from absence_plugins.experiments.directions.settings import (
    AUTOENCODER,
    CHEAP,
    ICA,
    OURS,
    PAPER,
    QUICK,
    SETTINGS,
    TRUTH,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = "bench directions"
HEAD = ("data", "method", "sets", "found", "IoU", "cosine", "RMSE", "CPU s", "MiB")


def summarize_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line per setting and method, over its data sets; worst / median concept in the median data set."""
    lines = []
    for setting, method in dict.fromkeys((row.setting, row.method) for row in rows):
        own = [row for row in rows if (row.setting, row.method) == (setting, method)]
        pairs = [
            " / ".join(f"{statistics.median(getattr(row, name)[i] for row in own):.3f}" for i in (0, 1))
            for name in ("iou", "cosine", "rmse")
        ]
        found = f"{100 * statistics.mean(row.found for row in own):.0f} %"
        cost = (f"{statistics.median(row.seconds for row in own):.1f}", f"{max(row.mebibytes for row in own):.0f}")
        if method == TRUTH:  # its detectors are the best for the IoU, not for signal values
            pairs, cost = [*pairs[:2], ""], ("", "")
        lines.append((setting, method, str(len(own)), found, *pairs, *cost))
    return lines


def text_table(rows: Sequence[Row]) -> str:
    """The lines, aligned, the setting only where it changes."""
    lines = summarize_rows(rows)
    shown = [
        (("", *line[1:]) if i and lines[i - 1][0] == line[0] else line) for i, line in enumerate(lines)
    ]  # fmt: skip
    return "\n".join(align([HEAD, *shown], left=(0, 1)))


def insert_rows(page: str, rows: Sequence[Row]) -> str:
    r"""The page with the table between its markers.

    >>> insert_rows("<!-- bench directions: begin -->\nold\n<!-- bench directions: end -->", ()).splitlines()[2]
    '| data | method | sets | found | IoU | cosine | RMSE | CPU s | MiB |'
    """

    def table() -> str:
        lines = [HEAD, ("---",) * len(HEAD), *summarize_rows(rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    return replaced(page, MARK, table)


def draw_rows(rows: Sequence[Row]) -> Figure:
    """Left: the worst concept's IoU and cosine of every method in every setting. Right: CPU time over concepts."""
    from matplotlib.figure import Figure

    from absence_plugins.report.plots.palette import DOWN, GRAY, GREEN, INK, OCHRE, PALE

    colors = {OURS: INK, CHEAP: OCHRE, ICA: GRAY, AUTOENCODER: PALE, PAPER: DOWN, TRUTH: GREEN}
    settings = list(dict.fromkeys(row.setting for row in rows))
    figure = Figure(figsize=(11, 1.6 + 0.3 * len(settings)), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 1))
    for axis, measure, words in zip(axes, ("iou", "cosine"), ("IoU", "cosine"), strict=False):
        for method, color in colors.items():
            own = [
                (settings.index(name), statistics.median(values))
                for name in settings
                if (values := [getattr(row, measure)[0] for row in rows if (row.setting, row.method) == (name, method)])
            ]
            shape = "|" if method == TRUTH else "o"
            if own:
                size = 70 if method == TRUTH else 26
                axis.scatter(
                    [max(v, 0) for _, v in own], [y for y, _ in own], color=color, marker=shape, s=size, label=method
                )
        axis.set_yticks(range(len(settings)), settings if measure == "iou" else [""] * len(settings))
        axis.invert_yaxis()
        axis.set_xlim(-0.03, 1.03)
        axis.grid(axis="x", alpha=0.3)
        axis.set_xlabel(f"{words} of the worst concept", loc="left")
    known = {**QUICK, **SETTINGS}
    sized = [row for row in rows if row.setting in known and "concepts" in known[row.setting].groups]
    axes[2].set_visible(bool(sized))
    for method, color in colors.items():
        points = sorted((row.size[0], row.seconds) for row in sized if row.method == method != TRUTH)
        if points:
            axes[2].plot([x for x, _ in points], [y for _, y in points], "o-", color=color, markersize=4)
            axes[2].set(xscale="log", yscale="log")
            axes[2].set_xticks(sorted({row.size[0] for row in sized}), minor=False)
            axes[2].xaxis.set_major_formatter("{x:.0f}")
            axes[2].xaxis.set_minor_formatter("")
            axes[2].yaxis.set_major_formatter("{x:g}")
            axes[2].yaxis.set_minor_formatter("{x:g}")
    axes[2].set(xlabel="concepts", ylabel="CPU seconds of the fit, one thread")
    axes[2].grid(alpha=0.3, which="both")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure
