"""Redistribution rules of weighted layers: what part of an output's relevance each contribution gets.

z_ij = w_ij da_i is the contribution of input i to the difference of output j (a bias cancels), p_j the sum of the
positive contributions and n_j that of the magnitudes of the negative ones. Where p >= n input i gets of R_j the part
plus z+_ij - minus z-_ij; where p < n plus and minus are exchanged (mirrored), so that R(x; r) = -R(r; x). The parts of
an output sum to 1. With beta: plus = (1 + beta) / p, minus = beta / n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from absence_plugins.relevance.secants.arithmetic import quotient


class Redistribution(Protocol):
    """A rule other than Epsilon, which divides by p - n and needs no coefficients: its multiplier is W^T m."""

    def parts(self, p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """plus and minus for p >= n."""


@dataclass(frozen=True)
class Gamma:
    """beta = n / ((1 + gamma) p - n): contributions of the larger side count 1 + gamma times.

    Source: Montavon et al. 2019, section 10.2, on differences and mirrored.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma={self.gamma!r} must be above 0; gamma=0 is Epsilon")

    def parts(self, p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """(1 + gamma) / ((1 + gamma) p - n) and 1 / ((1 + gamma) p - n)."""
        each = quotient(1.0, (1 + self.gamma) * p - n)
        return (1 + self.gamma) * each, each

    @property
    def share(self) -> float:
        """gamma / (2 + gamma)."""
        return self.gamma / (2 + self.gamma)


@dataclass(frozen=True)
class ZPlus:
    """beta = 0: only the contributions of the larger side count.

    Source: Montavon et al., Pattern Recognition 2017, on differences and mirrored.
    """

    def parts(self, p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """1 / p and 0."""
        return quotient(1.0, p), torch.zeros_like(n)

    @property
    def share(self) -> float:
        """That of Gamma with gamma = infinity."""
        return 1.0


@dataclass(frozen=True)
class AlphaBeta:
    """beta_j = min(n / (p - n), beta), alpha = 1 + beta: never more than Epsilon's.

    Source: Bach et al., PLoS ONE 2015, eq. 60, on differences, mirrored and adaptive.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"beta={self.beta!r} must not be negative; alpha is 1 + beta")

    def parts(self, p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """(1 + beta) / p and beta / n, or 1 / (p - n) for both where that is less."""
        exact = quotient(1.0, p - n)
        capped = n > self.beta * (p - n)
        return torch.where(capped, quotient(1 + self.beta, p), exact), torch.where(
            capped, quotient(self.beta, n), exact
        )


@dataclass(frozen=True)
class Spread:
    """Flat (power 0) and WSquare (power 2): R_i = sum_j abs(w_ij)^power / (sum_i abs(w_ij)^power) R_j, whatever the
    inputs are.

    It gives R where da = 0, so there is no multiplier: for a layer that takes the input itself, written to its map.
    Source: Lapuschkin et al., Nature Communications 2019 (Flat); Montavon et al., Pattern Recognition 2017 (w^2 rule).
    """

    power: int = 0

    def parts(self, p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """It has none."""
        raise TypeError(f"{self!r} has no parts of positive and negative contributions")


@dataclass(frozen=True)
class Stabilized:
    """Another rule (None for Epsilon) with a stabilizer in its denominator: R_j dy_j / stabilizer(dy_j) is
    redistributed.

    The rest of R_j is absorbed: the map sums to u(x) - u(r) less what is absorbed.
    """

    rule: Redistribution | None
    stabilizer: Callable[[Tensor], Tensor]

    def parts(self, p: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the other rule."""
        if self.rule is None:
            raise TypeError("Epsilon has no parts of positive and negative contributions")
        return self.rule.parts(p, n)

    def passed(self, change: Tensor) -> Tensor:
        """dy / stabilizer(dy)."""
        return quotient(change, self.stabilizer(change))


def mirrored(rule: Redistribution, total: Tensor, gross: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients of z and of abs(z): the part of input i is (of_z z_ij + of_size abs(z_ij)) / 2.

    total = p - n, gross = p + n: the sums of z and of abs(z). Where p = n both sides get the same.

    >>> mirrored(ZPlus(), torch.tensor([3.0, -3.0]), torch.tensor([5.0, 5.0]))  # p, n = 4, 1 and 1, 4
    (tensor([ 0.2500, -0.2500]), tensor([0.2500, 0.2500]))
    """
    size = total.abs()
    plus, minus = rule.parts((gross + size) / 2, ((gross - size) / 2).clamp(min=0))
    return total.sign() * (plus + minus), plus - minus


def multiplier_coefficients(rule: Redistribution, change: Tensor, gross: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients times dy / 2: of m in W^T and in abs(W)^T, bounded however small dy is.

    change: dy, the difference of the outputs, which is the sum of z; gross: the sum of abs(z). They enter by their
    ratio, as a rule's part is of degree -1 in p and n. 0 where nothing contributes.
    Gamma and ZPlus have a closed form: abs(dy) / (abs(dy) + s gross) and s dy / (abs(dy) + s gross), s their share.

    >>> multiplier_coefficients(ZPlus(), torch.tensor([3.0, 0.0]), torch.tensor([5.0, 0.0]))
    (tensor([0.3750, 0.0000]), tensor([0.3750, 0.0000]))
    """
    share = getattr(rule, "share", None)
    if share is not None:
        size = change.abs()
        whole = torch.add(size, gross, alpha=share).clamp_(min=torch.finfo(size.dtype).tiny)
        return size.div_(whole), (change / whole).mul_(share)
    ratio = quotient(change, gross).clamp_(-1, 1)
    of_z, of_size = mirrored(rule, ratio, (gross > 0).to(gross.dtype))
    return of_z * ratio / 2, of_size * ratio / 2
