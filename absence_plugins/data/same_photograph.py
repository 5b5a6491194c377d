"""Do two pictures show the same photograph, in another crop? Correlation, wherever and however large."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 48  # of the thumbnails that are compared
SMOOTHED = 7  # what is smooth over so many pixels of them (skies, shadows) is no evidence
SCALES = [1.07**-step for step in range(12)]  # down to 0.48 of the size
SAME = 0.85  # pairs of different photographs reach 0.80, crops that share their middle 0.85 to 1
FLOOR = 1e-4  # variance of a pixel, below which a thumbnail is empty


def show_same(picture: Tensor, others: Tensor, scales: Sequence[float] = SCALES) -> Tensor:
    """Whether each of ``others`` [N, C, H, W] shows the same photograph as ``picture`` [C, H, W]: booleans [N].

    The middle of one picture is searched in the other by normalized correlation, at every place and at sizes down to
    half, in both directions. Another crop is found as long as it holds the middle of the other one, or its middle lies
    in it. scales: that are searched; 1.0 alone for pictures that are laid over each other.

    >>> noise = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    >>> photo = F.interpolate(F.avg_pool2d(noise, 12), (96, 96), mode="bilinear")[0]
    >>> crop = F.interpolate(photo[None, :, 10:80, 20:90], (96, 96), mode="bilinear")[0]
    >>> show_same(photo, torch.stack([photo, crop, photo.flip(1)])).tolist()
    [True, True, False]
    """
    gray, own = others.float().mean(1, keepdim=True), picture.float().mean(0)[None, None]
    best = torch.full((len(others),), -1.0, device=others.device)
    for scale in scales:
        side = round(SIDE * scale)
        best = torch.maximum(best, _peak(_middle(_details(own, side)), _details(gray, SIDE)))
        best = torch.maximum(best, _peak(_middle(_details(gray, side)), _details(own, SIDE)))
    return best > SAME


def _details(gray: Tensor, side: int) -> Tensor:
    """A thumbnail without what is smooth."""
    low, high = gray.amin((1, 2, 3), keepdim=True), gray.amax((1, 2, 3), keepdim=True)
    scaled = (gray - low) / (high - low).clamp(min=1e-6)  # whatever the normalization of the model's inputs
    small = F.interpolate(scaled, (side, side), mode="bilinear", antialias=True)
    around = SMOOTHED // 2
    return small - F.avg_pool2d(F.pad(small, (around,) * 4, mode="reflect"), SMOOTHED, 1)


def _middle(small: Tensor) -> Tensor:
    edge = small.shape[-1] // 4
    return small[..., edge:-edge, edge:-edge]


def _peak(template: Tensor, image: Tensor) -> Tensor:
    """The highest normalized correlation of templates with images, one of which is a single one: [N]."""
    size = template.shape[-2:]
    count = size[0] * size[1]
    template = template - template.mean((2, 3), keepdim=True)
    norm = template.square().sum((1, 2, 3)).sqrt().clamp(min=(count * FLOOR) ** 0.5)
    mean = F.avg_pool2d(image, size, 1)
    variance = (F.avg_pool2d(image.square(), size, 1) - mean.square()).clamp(min=FLOOR)
    found = F.conv2d(image, template) / ((count * variance).sqrt() * norm[None, :, None, None])
    return found.flatten(2).amax(2).flatten()
