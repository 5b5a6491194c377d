"""``empty``: the value that counts as no content, in the shape of one input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.kinds import Kind, SignalKind, TableKind, VolumeKind
from absence_plugins.core.table_space import check_finite


def blank_value(empty: Any, images: Tensor, kind: Kind | None = None) -> Tensor:
    """The blank pixel as a tensor that broadcasts to one image.

    A sequence of C numbers is read as one value per channel; a torchvision ``Normalize`` (anything with
    ``mean`` and ``std``) as the value that black has after it. Of signals and volumes a sequence is never read along
    time or space; a whole signal without channels is [1, T]. Of a table it has one value per entry.

    Raises:
        ValueError: another shape; of a kind, NaN or infinite values.

    >>> blank_value([0.0, -1.0], torch.zeros(1, 2, 3, 3)).shape
    torch.Size([2, 1, 1])
    >>> blank_value([0.0, -1.0], torch.zeros(5, 2, 9), SignalKind()).shape
    torch.Size([2, 1])
    """
    if hasattr(empty, "mean") and hasattr(empty, "std") and not callable(empty.mean):  # arrays have methods
        mean, std = torch.as_tensor(empty.mean), torch.as_tensor(empty.std)
        empty = -mean / std
    value = torch.as_tensor(empty, dtype=images.dtype if images.is_floating_point() else None)
    if isinstance(kind, (SignalKind, VolumeKind)):
        value = _read_per_channel(value, images, kind)
    elif value.dim() == 1 and images.dim() > 2 and len(value) in (1, images.shape[1]):
        value = value.reshape(-1, *[1] * (images.dim() - 2))
    try:
        fits = value.expand(images.shape[1:]).shape == images.shape[1:]
    except RuntimeError:
        fits = False
    if not fits:
        what, remedy = "images", "one value per channel, or an image"
        if kind is not None:
            what = f"a {kind.name}"
            remedy = (
                "one value per entry" if isinstance(kind, TableKind) else f"one value per channel, or a {kind.name}"
            )
        raise ValueError(
            f"empty of shape {tuple(value.shape)} does not fit {what} of shape {tuple(images.shape[1:])}; "
            f"pass a number, {remedy}"
        )
    if isinstance(kind, TableKind):
        check_finite(kind, value.expand(images.shape[1:])[None], "empty")
    elif kind is not None and not bool(torch.isfinite(value).all()):
        raise ValueError("empty holds NaN or infinite values; pass finite ones")
    return value


def _read_per_channel(value: Tensor, images: Tensor, kind: SignalKind | VolumeKind) -> Tensor:
    """One value per channel, or a whole signal or volume, so that it broadcasts to one of them."""
    axes = 1 if isinstance(kind, SignalKind) else 3
    has_channels = images.dim() == axes + 2
    channels = images.shape[1] if has_channels else 1
    if value.dim() == axes + 1 and not has_channels and value.shape[0] == 1:
        return value[0]
    if value.dim() != 1:
        return value
    if len(value) not in (1, channels):
        whole = [1 if not has_channels else channels, *images.shape[-axes:]]
        raise ValueError(
            f"empty has {len(value)} values, and a {kind.name} of shape {tuple(images.shape[1:])} has "
            f"{channels} channel{'s' * (channels != 1)}; pass a number, one value per channel, or a whole {kind.name} "
            f"{whole}"
        )
    return value.reshape(-1, *[1] * axes) if has_channels else value
