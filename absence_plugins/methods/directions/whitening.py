"""Whitening: the coordinates in which no scaling, shift or correlation of the features can hide a concept.

Normal noise that every feature has on its own is cut before: whitening would blow it up to the size of the concepts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.methods.directions.features import Features, chunks
from absence_plugins.methods.directions.normality import is_normal

RANK_TOLERANCE = 1e-3  # of the largest standard deviation; directions below it are left out
# Where small components are noise, whitening blows it up. Measured on a trained CNN (shapes): intersection over union
# .3-.7 with all 32 components, .99 with the 5 above .1. Starts try each; the objective chooses.
TOLERANCES = (RANK_TOLERANCE, 0.1, 0.25)
# The noise is cut at the largest ratio of neighboring variances, of at least CUT_RATIO, if what goes is at least
# FEWEST_NOISE components and a share of 1 / NOISE_SHARE, and as flat as noise of one variance is in so many positions.
CUT_RATIO, FEWEST_NOISE, NOISE_SHARE, FLATNESS = 1.5, 8, 10, 1.5
FACTORINGS, LEAST_OWN = 4, 1e-4  # rounds; smallest share of a feature's variance that is its own
SINGULAR = 1e-9  # smallest variance of standardized features, relative to the largest: below it nothing is noise


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> (x - mean) @ forward has mean 0 and covariance 1; its inverse on the features' span is ``backward``.

    Attributes:
        mean: [D] float64.
        forward: [D, R] float64, R the features' rank, without what was cut as noise.
        backward: [R, D] float64.
        noise: the number of components that were cut as noise.
        kept_noise: the number of those that are noise, too, and were kept, as so many were asked for.
    """

    mean: Tensor
    forward: Tensor
    backward: Tensor
    noise: int = 0
    kept_noise: int = 0

    def __repr__(self) -> str:
        return f"Whitening({self.forward.shape[0]} dimensions, rank {self.rank})"

    @property
    def rank(self) -> int:
        """R."""
        return self.forward.shape[1]

    def ranks(self, least: int) -> tuple[int, ...]:
        """The numbers of leading components that are worth a try, at least ``least`` each; R where noise was cut."""
        if self.noise or self.kept_noise:
            return (self.rank,)
        deviations = self.backward.norm(dim=1)
        counts = {max(least, int((deviations > share * deviations[0]).sum())) for share in TOLERANCES}
        return tuple(sorted(counts, reverse=True))

    def __call__(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., R], computed in float64, returned in float32."""
        return ((features.double() - self.mean) @ self.forward).float()


def fit_whitening(features: Features, least: int = 0) -> Whitening:
    """Principal components of all positions, each divided by its standard deviation; noise is left out.

    Feature j is divided by (C^-1)_jj^(-1/2), its standard deviation given all others, before the components are made:
    independent noise of whatever size per feature becomes a flat end of the spectrum. Where there is such an end
    (:func:`count_noise`) it is cut, if it is normally distributed: sparse concepts of equal strength make such an end,
    too. Elsewhere these are the features' own components. Two or three passes in float64. The sign of a component is
    fixed by its largest entry, so that the same features give the same coordinates. ``least``: at least so many
    components are kept, noise or not, if there are as many.

    Raises:
        ValueError: NaN or infinite features, or all of them equal.

    Example:
        >>> from absence_plugins.methods.directions.features import MemoryFeatures
        >>> x = torch.randn(50, 2, 2, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.0])
        >>> whitening = fit_whitening(MemoryFeatures(x))
        >>> whitening, round(float(whitening(x).var()), 2)
        (Whitening(3 dimensions, rank 2), 1.0)
    """
    count, mean, covariance = measure_covariance(features)
    deviations, components = principal_components(covariance)
    rounding = 1e-7 * float(mean.abs().max())  # of features in single precision
    if float(deviations[0]) <= rounding:
        raise ValueError("features are constant: every position has the same values, so there is no direction to find")
    used = covariance.diagonal().sqrt() > rounding
    if (found := find_noise(covariance, used, count)) is not None:
        scale, noise = found
        scaled, turned = principal_components(covariance / scale / scale[:, None])
        kept, last = len(scale) - noise, int(used.sum())
        cut = turned[:, kept:last]
        if is_normal(features, mean, cut / scaled[kept:last] / scale[:, None], cut.T[:, used]):
            extra = min(max(least - kept, 0), last - kept)
            kept += extra
            scaled, turned = scaled[:kept], turned[:, :kept]
            return Whitening(mean, turned / scaled / scale[:, None], (turned * scaled).T * scale, noise - extra, extra)
    large = deviations > max(RANK_TOLERANCE * float(deviations[0]), rounding)
    components, deviations = components[:, large], deviations[large]
    return Whitening(mean, components / deviations, (components * deviations).T)


def note_noise(whitening: Whitening) -> tuple[str, ...]:
    """What to say where components were cut.

    >>> eye = torch.eye(9)
    >>> note_noise(Whitening(eye[0], eye[:, :1], eye[:1], 8))[0][:48], note_noise(Whitening(eye[0], eye, eye))
    ('8 of the 9 components of the features were taken', ())
    """
    found = whitening.noise + whitening.kept_noise
    if not found:
        return ()
    total = whitening.rank + whitening.noise
    what = f"{found} of the {total} components of the features were taken for noise"
    if not whitening.kept_noise:
        return (f"{what} and left out: normally distributed, and of one variance",)
    return (
        f"{what}, normally distributed and of one variance: more than {total - found} directions are too many; "
        f"{whitening.kept_noise} components of noise were kept for the others",
    )


def measure_covariance(features: Features) -> tuple[int, Tensor, Tensor]:
    """The number of positions, their mean [D] and their covariance [D, D], in float64."""
    count, total = 0, None
    for chunk in chunks(features):
        rows = chunk.flatten(0, -2).double()
        if not bool(rows.isfinite().all()):
            raise ValueError(
                "features holds NaN or infinite values; drop those images, or correct the model that made them"
            )
        total = rows.sum(0) if total is None else total + rows.sum(0)
        count += len(rows)
    assert total is not None
    mean = total / count
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for chunk in chunks(features):
        rows = chunk.flatten(0, -2).double() - mean
        covariance += rows.T @ rows
    return count, mean, covariance / max(count - 1, 1)


def principal_components(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations [D], largest first, and components [D, D] as columns, of a covariance."""
    variances, components = torch.linalg.eigh(covariance)
    deviations, components = variances.clamp(min=0).sqrt().flip(0), components.flip(1)
    largest = components.abs().argmax(0, keepdim=True)
    return deviations, components * components.gather(0, largest).sign()


