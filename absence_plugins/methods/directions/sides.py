"""On which side of its threshold does a concept lie? Of independent sources the data may leave that open."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from absence_plugins.methods.directions.polish import sum_over

WIDER = 1.1  # times the standard deviation of the other group


def find_open_signs(chunks: Iterable[Tensor], w: Tensor, threshold: Tensor) -> Tensor:
    """Sources [K] bool of w [R, K] whose values are not clearly more spread above the threshold [K] than below.

    A concept has some strength where it is present and next to none elsewhere, so that the spread tells presence from
    absence. Where it does not, the rarer group is taken for the presence by its long tail: a concept that is present at
    more than half of the positions is then found as its absence.

    >>> z = torch.cat([torch.zeros(80, 1), torch.rand(20, 1, generator=torch.Generator().manual_seed(0)) + 1])
    >>> threshold = torch.tensor([0.5])
    >>> find_open_signs([z], torch.eye(1), threshold), find_open_signs([1.5 - z], torch.eye(1), threshold)
    (tensor([False]), tensor([True]))
    """

    def moments(chunk: Tensor) -> Tensor:
        u = (chunk @ w - threshold).double()
        sides = [(u > 0).double(), (u <= 0).double()]
        return torch.stack([torch.stack([side.sum(0), (side * u).sum(0), (side * u**2).sum(0)]) for side in sides])

    count, first, second = sum_over(moments(chunk) for chunk in chunks).unbind(1)
    count = count.clamp(min=1)
    variance = second / count - (first / count) ** 2
    return variance[0] < WIDER**2 * variance[1]
