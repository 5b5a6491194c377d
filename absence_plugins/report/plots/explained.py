"""An explanation's signed map as a figure: of images, of maps at a layer, of vectors, of every kind of data."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core.explanation import Explanation
from absence_plugins.core.kinds import Kind
from absence_plugins.core.wording import Names
from absence_plugins.relevance.result import Relevance
from absence_plugins.report.plots.kinds import fits_kind, kind_figure
from absence_plugins.report.plots.maps import draw_panel, row_figure
from absence_plugins.report.plots.placing import draw_bars, take_axes
from absence_plugins.report.plots.signed import signed_panels

MOST = 20  # entries of a vector


def explanation_figure(
    explanation: Explanation,
    *,
    ax: Any = None,
    sample: int = 0,
    part: int = 0,
    image: Tensor | None = None,
    names: Names = None,
) -> Figure:
    """:meth:`Explanation.figure`. Red raises the explained output, blue holds it down."""
    _check_sample(sample, len(explanation.output))
    words = explanation.title(sample, names), *explanation.legend(sample, names)
    if explanation.kind is not None and explanation.inputs is not None and image is None:
        one, x = _part(explanation.attribution, part)[sample], explanation.inputs[sample]
        if fits_kind(explanation.kind, one, x):
            there = None if explanation.references is None else explanation.references[sample]
            said = dict(zip(("title", "positive", "negative"), words, strict=True))
            return kind_figure(explanation.kind, one, x, there, ax=ax, **said)
    return _draw(_part(explanation.attribution, part), ax, sample, image, *words)


def relevance_figure(
    found: Relevance,
    *,
    ax: Any = None,
    sample: int = 0,
    part: int | str = 0,
    image: Tensor | None = None,
    kind: Kind | None = None,
    inputs: Tensor | None = None,
    reference: Tensor | None = None,
) -> Figure:
    """:meth:`Relevance.figure`. Red raises u on x compared with the reference, blue holds it down."""
    _check_sample(sample, len(found.output))
    title = f"u(x) - u(r) = {float(found.difference[:, sample].mean()):.4g}, divided among the input"
    if kind is not None:
        one = _part(found.attribution, part)[sample]
        x, there = _compared(kind, inputs, reference, sample)
        return kind_figure(kind, one, x, there, ax=ax, title=title, positive="raises u", negative="holds u down")
    return _draw(_part(found.attribution, part), ax, sample, image, title, "raises u", "holds u down")


def _draw(maps: Tensor, ax: Any, sample: int, image: Tensor | None, title: str, positive: str, negative: str) -> Figure:
    one = maps[sample].detach().cpu()
    if one.dim() < 2:
        flat = one.reshape(-1).double()
        order = flat.abs().argsort(descending=True, stable=True)[:MOST]
        rest = f"; the {MOST} strongest of {len(flat)}" if len(flat) > MOST else ""
        entries = [f"input {number}" for number in order.tolist()]
        return draw_bars(
            ax, entries, flat[order].tolist(), f"relevance: red {positive}, blue {negative}{rest}", title=title
        )
    if one.dim() > 3:
        raise ValueError(
            f"a map of shape {tuple(one.shape)} is no image; of a volume, a signal, a text or a row pass it to "
            "absence_plugins.report.kind_figure with its kind; else sum over axes until [H, W] or [C, H, W] is left, "
            "for absence_plugins.report.signed_figure"
        )
    if image is not None and image.dim() == 4:
        image = image[min(sample, len(image) - 1)]
    panels = signed_panels(one, image, title=title, positive=positive, negative=negative)
    if ax is None:
        return row_figure(panels)
    figure, axes = take_axes(ax, (1.0, 1.0))
    draw_panel(axes, panels[-1])
    return figure


def _compared(kind: Kind, inputs: Any, reference: Any, sample: int) -> tuple[Tensor, Tensor | None]:
    """One sample of the inputs [B, ...], and its references [k, ...] of one batch [B, ...] or several [k, B, ...]."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs is a {type(inputs).__name__}; with kind= pass what was explained, a tensor [B, ...]")
    kind.check(inputs)
    if reference is None:
        return inputs[sample], None
    found = reference if isinstance(reference, Tensor) else torch.stack(list(reference))
    found = found[None] if found.dim() == inputs.dim() else found
    if found.shape[1:] != inputs.shape:
        raise ValueError(
            f"reference has shape {tuple(found.shape)}, inputs {tuple(inputs.shape)}; pass one batch of references "
            "[B, ...], or several [k, B, ...]"
        )
    return inputs[sample], found[:, sample]


def _part(maps: Any, part: int | str) -> Tensor:
    """One map of a tensor, a tuple or a dictionary."""
    if isinstance(maps, Tensor):
        maps = (maps,)
    if isinstance(maps, dict) and not isinstance(part, str):
        maps = tuple(maps.values())
    try:
        found = maps[part]
    except (IndexError, KeyError, TypeError):
        raise ValueError(f"part={part!r} does not exist; there are {len(maps)} maps") from None
    if not isinstance(found, Tensor):
        raise ValueError(f"part={part!r} has no relevance (an input that no gradient reaches); choose another")
    return found


def _check_sample(sample: int, samples: int) -> None:
    if not 0 <= sample < samples:
        raise ValueError(f"sample={sample} does not exist; there are {samples}, from 0")
