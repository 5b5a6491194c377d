"""What the search makes as high as it can: AUC, correlation, F1 or IoU, each from two numbers of a formula.

These scores depend on the n samples on which a formula holds and on the sum S of numbers d over them. All d of a unit
add up to 0, so the complement has N - n and -S, and one matrix product scores many formulas.

    AUC - 1/2 = S / (2 n (N - n))        d: rank numbers (:func:`auroc`)
    correlation = S / sqrt(n (N - n))    d: activations, of mean 0 and variance 1
    F1 = 2 h / (n + A)                   d = N - A where the unit fires, else -A; h = (S + n A) / N samples of the
    IoU = h / (n + A - h)                formula fire, of A that do

Each rises with S at a given n. A unit fires at or above a threshold that is chosen on the searched samples: the one of
32 at which firing agrees best with one concept, or its absence (highest correlation of the two truths). It is one per
unit, not one per formula: else a formula that nearly always holds would get a threshold at which the unit always fires.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.methods.invert.scores import CHUNK
from absence_plugins.methods.invert.table import Columns

SCORES = ("auc", "auprc", "f1", "iou", "correlation")
FIRING = ("f1", "iou")  # need a threshold
TITLES = {"auc": "AUC", "auprc": "AUPRC above chance", "f1": "F1", "iou": "IoU", "correlation": "correlation"}
THRESHOLDS = 32


@dataclass(frozen=True, eq=False)
class Measure:
    """How formulas of a block of units are scored.

    Attributes:
        name: "auc" (AUC - 1/2), "correlation", "f1" or "iou".
        samples: N.
        fired: [U] float64, samples on which each unit fires (A); zeros for the other scores.
    """

    name: str
    samples: int
    fired: Tensor

    @classmethod
    def auc(cls, samples: int, like: Tensor) -> Measure:
        """For the rank sums ``like`` [U, R]."""
        return cls("auc", samples, torch.zeros(len(like), dtype=torch.float64, device=like.device))

    @property
    def is_odd(self) -> bool:
        """Whether a complement has the score of the formula, negated."""
        return self.name not in FIRING

    @property
    def is_whole(self) -> bool:
        """Whether the numbers d are whole, and their sums exact."""
        return self.name != "correlation"

    def ready(self, count: Tensor) -> Tensor:
        """From the numbers of samples n, what :meth:`rate` asks for; the same for all units, and for complements."""
        if self.name == "auc":
            return 2 * count * (self.samples - count)
        return (count * (self.samples - count)).sqrt() if self.name == "correlation" else count

    def rate(self, total: Tensor, ready: Tensor, fired: Tensor) -> Tensor:
        """The score, from the sums S, what :meth:`ready` made, and A of the units."""
        if self.is_odd:
            return total / ready
        hits = (total + ready * fired) / self.samples
        return 2 * hits / (ready + fired) if self.name == "f1" else hits / (ready + fired - hits)

    def values(self, total: Tensor, count: Tensor, fired: Tensor, allowed: Tensor) -> Tensor:
        """The score, minus infinity where a formula is not allowed."""
        return torch.where(allowed, self.rate(total, self.ready(count.clamp(1, self.samples - 1)), fired), -torch.inf)


def standardize(values: Tensor) -> Tensor:
    """[U, N] finite -> float64 of mean 0 and variance 1 per unit; 0 where a unit is constant. Squares do not overflow.

    >>> standardize(torch.tensor([[0.0, 2.0], [2.0, 2.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    double = values.double()
    double = double / double.abs().amax(1, keepdim=True)
    centered = double - double.mean(1, keepdim=True)
    centered /= centered.abs().amax(1, keepdim=True)
    deviation = centered.square().mean(1, keepdim=True).sqrt()
    flat = (values == values[:, :1]).all(1, keepdim=True)
    return torch.where(flat, 0.0, centered / deviation)


def sum_rows(numbers: Tensor, row_of: Tensor, rows: int) -> Tensor:
    """[M, N] per sample -> [M, rows] per label row."""
    sums = torch.zeros(len(numbers), rows, dtype=torch.float64, device=numbers.device)
    return sums.index_add_(1, row_of, numbers.double())


def choose_firing(values: Tensor, row_of: Tensor, columns: Columns) -> Tensor:
    """The threshold of a unit [N] at which firing correlates best with one concept, or with its absence; a value of it.

    Of up to 32 values, evenly spaced among the sorted samples. A sample on which a concept is unknown takes no part in
    that concept's correlation.
    """
    ordered = values.sort().values
    place = torch.linspace(0, len(ordered) - 1, THRESHOLDS + 2, device=values.device).round().long()
    asked = torch.unique_consecutive(ordered[place[1:]])
    asked = asked[asked > ordered[0]]
    if not len(asked):
        constant: Tensor = ordered[-1]
        return constant
    best: Tensor = asked[0]
    score = -1.0
    n1 = columns.count
    n0 = columns.samples - n1 if columns.fails is None else columns.fails.double() @ columns.weight
    step = max(1, CHUNK // len(values))
    for part in asked.split(step):
        fires = sum_rows(values[None] >= part[:, None], row_of, columns.rows)
        true = columns.products(fires)
        false = fires.sum(1, keepdim=True) - true if columns.fails is None else fires @ columns.fails.double().T
        fired, quiet = true + false, n1 + n0 - true - false
        phi = ((true * n0 - false * n1) / (n1 * n0 * fired * quiet).clamp(min=1).sqrt()).abs().amax(1)
        if float(phi.max()) > score:
            best, score = part[phi.argmax()], float(phi.max())
    return best
