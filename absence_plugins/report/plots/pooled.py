"""Long rows of numbers in few columns, so that nothing strong disappears."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_strongest(values: Tensor, columns: int) -> Tensor:
    """Of every bin of neighbors the value with the largest magnitude: [..., T] -> [..., columns], T <= columns stays.

    >>> pool_strongest(torch.tensor([1.0, -3.0, 0.0, 2.0]), 2)
    tensor([-3.,  2.])
    """
    if values.shape[-1] <= columns:
        return values
    low, high = pool_extremes(values, columns)
    return torch.where(high.abs() >= low.abs(), high, low)


def pool_extremes(values: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of every bin, [..., columns] each; bin b holds samples from b T / columns on.

    >>> pool_extremes(torch.tensor([1.0, -3.0, 0.0, 2.0]), 2)
    (tensor([-3.,  0.]), tensor([1., 2.]))
    """
    length = values.shape[-1]
    columns = min(columns, length)
    starts = bin_starts(length, columns)
    width = int((starts[1:] - starts[:-1]).max())
    # Bins differ by at most one sample: the shorter ones see their last sample twice.
    places = torch.minimum(starts[:-1, None] + torch.arange(width), starts[1:, None] - 1)
    bins = values[..., places]
    return bins.amin(-1), bins.amax(-1)


def bin_starts(length: int, columns: int) -> Tensor:
    """Where every bin begins, and where the last one ends, [columns + 1].

    >>> bin_starts(5, 2)
    tensor([0, 2, 5])
    """
    return torch.arange(columns + 1) * length // columns
