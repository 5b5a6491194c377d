"""Whitening: the coordinates in which no scaling, shift or correlation of the features can hide a concept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.methods.directions.features import Features, chunks

RANK_TOLERANCE = 1e-3  # of the largest standard deviation; directions below it are left out
# Where small components are noise, whitening blows it up. Measured on a trained CNN (shapes): intersection over union
# .3-.7 with all 32 components, .99 with the 5 above .1. Starts try each; the objective chooses.
TOLERANCES = (RANK_TOLERANCE, 0.1, 0.25)


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> (x - mean) @ forward has mean 0 and covariance 1; its inverse on the features' span is ``backward``.

    Attributes:
        mean: [D] float64.
        forward: [D, R] float64, R the features' rank.
        backward: [R, D] float64.
    """

    mean: Tensor
    forward: Tensor
    backward: Tensor

    def __repr__(self) -> str:
        return f"Whitening({self.forward.shape[0]} dimensions, rank {self.rank})"

    @property
    def rank(self) -> int:
        """R."""
        return self.forward.shape[1]

    def ranks(self, least: int) -> tuple[int, ...]:
        """The numbers of leading components that are worth a try, at least ``least`` each."""
        deviations = self.backward.norm(dim=1)
        counts = {max(least, int((deviations > share * deviations[0]).sum())) for share in TOLERANCES}
        return tuple(sorted(counts, reverse=True))

    def __call__(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., R], computed in float64, returned in float32."""
        return ((features.double() - self.mean) @ self.forward).float()


def fit_whitening(features: Features) -> Whitening:
    """Principal components of all positions, each divided by its standard deviation.

    Two passes in float64. The sign of a component is fixed by its largest entry, so that the same features give the
    same coordinates.

    Raises:
        ValueError: NaN or infinite features, or all of them equal.

    Example:
        >>> from absence_plugins.methods.directions.features import MemoryFeatures
        >>> x = torch.randn(50, 2, 2, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.0])
        >>> whitening = fit_whitening(MemoryFeatures(x))
        >>> whitening, round(float(whitening(x).var()), 2)
        (Whitening(3 dimensions, rank 2), 1.0)
    """
    count, total = 0, None
    for chunk in chunks(features):
        rows = chunk.flatten(0, -2).double()
        if not bool(rows.isfinite().all()):
            raise ValueError(
                "features holds NaN or infinite values; drop those images, or correct the model that made them"
            )
        total = rows.sum(0) if total is None else total + rows.sum(0)
        count += len(rows)
    assert total is not None
    mean = total / count
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for chunk in chunks(features):
        rows = chunk.flatten(0, -2).double() - mean
        covariance += rows.T @ rows
    variances, components = torch.linalg.eigh(covariance / max(count - 1, 1))
    deviations = variances.clamp(min=0).sqrt().flip(0)
    components = components.flip(1)
    rounding = 1e-7 * float(mean.abs().max())  # of features in single precision
    if float(deviations[0]) <= rounding:
        raise ValueError("features are constant: every position has the same values, so there is no direction to find")
    kept = deviations > max(RANK_TOLERANCE * float(deviations[0]), rounding)
    components, deviations = components[:, kept], deviations[kept]
    largest = components.abs().argmax(0, keepdim=True)
    components = components * components.gather(0, largest).sign()
    return Whitening(mean, components / deviations, (components * deviations).T)
