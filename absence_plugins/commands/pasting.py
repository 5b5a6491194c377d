"""Is the missing content really missed? Put it in (or take the suppressor out) and read the output.

A map is a claim about the network, and the network can be asked: copy what the absence map points at from the reference
into the image, and the explained output must fall, further than where the same region is copied to random places. Here
a region is made of the strongest pixels, as on digits; scattered over a photograph they are noise, whatever they show,
so photographs are tested in connected regions (:mod:`absence_plugins.methods.regions`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.methods.regions import RegionTest, measure_regions
from absence_plugins.methods.regions.measure import Output

RANDOM_DRAWS = 32
PIXEL_SHARE = 0.06  # how much of an image one test may change


def insert_missing(
    output: Output, x: Tensor, reference: Tensor, absence: Tensor, *, seed: int = 0, draws: int = RANDOM_DRAWS
) -> RegionTest:
    """Copy the reference's content to x where the absence map is strongest; u should fall.

    The control copies the same content, in the same shape, to random places beside it, ``draws`` times.

    x, reference, absence: [C, H, W], the map >= 0; ``output`` maps images [B, C, H, W] to u [B].

    >>> result = insert_missing(lambda images: -images.flatten(1)[:, 0], torch.zeros(1, 4, 4),
    ...                         torch.ones(1, 4, 4), torch.eye(4)[None] * torch.tensor([9.0, 0, 0, 0]))
    >>> result.pixels, result.change
    (1, -1.0)
    """
    where = strongest(absence)[None]
    return measure_regions(output, x, where, reference, rises=False, draws=draws, seed=seed).tests[0]


def remove_suppressor(
    output: Output, x: Tensor, negative: Tensor, blank: Tensor | float, *, seed: int = 0, draws: int = RANDOM_DRAWS
) -> RegionTest:
    """Blank the places of x that hold u down most (``negative`` = max(-R, 0), [C, H, W]); u should rise.

    The control blanks the same region at random places.

    >>> result = remove_suppressor(lambda images: -images.flatten(1)[:, 0], torch.ones(1, 4, 4),
    ...                            torch.eye(4)[None] * torch.tensor([9.0, 0, 0, 0]), 0.0)
    >>> result.pixels, result.change
    (1, 1.0)
    """
    blanks = torch.as_tensor(blank, dtype=x.dtype, device=x.device).expand_as(x)
    return measure_regions(output, x, strongest(negative)[None], blanks, draws=draws, seed=seed).tests[0]


def strongest(magnitude: Tensor, share: float = PIXEL_SHARE) -> Tensor:
    """The pixels [H, W] of the strongest evidence: positive, and at most ``share`` of the image (but one at least).

    >>> strongest(torch.arange(16.0).view(1, 4, 4), 0.125).nonzero().tolist()
    [[3, 2], [3, 3]]
    """
    total = magnitude.sum(0)
    count = min(int((total > 0).sum()), max(1, round(share * total.numel())))
    where = torch.zeros_like(total, dtype=torch.bool)
    where.view(-1)[total.flatten().topk(count).indices] = True
    return where
