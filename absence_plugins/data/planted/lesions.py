"""Is the colored patch missing? Dark lesions on skin, and in one class a colored patch beside them (as in
dermoscopy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from absence_plugins.data.planted.networks import normalized_network
from absence_plugins.data.planted.problem import Drawn, Planted, Problem, Scenes
from absence_plugins.data.planted.training import Recipe

SIZE = 24
SKIN = (0.82, 0.64, 0.54)
PATCHES = ((0.25, 0.45, 0.85), (0.25, 0.75, 0.45), (0.65, 0.35, 0.8))  # blue, green, violet
DECOYS = ((0.95, 0.88, 0.12), (0.9, 0.12, 0.17), (0.97, 0.97, 0.97))  # yellow, red, white: as far from the skin
LESIONS = ((0.42, 0.26, 0.18), (0.3, 0.17, 0.14), (0.62, 0.33, 0.3))  # brown, dark brown, red
BLOBS = 3  # the lesion, and up to two small ones
MANY = 2  # decoys


RECIPE = Recipe(epochs=6)


@cache
def patch_missing(seed: int = 0) -> Planted:
    """Is the colored patch missing? Logit 1 encodes its absence; 3 channels, batch norm, max pooling, on skin color.

    Region: the patch, a blue, green or violet disk at the rim. Images hold a lesion, up to two small ones and two
    decoys: yellow, red or white disks, as large and as far from the color of the skin as the patch, which do not matter
    (else a map that shows only what is colored would be right). Class 0 (benign, in the data sets with such patches)
    has the patch in addition. ``empty`` is the mean color of the skin. The same ``seed`` gives the same bits. The
    result is cached: treat it as read-only.

    Source: Rieger et al., ICML 2020 (colored patches, only in images of benign lesions, in the ISIC data).
    """
    return LesionProblem(seed).solve(normalized_network(channels=3), RECIPE)


@dataclass(frozen=True, eq=False)
class Lesions(Scenes):
    """What is in the images, in pixels and RGB.

    ``tone`` [N, 3]: the skin; ``center``, ``radii`` [N, BLOBS, 2] and ``color`` [N, BLOBS, 3]: the lesions (radius 0:
    none);
    ``angle`` [N], ``place`` [N, 2], ``radius`` [N, 1] and ``hue`` [N, 3]: the patch or its counterfactual;
    ``has_patch`` [N] bool; ``decoys`` [N, MANY, 2], ``sizes`` [N, MANY, 1] and ``tints`` [N, MANY, 3]: the decoys.
    """

    tone: Tensor
    center: Tensor
    radii: Tensor
    color: Tensor
    angle: Tensor
    place: Tensor
    radius: Tensor
    hue: Tensor
    has_patch: Tensor
    decoys: Tensor
    sizes: Tensor
    tints: Tensor


class LesionProblem(Problem[Lesions]):
    """One lesion near the middle, small ones anywhere, and a patch at the rim, or none."""

    empty = SKIN

    def scenes(self, count: int) -> Lesions:
        """Lesions, and where a patch would be."""
        small = torch.arange(BLOBS) > 0
        center = torch.where(
            small[:, None], self.uniform(2, 22, count, BLOBS, 2), self.uniform(10, 14, count, BLOBS, 2)
        )
        radii = torch.where(
            small[:, None], self.uniform(0.8, 1.6, count, BLOBS, 2), self.uniform(2.5, 4.5, count, BLOBS, 2)
        )
        there = ~small | (self.uniform(0, 1, count, BLOBS) < 0.5)
        color = torch.tensor(LESIONS)[self.integers(0, len(LESIONS), count, BLOBS)]
        angle = self.uniform(0, 2 * math.pi, count)
        beside = angle[:, None] + torch.tensor([2, -2]) * math.pi / 3 + self.uniform(-0.2, 0.2, count, MANY)
        return Lesions(
            tone=torch.tensor(SKIN) + self.uniform(-0.05, 0.05, count, 1),
            center=center,
            radii=radii * there[..., None],
            color=color + self.uniform(-0.08, 0.08, count, BLOBS, 1),
            angle=angle,
            place=self._rim(angle),
            radius=self.uniform(2.0, 3.0, count, 1),
            hue=torch.tensor(PATCHES)[self.integers(0, len(PATCHES), count)] + self.uniform(-0.08, 0.08, count, 1),
            has_patch=torch.zeros(count, dtype=torch.bool),
            decoys=self._rim(beside.flatten()).reshape(count, MANY, 2),
            sizes=self.uniform(2.0, 3.0, count, MANY, 1),
            tints=torch.tensor(DECOYS)[self.integers(0, len(DECOYS), count, MANY)]
            + self.uniform(-0.08, 0.08, count, MANY, 1),
        )

    def _rim(self, angle: Tensor) -> Tensor:
        """Places [N, 2] around the lesion at these angles [N], whole patches inside the image."""
        distance = self.uniform(8, 11, len(angle))
        around = SIZE / 2 + distance[:, None] * torch.stack([angle.sin(), angle.cos()], 1)
        return around.clamp(3, SIZE - 3)

    def with_key(self, scenes: Lesions) -> Lesions:
        """The scenes with the patch."""
        return replace(scenes, has_patch=torch.ones_like(scenes.has_patch))

    def without_key(self, scenes: Lesions) -> Lesions:
        """The scenes without the patch."""
        return replace(scenes, has_patch=torch.zeros_like(scenes.has_patch))

    def jittered(self, scenes: Lesions) -> Lesions:
        """Everything up to half a pixel aside, and a little brighter or darker."""
        count = len(scenes)
        return replace(
            scenes,
            tone=scenes.tone + self.uniform(-0.02, 0.02, count, 1),
            center=scenes.center + self.uniform(-0.5, 0.5, count, BLOBS, 2),
            color=scenes.color + self.uniform(-0.04, 0.04, count, BLOBS, 1),
            place=scenes.place + self.uniform(-0.5, 0.5, count, 2),
            hue=scenes.hue + self.uniform(-0.04, 0.04, count, 1),
        )

    def elsewhere(self, scenes: Lesions) -> Lesions:
        """The patch at another place of the rim, between the decoys."""
        angle = scenes.angle + (2 * self.integers(0, 3, len(scenes)) + 1) * math.pi / 3
        return replace(scenes, angle=angle, place=self._rim(angle))

    def render(self, scenes: Lesions) -> Drawn:
        """Images [N, 3, H, W], labels and regions of the patch."""
        images = scenes.tone[:, :, None, None].expand(-1, -1, SIZE, SIZE)
        for blob in range(BLOBS):
            radii = scenes.radii[:, blob]
            inside = torch.sigmoid(4 * (1 - _distance(scenes.center[:, blob], radii.clamp(min=0.5))))
            inside = inside * (radii > 0).all(1)[:, None, None]
            images = torch.lerp(images, scenes.color[:, blob, :, None, None], inside[:, None])
        for decoy in range(MANY):
            inside = _distance(scenes.decoys[:, decoy], scenes.sizes[:, decoy]) <= 1
            images = torch.where(inside[:, None], scenes.tints[:, decoy, :, None, None], images)
        disk = _distance(scenes.place, scenes.radius) <= 1
        regions = (disk & scenes.has_patch[:, None, None])[:, None]
        images = torch.where(regions, scenes.hue[:, :, None, None], images)
        return images.clamp(0, 1), (~scenes.has_patch).long(), regions


def _distance(center: Tensor, radii: Tensor) -> Tensor:
    """Of every pixel from ``center`` [N, 2], in units of ``radii`` [N, 1 or 2]: [N, H, W]."""
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    pixels = torch.stack([rows, columns])[None]
    offsets = (pixels - center[:, :, None, None]) / radii[:, :, None, None]
    return offsets.square().sum(1).sqrt()
