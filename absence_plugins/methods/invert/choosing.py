"""Which of the formulas found names the unit: by description length, so that every literal must earn its place.

A formula of l literals among J concepts costs (l - 1) log(4 J) nats more to write down than one of a single literal (2
J literals, AND or OR). It pays with what it explains of the unit's ranks: (N / 2) log(1 - R^2) less, where R^2 is the
share of the ranks' variance between the samples on which it holds and those on which it fails, and N the number of
independent samples. The best formula of every length is compared, on the searched samples alone.
"""

from __future__ import annotations

import math


def description_length(auc: float, share: float, *, samples: float, spread: float, length: int, concepts: int) -> float:
    """Nats to describe the unit's ranks, given a formula, and the formula; up to what all formulas have in common.

    Args:
        auc: of the formula.
        share: of the samples on which it holds.
        samples: independent samples on which it is known.
        spread: variance of the samples' ranks divided by N; 1/12 without ties.
        length: literals.
        concepts: J, among how many it was searched.

    >>> round(description_length(0.9, 0.5, samples=200, spread=1 / 12, length=1, concepts=10), 1)
    -65.4
    """
    explained = (auc - 0.5) ** 2 * share * (1 - share) / spread if spread > 0 else 0.0
    return samples / 2 * math.log(max(1e-12, 1 - explained)) + (length - 1) * math.log(4 * concepts)
