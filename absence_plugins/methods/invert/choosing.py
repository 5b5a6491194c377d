"""Which of the formulas found names the unit: by description length, so that every literal must earn its place.

A formula of l literals among J concepts costs (l - 1) log(4 J) nats more to write down than one of a single literal (2
J literals, AND or OR). It pays with what it explains of the unit: (N / 2) log(1 - R^2) less, where R^2 is the share of
the variance between the samples on which it holds and those on which it fails, of the unit's ranks (scores AUC and
AUPRC), its activation (correlation) or its firing (F1, IoU), and N the number of independent samples. A formula on
which the unit is low (AUC below 0.5) explains nothing. Compared are, on the searched samples alone, the best formulas
of every length whose score is above that of all shorter ones: else a unit that detects a rare concept perfectly would
be named by a union of it and others, which explains more of its variance.
"""

from __future__ import annotations

import math


def description_length(explained: float, samples: float, *, length: int, concepts: int) -> float:
    """Nats to describe the unit, given a formula, and the formula; up to what all formulas have in common.

    Args:
        explained: R^2.
        samples: independent samples on which the formula is known.
        length: literals.
        concepts: J, among how many it was searched.

    >>> round(description_length(0.48, 200, length=1, concepts=10), 1)
    -65.4
    """
    return samples / 2 * math.log(max(1e-12, 1 - explained)) + (length - 1) * math.log(4 * concepts)
