"""The encoding direction of a detector: how the features move when its value moves."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Signal = Literal["joint", "exclusive", "positive"]
FEWEST = 8  # positions from which a signal is estimated


def selected(logits: Tensor, signal: Signal, ignored: Tensor | None = None) -> Tensor:
    """The positions that count for each detector: logits [..., P, I] -> bool [..., P, I].

    ``"positive"``, as published: where the detector fires (y > 0.5). ``"exclusive"``: where it fires alone, so that a
    concept that often comes along does not bend the direction. ``ignored`` [I]: detectors whose firing does not count.

    >>> selected(torch.tensor([[1.0, -1.0], [1.0, 2.0]]), "exclusive")
    tensor([[ True, False],
            [False, False]])
    """
    fires = logits > 0
    if signal == "positive":
        return fires
    counted = fires if ignored is None else fires & ~ignored
    return fires & (counted.sum(-1, keepdim=True) - counted.to(torch.int64) == 0)


class Moments:
    """Sums over positions, chunk by chunk, from which signals follow: for whitened x [..., P, R] and z [..., P, I].

    s_i = cov(x, z_i) / var(z_i) over the selected positions; w_i . s_i = 1 by construction. Source: Doumanoglou et
    al., arXiv 2509.23926, after Haufe et al. (2014).
    """

    def __init__(self) -> None:
        self.sums: tuple[Tensor, ...] | None = None

    def add(self, x: Tensor, z: Tensor, mask: Tensor) -> None:
        """Count the positions of a chunk: x [..., P, R], z and mask [..., P, I]."""
        m = mask.to(z.dtype)
        mz = m * z
        turned = x.transpose(-1, -2)
        new = (m.sum(-2), mz.sum(-2), (mz * z).sum(-2), turned @ m, turned @ mz)
        self.sums = new if self.sums is None else tuple(a + b for a, b in zip(self.sums, new, strict=True))

    def signals(self) -> tuple[Tensor, Tensor]:
        """s [..., R, I] and the number of positions behind each [..., I]. Zero where z does not vary."""
        assert self.sums is not None
        count, z, zz, x, xz = self.sums
        n = count.clamp(min=1)
        variance = zz / n - (z / n) ** 2
        covariance = xz / n[..., None, :] - x * (z / n**2)[..., None, :]
        usable = variance > 1e-9 * (zz / n).clamp(min=1e-30)
        safe = torch.where(usable, variance, torch.ones_like(variance))
        return torch.where(usable[..., None, :], covariance / safe[..., None, :], torch.zeros_like(covariance)), count


def estimate_signals(x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """s_i = cov(x, z_i) / var(z_i) over the positions of ``mask``: [..., P, R], [..., P, I] -> [..., R, I].

    Differentiable in z. The sign: moving x along +s_i raises z_i by 1 per unit.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> estimate_signals(x, x[:, :1], torch.ones(3, 1, dtype=torch.bool))
        tensor([[1.],
                [2.]])
    """
    moments = Moments()
    moments.add(x, z, mask)
    return moments.signals()[0]


def dual_basis(w: Tensor) -> Tensor:
    """Encoding directions of filters by joint least squares: w [R, I] in whitened coordinates -> s [R, I].

    The S that explains z best from all strengths u = W^T z together, z = S u + rest. With cov(z) = 1 that is
    S = cov(z, u) cov(u)^(-1) = W (W^T W)^(-1): the dual basis, w_i . s_j = 1 for i = j and 0 for all others. Unlike one
    regression per concept it is not bent by concepts that come along. Filters that depend on each other share.

    >>> dual_basis(torch.tensor([[1.0, -1.0], [0.0, 1.0]])).abs().round(decimals=4)
    tensor([[1., 0.],
            [1., 1.]])
    """
    inverse: Tensor = torch.linalg.pinv(w.double(), rtol=1e-4)
    return inverse.T.to(w.dtype)
