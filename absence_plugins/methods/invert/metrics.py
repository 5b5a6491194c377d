"""Scores of a name beside AUC, and whether a score notices labels that are missing or too many.

AUC compares pairs of samples, so of a rare concept half of the labels can be missing without it moving: the samples
that lost theirs are few among those without the concept. Such a score cannot tell a name from one that says half of it.
AUPRC, F1, IoU and correlation can. Source of the two tests: NeuronEval (ICML 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from absence_plugins.core.checks import check_choice, check_integer, check_seed
from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.groups import center_ranks
from absence_plugins.methods.invert.inputs import as_activations, as_truth
from absence_plugins.methods.invert.measures import standardize

NOTICED = 0.1  # share of what a score has above chance that it must lose


def name_scores(activations: Any, truth: Any) -> dict[str, float]:
    """AUC, AUPRC, F1, IoU and correlation of a unit as detector of a name.

    Args:
        activations: [N] of one unit.
        truth: [N] of 0, 1 and NaN (unknown), as :meth:`Formula.evaluate` gives it; unknown samples are left out.

    Returns:
        "auc"; "auprc", average precision, samples of equal activation taken together; "f1" and "iou" at the threshold
        of the activation that is best for them; "correlation", Pearson's. Chance: 0.5, the share of samples on which
        the name holds, 2 share / (1 + share), the share, and 0.

    Sign: all are high where the unit is high on samples on which the name holds.

    Raises:
        ValueError: activations that are NaN or infinite, other labels, lengths that differ, a name that holds, or
            fails, nowhere.

    >>> name_scores([0.9, 0.8, 0.1, 0.2], [1, 0, 0, 0])["auprc"]
    1.0
    """
    values, holds = _known(activations, truth)
    return {name: float(score(values, holds)) for name, score in SCORES.items()}


@dataclass(frozen=True)
class SanityTest:
    """What a score loses when labels are wrong; of :func:`sanity_test`.

    Attributes:
        score: its name.
        value: with the labels as they are.
        missing: mean with half of the labels where the name holds turned to "absent".
        extra: mean with as many labels again, of samples on which it fails, turned to "present".
        chance: of an activation that knows nothing.
        notices_missing, notices_extra: whether at least a tenth of what the score has above chance is lost.
    """

    score: str
    value: float
    missing: float
    extra: float
    chance: float

    @property
    def notices_missing(self) -> bool:
        """Whether missing labels show."""
        return self._is_lost(self.missing)

    @property
    def notices_extra(self) -> bool:
        """Whether labels that are too many show."""
        return self._is_lost(self.extra)

    def _is_lost(self, value: float) -> bool:
        return self.value > self.chance and self.value - value >= NOTICED * (self.value - self.chance)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and truths."""
        own = {name: getattr(self, name) for name in ("score", "value", "missing", "extra", "chance")}
        return own | {"notices_missing": self.notices_missing, "notices_extra": self.notices_extra}


def sanity_test(activations: Any, truth: Any, score: str = "auc", *, repeats: int = 20, seed: int = 0) -> SanityTest:
    """Take labels away, and add some, at random: does the score of a unit's name notice?

    Args:
        activations: [N] of one unit.
        truth: [N], where its name holds: 0, 1 and NaN (unknown, left out).
        score: one of "auc", "auprc", "f1", "iou", "correlation".
        repeats: random choices of labels, averaged.
        seed: of these. The global random state is neither used nor changed.

    Raises:
        ValueError: what :func:`name_scores` rejects, an unknown score, a name that holds on fewer than two samples.

    >>> truth = torch.arange(1000) < 10  # a rare concept, and a unit that follows it
    >>> [sanity_test(truth.float(), truth, score).notices_missing for score in ("auc", "auprc", "f1", "iou", "correlation")]
    [False, True, True, True, True]
    """
    check_choice("score", score, SCORES)
    check_integer("repeats", repeats)
    check_seed(seed)
    values, holds = _known(activations, truth)
    present, absent = np.flatnonzero(holds), np.flatnonzero(~holds)
    if len(present) < 2 or len(absent) < 2:
        raise ValueError(f"the name holds on {len(present)} samples and fails on {len(absent)}; both need two")
    rng, rate = np.random.default_rng(seed), SCORES[score]
    missing, extra = [], []
    for _ in range(repeats):
        fewer, more = holds.copy(), holds.copy()
        fewer[rng.choice(present, len(present) // 2, replace=False)] = False
        more[rng.choice(absent, min(len(present), len(absent) - 1), replace=False)] = True
        missing.append(rate(values, fewer))
        extra.append(rate(values, more))
    share = len(present) / len(holds)
    chance = {"auc": 0.5, "auprc": share, "f1": 2 * share / (1 + share), "iou": share, "correlation": 0.0}[score]
    return SanityTest(score, float(rate(values, holds)), float(np.mean(missing)), float(np.mean(extra)), chance)


def _known(activations: Any, truth: Any) -> tuple[Array, Array]:
    values = as_activations(activations)
    if values.dim() != 1:
        raise ValueError(f"activations have shape {tuple(values.shape)}; pass those of one unit, [N]")
    given = torch.as_tensor([torch.nan if one is None else one for one in truth] if isinstance(truth, list) else truth)
    labels = as_truth(given[:, None] if given.dim() == 1 else given)[:, 0]
    if labels.true.shape != values.shape:
        raise ValueError(f"{len(values)} activations but {len(labels.true)} labels; pass one per sample")
    if not bool(labels.true.any()) or not bool(labels.false.any()):
        raise ValueError("the name holds on every sample, or on none: there is nothing to tell apart")
    known = labels.known.cpu().numpy()
    return values.cpu().double().numpy()[known], labels.true.cpu().numpy()[known]


def _auc(values: Array, holds: Array) -> float:
    n1, n0 = int(holds.sum()), int((~holds).sum())
    return float((center_ranks(values) @ holds + n1 * n0) / (2 * n1 * n0))


def _curve(values: Array, holds: Array) -> tuple[Array, Array]:
    """At every threshold, from the highest: samples at or above it, and how many of them hold."""
    levels, place, counts = np.unique(-values, return_inverse=True, return_counts=True)
    hits = np.bincount(place.reshape(-1), weights=holds, minlength=len(levels))
    return counts.cumsum(), hits.cumsum()


def _auprc(values: Array, holds: Array) -> float:
    fired, hits = _curve(values, holds)
    return float((np.diff(hits, prepend=0) * hits / fired).sum() / holds.sum())


def _f1(values: Array, holds: Array) -> float:
    fired, hits = _curve(values, holds)
    return float((2 * hits / (fired + holds.sum())).max())


def _iou(values: Array, holds: Array) -> float:
    fired, hits = _curve(values, holds)
    return float((hits / (fired + holds.sum() - hits)).max())


def _correlation(values: Array, holds: Array) -> float:
    if not np.isfinite(values).all():
        raise ValueError(
            "the correlation with infinite activations is not defined; clip them, or leave those samples out"
        )
    both = standardize(torch.from_numpy(np.stack([values, holds])))
    return float((both[0] * both[1]).mean())


SCORES: dict[str, Callable[[Array, Array], float]] = {
    "auc": _auc, "auprc": _auprc, "f1": _f1, "iou": _iou, "correlation": _correlation,
}  # fmt: skip
