"""What ``bench references`` measures on: a network, photographs, and the pool of their references."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from absence_plugins import FeatureSpace, ReferenceSet
from absence_plugins.core.filling import FILLINGS
from absence_plugins.core.made_references import make_reference

CROPS = 6  # of every photograph
WINDOW = 32  # pixels a side


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, N photographs, and crops of each.

    Attributes:
        name: of the network and the photographs.
        model: images -> logits, in evaluation mode.
        images: [N, C, H, W].
        crops: [N, CROPS, C, H, W], of each photograph.
        empty: black, [C, 1, 1].
        cell: side of the windows in pixels.
    """

    name: str
    model: nn.Module
    images: Tensor
    crops: Tensor
    empty: Tensor
    cell: int = WINDOW

    @cached_property
    def targets(self) -> Tensor:
        """The class that the network predicts for every photograph [N]."""
        with torch.no_grad():
            return torch.as_tensor(self.model(self.images).argmax(1))

    @cached_property
    def predicted(self) -> Tensor:
        """The same for every crop [N, CROPS]."""
        with torch.no_grad():
            return torch.stack([self.model(part).argmax(1) for part in self.crops])

    @cached_property
    def features(self) -> tuple[Tensor, Tensor]:
        """What the classifier sees of the crops [N, CROPS, F] and of the photographs [N, F]."""
        space = FeatureSpace(self.model, distance="euclidean")
        return torch.stack([space.points(part) for part in self.crops]), space.points(self.images)

    def reference(self, row: int, kind: str) -> Tensor:
        """A photograph's reference [1, C, H, W] of a kind: real, of another photograph and class, or made of itself."""
        x = self.images[row : row + 1]
        if kind == "black":
            return self.empty.expand_as(x)
        if kind in FILLINGS:
            return make_reference(x, kind)  # type: ignore[arg-type]
        others = torch.arange(len(self.images)) != row
        pool, labels = self.crops[others].flatten(0, 1), self.predicted[others].flatten()
        if kind == "random":
            return self._only(ReferenceSet(pool, labels, k=1, seed=row).random(x, int(self.targets[row])))
        if kind == "pixels":
            return self._only(ReferenceSet(pool, labels, k=1).nearest(x, int(self.targets[row])))
        crops, own = self.features
        if kind == "features":
            crops, own = (nn.functional.normalize(one, dim=-1) for one in (crops, own))
        near = ReferenceSet(crops[others].flatten(0, 1), labels, k=1)
        return pool[near.nearest_indices(own[row : row + 1], int(self.targets[row]))[0]]

    @staticmethod
    def _only(drawn: Tensor | tuple[Tensor, ...]) -> Tensor:
        assert isinstance(drawn, Tensor)
        return drawn[:, 0]


def load_subject(*, quick: bool = False) -> Subject:
    """The trained network and the photographs of the extra ``photos``; quick: a small one that sees colors, and colored
    noise.

    Raises:
        ImportError: the extra is missing.
    """
    if quick:
        generator = torch.Generator().manual_seed(0)
        crops = torch.rand(3, CROPS, 3, 32, 32, generator=generator) + torch.eye(3)[:, None, :, None, None]
        last = nn.Linear(3, 3)
        last.weight.data, last.bias.data = 2 * torch.eye(3) - 1, torch.zeros(3)  # which color outweighs the others
        model = nn.Sequential(nn.AvgPool2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()
        return Subject("noise", model, crops[:, 0], crops, torch.full((3, 1, 1), -0.1), cell=8)
    from absence_plugins.data.photographs import (
        MEAN,
        PHOTOGRAPHS,
        STD,
        efficientnet_lite0,
        photograph,
        photograph_crops,
    )

    images = torch.cat([photograph(name) for name in PHOTOGRAPHS])
    crops = torch.stack([photograph_crops(name, CROPS, seed=row) for row, name in enumerate(PHOTOGRAPHS)])
    trained = efficientnet_lite0().to(memory_format=torch.channels_last)
    return Subject("efficientnet-lite0", trained, images, crops, torch.full((3, 1, 1), -MEAN / STD))
