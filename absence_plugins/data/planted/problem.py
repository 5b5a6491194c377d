"""What every planted problem returns, and how its held-out images and its reference pool are put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.units import Unit
from absence_plugins.data.planted.training import USUAL, Recipe, train

REACH = 2  # pixels around the key that still count: what a window of 3 x 3, twice, sees


@dataclass(frozen=True, eq=False)
class Planted:
    """A network whose encoded absence is known, held-out images and a reference pool, with the key's place in each.

    The *key* is what the network's ``absence_unit`` encodes the absence of. C channels, H x W pixels, K outputs.
    The sign: content in ``regions`` holds ``absence_unit`` down (its removal raises that logit).

    Attributes:
        model: in eval mode; images [N, C, H, W] to logits [N, K].
        images: held-out images [N, C, H, W].
        labels: [N] int64: ``presence_unit`` where the key is there, ``absence_unit`` where it is missing.
        regions: [N, 1, H, W] bool, the key's pixels; False everywhere where it is missing.
        pool_images, pool_labels, pool_regions: the reference pool, same shapes and meaning.
        empty: value of a blank pixel, or one per channel; as ``ReferenceSet(..., empty=...)`` takes it.
        pixels: the lowest and the highest possible pixel value.
        accuracy: share of ``images`` with the highest logit at their label.
        absence_unit: the logit that rises when the key is missing.
        presence_unit: the logit of the class that has the key.
        is_exact: whether the regions are known by construction; else they are a guess, and no share can be asked for.
        needed: [N, 1, H, W] bool, of ``images``: content that ``absence_unit`` needs besides (the "a" of "a AND NOT
            b"),
            False everywhere where there is none; None if the problem has no such content.
        full_model: the network whose hidden ``unit`` is logit ``absence_unit`` of ``model``; None if that is an output.
        unit: the address of that hidden unit in ``full_model``.
        twins: [N, C, H, W], of ``images``: the same sample rendered with the key taken out (or put in), nothing else
            changed; None where that cannot be rendered. The truth, without a rule of ours: the unit is asked about
            both.
        reach: pixels around the key that still count.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    regions: Tensor
    pool_images: Tensor
    pool_labels: Tensor
    pool_regions: Tensor
    empty: float | tuple[float, ...]
    pixels: tuple[float, float]
    accuracy: float
    absence_unit: int = 1
    presence_unit: int = 0
    is_exact: bool = True
    needed: Tensor | None = None
    full_model: nn.Module | None = None
    unit: Unit | None = None
    twins: Tensor | None = None
    reach: int = REACH

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.images.shape[1:]))
        return (
            f"Planted({len(self.images)} images and {len(self.pool_images)} references of {shape}, "
            f"logit {self.absence_unit}: key missing, accuracy {self.accuracy:.2f})"
        )


def dilate(regions: Tensor, radius: int) -> Tensor:
    """Grow regions [N, 1, H, W] bool by ``radius`` pixels in all eight directions.

    >>> dilate(torch.eye(5)[None, None, 2:3] > 0, 1).int()
    tensor([[[[0, 1, 1, 1, 0]]]], dtype=torch.int32)
    """
    return F.max_pool2d(regions.float(), 2 * radius + 1, stride=1, padding=radius) > 0


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of ``images`` [N, C, H, W] whose highest logit is at ``labels`` [N]."""
    return float((model(images).argmax(1) == labels).double().mean())


@dataclass(frozen=True, eq=False)
class Scenes:
    """What is in N images, before they are drawn: a table of tensors [N, ...]."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self: S, index: Tensor) -> S:
        return type(self)(*(column[index] for column in vars(self).values()))


S = TypeVar("S", bound=Scenes)
Drawn = tuple[Tensor, Tensor, Tensor]  # images [N, C, H, W], labels [N], regions [N, 1, H, W]


class Problem(ABC, Generic[S]):
    """Draws scenes with and without the key, trains a network on them and assembles the :class:`Planted` result.

    Held-out images and pool are new scenes, not those of the training. Most of the pool are counterfactuals of
    held-out scenes: the same things, some a little aside, all a little brighter or dimmer, with the key put in (or
    taken out). So the nearest references in input space differ from an image by little more than the key.
    """

    train_scenes = 500  # twice as many images: each scene with and without the key
    held_out_scenes = 100
    unrelated_scenes = 150
    variants = 8
    empty: float | tuple[float, ...] = 0.0
    pixels = (0.0, 1.0)
    reach = REACH

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    @abstractmethod
    def scenes(self, count: int) -> S:
        """New scenes without the key."""

    @abstractmethod
    def with_key(self, scenes: S) -> S:
        """The same scenes with the key put in."""

    @abstractmethod
    def without_key(self, scenes: S) -> S:
        """The same scenes with the key taken out."""

    @abstractmethod
    def jittered(self, scenes: S) -> S:
        """The same scenes, looking a little different."""

    @abstractmethod
    def elsewhere(self, scenes: S) -> S:
        """The same scenes; a key put in would stand at another place."""

    @abstractmethod
    def render(self, scenes: S) -> Drawn:
        """Images, labels and regions of the key."""

    def needed(self, scenes: S) -> Tensor | None:
        """Where there is content that the absence unit needs besides [N, 1, H, W] bool; None: there is no such
        content.
        """
        del scenes
        return None

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Uniform integers, ``high`` excluded."""
        return torch.randint(low, high, shape, generator=self.generator)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def solve(self, model: nn.Module, recipe: Recipe = USUAL) -> Planted:
        """Train ``model`` (built without storage, on the meta device) on new scenes, then draw what it is asked
        about.
        """
        self.teach(model, recipe)
        return self.asked(model)

    def teach(self, model: nn.Module, recipe: Recipe = USUAL) -> None:
        """Train ``model`` on new scenes."""
        images, labels, _ = self.render(self.lessons(self.train_scenes))
        train(model, images, labels, self.generator, recipe)

    def lessons(self, count: int) -> S:
        """What a network is trained on: ``count`` scenes with and without the key."""
        scenes = self.scenes(count)
        return joined(self.with_key(scenes), scenes)

    def asked(self, model: nn.Module) -> Planted:
        """Held-out scenes and their pool for a trained ``model``."""
        half = self.held_out_scenes // 2
        present, missing = self.with_key(self.scenes(half)), self.scenes(half)
        shown = joined(present, missing)
        images, labels, regions = self.render(shown)
        pool = self._pool(present, missing)
        known = accuracy(model, images, labels)
        twins = self.render(joined(self.without_key(present), self.with_key(missing)))[0]
        return Planted(
            model,
            images,
            labels,
            regions,
            *pool,
            self.empty,
            self.pixels,
            known,
            needed=self.needed(shown),
            twins=twins,
            reach=self.reach,
        )

    def _pool(self, present: S, missing: S) -> Drawn:
        """Unrelated scenes with and without the key, and the counterfactuals of the held-out ones."""
        scenes = self.scenes(self.unrelated_scenes // 2)
        unrelated = self.render(joined(self.with_key(scenes), scenes))
        many = torch.arange(len(missing)).repeat(self.variants)
        put_in = self.with_key(self.jittered(self.elsewhere(missing[many])))
        taken_out = self.jittered(self.without_key(present[many]))
        images, labels, regions = zip(unrelated, self.render(joined(put_in, taken_out)), strict=True)
        return torch.cat(images), torch.cat(labels), torch.cat(regions)


def joined(first: S, second: S) -> S:
    """One table of both."""
    columns: Sequence[Any] = [torch.cat(both) for both in zip(vars(first).values(), vars(second).values(), strict=True)]
    return type(first)(*columns)
