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


def count_outliers(features: Features) -> Tensor:
    """The number of positions [D] at which each channel is far from its median; 0 where these are no few.

    Far: by more than 30 standard deviations of the channel without its farthest 2 % of the positions and, so that a
    channel that is mostly silent does not count, by more than 30 of the median of all channels' standard deviations.

    >>> from absence_plugins.methods.directions.features import MemoryFeatures
    >>> x = torch.randn(1000, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    >>> x[:4, ..., 1] = 1000.0
    >>> count_outliers(MemoryFeatures(x))
    tensor([0, 4, 0])
    """
    n, h, w, size = features.shape
    positions = n * h * w
    step = max(1, positions // SAMPLE)
    sample = torch.cat([chunk.flatten(0, -2)[::step].float() for chunk in chunks(features)])
    center = sample.median(0).values
    squares = ((sample - center) ** 2).sort(0).values
    usual = squares[: max(1, int((1 - LEFT_OUT) * len(sample)))].mean(0).sqrt()
    far = FAR * torch.maximum(usual, squares.mean(0).sqrt().median())
    counts = torch.zeros(size, dtype=torch.long, device=center.device)
    for chunk in chunks(features):
        counts += ((chunk.flatten(0, -2).float() - center).abs() > far).sum(0)
    return torch.where((counts <= FEW * positions) & (far > 0), counts, 0).cpu()


def note_outliers(features: Features) -> tuple[str, ...]:
    """What to say where there are some, with the channels and the numbers of positions."""
    counts = count_outliers(features)
    channels = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())].tolist()
    if not channels:
        return ()
    which = ", ".join(f"{k} ({int(counts[k])} positions)" for k in channels[:NAMED])
    more = f" and {len(channels) - NAMED} more" if len(channels) > NAMED else ""
    return (
        f"massive activations, more than {FAR:.0f} usual standard deviations, in channel {which}{more}: encodings are "
        "uncertain there, and directions may be lost; leave out these channels or positions, or clamp them",
    )
