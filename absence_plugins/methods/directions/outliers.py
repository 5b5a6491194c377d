"""Massive activations: a few positions at which a channel is far larger than features usually are."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.methods.directions.features import Features, chunks

SAMPLE = 10_000  # positions that the usual spread is measured in
LEFT_OUT = 0.02  # of these, the farthest of each channel: they may be outliers themselves
FAR = 30.0  # usual standard deviations
FEW = 0.02  # of the positions; what is far at more of them is no outlier
NAMED = 5


class BoundedFeatures:
    """Features [N, H, W, D] in which positions with a massive activation are replaced by the mean of all others.

    A position is replaced whole, as what makes one channel massive moves others, too. The mean is the one vector that
    adds nothing to any covariance and makes no concept present.

    Attributes:
        shape: [N, H, W, D].
        counts: [D], at how many positions each channel is massive.
    """

    def __init__(self, features: Features, center: Tensor, far: Tensor, mean: Tensor, counts: Tensor) -> None:
        self.features, self.center, self.far, self.mean, self.counts = features, center, far, mean, counts
        self.shape = features.shape

    def batch(self, index: Tensor) -> Tensor:
        """The features of some images, [len(index), H, W, D]."""
        found = self.features.batch(index)
        outlying = ((found.float() - self.center).abs() > self.far).any(-1, keepdim=True)
        outlying &= found.isfinite().all(-1, keepdim=True)  # what is broken is to be rejected
        return torch.where(outlying, self.mean.to(found.dtype), found)


def bound_outliers(features: Features) -> Features:
    """The same features if none is massive, else :class:`BoundedFeatures`.

    Massive is a channel further from its median than 30 standard deviations that it has without its farthest 2 % of the
    positions and, so that a channel that is mostly silent does not count, than 30 of the median of all channels'
    standard deviations; at no more than 2 % of the positions.

    >>> from absence_plugins.methods.directions.features import MemoryFeatures
    >>> x = torch.randn(1000, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    >>> x[:4, ..., 1] = 1000.0
    >>> bounded = bound_outliers(MemoryFeatures(x))
    >>> bounded.counts.tolist(), bool(bounded.batch(torch.arange(1000)).abs().max() < 10)
    ([0, 4, 0], True)
    """
    n, h, w, _ = features.shape
    positions = n * h * w
    step = max(1, positions // SAMPLE)
    sample = torch.cat([chunk.flatten(0, -2)[::step].float() for chunk in chunks(features)])
    center = sample.median(0).values
    squares = ((sample - center) ** 2).sort(0).values
    usual = squares[: max(1, int((1 - LEFT_OUT) * len(sample)))].mean(0).sqrt()
    far = FAR * torch.maximum(usual, squares.mean(0).sqrt().median())
    far = torch.where(far > 0, far, torch.inf)
    counts = torch.zeros_like(center, dtype=torch.long)
    for chunk in chunks(features):
        counts += ((chunk.flatten(0, -2).float() - center).abs() > far).sum(0)
    far = torch.where(counts <= FEW * positions, far, torch.inf)
    counts = torch.where(far.isfinite(), counts, 0)
    ordinary = ((sample - center).abs() <= far).all(1)
    if not bool(counts.any()) or float(ordinary.double().mean()) < 1 - FEW:
        return features
    return BoundedFeatures(features, center, far, sample[ordinary].double().mean(0), counts)


def note_outliers(features: Features) -> tuple[str, ...]:
    """What to say of :class:`BoundedFeatures`, with the channels and the numbers of positions."""
    if not isinstance(features, BoundedFeatures):
        return ()
    counts = features.counts.cpu()
    channels = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())].tolist()
    which = ", ".join(f"{k} ({int(counts[k])} positions)" for k in channels[:NAMED])
    more = f" and {len(channels) - NAMED} more" if len(channels) > NAMED else ""
    return (
        f"massive activations, more than {FAR:.0f} usual standard deviations, in channel {which}{more}: these positions "
        "counted as average ones, without any concept",
    )
