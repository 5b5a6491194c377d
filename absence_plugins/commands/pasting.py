"""Is the missing content really missed? Put it in (or take the suppressor out) and read the output.

A map is a claim about the network, and the network can be asked: copy the pixels that the absence map
points at from the reference into the image, and the explained output must fall, further than for as many
pixels copied to random places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Output = Callable[[Tensor], Tensor]
RANDOM_DRAWS = 32
PIXEL_SHARE = 0.06  # how much of an image one test may change


@dataclass(frozen=True)
class PixelTest:
    """The explained output before and after changing pixels, and after changing random ones.

    Attributes:
        pixels: how many pixels were changed.
        before, after: the explained output u.
        random: the mean of u over random changes of as many pixels; ``random_sd`` their standard deviation.
        image: the changed image [C, H, W].
    """

    pixels: int
    before: float
    after: float
    random: float
    random_sd: float
    image: Tensor

    @property
    def change(self) -> float:
        """u after minus u before: negative if the output fell."""
        return self.after - self.before

    @property
    def random_change(self) -> float:
        """The same for random pixels."""
        return self.random - self.before

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the image."""
        return {
            name: getattr(self, name)
            for name in ("pixels", "before", "after", "change", "random", "random_sd", "random_change")
        }


def insert_missing(
    output: Output, x: Tensor, reference: Tensor, absence: Tensor, *, seed: int = 0, draws: int = RANDOM_DRAWS
) -> PixelTest:
    """Copy the reference's pixels to x where the absence map is strongest; u should fall.

    The control copies the same pixel values to random places outside them, ``draws`` times.

    x, reference, absence: [C, H, W], the map >= 0; ``output`` maps images [B, C, H, W] to u [B].

    >>> result = insert_missing(lambda images: -images.flatten(1)[:, 0], torch.zeros(1, 4, 4),
    ...                         torch.ones(1, 4, 4), torch.eye(4)[None] * torch.tensor([9.0, 0, 0, 0]))
    >>> result.pixels, result.change
    (1, -1.0)
    """
    where = strongest(absence)
    pasted = torch.where(where, reference, x)
    return _against_random(output, x, pasted, where, reference[:, where], seed, draws)


def remove_suppressor(
    output: Output, x: Tensor, negative: Tensor, blank: Tensor | float, *, seed: int = 0, draws: int = RANDOM_DRAWS
) -> PixelTest:
    """Blank the pixels of x that hold u down most (``negative`` = max(-R, 0), [C, H, W]); u should rise.

    The control blanks as many random pixels.

    >>> result = remove_suppressor(lambda images: -images.flatten(1)[:, 0], torch.ones(1, 4, 4),
    ...                            torch.eye(4)[None] * torch.tensor([9.0, 0, 0, 0]), 0.0)
    >>> result.pixels, result.change
    (1, 1.0)
    """
    where = strongest(negative)
    blanks = torch.as_tensor(blank, dtype=x.dtype, device=x.device).expand_as(x)
    return _against_random(output, x, torch.where(where, blanks, x), where, blanks[:, where], seed, draws)


def strongest(magnitude: Tensor, share: float = PIXEL_SHARE) -> Tensor:
    """The places [H, W] of the strongest evidence: positive, and at most ``share`` of the image."""
    total = magnitude.sum(0)
    count = min(int((total > 0).sum()), max(1, round(share * total.numel())))
    where = torch.zeros_like(total, dtype=torch.bool)
    where.view(-1)[total.flatten().topk(count).indices] = True
    return where


def _against_random(
    output: Output, x: Tensor, changed: Tensor, where: Tensor, values: Tensor, seed: int, draws: int
) -> PixelTest:
    generator = torch.Generator().manual_seed(seed)
    count = values.shape[1]
    elsewhere = (~where).flatten().nonzero().flatten().cpu()
    variants = x.flatten(1).repeat(draws, 1, 1)
    for variant in variants:
        places = elsewhere[torch.randperm(len(elsewhere), generator=generator)[:count]].to(x.device)
        variant[:, places] = values[:, : len(places)]
    with torch.no_grad():
        two = output(torch.stack([x, changed])).double()
        random = torch.cat([output(part) for part in torch.split(variants.view(draws, *x.shape), 8)]).double()
    return PixelTest(count, float(two[0]), float(two[1]), float(random.mean()), float(random.std()), changed)
