"""Maps summed over square cells and over regions: what a person can see, with no evidence lost.

A sum keeps a complete map complete: the sums over all cells add up to the map's sum. A mean or an interpolation does
not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PHOTOGRAPH = 64  # images with a longer side than this are shown in cells
CELLS_ACROSS = 14  # about so many along the shorter side


def choose_resolution(height: int, width: int) -> int:
    """The side, in pixels, of the cells in which a map of this size is shown: 1 up to 64 pixels, 16 at 224.

    About 14 cells lie along the shorter side of a photograph. Raises ValueError for a size below 1.

    >>> [choose_resolution(side, side) for side in (28, 64, 224, 380)]
    [1, 1, 16, 27]
    """
    if min(height, width) < 1:
        raise ValueError(f"an image of {height} x {width} pixels has no size; pass its height and width, at least 1")
    return 1 if max(height, width) <= PHOTOGRAPH else max(1, round(min(height, width) / CELLS_ACROSS))


def check_cell(cell: int) -> int:
    """Check a cell's side and return it. Raises TypeError for a value that is not an integer, ValueError below 1."""
    if isinstance(cell, bool) or not isinstance(cell, int):
        raise TypeError(f"a cell of {cell!r} pixels is a {type(cell).__name__}; pass a whole number of pixels a side")
    if cell < 1:
        raise ValueError(f"a cell of {cell} pixels a side has no size; pass 1 for pixels, or more")
    return cell


def sum_cells(values: Tensor, cell: int) -> Tensor:
    """The sum of a map [..., H, W] in every cell of ``cell`` pixels a side; cells at the right and lower edge may be
    cut.

    Returns [..., ceil(H / cell), ceil(W / cell)]; its sum is the map's. Raises what :func:`check_cell` raises.

    >>> sum_cells(torch.ones(2, 3), 2)
    tensor([[4., 2.]])
    """
    check_cell(cell)
    *outer, rows, columns = values.shape
    padded = torch.nn.functional.pad(values, (0, -columns % cell, 0, -rows % cell))
    return padded.reshape(*outer, padded.shape[-2] // cell, cell, padded.shape[-1] // cell, cell).sum((-3, -1))


def spread_cells(cells: Tensor, cell: int, size: Sequence[int]) -> Tensor:
    """The cells' values [..., h, w] at every pixel [..., H, W] of an image of this size.

    >>> spread_cells(torch.tensor([[4.0, 2.0]]), 2, (2, 3))
    tensor([[4., 4., 2.],
            [4., 4., 2.]])
    """
    check_cell(cell)
    return cells.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[..., : size[0], : size[1]]


def sum_regions(values: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of a map [H, W] over each region, at every pixel of it, and the number of its pixels; both [H, W].

    regions: integer labels [H, W]; which numbers they are has no meaning. Raises ValueError for labels of another
    shape, TypeError for labels that are no integers.

    >>> sum_regions(torch.tensor([[1.0, 2.0, -4.0]]), torch.tensor([[7, 7, 0]]))
    (tensor([[ 3.,  3., -4.]]), tensor([[2, 2, 1]]))
    """
    if regions.is_floating_point() or regions.is_complex() or regions.dtype == torch.bool:
        raise TypeError(f"regions are {regions.dtype}; pass integer labels, one per pixel")
    if regions.shape != values.shape:
        raise ValueError(
            f"regions have shape {tuple(regions.shape)}, the map {tuple(values.shape)}; pass one label for each pixel"
        )
    number, sizes = number_regions(regions.to(values.device))
    sums = values.new_zeros(len(sizes)).index_add_(0, number.flatten(), values.flatten())
    return sums[number], sizes[number]


def number_regions(regions: Tensor) -> tuple[Tensor, Tensor]:
    """Regions with any integer labels, numbered from 0 in the order of their labels; and how many pixels each has.

    >>> number_regions(torch.tensor([[7, 7, -1]]))
    (tensor([[1, 1, 0]]), tensor([1, 2]))
    """
    _, number, sizes = torch.unique(regions, return_inverse=True, return_counts=True)
    return number, sizes


def find_strongest(magnitude: Tensor, share: float = 0.5) -> Tensor:
    """The fewest places that together hold ``share`` of all evidence: a boolean tensor of the same shape.

    magnitude: >= 0, any shape, such as one part of :func:`~absence_plugins.core.maps.split_by_sign`. Among equal places
    the first ones are taken. None where all evidence is 0. Raises ValueError for a share outside (0, 1], or a negative
    magnitude.

    >>> find_strongest(torch.tensor([1.0, 5.0, 2.0, 1.0])).tolist(), find_strongest(torch.tensor([1.0, 4.0, 4.0])).tolist()
    ([False, True, False, False], [False, True, True])
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must lie in (0, 1]")
    flat = magnitude.detach().flatten().double()
    where = torch.zeros(flat.shape, dtype=torch.bool, device=flat.device)
    if not flat.numel() or not float(flat.max()) > 0:
        return where.view(magnitude.shape)
    if float(flat.min()) < 0:
        raise ValueError(f"magnitude has the negative value {float(flat.min()):.3g}; pass one sign's part of the map")
    values, order = flat.sort(descending=True, stable=True)
    held = values.cumsum(0)
    # rounding: a place is counted in as long as those in front of it hold less than the share
    count = int((held < share * held[-1] * (1 - 1e-12)).sum()) + 1
    where[order[:count]] = True
    return where.view(magnitude.shape) & (magnitude > 0)
