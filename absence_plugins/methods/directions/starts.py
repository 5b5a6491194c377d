"""Where the many solutions of the robust recipe start: half at clusters, half anywhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 15  # of k-means


def draw_starts(
    x: Tensor, count: int, detectors: int, ranks: tuple[int, ...], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit directions v [S, R, I], thresholds t [S, I], and the coordinates inside which each start stays [S, R, 1].

    In whitened coordinates x [P, R]; the starts take turns among ``ranks``, the numbers of leading coordinates. The
    first half: k-means centers as directions, half their norm as threshold. The second half: random directions, each
    with the threshold that one position in I exceeds.
    """
    v, t = x.new_zeros(count, x.shape[1], detectors), x.new_zeros(count, detectors)
    inside = x.new_zeros(count, x.shape[1], 1)
    for start in range(count):
        rank = ranks[start % len(ranks)]
        inside[start, :rank] = 1
        here = x[:, :rank]
        if start < (count + 1) // 2:
            centers = kmeans(here, detectors, generator)
            v[start, :rank] = F.normalize(centers, dim=1).T
            t[start] = centers.norm(dim=1) / 2
        else:
            drawn = torch.randn(rank, detectors, generator=generator, dtype=torch.float64)
            v[start, :rank] = F.normalize(drawn, dim=0).to(x)
            t[start] = torch.quantile(here[:4000] @ v[start, :rank], 1 - 1 / detectors, dim=0)
    return v, t, inside


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
