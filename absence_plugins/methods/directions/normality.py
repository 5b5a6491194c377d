"""Are components of features noise? What holds a concept is not normally distributed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from absence_plugins.methods.directions.features import Features, chunks
from absence_plugins.methods.directions.polish import sum_over

MOST_POSITIONS = 100_000  # of those that are read; evenly spread
ERRORS = 5.0  # standard errors
# Smallest skewness and excess kurtosis of a component or a feature, and mean excess kurtosis of the sources, that count:
# what is left of concepts in components of noise stays below, one concept on a feature of its own is far above.
SKEWNESS, KURTOSIS, MEAN_KURTOSIS = 0.1, 0.2, 0.1


def is_normal(features: Features, mean: Tensor, forward: Tensor, backward: Tensor) -> bool:
    """Whether components z = (x - mean) @ forward, [D, M], are normally distributed, as is z @ backward, [M, D].

    Looked at are the skewness and the excess kurtosis of every component and of every feature of ``backward``, where
    concepts often lie, and E|z|^4 - M (M + 2), the sum of the kurtoses of all independent sources, however mixed
    (Mardia, Biometrika 1970). Positions count as independent, so that in doubt components are not normal.

    >>> from absence_plugins.methods.directions.features import MemoryFeatures
    >>> z = torch.randn(2000, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    >>> mean, eye = torch.zeros(4).double(), torch.eye(4).double()
    >>> is_normal(MemoryFeatures(z), mean, eye, eye), is_normal(MemoryFeatures(z.clamp(min=0)), mean, eye, eye)
    (True, False)
    """
    n, h, w, _ = features.shape
    step = max(1, n * h * w // MOST_POSITIONS)
    wide = torch.cat([torch.eye(forward.shape[1]).to(backward), backward], 1)
    wide = wide / wide.norm(dim=0).clamp(min=1e-9)

    def moments(chunk: Tensor) -> Tensor:
        z = (chunk.flatten(0, -2)[::step].double() - mean) @ forward
        values = z @ wide
        radius = (z**2).sum(1, keepdim=True)
        parts = [torch.ones_like(radius), radius**2, values, values**2, values**3, values**4]
        return torch.cat([part.sum(0) for part in parts])

    total = sum_over(moments(chunk) for chunk in chunks(features))
    count, radius, powers = float(total[0]), float(total[1] / total[0]), total[2:].reshape(4, -1) / total[0]
    first, second, third, fourth = powers
    variance = (second - first**2).clamp(min=1e-12)
    skewness = (third - 3 * first * second + 2 * first**3) / variance**1.5
    kurtosis = (fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / variance**2 - 3
    size = forward.shape[1]
    sources = abs(radius - size * (size + 2))
    return (
        float(skewness.abs().max()) <= max(SKEWNESS, ERRORS * math.sqrt(6 / count))
        and float(kurtosis.abs().max()) <= max(KURTOSIS, ERRORS * math.sqrt(24 / count))
        and sources <= max(MEAN_KURTOSIS * size, ERRORS * math.sqrt(8 * size * (size + 2) / count))
    )
