"""Sources without the bias of mutual exclusion: independent given which concepts are present."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from absence_plugins.methods.directions.polish import ROUNDS, polish, sum_over

RIDGE = 1e-6  # of the positions, so that a concept without any label does not matter
LEAST_VARIANCE = 1e-6  # of a residual, relative to its largest


class Mapped(Iterable[Tensor]):
    """Chunks that a function makes of other chunks, each time they are read."""

    def __init__(self, chunks: Iterable[Tensor], function: Callable[[Tensor], Tensor]) -> None:
        self.chunks, self.function = chunks, function

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.function, self.chunks)


def relabel(
    chunks: Iterable[Tensor],
    w: Tensor,
    label: Callable[[Tensor], Tensor],
    *,
    rounds: int = ROUNDS,
    tick: Callable[[], object] = lambda: None,
) -> Tensor:
    """Filters that are exact where concepts exclude each other: chunks of whitened z [n, R], filters w [R, K] -> [R,
    K].

    Presences that depend on each other (one concept per position, or concepts that come together) bend sources that
    are made independent. What is left of z when the labels are regressed out does not depend on presence: it is
    whitened, and the sources are polished there. The filters have unit variance over all positions and keep their
    signs. They need not be orthogonal.

    ``label``: z [n, R] -> bool [n, I], which concepts are present. ``rounds`` of polishing, ``tick`` after each.
    """
    explained, covariance = regress_labels(chunks, label)
    root, inverse = _roots(covariance)
    to_root = root.to(w.dtype)

    def residual(z: Tensor) -> Tensor:
        return (z - _with_constant(label(z), z) @ explained.to(z.dtype)) @ to_root

    start = inverse @ w.double()
    turned = polish(Mapped(chunks, residual), (start / start.norm(dim=0)).to(w.dtype), rounds, tick=tick)
    found = root @ turned.double()
    unit: Tensor = found / found.norm(dim=0)
    return unit.to(w.dtype)  # z has covariance 1


def regress_labels(chunks: Iterable[Tensor], label: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Least squares of z on labels and a constant: coefficients [I + 1, R] and the covariance of the rest [R, R]."""

    def products(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        labels = _with_constant(label(z), z)
        return (labels.T @ labels).double(), (labels.T @ z).double(), (z.T @ z).double()

    ll, lz, zz = (sum_over(part) for part in zip(*map(products, chunks), strict=True))
    count = ll[-1, -1]
    ridge = RIDGE * count * torch.eye(len(ll), dtype=ll.dtype, device=ll.device)
    explained = torch.linalg.solve(ll + ridge, lz)
    rest = zz - explained.T @ lz - lz.T @ explained + explained.T @ ll @ explained
    return explained, rest / count


def _with_constant(labels: Tensor, like: Tensor) -> Tensor:
    return torch.cat([labels.to(like.dtype), torch.ones_like(like[:, :1])], 1)


def _roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """C^(-1/2) and C^(1/2)."""
    variances, axes = torch.linalg.eigh((covariance + covariance.T) / 2)
    deviations = variances.clamp(min=LEAST_VARIANCE * float(variances[-1])).sqrt()
    return (axes / deviations) @ axes.T, (axes * deviations) @ axes.T
