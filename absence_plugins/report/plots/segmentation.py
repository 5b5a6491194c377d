"""What a segmentation network says at a place: the image and the map, with the asked region in outline."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.report.plots.maps import row_figure
from absence_plugins.report.plots.palette import INK
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.picture import draw_edges
from absence_plugins.report.plots.placing import place_figure
from absence_plugins.report.plots.signed import signed_panels

_SMALL = 0.03  # of a side: a smaller region is marked by a cross


def segmentation_figure(
    signed: Tensor,
    image: Tensor,
    asked: Tensor,
    *,
    region: str = "the region that is asked about",
    reference: Tensor | None = None,
    ax: Any = None,
    title: str = "",
    positive: str = "raises the output",
    negative: str = "holds the output down",
) -> Figure:
    """Draw an image and its map with the outline of the region whose class is explained.

    Args:
        signed: R, [C, H, W] (summed over C) or [H, W], in units of the explained output.
        image: the input, [C, H, W] or [H, W]; a normalized one is stretched to [0, 1].
        asked: boolean, [H, W]: the pixels whose output is explained; one pixel is marked by a cross.
        region: what they are called, for the caption.
        reference: an image that it is compared with, shown between the two.
        ax: axes to draw into; None: a new figure.
        title: above.
        positive: what red means.
        negative: what blue means.

    The sign: red raises the output at the asked region, blue holds it down, white is 0.

    Raises:
        TypeError: no tensors, or ``asked`` is not boolean.
        ValueError: another size than the image's, an empty region, what :class:`Panel` rejects.

    Example:
        >>> asked = torch.zeros(8, 8, dtype=torch.bool)
        >>> asked[2:6, 2:6] = True
        >>> len(segmentation_figure(torch.randn(8, 8), torch.rand(1, 8, 8), asked).axes)
        3
    """
    if not isinstance(asked, Tensor) or asked.dtype != torch.bool:
        found = asked.dtype if isinstance(asked, Tensor) else type(asked).__name__
        raise TypeError(f"asked is {found}; pass a boolean mask [H, W], such as labels == 3")
    if asked.shape != signed.shape[-2:] or asked.shape != image.shape[-2:]:
        raise ValueError(
            f"asked has shape {tuple(asked.shape)}, the map {tuple(signed.shape)}, the image {tuple(image.shape)}; "
            "pass all three at the input's height and width"
        )
    count = int(asked.sum())
    if not count:
        raise ValueError("asked is False everywhere; mark the pixels whose output is explained")
    panels = signed_panels(signed, image, title="relevance R", positive=positive, negative=negative)
    marked = "Cross" if is_small(asked) else "Outlined"
    caption = f"{marked}: {region}{f', {count:,} pixels' if count > 1 else ''}."
    first = panels[0]
    shown = [Panel("image", first.data, "input", caption)]
    if reference is not None:
        shown.append(Panel("image", signed_panels(signed, reference)[0].data, "reference"))
    figure = row_figure([*shown, panels[-1]], title=title or None)
    mask = asked.detach().cpu()
    for place in (0, len(shown)):
        mark_region(figure.axes[place], mask)
    return place_figure(figure, ax)


def is_small(asked: Tensor) -> bool:
    """Whether a region is smaller than 3 % of the sides, so that its outline would hide it.

    >>> is_small(torch.eye(64, dtype=torch.bool) & (torch.arange(64) == 3)), is_small(torch.ones(4, 4) > 0)
    (True, False)
    """
    places = asked.nonzero()
    if len(places) == 1:
        return True
    extent = places.amax(0) - places.amin(0) + 1
    return bool((extent <= _SMALL * torch.tensor(asked.shape)).all())


def mark_region(axes: Axes, asked: Tensor) -> None:
    """Draw the outline of a mask [H, W] into axes of pixels; a cross around a small one."""
    if not is_small(asked):
        draw_edges(axes, asked, INK)
        return
    down, across = asked.nonzero().double().mean(0).tolist()
    arm = 0.07 * max(asked.shape)
    half = max(0.7, 0.015 * max(asked.shape))
    for color, width in (("white", 2.6), (INK, 1.2)):
        for one, other in ((half, half + arm), (-half, -half - arm)):
            axes.plot([across + one, across + other], [down, down], color=color, linewidth=width, clip_on=True)
            axes.plot([across, across], [down + one, down + other], color=color, linewidth=width, clip_on=True)
    rows, columns = asked.shape
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
