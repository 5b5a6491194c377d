"""A unit's names as figures: how well each fits and on how much, and the activations split by the best one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core.interrupts import uncut
from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.palette import DOWN, FRAME, INK, MUTED, UP
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.placing import cut

if TYPE_CHECKING:
    from absence_plugins.methods.invert.results import UnitLabel

_PANEL = (1.76, 1.5)  # inches, as wide as a panel of the page is drawn
_LONGEST = 48  # characters of a formula in the figure


def label_figure(
    label: UnitLabel,
    activations: Any = None,
    concepts: Any = None,
    names: Sequence[str] = (),
    *,
    title: str | None = None,
) -> Figure:
    """A unit's formulas with AUC and fraction, and beside them its activations where the best one holds and where not.

    Args:
        label: of ``absence_plugins.methods.invert.label_units``.
        activations: [N] of this unit; without them there is only the left half.
        concepts: [N, K] of 0 and 1, as they were searched, and
        names: of the K concepts.
        title: over the figure; by default the unit and its best formula.

    Sign: red where the formula holds, blue where it does not. A bar is the AUC, or the score that chose the names, on
    the searched samples, a dot that on the held-out ones. An AUC above 0.5, or a correlation above 0, says that the
    unit is higher (mode "negative": lower) where the formula holds. The line is the threshold from which on the unit
    fires, if it has one.

    Raises:
        ValueError: activations without concepts, another number of activations than of labels, names that do not fit.

    Example:
        >>> from absence_plugins.methods.invert import label_units
        >>> concepts = torch.arange(40)[:, None] % 2 == torch.arange(2)
        >>> found = label_units(torch.arange(40) % 2, concepts, ["even", "odd"], progress=False)
        >>> len(label_figure(found[0], torch.arange(40) % 2, concepts, ["even", "odd"]).axes)
        2
    """
    split = activations is not None
    if split and concepts is None:
        raise ValueError("activations without concepts cannot be split by a formula; pass concepts and names too")
    figure = Figure(
        figsize=(8.4 if split else 5.0, 0.9 + 0.42 * max(4, len(label.formulas))), dpi=200, facecolor="white"
    )
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, 2 if split else 1, squeeze=False)[0]
    _draw_scores(axes[0], label, size=8.5)
    if split:
        _draw_split(axes[1], label, activations, concepts, names, size=8.5)
    said = spell(title, "bold") if title else f"Unit {label.unit}: {cut(spell(str(label.best.formula), 'bold'), 90)}"
    figure.suptitle(said, fontsize=10.5, weight="bold", color=INK, **set_letters(said, weight="bold"))
    return figure


def label_panels(label: UnitLabel, activations: Any, concepts: Any, names: Sequence[str]) -> list[Panel]:
    """The two halves of :func:`label_figure` as panels of a page.

    Example:
        >>> from absence_plugins.methods.invert import label_units
        >>> concepts = torch.arange(40)[:, None] % 2 == torch.arange(2)
        >>> found = label_units(torch.arange(40) % 2, concepts, ["even", "odd"], progress=False)
        >>> [panel.title for panel in label_panels(found[0], torch.arange(40) % 2, concepts, ["even", "odd"])]
        ['How well its names fit', 'Activations, split by the best name']
    """
    ways = ("low", "high") if label.mode == "negative" else ("high", "low")
    scores, split = Figure(figsize=_PANEL, dpi=240), Figure(figsize=_PANEL, dpi=240)
    for figure in (scores, split):
        figure.subplots_adjust(left=0.05, right=0.94, bottom=0.2, top=0.99)
    _draw_scores(scores.subplots(), label, size=5.2, longest=26)
    _draw_split(split.subplots(), label, activations, concepts, names, size=5.2)
    title = label.score_title
    caption = (
        f"Bar: {title}." if label.best.heldout_fraction is None else f"Bar: {title}, searched samples; dot: held out."
    )
    fires = "" if label.threshold is None else f" Line: from here on it fires ({'down' if ways[0] == 'low' else 'up'})."
    return [
        Panel("image", pixels_of(scores), "How well its names fit", f"{caption} In brackets: on how many samples it holds."),
        Panel("image", pixels_of(split), "Activations, split by the best name", f"Red: it holds (unit {ways[0]}). Blue: it does not ({ways[1]}).{fires}"),
    ]  # fmt: skip


def _draw_scores(axes: Axes, label: UnitLabel, *, size: float, longest: int = _LONGEST) -> None:
    """Bars of the score that chose the names, from what chance has; dots on held-out samples."""
    at, base = np.arange(len(label.formulas)), 0.5 if label.score == "auc" else 0.0
    scores = np.array([one.auc if one.score is None else one.score for one in label.formulas])
    told = [one.heldout_auc if label.score == "auc" else one.heldout_score for one in label.formulas]
    colors = [UP if score >= base else DOWN for score in scores]
    axes.barh(at, scores - base, left=base, height=0.34, color=colors, zorder=2)
    for i, one in enumerate(label.formulas):
        own = told[i]
        if own is not None:
            axes.plot([own], [i], "o", color=INK, markersize=size * 0.45, zorder=3)
        text = f"{cut(spell(str(one.formula)), longest)} ({one.fraction:.0%})"
        style = {"fontsize": size, "va": "bottom", "color": INK, **set_letters(text)}
        axes.text(0.0, i - 0.26, text, ha="left", transform=axes.get_yaxis_transform(), **style)
    low = min(base, *scores, *(one for one in told if one is not None))
    axes.set(xlim=(np.floor(low * 10) / 10, 1.0), ylim=(len(at) - 0.5, -0.85), yticks=[])
    _style_axes(axes, "AUC (0.5: chance)" if label.score == "auc" else label.score_title, size)


def _draw_split(
    axes: Axes, label: UnitLabel, activations: Any, concepts: Any, names: Sequence[str], *, size: float
) -> None:
    values = torch.as_tensor(activations).detach().cpu().double()
    truth = label.best.formula.truth(concepts, names)
    holds, fails = truth.true.cpu(), truth.false.cpu()
    if values.shape != holds.shape:
        raise ValueError(
            f"activations of shape {tuple(values.shape)} for {len(holds)} rows of concepts; pass those of one unit, [N]"
        )
    edges = np.histogram_bin_edges(values.numpy(), bins=min(40, max(8, len(values) // 25)))
    for chosen, color, name in ((fails, DOWN, "does not hold"), (holds, UP, "holds")):
        if bool(chosen.any()):
            part = values[chosen].numpy()
            weights = np.full(len(part), 1 / len(part))
            axes.hist(
                part,
                edges.tolist(),
                weights=weights,
                color=color,
                alpha=0.55,
                label=f"{name} ({len(part):,})",
                zorder=2,
            )
    if label.threshold is not None:
        axes.axvline(label.threshold, ymax=0.72, color=INK, linewidth=size * 0.12, zorder=3)
    axes.set_yticks([])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
    axes.legend(
        fontsize=size, loc="upper left", frameon=False, ncols=2, handlelength=0.9, columnspacing=0.9, borderaxespad=0.1
    )
    _style_axes(axes, "activation; each group's histogram sums to 1", size)


def _style_axes(axes: Axes, label: str, size: float) -> None:
    axes.set_xlabel(label, fontsize=size, color=MUTED, **set_letters(label))
    axes.tick_params(axis="x", labelsize=size, colors=MUTED, length=2, width=0.5)
    axes.grid(axis="x", color=FRAME, linewidth=0.4, zorder=0)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set(visible=name == "bottom", color=FRAME, linewidth=0.6)


def pixels_of(figure: Figure) -> Tensor:
    """A figure as an image [3, H, W] in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    with uncut():  # matplotlib's compiled part turns an exception of Ctrl-C into another one
        canvas.draw()  # type: ignore[no-untyped-call]
    colors = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
    return torch.from_numpy(colors.copy()).permute(2, 0, 1).float() / 255
