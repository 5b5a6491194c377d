"""Is the missing content really missed? Put it in (or take the suppressor out) and read the output.

A map is a claim about the network, and the network can be asked: copy what the absence map points at from the
reference into the image, and the explained output must fall, further than where the same region is copied to random
places. On digits a region is made of pixels, on photographs of cells: single pixels scattered over a photograph are
noise, whatever they show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.pooling import PHOTOGRAPH, spread_cells, sum_cells
from absence_plugins.methods.regions import place_elsewhere

Output = Callable[[Tensor], Tensor]
RANDOM_DRAWS = 32
PIXEL_SHARE = 0.06  # how much of an image one test may change
CELL = 16  # pixels a side
CONTROL_BATCH = 8
BEYOND = 2  # standard deviations of the control


@dataclass(frozen=True)
class PixelTest:
    """The explained output before and after changing a region, and after changing regions of its shape elsewhere.

    Attributes:
        pixels: how many pixels were changed.
        before, after: the explained output u.
        random: the mean of u over the same change at random places; ``random_sd`` their standard deviation.
        image: the changed image [C, H, W].
        cells: how many cells the region has; 0 if it is made of pixels.
    """

    pixels: int
    before: float
    after: float
    random: float
    random_sd: float
    image: Tensor
    cells: int = 0

    @property
    def change(self) -> float:
        """u after minus u before: negative if the output fell."""
        return self.after - self.before

    @property
    def random_change(self) -> float:
        """The same at random places."""
        return self.random - self.before

    @property
    def region(self) -> str:
        """What was changed, in words.

        >>> PixelTest(512, 0.0, 1.0, 0.0, 0.1, torch.zeros(3, 128, 128), cells=2).region
        '2 cells of 16 x 16 pixels'
        """
        if self.cells:
            return f"{self.cells} cell{'s' * (self.cells != 1)} of {CELL} x {CELL} pixels"
        return f"{self.pixels} pixel{'s' * (self.pixels != 1)}"

    def verdict(self, *, rises: bool) -> tuple[bool, str]:
        """Whether the network bears the map out, and a sentence.

        The output must have moved the claimed way (``rises``: up), and further that way than in the control by two
        standard deviations; the sentence says which of the two failed.

        >>> PixelTest(9, 9.0, 7.93, 7.03, 0.2, torch.zeros(3, 8, 8)).verdict(rises=True)  # doctest: +ELLIPSIS
        (False, 'The network does not bear the map out: the output fell, and the map says that it rises ...
        """
        if not self.pixels:
            return False, "The map names no place, so there is nothing to test."
        sign = 1 if rises else -1
        claimed, opposite = ("rises", "fell") if rises else ("falls", "rose")
        moved = sign * self.change > 0
        further = sign * (self.change - self.random_change) > BEYOND * self.random_sd
        if moved and further:
            return True, "The network bears the map out."
        if moved:
            return False, (
                "That is no more than chance: the output moves as the map says, but not further than at random places."
            )
        way = f"the output {opposite if self.change else 'did not move'}, and the map says that it {claimed}"
        if further:
            return False, f"The network does not bear the map out: {way} (at random places it {opposite} further)."
        return False, (
            f"The network does not bear the map out: {way}, and against random places it is no more than chance."
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the image."""
        return {
            name: getattr(self, name)
            for name in ("pixels", "cells", "before", "after", "change", "random", "random_sd", "random_change")
        }


def insert_missing(
    output: Output, x: Tensor, reference: Tensor, absence: Tensor, *, seed: int = 0, draws: int = RANDOM_DRAWS
) -> PixelTest:
    """Copy the reference's content to x where the absence map is strongest; u should fall.

    The control copies the same content, in the same shape, to random places beside it, ``draws`` times.

    x, reference, absence: [C, H, W], the map >= 0; ``output`` maps images [B, C, H, W] to u [B].

    >>> result = insert_missing(lambda images: -images.flatten(1)[:, 0], torch.zeros(1, 4, 4),
    ...                         torch.ones(1, 4, 4), torch.eye(4)[None] * torch.tensor([9.0, 0, 0, 0]))
    >>> result.pixels, result.change
    (1, -1.0)
    """
    return _against_random(output, x, reference, absence, seed, draws)


def remove_suppressor(
    output: Output, x: Tensor, negative: Tensor, blank: Tensor | float, *, seed: int = 0, draws: int = RANDOM_DRAWS
) -> PixelTest:
    """Blank the places of x that hold u down most (``negative`` = max(-R, 0), [C, H, W]); u should rise.

    The control blanks the same region at random places.

    >>> result = remove_suppressor(lambda images: -images.flatten(1)[:, 0], torch.ones(1, 4, 4),
    ...                            torch.eye(4)[None] * torch.tensor([9.0, 0, 0, 0]), 0.0)
    >>> result.pixels, result.change
    (1, 1.0)
    """
    blanks = torch.as_tensor(blank, dtype=x.dtype, device=x.device).expand_as(x)
    return _against_random(output, x, blanks, negative, seed, draws)


def strongest(magnitude: Tensor, share: float = PIXEL_SHARE, *, cell: int = 1) -> Tensor:
    """The places [H, W] of the strongest evidence: positive, and at most ``share`` of the image (but one at least).

    With ``cell`` above 1 they are whole cells of so many pixels a side, ranked by the sum of their evidence.

    >>> strongest(torch.arange(16.0).view(1, 4, 4), 0.25, cell=2).nonzero().tolist()
    [[2, 2], [2, 3], [3, 2], [3, 3]]
    """
    if cell > 1:
        cells = strongest(sum_cells(magnitude.sum(0), cell)[None], share)
        return spread_cells(cells, cell, magnitude.shape[-2:])
    total = magnitude.sum(0)
    count = min(int((total > 0).sum()), max(1, round(share * total.numel())))
    where = torch.zeros_like(total, dtype=torch.bool)
    where.view(-1)[total.flatten().topk(count).indices] = True
    return where


def cell_side(x: Tensor) -> int:
    """The side of the cells in which an image [..., H, W] is tested: of photographs ``CELL``, else 1, a pixel."""
    return CELL if max(x.shape[-2:]) > PHOTOGRAPH else 1


def _against_random(output: Output, x: Tensor, source: Tensor, evidence: Tensor, seed: int, draws: int) -> PixelTest:
    """Put ``source`` [C, H, W] in place of x where the evidence is strongest, and the same region of it elsewhere."""
    cell = cell_side(x)
    where = strongest(evidence, cell=cell)
    pixels = int(where.sum())
    cells = round(pixels / cell**2) if cell > 1 else 0
    changed = torch.where(where, source, x)
    shifts = place_elsewhere(where, draws, seed)
    with torch.no_grad():
        two = output(torch.stack([x, changed])).double()
        random = []
        for start in range(0, draws, CONTROL_BATCH):
            variants = [
                torch.where(where.roll(shift, (0, 1)), source.roll(shift, (1, 2)), x)
                for shift in shifts[start : start + CONTROL_BATCH]
            ]
            random.append(output(torch.stack(variants)).double())
    found = torch.cat(random)
    return PixelTest(
        pixels,
        float(two[0]),
        float(two[1]),
        float(found.mean()),
        float(found.std()),
        changed,
        max(cells, 1) if cell > 1 and pixels else 0,
    )
