"""From a map to regions: neighboring superpixels or cells of strong evidence, joined."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from absence_plugins.core.checks import check_integer
from absence_plugins.methods.regions.segments import border_pairs, connected_pieces

SMALLEST, LARGEST = 0.01, 0.15  # of the image
JOINED = 0.5  # a neighbor joins a region if its evidence per pixel is at least this share of the region's


def strongest_regions(
    evidence: Tensor, labels: Tensor | int, count: int = 3, *, share: tuple[float, float] = (SMALLEST, LARGEST)
) -> Tensor:
    """The regions of an image that a map names, strongest first: [N, H, W] boolean, N <= count, without overlap.

    The evidence of every piece is the *sum* over its pixels, signs kept. A region starts at the piece with the most
    evidence per pixel, and neighboring pieces join it, the strongest first, as long as each has at least half the
    region's evidence per pixel and the region is no larger than allowed; a region that is still too small takes its
    strongest neighbor all the same, as long as that has positive evidence. Regions are ordered by their sums.

    Args:
        evidence: [C, H, W] or [H, W], signed: of a map R of what suppresses an output, pass -R.
        labels: superpixels [H, W] (:func:`segment`), or the side of square cells in pixels.
        count: how many regions, at most.
        share: the smallest and the largest region, as shares of the image. Pieces that are larger on their own are left
            out unless there is nothing else.

    Raises:
        ValueError: another shape, shares that are not 0 <= smallest <= largest <= 1, a count below 1.

    >>> evidence = torch.zeros(1, 4, 8)
    >>> evidence[:, :2, :2], evidence[:, 2:, 6:] = 1.0, 3.0
    >>> [region.nonzero()[0].tolist() for region in strongest_regions(evidence, 2)]
    [[2, 6], [0, 0]]
    """
    check_integer("count", count)
    smallest, largest = share
    if not 0 <= smallest <= largest <= 1:
        raise ValueError(f"share={share} must be the smallest and the largest region as shares of the image, in order")
    pieces, number = _pieces(evidence, labels)
    total = evidence.detach().cpu().double()
    total = total.sum(0) if total.dim() == 3 else total
    sums = np.bincount(pieces.ravel(), total.numpy().ravel(), minlength=number)
    sizes = np.bincount(pieces.ravel(), minlength=number)
    around: list[set[int]] = [set() for _ in range(number)]
    for one, other in border_pairs(pieces).tolist():
        around[one].add(other)
        around[other].add(one)
    chosen = grow_regions(sums, sizes, around, smallest * pieces.size, largest * pieces.size)[:count]
    chosen.sort(key=lambda region: -sums[region].sum())
    masks = [torch.from_numpy(np.isin(pieces, region)) for region in chosen]
    return torch.stack(masks) if masks else torch.zeros(0, *pieces.shape, dtype=torch.bool)


def grow_regions(
    sums: np.ndarray, sizes: np.ndarray, around: list[set[int]], low: float, high: float
) -> list[list[int]]:
    """Pieces of positive sums joined to regions, those of at least ``low`` first, then by their sums.

    sums, sizes: of every piece; around: its neighbors; low, high: the smallest and the largest region.

    >>> grow_regions(np.array([1.0, 3.0, 2.0, -1.0]), np.ones(4), [{1}, {0, 2}, {1, 3}, {2}], 0, 2)
    [[1, 2], [0]]
    """
    left = {piece for piece in range(len(sums)) if sums[piece] > 0 and sizes[piece] <= high}
    if not left and (sums > 0).any():
        left = {int(np.argmax(sums))}
    found: list[list[int]] = []
    for start in sorted(left, key=lambda piece: (-sums[piece] / sizes[piece], piece)):
        if start in left:
            grown = _grow(start, left, sums, sizes, around, low, high)
            found.append(grown)
            left -= set(grown)
    return sorted(found, key=lambda region: (sizes[region].sum() < low, -sums[region].sum()))


def _pieces(evidence: Tensor, labels: Tensor | int) -> tuple[np.ndarray, int]:
    """Connected pieces [H, W] and their number."""
    if evidence.dim() not in (2, 3):
        raise ValueError(f"evidence has shape {tuple(evidence.shape)}; it must be [C, H, W] or [H, W]")
    size = tuple(evidence.shape[-2:])
    if isinstance(labels, Tensor):
        if tuple(labels.shape) != size:
            raise ValueError(f"labels have shape {tuple(labels.shape)}, the evidence {size}; they must be the same")
        pieces = connected_pieces(labels.cpu().numpy())
    else:
        side = check_integer("labels", labels)
        down, right = np.arange(size[0]) // side, np.arange(size[1]) // side
        pieces = down[:, None] * (int(right[-1]) + 1) + right
    return pieces, int(pieces.max()) + 1


def _grow(
    start: int,
    left: set[int],
    sums: np.ndarray,
    sizes: np.ndarray,
    around: list[set[int]],
    low: float,
    high: float,
) -> list[int]:
    """One region of the pieces that are left: the strongest of them, ``start``, and what joins it."""
    region, total, size = [start], float(sums[start]), float(sizes[start])
    border = around[start] & left
    while border:
        best = max(border, key=lambda piece: (sums[piece] / sizes[piece], -piece))
        if size + sizes[best] > high:
            border.discard(best)
            continue
        if size >= low and sums[best] / sizes[best] < JOINED * total / size:
            break
        region.append(best)
        total, size = total + float(sums[best]), size + float(sizes[best])
        border = (border | (around[best] & left)) - set(region)
    return region
