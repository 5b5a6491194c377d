"""Clusters, where detectors of a few concepts start."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 15  # of k-means


def kmeans(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Centers [k, R] of x [P, R]: k-means++ start, then Lloyd's rounds.

    Written out because the sums of scikit-learn's depend on the number of threads.

    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> kmeans(x, 2, torch.Generator().manual_seed(0)).sort(0).values
    tensor([[0.0500],
            [5.0500]])
    """
    first = torch.randint(len(x), (1,), generator=generator)
    centers = x[first.to(x.device)]
    nearest = ((x - centers) ** 2).sum(1)
    for _ in range(clusters - 1):
        weights = nearest.double().cpu() + 1e-12
        chosen = torch.multinomial(weights / weights.sum(), 1, generator=generator)
        center = x[chosen.to(x.device)]
        nearest = torch.minimum(nearest, ((x - center) ** 2).sum(1))
        centers = torch.cat([centers, center])
    for _ in range(ROUNDS):
        member = (x @ centers.T - 0.5 * (centers**2).sum(1)).argmax(1)
        hot = F.one_hot(member, clusters).to(x)
        size = hot.sum(0)[:, None]
        centers = torch.where(size > 0, hot.T @ x / size.clamp(min=1), centers)
    return centers
