"""What one panel shows inside its frame: an image, a map on white, or a map over its photograph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import CenteredNorm
from numpy.typing import NDArray
from torch import Tensor

from absence_plugins.core.pooling import choose_resolution, spread_cells
from absence_plugins.report.plots.palette import BLUES, MUTED, REDS, SIGNED_COLORS
from absence_plugins.report.plots.panel import Panel

EXACT: dict[str, Any] = {"origin": "upper", "aspect": "auto", "interpolation": "nearest"}
GROUND = "#cccccc"  # of the color bar, in place of a photograph
_LUMINANCE = (0.299, 0.587, 0.114)
_FINE = 256  # points along an outlined mask, at least
_LINE, _HALO = 1.0, 2.2  # points
_DASHES = (0, (4.0, 1.6))

Colors = NDArray[np.float64]


def draw_picture(axes: Axes, panel: Panel, limit: float) -> None:
    """Draw a panel into axes whose frame has its proportions; ``limit`` is the value of the strongest color.

    Coordinates are pixels of the map, the center of the first one at (0, 0).
    """
    rows, columns = panel.data.shape[-2:]
    frame = axes.get_window_extent()
    # Shrinking averages. Enlarging keeps the pixels that were computed, of a map and of a digit.
    shrinks = max(columns, rows) > max(frame.width, frame.height)
    exact = EXACT | ({"interpolation": "antialiased"} if shrinks else {})
    smooth = exact if shrinks or choose_resolution(rows, columns) == 1 else EXACT | {"interpolation": "bilinear"}
    if panel.kind == "image":
        axes.imshow(as_rgb(panel.data).numpy(), **smooth)
        return
    values = panel.at_pixels.numpy()
    if panel.photograph is None:
        axes.imshow(values, cmap=SIGNED_COLORS, norm=CenteredNorm(0, limit), **exact)
    else:
        axes.imshow(mute(panel.photograph), **smooth)
        axes.imshow(color_by_strength(values, limit), **exact)
        if panel.outlined:
            for where, color, dashes in zip(panel.strongest(), (REDS[4], BLUES[4]), ("solid", _DASHES), strict=True):
                draw_edges(axes, where, color, dashes)
    if panel.underlay is not None:
        _draw_outline(axes, panel.underlay, rows, columns)


def mute(photograph: Tensor) -> Colors:
    """A photograph in [0, 1] as light gray [H, W, 3], so that red and blue are the map's alone and stand out from it.

    Example:
        >>> mute(torch.tensor([[0.0, 1.0]]))[..., 0].round(2).tolist()
        [[0.4, 0.98]]
    """
    gray = (as_rgb(photograph).double() @ torch.tensor(_LUMINANCE, dtype=torch.float64)).numpy()
    return np.repeat(0.4 + 0.58 * gray[..., None], 3, -1)


def paint(values: Colors, limit: float) -> Colors:
    """Colors [H, W, 3] of map values [H, W] on white, whose strongest color is that of ``limit``.

    Example:
        >>> paint(np.array([[0.0, -1.0]]), 1.0).round(2).tolist()
        [[[1.0, 1.0, 1.0], [0.04, 0.23, 0.53]]]
    """
    found: Colors = SIGNED_COLORS(CenteredNorm(0, limit)(values))[..., :3]
    return found


def color_by_strength(values: Colors, limit: float) -> Colors:
    """Red, green, blue and opacity [H, W, 4] of map values [H, W]: the stronger |value| / limit, the more opaque.

    0 is transparent.

    Example:
        >>> color_by_strength(np.array([[0.0, -1.0]]), 1.0)[..., 3].tolist()
        [[0.0, 0.9]]
    """
    strength = np.clip(np.abs(values) / limit, 0, 1)
    found: Colors = np.array(SIGNED_COLORS(0.5 + 0.5 * np.sign(values) * (0.5 + 0.5 * strength)), dtype=np.float64)
    found[..., 3] = 0.9 * strength**1.2
    return found


def as_rgb(image: Tensor) -> Tensor:
    """An image in [0, 1], of one or three channels, as [H, W, 3]."""
    data = image.detach().cpu().float().clamp(0, 1)
    data = data.permute(1, 2, 0) if data.dim() == 3 else data[..., None]
    return data.expand(*data.shape[:2], 3)


def draw_edges(axes: Axes, where: Tensor, color: str, dashes: Any = "solid") -> None:
    """The outline of a mask [H, W]: a line with a white halo, visible on any photograph, inside the frame."""
    if not bool(where.any()):
        return
    rows, columns = where.shape
    fine = max(1, -(-_FINE // max(rows, columns)))
    mask = torch.nn.functional.pad(spread_cells(where, fine, (rows * fine, columns * fine)).float(), (1, 1, 1, 1))
    across, down = ((np.arange(n * fine + 2) - 0.5) / fine - 0.5 for n in (columns, rows))
    lines = contour_generator(across, down, mask.numpy()).lines(0.5)
    inset = 0.006 * max(rows, columns)
    low, high = np.array([-0.5 + inset] * 2), np.array([columns, rows]) - 0.5 - inset
    kept = [np.clip(np.asarray(line), low, high) for line in lines]
    for width, ink, style in ((_HALO, "white", "solid"), (_LINE, color, dashes)):
        axes.add_collection(
            LineCollection(kept, colors=ink, linewidths=width, linestyles=[style], capstyle="butt"), autolim=False
        )


def _draw_outline(axes: Axes, underlay: Tensor, rows: int, columns: int) -> None:
    image = underlay.detach().cpu().double()
    gray = image.mean(0) if image.dim() == 3 else image
    # A coarse copy: the outline of a photograph, not of its grain.
    coarse = (min(32, gray.shape[0]), min(32, gray.shape[1]))
    gray = torch.nn.functional.adaptive_avg_pool2d(gray[None], coarse)[0]
    low, high = float(gray.min()), float(gray.max())
    if high == low or min(coarse) < 2:
        return
    across = (np.arange(coarse[1]) + 0.5) * columns / coarse[1] - 0.5
    down = (np.arange(coarse[0]) + 0.5) * rows / coarse[0] - 0.5
    axes.contour(across, down, gray.numpy(), levels=[(low + high) / 2], colors=[MUTED], linewidths=0.7, alpha=0.6)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
