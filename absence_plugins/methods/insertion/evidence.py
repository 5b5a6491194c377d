"""Is the fall under the lowest patches more than that under other patches? Every comparison is one-sided, in
float64.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import stats

Array = np.ndarray


def paired_p(lowest: Array, control: Array, test: str = "t") -> float:
    """p of "the lowest patch pulls further down than the control", over images [n]: paired t or Wilcoxon.

    >>> paired_p(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.5, 4.0])) < 0.02
    True
    """
    differences = np.asarray(control, float) - np.asarray(lowest, float)
    if len(differences) < 2 or not differences.any():
        return 1.0
    if test == "wilcoxon":
        return float(stats.wilcoxon(differences, alternative="greater").pvalue)
    return _from_t(differences.mean(), differences.std(ddof=1) / np.sqrt(len(differences)), len(differences) - 1)


def effect_size(lowest: Array, control: Array) -> float:
    """Cohen's d of the paired differences control - lowest (positive: the lowest patch pulls further down).

    >>> effect_size(np.array([0.0, 0.0, 0.0]), np.array([1.0, 2.0, 3.0]))
    2.0
    """
    differences = np.asarray(control, float) - np.asarray(lowest, float)
    spread = differences.std(ddof=1) if len(differences) > 1 else 0.0
    if spread == 0:
        return float(np.sign(differences.mean()) * np.inf) if differences.any() else 0.0
    return float(differences.mean() / spread)


def patch_p(lowest: Array, lowest_sources: Array, random: Array, random_sources: Array) -> float:
    """p of "these patches pull further down than random ones do", where a patch, not an image, is the sample.

    Eight patches pasted into a hundred images are eight samples, not a hundred: by chance alone eight patches differ
    from other eight. Falls [n] are averaged over the images that got patches of one source image; then a pooled
    two-sample t-test. If the lowest patches were any others (the null hypothesis), their spread is that of the random
    ones.

    >>> patch_p(np.array([-1.0, -1.1]), np.array([0, 1]), np.array([0.0, 0.1, -0.1]), np.array([2, 3, 4])) < 0.01
    True
    """
    low, other = _per_source(lowest, lowest_sources), _per_source(random, random_sources)
    degrees = len(low) + len(other) - 2
    if degrees < 1:
        return 1.0
    scatter = ((low - low.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum()
    error = np.sqrt(scatter / degrees * (1 / len(low) + 1 / len(other)))
    return _from_t(other.mean() - low.mean(), error, degrees)


def published_p(lowest: Array, random: Array) -> float:
    """The published test: two-sided, unpaired, equal variances, on activations in half precision.

    >>> published_p(np.array([1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0]))
    1.0
    """
    low, other = (np.asarray(values, np.float16).astype(float) for values in (lowest, random))
    if np.ptp(low) == 0 and np.ptp(other) == 0:
        return 1.0 if low.mean() == other.mean() else 0.0
    return float(stats.ttest_ind(other, low).pvalue)


def corrected(p: Array) -> Array:
    """Benjamini-Hochberg over units."""
    return np.asarray(stats.false_discovery_control(p))


def verdict(p: Mapping[str, float]) -> float:
    """The largest of the p-values: every control must be beaten (an intersection-union test)."""
    return max(p.values())


def _per_source(values: Array, sources: Array) -> Array:
    return np.array([np.asarray(values, float)[sources == source].mean() for source in np.unique(sources)])


def _from_t(mean: float, error: float, degrees: int) -> float:
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stats.t.sf(mean / error, degrees))
