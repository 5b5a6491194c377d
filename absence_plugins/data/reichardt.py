"""A motion detector written by hand that encodes the absence of one direction (Hesse et al., ICML 2026; Reichardt,
1961).

Two frames go in as two channels. Unit 0 is high for a bar that moves right and below zero for one that moves left: what
it encodes is the *absence of motion from right to left*. Unit 1 is high for motion of any kind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIDE = 12


def reichardt_detector() -> nn.Sequential:
    """conv1 (2 frames to 2 channels, 1x2, no bias), ReLU, conv2 (1x1), mean over positions; two units.

    >>> frames, _ = reichardt_frames()
    >>> reichardt_detector()(frames[:1]).shape
    torch.Size([1, 2])
    """
    first = nn.Conv2d(2, 2, (1, 2), padding=(0, 1), bias=False)
    second = nn.Conv2d(2, 2, 1, bias=False)
    first.weight.data = torch.tensor([[[[0.0, -1.0]], [[1.0, 0.0]]], [[[-1.0, 0.0]], [[0.0, 1.0]]]])
    second.weight.data = torch.tensor([[1.0, -1.0], [0.5, 0.5]])[:, :, None, None]
    return nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)


def reichardt_frames() -> tuple[Tensor, Tensor]:
    """All motions: frames [N, 2, 12, 12] of 0 and 1 and labels [N]: 0 one bar moves right, 1 two bars move apart.

    A bar is one pixel wide and as high as the frame; it moves by one pixel from the first frame to the second.

    >>> frames, labels = reichardt_frames()
    >>> frames.shape, labels.bincount().tolist()
    (torch.Size([56, 2, 12, 12]), [11, 45])
    """
    motions: list[list[tuple[int, int]]] = [[(start, start + 1)] for start in range(SIDE - 1)]
    motions += [
        [(left, left - 1), (right, right + 1)] for left in range(1, SIDE - 1) for right in range(left + 1, SIDE - 1)
    ]
    frames = torch.zeros(len(motions), 2, SIDE, SIDE)
    for row, bars in enumerate(motions):
        for before, after in bars:
            frames[row, 0, :, before] = 1
            frames[row, 1, :, after] = 1
    return frames, torch.tensor([len(bars) - 1 for bars in motions])
