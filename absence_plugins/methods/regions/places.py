"""Where else a region of the same shape can lie: the places of a control."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

TRIES = 4096  # places that are looked at where nearly none fits


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
    return list(zip(*(axis.tolist() for axis in _unravel(drawn, mask.shape)), strict=True))


def draw_places(where: Tensor, differ: Tensor, named: Tensor, draws: int, seed: int) -> tuple[list[Tensor], int]:
    """Masks of the shape of a span [T] or a region [D, H, W] at other places, inside, each drawn once.

    They share nothing with what is ``named``, and hold something that differs (``differ``); all such places are equally
    likely.

    Returns:
        the masks, at most ``draws``, and how many such places there are (where not all were looked at: at most).

    >>> where = torch.tensor([True, False, False, False])
    >>> masks, many = draw_places(where, torch.ones(4).bool(), where, 5, 0)
    >>> sorted(int(mask.nonzero()) for mask in masks), many
    ([1, 2, 3], 3)
    """
    chosen = where.nonzero()
    low, high = chosen.amin(0), chosen.amax(0)
    starts = [side - int(length) for side, length in zip(where.shape, high - low, strict=True)]
    strides = torch.tensor([prod(where.shape[axis + 1 :]) for axis in range(where.dim())])
    base = ((chosen - low) * strides).sum(1)
    taken, useful = named.flatten(), differ.flatten()
    generator = torch.Generator().manual_seed(seed)
    total = prod(starts)
    masks: list[Tensor] = []
    order = torch.randperm(total, generator=generator)[: max(TRIES, draws)]
    for number in order:
        place = base + (torch.stack(_unravel(number, starts)) * strides).sum()
        if not bool(taken[place].any()) and bool(useful[place].any()):
            masks.append(torch.zeros_like(taken).index_fill(0, place, True).reshape(where.shape))
            if len(masks) > draws:  # one more than asked for: there are enough
                break
    many = len(masks) if len(order) == total and len(masks) <= draws else total
    return masks[:draws], many


def _unravel(numbers: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """The indices along each axis of flat indices; torch's own function imports sympy, which takes a third of a second.

    >>> [int(one) for one in _unravel(torch.tensor(7), (2, 5))]
    [1, 2]
    """
    found: list[Tensor] = []
    for size in reversed(shape):
        found.append(numbers % size)
        numbers = numbers // size
    return found[::-1]
