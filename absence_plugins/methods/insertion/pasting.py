"""Patches pasted into images: with soft or hard edges, into corners or anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

SOFT = 8  # an edge fades over 1/8 of the patch's side


def feathered(size: int, edge: int) -> Tensor:
    """How much of a patch shows at each of its pixels [size, size]: 1 inside, falling to the border over ``edge``
    pixels.

    >>> feathered(5, 1)[2].tolist()
    [0.5, 1.0, 1.0, 1.0, 0.5]
    """
    ramp = ((torch.arange(size) + 1) / (edge + 1)).clamp(max=1)
    side = torch.minimum(ramp, ramp.flip(0))
    return torch.minimum(side[:, None], side[None, :])


def blended(image: Tensor, patch: Tensor, y: int, x: int, alpha: Tensor) -> Tensor:
    """What stands at (y, x) of an image [C, H, W] into which a patch [C, size, size] is blended: [C, size, size].

    >>> blended(torch.zeros(1, 1, 2), torch.ones(1, 1, 1), 0, 1, torch.full((1, 1), 0.5)).tolist()
    [[[0.5]]]
    """
    size = alpha.shape[-1]
    window = image[:, y : y + size, x : x + size]
    return window + alpha * (patch - window)


def place(height: int, width: int, size: int, draws: Tensor, corners_only: bool) -> tuple[int, int]:
    """Where to paste (y, x), from three numbers in [0, 1): half of the places are corners, half lie anywhere.

    >>> place(10, 20, 4, torch.tensor([0.1, 0.9, 0.0]), False), place(10, 20, 4, torch.tensor([0.7, 0.5, 0.0]), False)
    ((6, 0), (3, 0))
    """
    kind, down, right = draws.tolist()
    rows, columns = height - size, width - size
    if corners_only or kind < 0.5:
        return rows * (down >= 0.5), columns * (right >= 0.5)
    return int(down * (rows + 1)), int(right * (columns + 1))


def place_elsewhere(height: int, width: int, size: int, y: int, x: int, draws: Tensor) -> tuple[int, int]:
    """Of some random windows (``draws`` [tries, 2] in [0, 1)) the one that overlaps (y, x) least.

    >>> place_elsewhere(10, 10, 4, 0, 0, torch.tensor([[0.1, 0.1], [0.9, 0.2]]))
    (6, 1)
    """
    spots = draws * torch.tensor([height - size + 1, width - size + 1])
    apart = (spots.long() - torch.tensor([y, x])).abs().clamp(max=size).amax(1)
    row, column = spots.long()[int(apart.argmax())].tolist()
    return row, column
