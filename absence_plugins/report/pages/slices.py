"""A volume for a page: for each axis one picture of all slices, below each other."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from absence_plugins.core.kinds import VolumeKind
from absence_plugins.report.plots.picture import paint
from absence_plugins.report.plots.pooled import bin_starts, pool_strongest
from absence_plugins.report.plots.volume import PLANES, Volumes, gray_range, name_slice, slice_sizes

MOST = 96  # slices of an axis, and voxels along a side of one


@dataclass(frozen=True)
class Strip:
    """All slices of one volume along one axis, as data of a PNG, with its name and an alternative text."""

    name: str
    uri: str
    alt: str


@dataclass(frozen=True)
class AxisSlices:
    """What can be stepped through along one axis.

    Attributes:
        number, name: of the axis.
        volumes: input, reference and map.
        ratio: width by height of a slice.
        count: how many slices.
        at: the one that is shown first.
        x, y: where the strongest voxel is in it, from 0 to 1.
        down, across: the axes that run down and across it.
        label: of the slice that is shown first.
        labels: of all, as JSON.
    """

    number: int
    name: str
    volumes: tuple[Strip, ...]
    ratio: float
    count: int
    at: int
    x: float
    y: float
    down: int
    across: int
    label: str
    labels: str


def slice_volume(kind: VolumeKind, found: Volumes) -> list[AxisSlices]:
    """The slices of a volume along its three axes, of the input, the reference and the map.

    >>> zeros = torch.zeros(2, 3, 4)
    >>> [axis.count for axis in slice_volume(VolumeKind(), Volumes(zeros, zeros, None, 0, (1, 2, 3)))]
    [2, 3, 4]
    """
    shape = found.signed.shape
    low, high = gray_range(found)
    limit = float(found.signed.abs().max()) or 1.0
    named = "reference" if found.references == 1 else f"mean of {found.references} references"
    volumes = [("input", (shrink(found.x) - low) / (high - low)), ("relevance R", shrink(found.signed, keeps=True))]
    if found.reference is not None:
        volumes.insert(1, (named, (shrink(found.reference) - low) / (high - low)))
    axes = []
    for axis, (height, width) in enumerate(slice_sizes(kind, shape)):
        down, across = PLANES[axis]
        count = min(shape[axis], MOST)
        starts = bin_starts(shape[axis], count).tolist()
        labels = [name_slice(kind, axis, start, shape[axis]) for start in starts[:-1]]
        at = sum(start <= found.place[axis] for start in starts[1:])
        strips = tuple(
            Strip(
                name,
                _strip(volume, axis, None if name != "relevance R" else limit),
                f"{name}, slices along {kind.axes[axis]}",
            )
            for name, volume in volumes
        )
        x, y = ((found.place[one] + 0.5) / shape[one] for one in (across, down))
        axes.append(
            AxisSlices(
                axis, kind.axes[axis], strips, round(width / height, 4), count, at, round(x, 4), round(y, 4), down,
                across, labels[at], json.dumps(labels, ensure_ascii=False),
            )
        )  # fmt: skip
    return axes


def is_shrunk(found: Volumes) -> bool:
    """Whether a page shows fewer slices or voxels than the volume has."""
    return max(found.signed.shape) > MOST


def shrink(volume: Tensor, *, keeps: bool = False) -> Tensor:
    """At most 96 voxels along every axis: means, or of a map the strongest of each block, so that none disappears.

    >>> shrink(torch.zeros(4, 200, 96)).shape
    torch.Size([4, 96, 96])
    """
    for axis in range(3):
        if volume.shape[axis] <= MOST:
            continue
        moved = volume.movedim(axis, -1)
        if keeps:
            moved = pool_strongest(moved, MOST)
        else:
            starts = bin_starts(moved.shape[-1], MOST)
            sums = torch.cat([torch.zeros_like(moved[..., :1]), moved.cumsum(-1)], -1)
            moved = (sums[..., starts[1:]] - sums[..., starts[:-1]]) / (starts[1:] - starts[:-1])
        volume = moved.movedim(-1, axis)
    return volume


def _strip(volume: Tensor, axis: int, limit: float | None) -> str:
    """Slices along an axis below each other as data of a PNG: gray in [0, 1], or a map with its limit."""
    stacked = volume.movedim(axis, 0).flatten(0, 1).numpy()
    if limit is None:
        picture = Image.fromarray((np.clip(stacked, 0, 1) * 255).round().astype(np.uint8))
    else:
        colors = (paint(stacked, limit) * 255).round().astype(np.uint8)
        # 257 colors at most, of which zero is white: a palette would save little and could lose it.
        picture = Image.fromarray(colors)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
