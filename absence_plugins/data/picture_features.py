"""Small signatures of pictures, by which crops, turned, mirrored and re-encoded copies are found without comparing
pixels.

A picture is described by a few dozen corners: the pattern around each of them, turned so that its gradient points right
and scaled by the level of a pyramid on which it stands out. Pictures that have several patterns in common, all of which
say the same shift, turn and scale, are candidates (:func:`find_candidates`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 128  # longest side of the picture on the first level
LEVELS = 6
STEP = 2**-0.33  # from one level to the next
AREA = 270  # pixels of a level per corner
MARGIN = 6  # pixels without corners
GRID, SPACING = 8, 2.0  # samples of a pattern a side, and pixels between them
KEPT = 6  # frequencies a side
TABLES = 10  # hash tables
CROWD = 24  # a bucket with more patterns says nothing: they are everywhere
ALIKE = 0.86  # correlation of two patterns
VOTES = 4  # patterns that two pictures must have in common, at different places
TRIED = 24  # transforms
STABLE = 7  # places that an affine transform asks for
TURN, SCALE, SHIFT = math.radians(20), 0.3, 8.0  # by how much their transforms may differ; pixels


@dataclass(frozen=True, eq=False)
class Corners:
    """The corners of one picture, in pixels of its first level.

    Attributes:
        places: [n, 2] (x, y).
        angles: [n], of the gradient.
        sizes: [n], pixels of the first level per pixel of the corner's own level.
        patterns: [n, 8, 8].
        shape: height and width of the first level.
    """

    places: Tensor
    angles: Tensor
    sizes: Tensor
    patterns: Tensor
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def none(cls) -> Corners:
        """Of a picture that is not looked at."""
        return cls(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0), torch.zeros(0, GRID, GRID), (0, 0))


@dataclass(frozen=True)
class Candidate:
    """Two pictures that may be one, and where a point (x, y) of the first one lies in the second: ``matrix @ (x, y,
    1)``.
    """

    first: int
    second: int
    matrix: np.ndarray
    votes: int


def shrink(gray: Tensor, side: int = SIDE) -> Tensor:
    """A gray picture [H, W] with its longest side ``side``."""
    factor = side / max(gray.shape)
    size = [max(8, round(edge * factor)) for edge in gray.shape]
    return F.interpolate(gray[None, None].float(), size, mode="bilinear", antialias=True)[0, 0]


def find_corners(gray: Tensor) -> Corners:
    """The corners of a gray picture [H, W], on all levels.

    >>> noise = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    >>> found = find_corners(shrink(noise))
    >>> found.patterns.shape[1:], len(found) > 50
    (torch.Size([8, 8]), True)
    """
    base = shrink(gray)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for level in range(LEVELS):
        size = [round(edge * STEP**level) for edge in base.shape]
        if min(size) < 4 * MARGIN:
            break
        image = F.interpolate(base[None, None], size, mode="bilinear", antialias=True)
        scale = torch.tensor([base.shape[1] / size[1], base.shape[0] / size[0]])
        found, angles, patterns = _level(_blurred(image, 0.8))
        parts.append(((found + 0.5) * scale - 0.5, angles, scale.mean().expand(len(found)), patterns))
    if not parts:
        return Corners.none()
    places, angles, sizes, patterns = (torch.cat(each) for each in zip(*parts, strict=True))
    return Corners(places, angles, sizes, patterns, (base.shape[0], base.shape[1]))


def _level(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Corners of one level [1, 1, h, w]: places [n, 2], angles [n], patterns [n, 8, 8]."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, yy, xy = (_blurred(one, 1.5) for one in (dx * dx, dy * dy, dx * dy))
    strength = (xx * yy - xy * xy) / (xx + yy + 1e-9)
    is_peak = (strength == F.max_pool2d(strength, 5, 1, 2)) & (strength > 1e-7)
    inside = torch.zeros_like(is_peak)
    inside[..., MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    flat = torch.where(is_peak & inside, strength, torch.zeros_like(strength)).flatten()
    count = min(max(6, height * width // AREA), int((flat > 0).sum()))
    at = flat.topk(count).indices
    x, y = at % width, at // width
    angles = torch.atan2(_blurred(dy, 2.5)[0, 0, y, x], _blurred(dx, 2.5)[0, 0, y, x])
    steps = (torch.arange(GRID) - (GRID - 1) / 2) * SPACING
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    across = x[:, None, None] + cos * right - sin * down
    along = y[:, None, None] + sin * right + cos * down
    grid = torch.stack([(across + 0.5) / width, (along + 0.5) / height], -1) * 2 - 1
    grid = grid.reshape(1, -1, GRID, 2)
    patterns = F.grid_sample(_blurred(image, 1.0), grid, padding_mode="reflection", align_corners=False)
    return torch.stack([x, y], 1).float(), angles, patterns.reshape(-1, GRID, GRID)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(2.5 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    image = F.pad(image, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(image, kernel[None, None, None]), kernel[None, None, :, None])


def find_candidates(pictures: Sequence[Corners], seed: int = 0) -> list[Candidate]:
    """Pairs of pictures that share patterns under one similarity transform, mirrored or not.

    The patterns of all pictures are hashed; only those in one bucket are compared, so the cost grows with the number of
    pictures, not with its square.

    seed: of the hash functions.
    """
    numbers = torch.cat([torch.full((len(one),), place) for place, one in enumerate(pictures)]).numpy()
    if len(numbers) < 2:
        return []
    patterns = torch.cat([one.patterns for one in pictures])
    plain, mirrored = _coefficients(patterns), _coefficients(patterns.flip(1))
    mean = plain.mean(0)
    codes = np.concatenate([F.normalize(one - mean, dim=1).numpy() for one in (plain, mirrored)])
    starts = np.concatenate([[0], np.cumsum([len(one) for one in pictures])])
    found: dict[tuple[int, int], Candidate] = {}
    for first, second, flipped, pairs in _by_pictures(_collide(codes, numbers, seed), numbers):
        best = _agree(pictures[first], pictures[second], pairs - [starts[first], starts[second]], flipped)
        before = found.get((first, second))
        if best is not None and (before is None or best[1] > before.votes):
            found[(first, second)] = Candidate(first, second, *best)
    return [found[pair] for pair in sorted(found)]


def _coefficients(patterns: Tensor) -> Tensor:
    """Low frequencies of patterns, made equally strong, without the mean: [n, 35]."""
    k, x = torch.arange(KEPT)[:, None], torch.arange(GRID)[None]
    basis = torch.cos(math.pi * k * (x + 0.5) / GRID)
    found = torch.einsum("ki,nij,lj->nkl", basis, patterns, basis)
    weight = (k.float() ** 2 + k.T.float() ** 2).sqrt()
    return F.normalize((found * weight).flatten(1)[:, 1:], dim=1)


def _collide(codes: np.ndarray, numbers: np.ndarray, seed: int) -> np.ndarray:
    """Pairs of patterns of different pictures that are alike: [m, 3] (row, row, mirrored), the earlier picture first.

    codes: [2 n, d], those of the patterns, then of the mirrored ones; numbers: [n], the picture of each.
    """
    generator = np.random.default_rng(seed)
    count, size = len(numbers), codes.shape[1]
    bits = int(np.clip(math.log2(count) + 1, 6, 24))
    found = [np.zeros((0, 3), np.int64)]
    for _ in range(TABLES):
        planes = generator.standard_normal((size, bits)).astype(np.float32)
        keys = (codes @ planes > 0) @ (1 << np.arange(bits))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        _, of, many = np.unique(keys, return_inverse=True, return_counts=True)
        order, keys = order[many[of.reshape(-1)] <= CROWD], keys[many[of.reshape(-1)] <= CROWD]
        for apart in range(1, CROWD):  # in one bucket, the pattern so many places further
            one, other = order[:-apart], order[apart:]
            together = keys[:-apart] == keys[apart:]
            if not together.any():
                break
            one, other = one[together], other[together]
            swap = numbers[one % count] > numbers[other % count]
            one, other = np.where(swap, other, one), np.where(swap, one, other)
            kept = (numbers[one % count] < numbers[other % count]) & ((one < count) | (other < count))
            one, other = one[kept], other[kept]
            alike = np.einsum("nd,nd->n", codes[one], codes[other]) > ALIKE
            one, other = one[alike], other[alike]
            found.append(np.stack([one % count, other % count, (one >= count) | (other >= count)], 1))
    return np.unique(np.concatenate(found), axis=0)


def _by_pictures(matches: np.ndarray, numbers: np.ndarray) -> Iterator[tuple[int, int, bool, np.ndarray]]:
    """Of every two pictures with enough matches, mirrored or not, the rows [m, 2]."""
    keys = np.stack([numbers[matches[:, 0]], numbers[matches[:, 1]], matches[:, 2]], 1)
    order = np.lexsort(keys.T[::-1])
    keys, matches = keys[order], matches[order]
    bounds = np.flatnonzero((np.diff(keys, axis=0) != 0).any(1)) + 1
    for part in np.split(np.arange(len(keys)), bounds):
        if len(part) >= VOTES:
            first, second, flipped = keys[part[0]].tolist()
            yield first, second, bool(flipped), matches[part, :2]


def _agree(first: Corners, second: Corners, pairs: np.ndarray, flipped: bool) -> tuple[np.ndarray, int] | None:
    """The similarity transform that most of the pairs [m, 2] say, and how many do; None if too few."""
    here, there = first.places[pairs[:, 0]].numpy(), second.places[pairs[:, 1]].numpy()
    one, other = first.angles[pairs[:, 0]].numpy(), second.angles[pairs[:, 1]].numpy()
    scale = (second.sizes[pairs[:, 1]] / first.sizes[pairs[:, 0]]).numpy()
    turn = other + one if flipped else other - one
    mirror = np.array([1.0, -1.0]) if flipped else np.ones(2)
    best, most = np.zeros(len(pairs), bool), 0
    for m in range(0, len(pairs), max(1, len(pairs) // TRIED)):
        cos, sin = scale[m] * np.cos(turn[m]), scale[m] * np.sin(turn[m])
        matrix = np.array([[cos, -sin], [sin, cos]]) * mirror
        off = np.linalg.norm((there - there[m]) - (here - here[m]) @ matrix.T, axis=1)
        angle = np.abs((turn - turn[m] + np.pi) % (2 * np.pi) - np.pi)
        fits = (off < SHIFT * max(1.0, scale[m])) & (angle < TURN) & (np.abs(np.log(scale / scale[m])) < SCALE)
        if int(fits.sum()) > most:
            best, most = fits, int(fits.sum())
    votes = _distinct(here, there, best)
    if votes < VOTES:
        return None
    matrix = _similarity(here[best], there[best], flipped)
    for _ in range(2):  # a picture may be squeezed, too
        off = np.linalg.norm(there - here @ matrix[:, :2].T - matrix[:, 2], axis=1)
        fits = off < SHIFT * max(1.0, abs(np.linalg.det(matrix[:, :2])) ** 0.5)
        if (count := _distinct(here, there, fits)) < STABLE:
            break
        votes = max(votes, count)
        system = np.concatenate([here[fits], np.ones((int(fits.sum()), 1))], 1)
        matrix = np.linalg.lstsq(system, there[fits], rcond=None)[0].T
    return matrix, votes


def _distinct(here: np.ndarray, there: np.ndarray, fits: np.ndarray) -> int:
    """How many places the matches have, on either side: one corner on several levels counts once."""
    return min(len(np.unique((each[fits] // 4).astype(int), axis=0)) for each in (here, there))


def _similarity(here: np.ndarray, there: np.ndarray, flipped: bool) -> np.ndarray:
    """The least-squares similarity [2, 3] that takes ``here`` to ``there``."""
    x, y = here[:, 0], here[:, 1] * (-1 if flipped else 1)
    ones, zeros = np.ones_like(x), np.zeros_like(x)
    system = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    a, b, c, d = np.linalg.lstsq(system, np.concatenate([there[:, 0], there[:, 1]]), rcond=None)[0]
    sign = -1 if flipped else 1
    return np.array([[a, -b * sign, c], [b, a * sign, d]])
