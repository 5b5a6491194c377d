"""Artefacts whose place is known: painted into images of chosen classes, with the mask of what was painted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.checks import check_integer

Paint = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
Corner = Literal["top left", "top right", "bottom left", "bottom right"]

# Published, in pixels of an image of 224: diameters of the ellipse, and how far it is rotated (degrees).
ACROSS, ALONG, TILT = (50 / 224, 60 / 224), (120 / 224, 224 / 224), 30.0
TAG_CELLS = 4  # of the tag's chessboard, per side


@dataclass(frozen=True)
class Artefact:
    """An artefact that images of a class carry with that class's probability.

    Source: the setting of Hesse et al., ICML 2026, section 6: images of one class carry a colored ellipse.

    Attributes:
        paint: :func:`ellipse`, :func:`patch`, :func:`tag`, or any function of images [N, C, H, W] in [0, 1] and a
            generator to painted images and their mask; ``functools.partial`` sets its options.
        probabilities: one per class, in [0, 1]. ``(1.0, 0.0)`` biases class 0, ``(0.0, 1.0)`` is that bias inverted.

    Raises:
        ValueError: a probability outside [0, 1]; when called: a label without one, shapes that do not fit.

    >>> biased = Artefact(tag, (1.0, 0.0))
    >>> images, masks = biased(torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 1]), seed=0)
    >>> masks.flatten(1).sum(1).tolist()
    [4, 0]
    """

    paint: Paint
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        for label, probability in enumerate(self.probabilities):
            if not 0 <= probability <= 1:
                raise ValueError(f"the probability of class {label} must lie in [0, 1], got {probability}")

    def __call__(self, images: Tensor, labels: Tensor, *, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
        """Copies of the images [N, C, H, W] with the artefact, and masks [N, 1, H, W] of booleans; on their device.

        labels: [N]. The draws do not depend on the device, and those of an image not on the labels.
        """
        _check_images(images)
        if tuple(labels.shape) != (len(images),):
            raise ValueError(f"labels must be one per image: shape ({len(images)},), got {tuple(labels.shape)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.probabilities):
            raise ValueError(
                f"labels go from {int(labels.min())} to {int(labels.max())}, but there are {len(self.probabilities)} "
                "probabilities: give one per class"
            )
        generator = _generator(seed)
        painted, masks = self.paint(images, generator)
        draws = torch.rand(len(images), generator=generator, device=generator.device, dtype=torch.float64)
        chances = torch.tensor(self.probabilities, dtype=torch.float64)[labels.cpu()]
        chosen = (draws.cpu() < chances).to(images.device)[:, None, None, None]
        return torch.where(chosen, painted, images), masks & chosen


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """A mask grown by some pixels on every side (a square around every pixel; published: 10 of 224).

    mask: [N, 1, H, W] or [N, H, W], booleans or numbers, of which every pixel takes the largest around it.
    Returns the same shape and dtype.

    Raises:
        ValueError: a negative number of pixels, another number of axes.

    >>> dilate(torch.eye(4, dtype=torch.bool)[None] & (torch.arange(4) == 0), 1).int()[0].tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    check_integer("pixels", pixels, least=0)
    if mask.dim() not in (3, 4):
        raise ValueError(f"mask must have the shape [N, 1, H, W] or [N, H, W], got {tuple(mask.shape)}")
    values = mask if mask.is_floating_point() else mask.to(torch.float32)
    size = 2 * pixels + 1
    rows = F.max_pool2d(values, (size, 1), 1, (pixels, 0))  # a square is rows and then columns
    return F.max_pool2d(rows, (1, size), 1, (0, pixels)).to(mask.dtype)


