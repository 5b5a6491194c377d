"""Independent sources, made exact: each with the score function that its own distribution has.

In whitened coordinates z the sources u_i = w_i . z of orthogonal filters are as independent as they can be where
E[z g_i(u_i)] is parallel to w_i, with g_i = -(log p_i)' the score function of source i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from torch import Tensor

from absence_plugins.methods.directions.histograms import BINS, bin_centers, bin_edges, count_values, find_bins

EVERY = 64  # bins between two knots of a score function
SMOOTHNESS, RIDGE = 1e-3, 1e-9  # weights of the squared changes of slope, and of the values where no position is
ROUNDS = 10


def orthogonalize(w: Tensor) -> Tensor:
    """The orthonormal columns nearest to w [R, I]: w (w^T w)^(-1/2).

    >>> orthogonalize(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    left, _, right = torch.linalg.svd(w.double(), full_matrices=False)
    nearest: Tensor = left @ right
    return nearest.to(w.dtype)


def fit_scores(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Score functions g by score matching: histograms int [I, BINS] -> g at every bin [I, BINS] and E g' [I], float64.

    The piecewise linear g that minimizes E[g^2] / 2 - E[g'], plus a little for every change of slope. It knows
    nothing of the distribution but the histogram. E[g] = 0 and E[u g] = 1; E[g'] is 1 for a normal distribution and
    above 1 for every other one of the same variance.

    Source: Hyvarinen, Journal of Machine Learning Research 6 (2005), score matching.
    """
    hats, squares, products, slopes, penalty = _basis(counts.device)
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    beside = torch.diag_embed(share @ products, 1)
    system = torch.diag_embed(share @ squares) + beside + beside.transpose(1, 2) + penalty
    target = share @ slopes
    coefficients = torch.linalg.solve(system, target[..., None])[..., 0]
    return coefficients @ hats.T, (coefficients * target).sum(1)


@lru_cache(maxsize=4)
def _basis(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Hat functions at the bins [BINS, K], their squares, the products of neighbors [BINS, K - 1], their slopes [BINS,
    K], and what a change of slope costs, [K, K].
    """
    like = torch.empty(0, device=device)
    at, x = bin_edges(like)[::EVERY], bin_centers(like)
    rows = torch.arange(BINS, device=device)
    piece = rows // EVERY
    width = (at[1:] - at[:-1])[piece]
    share = (x - at[piece]) / width
    hats = torch.zeros(BINS, len(at), dtype=torch.float64, device=device)
    slopes = torch.zeros_like(hats)
    hats[rows, piece], hats[rows, piece + 1] = 1 - share, share
    slopes[rows, piece], slopes[rows, piece + 1] = -1 / width, 1 / width
    one = torch.eye(len(at), dtype=torch.float64, device=device)
    changes = torch.diff(torch.diff(one, dim=0) / torch.diff(at)[:, None], dim=0)
    penalty = SMOOTHNESS * changes.T @ changes + RIDGE * one
    return hats, hats**2, hats[:, :-1] * hats[:, 1:], slopes, penalty


def polish(
    chunks: Iterable[Tensor], w: Tensor, rounds: int = ROUNDS, *, tick: Callable[[], object] = lambda: None
) -> Tensor:
    """Turn orthonormal filters w [R, I] until their values are independent: chunks of whitened z [n, R], read often.

    W <- sym(E[g_i'] w_i - E[z g_i(w_i . z)]), I <= R. Not normalized before the orthogonalization: sources far from
    normal give way less than others. ``tick`` is called after every round.

    Source: after Hyvarinen, IEEE Transactions on Neural Networks 10 (1999), with fitted nonlinearities.
    """
    for _ in range(rounds):
        counts = sum_over(count_values(z @ w) for z in chunks)
        scores, slope = fit_scores(counts)
        table = scores.T.contiguous().to(w.dtype)

        def pull(z: Tensor, w: Tensor = w, table: Tensor = table) -> Tensor:
            return (z.T @ table.gather(0, find_bins(z @ w))).double()

        pulled = sum_over(pull(z) for z in chunks) / counts[0].sum()
        w = orthogonalize(slope * w.double() - pulled).to(w.dtype)
        tick()
    return w


def sum_over(parts: Iterable[Tensor]) -> Tensor:
    """The sum of tensors of one shape, in their order."""
    total: Tensor | None = None
    for part in parts:
        total = part if total is None else total + part
    if total is None:
        raise ValueError("there are no positions to read; pass features with at least one")
    return total
