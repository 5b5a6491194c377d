"""Where else a region of the same shape can lie: the places of a control."""

from __future__ import annotations

import torch
from torch import Tensor


def place_elsewhere(where: Tensor, draws: int, seed: int) -> list[tuple[int, int]]:
    """Shifts (down, right) that move a region [H, W] to random places: around the edges, and beside itself.

    All shifts after which the region and its image share no pixel are equally likely; where there is none, those that
    share the fewest.

    >>> place_elsewhere(torch.tensor([[True, False]]), 2, 0)
    [(0, 1), (0, 1)]
    """
    mask = where.double().cpu()
    spectrum = torch.fft.fft2(mask)
    shared = torch.fft.ifft2(spectrum.abs() ** 2).real.round().flatten()  # pixels in common, of every shift
    shared[0] = torch.inf  # not moved at all
    candidates = (shared == shared.min()).nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    drawn = candidates[torch.randint(len(candidates), (draws,), generator=generator)]
    return [divmod(int(shift), mask.shape[1]) for shift in drawn]
