"""Histograms of standardized values on one fixed grid: what thresholds and score functions are read from.

Counts are integers: the same for any order of the positions, in pieces or at once, on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 4096
REACH = 3.5  # log(1 + |u|) of the largest value, 32 standard deviations; what is beyond counts as the last bin


def find_bins(u: Tensor) -> Tensor:
    """The bin of every value, int64 of u's shape: equally wide in sign(u) log(1 + |u|), so finest around 0.

    >>> find_bins(torch.tensor([-1e9, 0.0, 1e9]))
    tensor([   0, 2048, 4095])
    """
    bent = u.abs().log1p_().copysign_(u)
    return bent.add_(REACH).mul_(BINS / (2 * REACH)).to(torch.int64).clamp_(0, BINS - 1)


def bin_edges(like: Tensor) -> Tensor:
    """The lower edge of every bin and the upper one of the last, [BINS + 1] float64, on the device of ``like``."""
    bent = torch.linspace(-REACH, REACH, BINS + 1, dtype=torch.float64, device=like.device)
    return bent.abs().expm1().copysign(bent)


def bin_centers(like: Tensor) -> Tensor:
    """[BINS] float64, on the device of ``like``."""
    edges = bin_edges(like)
    return (edges[:-1] + edges[1:]) / 2


def count_values(u: Tensor, mask: Tensor | None = None) -> Tensor:
    """How many values of each column fall into each bin: u [P, I] -> int64 [I, BINS]; only those of ``mask`` [P, I].

    >>> counts = count_values(torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
    >>> counts.shape, counts.sum(1).tolist(), int(counts[0, 2048])
    (torch.Size([2, 4096]), [2, 2], 2)
    """
    columns = u.shape[1]
    if mask is None:
        flat = (find_bins(u) + BINS * torch.arange(columns, device=u.device)).flatten()
    else:
        rows, column = mask.nonzero(as_tuple=True)
        flat = find_bins(u[rows, column]) + BINS * column
    return torch.bincount(flat, minlength=columns * BINS).reshape(columns, BINS)
