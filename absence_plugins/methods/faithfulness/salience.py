"""Filters that see an image and no network: smoothed curvature, local variance, corners."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def blur(x: Tensor, sigma: float) -> Tensor:
    """[N, C, H, W] smoothed by a Gaussian of ``sigma`` pixels; the border is repeated.

    >>> round(blur(torch.ones(1, 1, 3, 3), 1.0).sum().item(), 4)
    9.0
    """
    reach = int(3 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = (-offsets.square() / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    for shape, pad in (((-1, 1), (0, 0, reach, reach)), ((1, -1), (reach, reach, 0, 0))):
        weight = kernel.reshape(1, 1, *shape).expand(x.shape[1], 1, -1, -1)
        x = F.conv2d(F.pad(x, pad, mode="replicate"), weight, groups=x.shape[1])
    return x


def measure_curvature(x: Tensor, sigma: float) -> Tensor:
    """The size of the Laplacian of Gaussian over the channels: [N, C, H, W] to [N, 1, H, W]; 0: the plain Laplacian."""
    smooth = F.pad(blur(x, sigma) if sigma else x, (1, 1, 1, 1), mode="replicate")
    middle = smooth[:, :, 1:-1, 1:-1]
    around = smooth[:, :, 2:, 1:-1] + smooth[:, :, :-2, 1:-1] + smooth[:, :, 1:-1, 2:] + smooth[:, :, 1:-1, :-2]
    return (around - 4 * middle).abs().sum(1, keepdim=True)


def measure_variance(x: Tensor, side: int) -> Tensor:
    """The variance in windows of ``side`` pixels, summed over the channels: [N, C, H, W] to [N, 1, H, W].

    >>> measure_variance(torch.tensor([[[[0.0, 0.0, 3.0]]]]), 3).round(decimals=1).tolist()
    [[[[0.0, 2.0, 2.0]]]]
    """
    mean, square = (F.avg_pool2d(F.pad(part, [side // 2] * 4, mode="replicate"), side, 1) for part in (x, x.square()))
    return (square - mean.square()).clamp(min=0).sum(1, keepdim=True)


def measure_slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences downwards and to the right, each as x."""
    down, right = F.pad(x, (0, 0, 1, 1), mode="replicate"), F.pad(x, (1, 1, 0, 0), mode="replicate")
    return (down[:, :, 2:] - down[:, :, :-2]) / 2, (right[:, :, :, 2:] - right[:, :, :, :-2]) / 2


def measure_gradient(x: Tensor, sigma: float) -> Tensor:
    """The length of the gradient of the smoothed image, summed over the channels: [N, 1, H, W]."""
    down, right = measure_slopes(blur(x, sigma))
    return (down.square() + right.square()).sqrt().sum(1, keepdim=True)


def measure_corners(x: Tensor) -> Tensor:
    """Harris' measure of corners (Harris and Stephens, 1988): [N, 1, H, W]; below 0 on edges."""
    down, right = measure_slopes(x)
    a, b, c = (blur(part.sum(1, keepdim=True), 1.0) for part in (down * down, right * right, down * right))
    return a * b - c * c - 0.05 * (a + b).square()


def mark_brightest(x: Tensor) -> Tensor:
    """A blob, an eighth of the longer side wide, at the brightest place of each image: [N, 1, H, W]."""
    height, width = x.shape[2:]
    place = x.sum(1).flatten(1).argmax(1)
    row, column = (part.reshape(-1, 1, 1, 1) for part in (place // width, place % width))
    down, right = torch.arange(height, dtype=x.dtype)[:, None] - row, torch.arange(width, dtype=x.dtype) - column
    spread = max(height, width) / 8
    return (-(down.square() + right.square()) / (2 * spread**2)).exp()