def ellipse(
    images: Tensor,
    seed: int | torch.Generator,
    *,
    across: tuple[float, float] = ACROSS,
    along: tuple[float, float] = ALONG,
    tilt: float = TILT,
) -> tuple[Tensor, Tensor]:
    """A half-ellipse of one random color that enters from a random side, as in Hesse et al., ICML 2026, section 6.

    Its center lies on the border; the long axis points inwards, rotated by up to ``tilt`` degrees. Diameters are
    uniform in ``across`` and ``along``, shares of the smaller side of the image.

    images: [N, C, H, W] in [0, 1] (normalize after painting). Returns painted copies, and masks [N, 1, H, W] of
    booleans; a color may happen to be that of a pixel below it.

    Raises:
        ValueError: not four axes, diameters that are not 0 < low <= high, a negative tilt.

    >>> painted, mask = ellipse(torch.zeros(2, 3, 32, 32), 0)
    >>> torch.equal((painted != 0).all(1, keepdim=True), mask)
    True
    """
    _check_images(images)
    for name, (low, high) in (("across", across), ("along", along)):
        if not 0 < low <= high:
            raise ValueError(f"{name}={(low, high)} must be two diameters with 0 < low <= high")
    if tilt < 0:
        raise ValueError(f"tilt={tilt} must not be negative")
    count, channels, height, width = images.shape
    draws = _draws(count, 5 + channels, seed, images)
    side, place = (draws[:, 0] * 4).long(), draws[:, 1]
    is_level = side >= 2  # left and right; 0 and 1 are top and bottom
    far = (side % 2).to(draws)
    y = torch.where(is_level, place, far) * (height - 1)
    x = torch.where(is_level, far, place) * (width - 1)
    shorter = min(height, width)
    short, long = (
        (low + (high - low) * draws[:, column]) * shorter / 2 for column, (low, high) in ((2, across), (3, along))
    )
    angle = (2 * draws[:, 4] - 1) * math.radians(tilt) + torch.where(is_level, 0.0, math.pi / 2)
    down, right = _grid(images)
    dy, dx = down - y[:, None, None], right - x[:, None, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    inside = ((dx * cos + dy * sin) / long[:, None, None]) ** 2 + ((dy * cos - dx * sin) / short[:, None, None]) ** 2
    return _paint(images, inside <= 1, draws[:, 5:, None, None])


def patch(images: Tensor, seed: int | torch.Generator, *, size: float = 0.25) -> tuple[Tensor, Tensor]:
    """A square of one random color at a random place; ``size`` is its side as a share of the image's smaller side.

    images: [N, C, H, W] in [0, 1]. Returns painted copies, and masks [N, 1, H, W] of booleans.

    Raises:
        ValueError: not four axes, a size outside (0, 1].

    >>> patch(torch.zeros(1, 1, 8, 8), 0)[1].sum().item()
    4
    """
    _check_images(images)
    side = _side(images, size)
    count, channels, height, width = images.shape
    draws = _draws(count, 2 + channels, seed, images)
    top = (draws[:, 0] * (height - side + 1)).floor()[:, None, None]
    left = (draws[:, 1] * (width - side + 1)).floor()[:, None, None]
    down, right = _grid(images)
    inside = (down >= top) & (down < top + side) & (right >= left) & (right < left + side)
    return _paint(images, inside, draws[:, 2:, None, None])


def tag(
    images: Tensor,
    seed: int | torch.Generator | None = None,
    *,
    size: float = 0.25,
    corner: Corner = "bottom right",
) -> tuple[Tensor, Tensor]:
    """A fixed tag: the same chessboard of zeros and ones in the same corner of every image.

    Nothing is drawn; the seed is an argument so that the three artefacts can be exchanged.

    images: [N, C, H, W] in [0, 1]. Returns painted copies, and masks [N, 1, H, W] of booleans.

    Raises:
        ValueError: not four axes, a size outside (0, 1], an unknown corner.

    >>> tag(torch.full((1, 1, 4, 4), 0.5), size=0.5)[0][0, 0].tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 1.0, 0.0], [0.5, 0.5, 0.0, 1.0]]
    """
    _check_images(images)
    if corner not in get_args(Corner):
        raise ValueError(f"corner={corner!r} is not known: use one of {', '.join(get_args(Corner))}")
    side = _side(images, size)
    top = images.shape[2] - side if "bottom" in corner else 0
    left = images.shape[3] - side if "right" in corner else 0
    down, right = _grid(images)
    inside = (down >= top) & (down < top + side) & (right >= left) & (right < left + side)
    cell = max(1, side // TAG_CELLS)
    board = 1 - ((down - top) // cell + (right - left) // cell) % 2
    return _paint(images, inside.expand(len(images), -1, -1), board[None, None])


def _paint(images: Tensor, inside: Tensor, color: Tensor) -> tuple[Tensor, Tensor]:
    mask = inside[:, None]
    return torch.where(mask, color.to(images.dtype), images), mask.clone()


def _grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Row [H, 1] and column [1, W] of every pixel."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device, dtype=torch.float64)
    return rows[:, None], torch.arange(width, device=images.device, dtype=torch.float64)[None]


def _draws(count: int, columns: int, seed: int | torch.Generator, images: Tensor) -> Tensor:
    """Uniform numbers [N, columns] where the images are; drawn where the generator is, the same for every device."""
    generator = _generator(seed)
    drawn = torch.rand(count, columns, generator=generator, device=generator.device, dtype=torch.float64)
    return drawn.to(images.device)


def _generator(seed: int | torch.Generator) -> torch.Generator:
    return seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)


def _side(images: Tensor, size: float) -> int:
    if not 0 < size <= 1:
        raise ValueError(f"size={size} must lie in (0, 1]: a share of the image's smaller side")
    return max(1, round(size * min(images.shape[2:])))


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError("images must be a floating-point tensor [N, C, H, W] in [0, 1]")
    if images.dim() != 4:
        raise ValueError(f"images must have the shape [N, C, H, W], got {tuple(images.shape)}")
