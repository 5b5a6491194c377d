"""A signed map as a figure, without a page: after a call to ``attribute``."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core.explanation import Explanation
from absence_plugins.core.wording import Names
from absence_plugins.report.plots.maps import row_figure
from absence_plugins.report.plots.panel import Panel


def signed_figure(
    attribution: Tensor | Explanation,
    image: Tensor | None = None,
    *,
    title: str | None = None,
    positive: str | None = None,
    negative: str | None = None,
    limit: float | None = None,
    sample: int = 0,
    names: Names = None,
    resolution: int | None = None,
) -> Figure:
    """Draw any signed map, such as Captum's ``attribute`` returns it, in red, white and blue.

    Args:
        attribution: ``[H, W]``, ``[C, H, W]`` (summed over C) or one-sample ``[1, C, H, W]``, in
            units of the explained output; or what ``explain(...)`` returns, which also says what is explained: title,
            caption and color bar are taken from it.
        image: The input, ``[H, W]``, ``[C, H, W]`` or ``[1, C, H, W]``; drawn beside the map, and in outline over it,
            or above 64 pixels a side in gray under it. A normalized one (outside [0, 1]) is stretched to [0, 1].
        title: Over the map.
        positive: What red means, for the color bar.
        negative: What blue means.
        limit: The value of the strongest color; by default the largest magnitude.
        sample: Of an explanation of several samples, which one; a batch of images is indexed alike.
        names: Of the classes, for an explanation: a list, or a mapping from class indices.
        resolution: The side of the cells in which the map is shown, in pixels; by default 1 up to 64 pixels a side, and
            above it such that about 14 cells lie along the shorter side. Each shows the sum over its pixels.

    The sign: above 0 is red and raises the output, below 0 is blue and holds it down.

    Returns:
        A new figure.

    Raises:
        TypeError: An argument is not a tensor; of a tuple of attributions pass one.
        ValueError: A batch of several samples, or what :class:`Panel` rejects.

    Example:
        >>> figure = signed_figure(torch.tensor([[[[0.5, -2.0]]]]), title="logit 3")
        >>> figure.axes[0].images[0].get_clim()
        (-2.0, 2.0)
    """
    panels = signed_panels(
        attribution, image, title=title, positive=positive, negative=negative, limit=limit, sample=sample, names=names,
        resolution=resolution,
    )  # fmt: skip
    return row_figure(panels)


def signed_panels(
    attribution: Tensor | Explanation,
    image: Tensor | None = None,
    *,
    title: str | None = None,
    positive: str | None = None,
    negative: str | None = None,
    limit: float | None = None,
    sample: int = 0,
    names: Names = None,
    resolution: int | None = None,
) -> list[Panel]:
    """The panels of :func:`signed_figure`, the map last: for a page, or for ``draw_panel`` into axes of one's own.

    Arguments, sign and errors are those of :func:`signed_figure`.

    Example:
        >>> signed_panels(torch.ones(1, 1, 80, 80), torch.zeros(1, 3, 80, 80), title="logit 3")
        [Panel('image', 'input', 3x80x80, 0 to 0), Panel('signed', 'logit 3', 1x80x80, 1 to 1)]
    """
    caption = ""
    if isinstance(attribution, Explanation):
        caption = "" if title else f"Explained: {attribution.words(names)[sample]}."
        words = (title, positive, negative)
        found = (attribution.title(sample, names), *attribution.legend(sample, names))
        title, positive, negative = (given or said for given, said in zip(words, found, strict=True))
        found_map = attribution.attribution
        if attribution.kind is not None:
            raise ValueError(
                f"the explanation is of a {attribution.kind.name}, not of an image; call explanation.figure(), or "
                "absence_plugins.report.kind_figure"
            )
        attribution = found_map[sample] if isinstance(found_map, Tensor) else found_map
        if isinstance(image, Tensor) and image.dim() == 4 and len(image) > 1:
            image = image[sample]
    title, positive = title or "attribution", positive or "raises the output"
    negative = negative or "holds the output down"
    picture = None if image is None else _stretch(_one_sample(image, "image"))
    one = _one_sample(attribution, "attribution")
    chosen = {} if resolution is None else {"resolution": resolution}
    signed = Panel.over(
        picture, "signed", one, title, caption, positive=positive, negative=negative, limit=limit, **chosen
    )
    beside = [] if picture is None else [Panel("image", picture, "input")]
    return [*beside, signed]


def _stretch(image: Tensor) -> Tensor:
    """A normalized image as a picture: its own smallest value black, its largest white."""
    if not image.is_floating_point() or not bool(torch.isfinite(image).all()):
        return image  # rejected with the reason where it is drawn
    low, high = image.min(), image.max()
    if low >= -1e-3 and high <= 1 + 1e-3:
        return image
    return (image - low) / (high - low)


def _one_sample(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; pass one tensor")
    if value.dim() not in (2, 3, 4):
        raise ValueError(
            f"{name} of shape {tuple(value.shape)} is no image [H, W] or [C, H, W]; for a row, a signal or a volume "
            "call absence_plugins.report.kind_figure(kind, signed, x), or explanation.figure()"
        )
    if value.dim() != 4:
        return value
    if value.shape[0] != 1:
        raise ValueError(f"{name} holds {value.shape[0]} samples; pass one, such as {name}[0]")
    return value[0]
