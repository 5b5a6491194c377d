"""Superpixels: an image cut into connected pieces of similar color.

SLIC (Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", TPAMI 2012): k-means of the
pixels in color and place, every pixel among the nine centers around it, then what is scattered goes to its neighbors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.checks import check_integer

ROUNDS = 10  # of k-means; the centers hardly move after them
COMPACTNESS = 0.5  # standard deviations of the color that weigh as much as one spacing of the centers
SCATTERED = 4  # pieces smaller than a superpixel by this factor go to a neighbor
SMOOTHED = 64  # grain below a 64th of the image is no border
NEIGHBORS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def segment(image: Tensor, count: int = 64, *, compactness: float = COMPACTNESS) -> Tensor:
    """Cut an image into about ``count`` connected superpixels.

    Args:
        image: [C, H, W] or [H, W] of any scale; a normalized input and its picture give nearly the same pieces.
            Deterministic, on the CPU.
        count: how many pieces, about.
        compactness: how many standard deviations of the image's colors weigh as much as the distance between two
            neighboring centers; larger: more like squares.

    Returns:
        labels [H, W], integers from 0; every label is one piece, connected over its pixels' sides.

    Raises:
        TypeError: no real tensor.
        ValueError: another shape, values that are NaN or infinite, a count below 1, a compactness that is not above 0.

    >>> image = torch.zeros(3, 8, 8)
    >>> image[:, :, 3:] = 1.0  # two halves
    >>> labels = segment(image, 4)
    >>> set(labels[:, :3].flatten().tolist()) & set(labels[:, 3:].flatten().tolist())
    set()
    """
    pixels = _checked(image)
    check_integer("count", count)
    if not compactness > 0:
        raise ValueError(f"compactness={compactness} must be above 0")
    height, width = pixels.shape[1:]
    spacing = max(1.0, (height * width / count) ** 0.5)
    rows, columns = max(1, round(height / spacing)), max(1, round(width / spacing))
    pixels = _smooth(pixels)
    deviation = pixels.std((1, 2), correction=0).square().mean().sqrt().clamp(min=1e-12)
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([down, right]).double() * (compactness / spacing)
    points = torch.cat([pixels / deviation, place])
    cell_of = torch.stack([down * rows // height, right * columns // width])
    centers = F.adaptive_avg_pool2d(points, (rows, columns))
    labels = cell_of[0] * columns + cell_of[1]
    for _ in range(ROUNDS):
        labels = _assign(points, centers, cell_of)
        centers = _average(points, labels, centers)
    return torch.from_numpy(_connect(labels.numpy(), pixels.numpy(), height * width / (rows * columns) / SCATTERED))


def _checked(image: Tensor) -> Tensor:
    """The image as [C, H, W] float64 on the CPU."""
    if not isinstance(image, Tensor) or image.is_complex():
        raise TypeError(f"image must be a real torch.Tensor, got {type(image).__name__}")
    if image.dim() not in (2, 3) or image.numel() == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}; it must be [C, H, W] or [H, W], of a batch one sample")
    pixels = image.detach().cpu().double()
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError("image has values that are NaN or infinite")
    return pixels if pixels.dim() == 3 else pixels[None]


def _smooth(pixels: Tensor) -> Tensor:
    """Without grain."""
    reach = max(pixels.shape[1:]) // (2 * SMOOTHED)
    return F.avg_pool2d(pixels[None], 2 * reach + 1, 1, reach, count_include_pad=False)[0]


def _assign(points: Tensor, centers: Tensor, cell_of: Tensor) -> Tensor:
    """The nearest of the centers around every pixel's cell, by number [H, W]."""
    rows, columns = centers.shape[1:]
    best = torch.full(points.shape[1:], torch.inf, dtype=points.dtype)
    labels = torch.zeros(points.shape[1:], dtype=torch.long)
    for down, right in NEIGHBORS:
        row, column = (cell_of[0] + down).clamp(0, rows - 1), (cell_of[1] + right).clamp(0, columns - 1)
        distance = (points - centers[:, row, column]).square().sum(0)
        nearer = distance < best
        best = torch.where(nearer, distance, best)
        labels = torch.where(nearer, row * columns + column, labels)
    return labels


def _average(points: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """The mean of every label's points; of a label without points its center."""
    flat, numbers = centers.flatten(1), labels.flatten()
    total = torch.zeros_like(flat).index_add_(1, numbers, points.flatten(1))
    count = torch.bincount(numbers, minlength=flat.shape[1]).to(flat.dtype)
    return torch.where(count > 0, total / count.clamp(min=1), flat).view_as(centers)


def _connect(labels: np.ndarray, pixels: np.ndarray, smallest: float) -> np.ndarray:
    """Connected pieces, those below ``smallest`` pixels joined to the neighbor of the most similar color."""
    pieces = connected_pieces(labels)
    count = int(pieces.max()) + 1
    sizes = np.bincount(pieces.ravel(), minlength=count).astype(float)
    colors = np.stack([np.bincount(pieces.ravel(), channel.ravel(), minlength=count) for channel in pixels])
    around: list[set[int]] = [set() for _ in range(count)]
    for one, other in border_pairs(pieces).tolist():
        around[one].add(other)
        around[other].add(one)
    joined = np.arange(count)
    waiting = [int(piece) for piece in np.argsort(sizes, kind="stable")]
    for piece in waiting:
        if joined[piece] != piece or sizes[piece] >= smallest or not around[piece]:
            continue
        own = colors[:, piece] / sizes[piece]
        near = min(
            around[piece], key=lambda other: (float(((colors[:, other] / sizes[other] - own) ** 2).sum()), other)
        )
        sizes[near] += sizes[piece]
        colors[:, near] += colors[:, piece]
        joined[joined == piece] = near
        for other in around[piece] - {near}:
            around[other] = (around[other] - {piece}) | {near}
            around[near].add(other)
        around[near].discard(piece)
    return np.unique(joined[pieces], return_inverse=True)[1].reshape(pieces.shape).astype(np.int64)


def connected_pieces(labels: np.ndarray) -> np.ndarray:
    """A number for every connected piece of equal labels [H, W], over the pixels' sides.

    >>> connected_pieces(np.array([[7, 0, 7]])).tolist()
    [[0, 1, 2]]
    """
    number = np.arange(labels.size).reshape(labels.shape)
    same_down, same_right = labels[1:] == labels[:-1], labels[:, 1:] == labels[:, :-1]
    one = np.concatenate([number[:-1][same_down], number[:, :-1][same_right]])
    other = np.concatenate([number[1:][same_down], number[:, 1:][same_right]])
    return np.unique(_join(number.ravel(), one, other), return_inverse=True)[1].reshape(labels.shape)


def _join(first: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of every pixel the lowest number in its connected piece; ``one`` and ``other`` are the pairs that touch."""
    while True:
        low = np.minimum(first[one], first[other])
        joined = first.copy()
        np.minimum.at(joined, first[one], low)
        np.minimum.at(joined, first[other], low)
        while not np.array_equal(joined, shorter := joined[joined]):
            joined = shorter
        if np.array_equal(joined, first):
            return first
        first = joined


def border_pairs(labels: np.ndarray) -> np.ndarray:
    """The pairs of labels that share a side of a pixel, each once [N, 2], the smaller number first.

    >>> border_pairs(np.array([[0, 1], [0, 2]])).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    down = np.stack([labels[:-1].ravel(), labels[1:].ravel()], 1)
    right = np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], 1)
    pairs = np.sort(np.concatenate([down, right]), 1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
