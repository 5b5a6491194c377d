"""Exact AUROC of many units for many concepts from integer rank sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from absence_plugins.methods.invert.inputs import as_activations, as_labels, refuse_constant

CHUNK = 2**22  # numbers held at a time; a float64 table of so many takes 32 MB
MOST_SAMPLES = 94_906_265  # rank sums reach N^2, and float64 counts exactly to 2^53


def auroc(activations: Any, concepts: Any) -> Tensor:
    """Area under the ROC curve of every unit as a detector of every concept, exact, ties counted half.

    With d_i = #{j: a_j < a_i} + #{j: a_j <= a_i} - N, an integer, and S the sum of d over the n1 samples that have
    the concept (n0 have not): AUC = (S + n1 n0) / (2 n1 n0) = U / (n1 n0), U being Mann-Whitney's. The numerator is an
    exact integer, so the result is the fraction rounded once.

    Source: INVERT (Bykov et al., NeurIPS 2023), section 3; Mann and Whitney, 1947.

    Args:
        activations: [N] or [N, U], any real dtype, on any device; only their order counts, so every strictly increasing
            map leaves the result as it is. Infinite values are the highest and lowest.
        concepts: [N, K] of 0 and 1, any dtype.

    Returns:
        float64 [K], or [U, K] for activations [N, U], on the activations' device.

    Sign: above 0.5 the unit is higher where the concept is; below 0.5 higher where it is absent.

    Raises:
        ValueError: NaN, labels other than 0 and 1, lengths that differ, a concept on no sample or on all.

    >>> auroc([0.1, 0.4, 0.4, 0.9], [[0], [0], [1], [1]])
    tensor([0.8750], dtype=torch.float64)
    """
    values, labels = as_activations(activations), as_labels(concepts)
    check_lengths(values, labels)
    labels = labels.to(values.device)
    count = labels.sum(0)
    refuse_constant(count, len(labels))
    table = values[:, None] if values.dim() == 1 else values
    samples, units = table.shape
    own_row = torch.arange(samples, device=values.device)
    positive = count.double()
    pairs = positive * (samples - positive)
    result = torch.empty(units, labels.shape[1], dtype=torch.float64, device=values.device)
    step, across = max(1, CHUNK // samples), max(1, CHUNK // samples)
    for u in range(0, units, step):
        sums, _ = rank_sums(table[:, u : u + step].T, own_row, samples)
        for k in range(0, labels.shape[1], across):
            result[u : u + step, k : k + across] = sums @ labels[:, k : k + across].double()
    result = (result + pairs) / (2 * pairs)
    return result[0] if values.dim() == 1 else result


def rank_sums(values: Tensor, row_of: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The integers d of :func:`auroc`, summed over samples of equal labels, and their sum of squares.

    Args:
        values: [U, N] activations.
        row_of: [N] int64, to which sum a sample counts.
        rows: how many sums there are.

    Returns:
        float64 [U, rows] and [U]; whole numbers. All d together sum to 0.

    >>> rank_sums(torch.tensor([[5.0, 1.0, 5.0]]), torch.tensor([0, 1, 0]), 2)[0].tolist()
    [[2.0, -2.0]]
    """
    samples = values.shape[1]
    ordered, order = values.contiguous().sort(dim=1)
    place = torch.arange(samples, device=values.device)
    equal = ordered[:, 1:] == ordered[:, :-1]
    if bool(equal.any()):
        opens = torch.ones_like(ordered, dtype=torch.bool)
        opens[:, 1:] = ~equal
        first = (place * opens).cummax(1).values
        closes = torch.ones_like(opens)
        closes[:, :-1] = opens[:, 1:]
        after = torch.where(closes, place, samples - 1).flip(1).cummin(1).values.flip(1)
        centered = (first + after + (1 - samples)).double()
    else:
        centered = (2 * place + (1 - samples)).double().expand(ordered.shape)
    sums = torch.zeros(len(values), rows, dtype=torch.float64, device=values.device)
    sums.scatter_add_(1, row_of[order], centered)
    return sums, centered.square().sum(1)


def auc_of(total: Tensor, positive: Tensor, samples: int) -> Tensor:
    """AUC from the sum of d over the positives and their number; NaN where there are none, or only positives.

    >>> auc_of(torch.tensor([2.0]), torch.tensor([2.0]), 3)
    tensor([1.], dtype=torch.float64)
    """
    pairs = positive.double() * (samples - positive.double())
    return (total.double() + pairs) / (2 * pairs)


def check_lengths(values: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless there is one row of labels per sample, and no more samples than can be counted
    exactly.
    """
    if len(values) != len(labels):
        raise ValueError(f"{len(values)} activations but {len(labels)} rows of concepts; pass one row per sample")
    if len(values) > MOST_SAMPLES:
        raise ValueError(f"{len(values)} samples are more than float64 ranks exactly ({MOST_SAMPLES}); draw fewer")
