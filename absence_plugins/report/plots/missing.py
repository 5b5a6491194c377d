"""A minimal set as a figure: an input, its reference, and the input with the set's pieces pasted in and outlined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core.wording import Names
from absence_plugins.report.plots.lettering import set_letters, spell
from absence_plugins.report.plots.palette import FRAME, INK, OCHRE
from absence_plugins.report.plots.placing import cut, draw_bars, take_axes

if TYPE_CHECKING:
    from absence_plugins.methods.missing.result import MissingSet

MOST = 18  # members beside bars


def missing_figure(found: MissingSet, ax: Any = None, *, names: Names = None) -> Figure:
    """:meth:`MissingSet.figure`: of images three pictures, the set outlined; else u without each member, as bars.

    The sign of the bars: red is above the bound, blue below it.
    """
    is_image = found.given.x.dim() == 4 and found.given.pieces.kind is None and found.given.x.shape[1] in (1, 3)
    if not is_image:
        return _bars(found, ax, names)
    before, after = _titles(found, names)
    if ax is not None:
        figure, axes = take_axes(ax, (2.4, 2.6))
        _draw(axes, found.image[0], _span(found), after, found.mask)
        return figure
    figure = Figure(figsize=(7.4, 2.9), dpi=160, layout="constrained", facecolor="white")
    pictures = (found.given.x[0], found.given.reference[0], found.image[0])
    titles = (before, "the reference", after)
    if found.what == "sufficient":
        titles = ("x", before, after)
    for axes, picture, title in zip(figure.subplots(1, 3), pictures, titles, strict=True):
        _draw(axes, picture, _span(found), title, found.mask)
    sentence = spell(cut(found.sentence(names).split(". ")[0], 110))
    figure.suptitle(sentence, fontsize=9, color=INK, **set_letters(sentence, always=False))
    return figure


def _titles(found: MissingSet, names: Names) -> tuple[str, str]:
    u = "u" if not found.given.question.is_decision else "lead"
    start, source = ("x", "the reference") if found.what == "missing" else ("the reference", "x")
    return f"{start}: {u} {found.before:.3g}", f"with {len(found)} of {source}: {u} {found.after:.3g}"


def _span(found: MissingSet) -> tuple[float, float]:
    """Black and white of all pictures."""
    low = min(float(found.given.x.min()), float(found.given.reference.min()))
    high = max(float(found.given.x.max()), float(found.given.reference.max()))
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1


def _draw(axes: Axes, picture: Tensor, span: tuple[float, float], title: str, mask: Tensor) -> None:
    low, high = span
    values = ((picture.detach().cpu().double() - low) / (high - low)).clamp(0, 1).numpy()
    if len(values) == 1:
        axes.imshow(values[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(np.moveaxis(values, 0, -1), interpolation="nearest")
    edges = _edges(mask.any(0).cpu().numpy())
    axes.add_collection(LineCollection(edges, colors=OCHRE, linewidths=1.3))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=0.6)
    axes.set_title(title, fontsize=8, color=INK)


def _edges(mask: np.ndarray) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The sides of pixels between inside and outside, in the coordinates of ``imshow``."""
    padded = np.pad(mask, 1)
    found = []
    for row, column in np.argwhere(padded[1:, :] != padded[:-1, :]).tolist():
        found.append(((column - 1.5, row - 0.5), (column - 0.5, row - 0.5)))
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]).tolist():
        found.append(((column - 0.5, row - 1.5), (column - 0.5, row - 0.5)))
    return found


def _bars(found: MissingSet, ax: Any, names: Names) -> Figure:
    bound = found.given.question.bound
    rows = ["nothing pasted", "the whole set", *(f"without {name}" for name in found.names[:MOST])]
    values = [found.before, found.after, *found.certificate[:MOST].tolist()]
    rest = f"; {MOST} of {len(found)} members" if len(found) > MOST else ""
    label = f"{found.given.question.words(names)}; red above the bound {bound:.4g}, blue below it{rest}"
    return draw_bars(ax, rows, values, label, title=found.sentence(names).split(". ")[0], base=bound)
