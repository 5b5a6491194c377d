"""Where else a region of the same shape can lie: the places of a control."""

from __future__ import annotations

import torch
from torch import Tensor


def place_elsewhere(where: Tensor, draws: int, seed: int) -> list[tuple[int, ...]]:
    """Shifts (down, right) that move a region [H, W] to different random places: around the edges, and beside itself.

    Of spans [T] or regions of volumes [D, H, W] a shift has one or three numbers.

    All shifts after which the region and its image share no pixel are equally likely, and each is drawn once; where
    there are fewer than ``draws``, those that share the fewest pixels follow. Small images have fewer places than that:
    then the list is shorter, since a place that is drawn twice is no second observation.

    >>> place_elsewhere(torch.tensor([[True, False, False]]), 5, 0)
    [(0, 1), (0, 2)]
    """
    mask = where.double().cpu()
    spectrum = torch.fft.fftn(mask)
    shared = torch.fft.ifftn(spectrum.abs() ** 2).real.round().flatten()  # pixels in common, of every shift
    moves = (shared < mask.sum()).nonzero().flatten()  # the others leave the region where it is
    if not len(moves):
        return [(0,) * mask.dim()]
    moves = moves[torch.randperm(len(moves), generator=torch.Generator().manual_seed(seed))]
    drawn = moves[shared[moves].sort(stable=True).indices][:draws]
    return list(zip(*(axis.tolist() for axis in torch.unravel_index(drawn, mask.shape)), strict=True))
