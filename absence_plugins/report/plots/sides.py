"""The two sides of a unit in one figure: what drives it up and down, rendered and real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.report.plots.maps import row_figure
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.placing import place_figure

MOST = 4  # real patches per side, in two columns


@dataclass(frozen=True)
class Side:
    """Pictures with the unit's value on each.

    Attributes:
        images: [N, C, H, W] or one image [C, H, W], in [0, 1]; C is 1 or 3. Arrays [N, H, W, C], as Lucent returns
            them, are taken too.
        values: the unit's value on each of them.
    """

    images: Any
    values: Sequence[float]


def unit_figure(
    maximizing: Side,
    minimizing: Side,
    *,
    highest: Side | None = None,
    lowest: Side | None = None,
    unit: str = "the unit",
    title: str | None = None,
) -> Figure:
    """Maximizing | highest real patches | minimizing | lowest real patches, with the unit's values under each.

    Args:
        maximizing: the rendered image that drives the unit up (its first one).
        minimizing: the one that drives it down.
        highest: real patches on which the unit is highest, the first four are shown.
        lowest: real patches on which it is lowest.
        unit: what the unit is called.
        title: over the figure.

    Sign: values are pre-activations in their own units; below 0 a ReLU behind the unit is silent.

    Raises:
        ValueError: images of another shape, or another number of values than images.

    Example:
        >>> up, down = Side(torch.ones(1, 8, 8), [3.2]), Side(torch.zeros(1, 8, 8), [-4.1])
        >>> len(unit_figure(up, down, unit="channel 5").axes)
        2
    """
    return row_figure(unit_panels(maximizing, minimizing, highest=highest, lowest=lowest, unit=unit), title=title)


def unit_panels(
    maximizing: Side,
    minimizing: Side,
    *,
    highest: Side | None = None,
    lowest: Side | None = None,
    unit: str = "the unit",
) -> list[Panel]:
    """The panels of :func:`unit_figure`, for a page of one's own.

    Example:
        >>> up, down = Side(torch.ones(1, 8, 8), [3.2]), Side(torch.zeros(1, 8, 8), [-4.1])
        >>> [panel.caption for panel in unit_panels(up, down)]
        ['rendered: 3.2', 'rendered: -4.1']
    """
    panels = []
    for rendered, real, way, extreme in (
        (maximizing, highest, "up", "highest"),
        (minimizing, lowest, "down", "lowest"),
    ):
        images = _batch(rendered)
        value = f"{float(rendered.values[0]):.3g}"
        panels.append(Panel("image", images[0], f"Drives {unit} {way}", f"rendered: {value}"))
        if real is not None:
            shown = _batch(real)[:MOST]
            values = ", ".join(f"{float(value):.3g}" for value in real.values[: len(shown)])
            panels.append(Panel("image", tiled(shown), f"Real, {extreme}", f"real: {values}"))
    return panels


def pictures_figure(images: Any, titles: Sequence[str], captions: Sequence[str], ax: Any = None) -> Figure:
    """Pictures in [0, 1] side by side, [N, C, H, W] or arrays [N, H, W, C], with a title and a line below each.

    Example:
        >>> len(pictures_figure(torch.zeros(2, 1, 4, 4), ["a", "b"], ["", ""]).axes)
        2
    """
    rows = zip(batched(images), titles, captions, strict=False)
    return place_figure(
        row_figure([Panel("image", image.clamp(0, 1), title, caption) for image, title, caption in rows]), ax
    )


def what_they_show(up: float, down: float, low: float, high: float, remedy: str) -> str:
    """What two rendered pictures tell: nothing, where one drives the unit no further than real images do.

    up, down: the unit on the rendered pictures; low, high: among real images; remedy: what to do.

    Example:
        >>> what_they_show(3.0, -0.5, -1.0, 2.0, "raise --steps")
        'The lowering picture did not get below the real images; raise --steps.'
    """
    said = "What the lowering picture shows holds the unit down."
    if not down < low:
        said = f"The lowering picture did not get below the real images; {remedy}."
    if not up > high:
        said += f" The raising picture did not get above the real images; {remedy}."
    return said


def _batch(side: Side) -> Tensor:
    """A side's images. Raises ValueError for another number of values, or what :func:`batched` rejects."""
    images = batched(side.images)
    if len(side.values) != len(images):
        raise ValueError(f"{len(side.values)} values for {len(images)} images; pass one per image")
    return images


def batched(given: Any) -> Tensor:
    """Images as [N, C, H, W]: of one image [C, H, W], or of arrays [N, H, W, C]. Raises ValueError for another shape.

    >>> batched(torch.zeros(5, 4, 3)[None]).shape
    torch.Size([1, 3, 5, 4])
    """
    images: Tensor = torch.as_tensor(given).detach().float().cpu()
    if images.dim() == 3:
        images = images[None]
    if images.dim() == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must be [N, C, H, W] with 1 or 3 channels, got shape {tuple(images.shape)}")
    return images


def tiled(images: Tensor, columns: int = 2) -> Tensor:
    """Images in a grid with white between them: [N, C, H, W] -> [C, H', W'].

    Example:
        >>> tiled(torch.zeros(3, 1, 4, 4)).shape
        torch.Size([1, 9, 9])
    """
    if len(images) == 1:
        return images[0]
    columns, gap = min(columns, len(images)), max(1, images.shape[-1] // 16)
    framed = F.pad(images, (0, gap, 0, gap), value=1.0)
    if len(framed) % columns:
        framed = torch.cat([framed, torch.ones_like(framed[:1]).expand(columns - len(framed) % columns, -1, -1, -1)])
    rows = [torch.cat(list(row), -1) for row in torch.split(framed, columns)]
    return torch.cat(rows, -2)[..., :-gap, :-gap]