def find_noise(covariance: Tensor, used: Tensor, positions: int) -> tuple[Tensor, int] | None:
    """The standard deviation of each feature's own noise [D] and the number of components to cut; None for no noise.

    Begins with (C^-1)_jj^(-1/2), what is left of a feature given all others, and goes on with what is left of it given
    the components that stay (principal axis factoring). Features that are not ``used`` count as cut components.
    """
    unused = int((~used).sum())
    some = covariance[used][:, used]
    deviations = some.diagonal().sqrt()
    correlation = some / deviations / deviations[:, None]
    spectrum = torch.linalg.eigvalsh(correlation)
    if float(spectrum[0]) <= SINGULAR * float(spectrum[-1]):
        return None  # features depend on each other without any noise
    own = torch.linalg.inv(correlation).diagonal().rsqrt()
    for _ in range(FACTORINGS):
        scaled, components = principal_components(correlation / own / own[:, None])
        noise = count_noise(scaled**2, positions, flat=False)
        if not noise:
            return None
        variances, kept = scaled**2, len(scaled) - noise
        above = (variances[:kept] - variances[kept:].mean()).clamp(min=0)
        common = (components[:, :kept] ** 2 * above).sum(1) * own**2
        own = (1 - common).clamp(min=LEAST_OWN).sqrt()
    scaled, _ = principal_components(correlation / own / own[:, None])
    noise = count_noise(scaled**2, positions)
    if not noise:
        return None
    scale = torch.ones_like(covariance[0])
    scale[used] = deviations * own
    return scale, noise + unused


def count_noise(variances: Tensor, positions: int, *, flat: bool = True) -> int:
    """How many of the last variances, largest first, are noise; 0 where no end can be told from the rest.

    Of m components of noise of one variance, n positions show variances between (1 - sqrt(m/n))^2 and
    (1 + sqrt(m/n))^2 (Marchenko-Pastur); an end that spreads by much more holds structure. ``flat=False``: may spread.

    >>> count_noise(torch.cat([torch.tensor([9.0, 4.0]), torch.ones(10)]), 1000)
    10
    """
    least = max(FEWEST_NOISE, len(variances) // NOISE_SHARE)
    ratios = variances[:-1] / variances[1:].clamp(min=torch.finfo(variances.dtype).tiny)
    if len(variances) <= least:
        return 0
    last = int(ratios[: len(variances) - least].argmax())  # the last component that stays
    noise = len(variances) - last - 1
    edge = min(math.sqrt(noise / positions), 0.9)
    spread = float(variances[last + 1] / variances[-1])
    if float(ratios[last]) <= CUT_RATIO or (flat and spread > FLATNESS * ((1 + edge) / (1 - edge)) ** 2):
        return 0
    return noise
