"""Exact AUROC of many units for many concepts from integer rank sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.inputs import as_activations, as_truth, refuse_constant

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
        concepts: [N, K] of 0, 1 and, where a concept is unknown, NaN; any dtype. A concept's AUC is taken over the
            samples on which it is known.

    Returns:
        float64 [K], or [U, K] for activations [N, U], on the activations' device.

    Sign: above 0.5 the unit is higher where the concept is; below 0.5 higher where it is absent.

    Raises:
        ValueError: activations that are NaN, other labels, lengths that differ, a concept on no sample or on all.

    >>> auroc([0.1, 0.4, 0.4, 0.9], [[0], [0], [1], [1]])
    tensor([0.8750], dtype=torch.float64)
    """
    values, truth = as_activations(activations), as_truth(concepts)
    check_lengths(len(values), len(truth.true))
    refuse_constant(truth.true.any(0), truth.false.any(0), truth.known.all(0))
    table = values[:, None] if values.dim() == 1 else values
    labels: Tensor = truth.true.to(values.device)
    if not truth.is_known:
        planes = labels.T, truth.false.to(values.device).T
        known: Tensor = torch.stack([known_auc(Order.of(column), *planes) for column in table.T])
        return torch.as_tensor(known[0] if values.dim() == 1 else known)
    count = labels.sum(0)
    samples, units = table.shape
    positive = count.double()
    pairs = positive * (samples - positive)
    result: Tensor = torch.empty(units, labels.shape[1], dtype=torch.float64, device=values.device)
    step, across = max(1, CHUNK // samples), max(1, CHUNK // samples)
    for u in range(0, units, step):
        sums = rank_samples(table[:, u : u + step].T)
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
    sums = torch.zeros(len(values), rows, dtype=torch.float64, device=values.device)
    squares = torch.empty(len(values), dtype=torch.float64, device=values.device)
    for u, own in enumerate(values):
        order, centered, counts = rank_ties(own)
        sums[u].scatter_add_(0, row_of.index_select(0, order), centered.repeat_interleave(counts))
        squares[u] = centered.square() @ counts.double()
    return sums, squares


def rank_samples(values: Tensor) -> Tensor:
    """The integers d of :func:`auroc` of every sample: activations [U, N] -> float64 [U, N].

    >>> rank_samples(torch.tensor([[5.0, 1.0, 5.0]])).tolist()
    [[1.0, -2.0, 1.0]]
    """
    ranks = torch.empty(values.shape, dtype=torch.float64, device=values.device)
    for own, rank in zip(values, ranks, strict=True):
        order, centered, counts = rank_ties(own)
        rank.scatter_(0, order, centered.repeat_interleave(counts))
    return ranks


def rank_ties(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Samples [N] in the order of their activations; of every distinct one its d, and how many samples have it."""
    order, starts, counts = sort_ties(values)
    return order, (2 * starts + counts - len(values)).double(), counts


def sort_ties(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Samples [N] in the order of their activations; of every distinct one, its first place there, and how many have
    it.
    """
    is_here = values.device.type == "cpu"  # where numpy's sort of places is several times faster than torch's
    order = torch.from_numpy(np.argsort(values.numpy())) if is_here else values.argsort()
    ordered = values.index_select(0, order)
    opens = torch.ones(len(values), dtype=torch.bool, device=values.device)
    opens[1:] = ordered[1:] != ordered[:-1]
    starts = opens.nonzero()[:, 0]
    return order, starts, torch.diff(starts, append=starts.new_tensor([len(values)]))


@dataclass(frozen=True, eq=False)
class Order:
    """One unit's samples in the order of their activations: sample numbers, first and last place of each one's tie."""

    samples: Tensor
    first: Tensor
    last: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Order:
        """Of activations [N]."""
        order, starts, counts = sort_ties(values)
        return cls(order, starts.repeat_interleave(counts), (starts + counts - 1).repeat_interleave(counts))


def known_auc(order: Order, true: Tensor, false: Tensor) -> Tensor:
    """AUC of formulas that hold on ``true`` [M, N] and fail on ``false`` [M, N], unknown elsewhere: float64 [M].

    The mean over all pairs of a sample where it holds and one where it fails; NaN where there is no such pair. Exact:
    sums of whole numbers. Costs O(M N).

    >>> masks = torch.tensor([[False, True, True]]), torch.tensor([[True, False, False]])
    >>> known_auc(Order.of(torch.tensor([1.0, 2.0, 1.0])), *masks)
    tensor([0.7500], dtype=torch.float64)
    """
    n1, n0 = true.sum(1).double(), false.sum(1).double()
    total = torch.empty_like(n1)
    step = max(1, CHUNK // max(1, true.shape[1]))
    for at in range(0, len(true), step):
        failed = torch.nn.functional.pad(false[at : at + step, order.samples].cumsum(1, dtype=torch.float64), (1, 0))
        beaten = failed[:, order.first] + failed[:, order.last + 1]
        total[at : at + step] = (beaten * true[at : at + step, order.samples]).sum(1)
    return total / (2 * n1 * n0)


def auc_of(total: Tensor, positive: Tensor, samples: int) -> Tensor:
    """AUC from the sum of d over the positives and their number; NaN where there are none, or only positives.

    >>> auc_of(torch.tensor([2.0]), torch.tensor([2.0]), 3)
    tensor([1.], dtype=torch.float64)
    """
    pairs = positive.double() * (samples - positive.double())
    return (total.double() + pairs) / (2 * pairs)


def check_lengths(samples: int, labelled: int) -> None:
    """Raise ValueError unless there is one row of labels per sample, and no more samples than can be counted
    exactly.
    """
    if samples != labelled:
        raise ValueError(f"{samples} activations but {labelled} rows of concepts; pass one row per sample")
    if samples > MOST_SAMPLES:
        raise ValueError(f"{samples} samples are more than float64 ranks exactly ({MOST_SAMPLES}); draw fewer")
