"""Where in the images a direction is strongest: patches to look at, and to paint over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CELLS = 3  # sides of a patch in positions of the layer


@dataclass(frozen=True, eq=False)
class DirectionPatches:
    """Patches of one direction, one per image, strongest first.

    Attributes:
        images: their images' numbers, [n].
        corners: upper left corners, [n, 2] in pixels (y, x).
        elsewhere: corners of patches of the same size at a random place of the same image, [n, 2], in which the
            detector is silent, or fires at as few positions as possible. None where a patch is the whole image.
        side: height and width of a patch.
    """

    images: Tensor
    corners: Tensor
    elsewhere: Tensor | None
    side: tuple[int, int]

    def cut(self, pictures: Tensor) -> Tensor:
        """The patches of pictures [N, C, H, W], or of their own images alone [n, C, H, W]: [n, C, h, w]."""
        own = pictures if len(pictures) == len(self.images) else pictures[self.images]
        h, w = self.side
        return torch.stack(
            [one[:, y : y + h, x : x + w] for one, (y, x) in zip(own, self.corners.tolist(), strict=True)]
        )

    def paint_over(self, images: Tensor, empty: Tensor | float, *, elsewhere: bool = False) -> Tensor:
        """The images of the patches [n, C, H, W] with the patches set to ``empty``, or with those elsewhere.

        Raises:
            ValueError: no place elsewhere.
        """
        made, (h, w) = images.clone(), self.side
        corners = self.elsewhere if elsewhere else self.corners
        if corners is None:
            raise ValueError("a patch is the whole image, so there is no other place; take an earlier layer")
        for image, (y, x) in zip(made, corners.tolist(), strict=True):
            image[:, y : y + h, x : x + w] = empty
        return made


def arrange_tokens(values: Tensor, size: Sequence[int], prefix: int = 0) -> Tensor:
    """Values at positions [N, h, w] as they lie in an image of this size; tokens [N, 1, T] on the grid of their
    patches.

    Tokens of the prefix are left out. Tokens that fit on no grid of the image's proportions stay in a row.

    >>> arrange_tokens(torch.zeros(2, 1, 13), (60, 80), prefix=1).shape
    torch.Size([2, 3, 4])
    """
    n, h, w = values.shape
    if h > 1 or w == 1:
        return values
    values, tokens = values[..., prefix:], w - prefix
    rows = round(math.sqrt(tokens * size[0] / size[1]))
    return values.reshape(n, rows, tokens // rows) if rows > 0 and tokens % rows == 0 else values


def find_patches(values: Tensor, size: Sequence[int], *, most: int, prefix: int = 0, seed: int = 0) -> DirectionPatches:
    """Patches on which a direction is strongest, at most one per image, of those where its detector fires.

    values: its detector's logits, [N, h, w]; size: of the images in pixels; prefix: tokens that are no places; seed: of
    the places elsewhere. A patch is three positions wide (the image, if the layer has fewer). Where it fires nowhere,
    one patch.

    >>> values = torch.full((2, 4, 4), -1.0)
    >>> values[1, 0, 0] = 2.0
    >>> found = find_patches(values, (8, 8), most=3)
    >>> found.images.tolist(), found.corners.tolist(), found.side
    ([1], [[0, 0]], (6, 6))
    """
    placed = arrange_tokens(values.detach().cpu(), size, prefix)
    n, h, w = placed.shape
    flat = placed.reshape(n, -1)
    order = flat.amax(1).argsort(descending=True, stable=True)[:most]
    order = order[: max(1, int((flat[order].amax(1) > 0).sum()))]
    whole = torch.tensor(list(size))
    side = (CELLS * whole.double() / torch.tensor([h, w])).round().long().clamp(min=1).minimum(whole)

    def corners(place: Tensor) -> Tensor:
        center = torch.stack([(place // w + 0.5) * size[0] / h, (place % w + 0.5) * size[1] / w], 1)
        return (center - side / 2).round().long().clamp(min=0).minimum(whole - side)

    strongest = flat[order].argmax(1)
    other: Tensor | None = None
    if tuple(side.tolist()) != tuple(size):
        fires = (placed[order] > 0)[:, None].float()
        inside = F.avg_pool2d(fires, CELLS, 1, CELLS // 2, count_include_pad=False).flatten(1)  # share of a patch
        drawn = torch.rand(len(order), h * w, generator=torch.Generator().manual_seed(seed))
        other = corners((drawn * (inside == inside.amin(1, keepdim=True))).argmax(1))
    return DirectionPatches(order, corners(strongest), other, (int(side[0]), int(side[1])))
