"""The absence of either of two: NOT (a AND b)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from absence_plugins.data.planted.networks import normalized_network
from absence_plugins.data.planted.problem import Drawn, Planted
from absence_plugins.data.planted.shapes import CELLS, NOTHING, SLACK, ShapeProblem, Shapes
from absence_plugins.data.planted.training import Recipe

RECIPE = Recipe(epochs=10)


@cache
def either_missing(seed: int = 0) -> Planted:
    """Is the plus or the cross missing, or both? Logit 1 encodes "NOT (plus AND cross)"; batch norm, max pooling.

    Region: both shapes, of images that have both; taking out either is enough. What an image lacks is one of them, or
    both: a reference shows which. Pixels in [0, 1] on black 0.
    """
    return EitherProblem(seed).solve(normalized_network(), RECIPE)


@dataclass(frozen=True, eq=False)
class Pair(Shapes):
    """Also ``second`` [N]: the cell of the cross or of its counterfactual; ``lacks`` [N, 2] bool: plus, cross."""

    second: Tensor
    lacks: Tensor


class EitherProblem(ShapeProblem):
    """Scenes with distractors and with the plus, the cross or neither; the key is what they lack."""

    train_scenes = 900

    def __init__(self, seed: int) -> None:
        super().__init__("plus", ("square", "ring", "horizontal", "vertical", "cross"), seed)
        self.kinds = self.key - 1  # the cross comes last and is no distractor

    def scenes(self, count: int) -> Pair:
        """One to four distractors, and one of the two shapes in two thirds of the scenes."""
        cells = CELLS * CELLS
        order = torch.rand(count, cells, generator=self.generator).argsort(1)
        rank = order.argsort(1)
        occupied = (rank >= 2) & (rank <= 1 + self.integers(1, 5, count, 1))
        kind = torch.where(occupied, self.integers(0, self.kinds, count, cells), NOTHING)
        row, column = (self.integers(0, SLACK, count, cells) for _ in range(2))
        state = self.integers(0, 3, count)
        lacks = torch.stack([state != 0, state != 1], 1)
        scenes = Pair(kind, row, column, self.uniform(0.6, 1.0, count, cells), order[:, 0], order[:, 1], lacks)
        return self.without_key(scenes)

    def _put(self, scenes: Pair, has: Tensor) -> Pair:
        """The two shapes where ``has`` [N, 2] says so, nothing in their cells elsewhere."""
        kind = scenes.kind
        for column, (cell, shape) in enumerate(((scenes.key, self.key), (scenes.second, self.key - 1))):
            kind = kind.scatter(1, cell[:, None], torch.where(has[:, [column]], shape, NOTHING))
        return replace(scenes, kind=kind)

    def with_key(self, scenes: Shapes) -> Pair:
        """Both shapes."""
        assert isinstance(scenes, Pair)
        return self._put(scenes, torch.ones_like(scenes.lacks))

    def without_key(self, scenes: Shapes) -> Pair:
        """Without what the scene lacks."""
        assert isinstance(scenes, Pair)
        return self._put(scenes, ~scenes.lacks)

    def elsewhere(self, scenes: Shapes) -> Shapes:
        """As they are: the shape that an image has stands where it stands."""
        return scenes

    def render(self, scenes: Shapes) -> Drawn:
        """Images, labels (0: both are there) and the pixels of both shapes where both are there."""
        images, _, _ = super().render(scenes)
        both = (scenes.kind == self.key).any(1) & (scenes.kind == self.key - 1).any(1)
        regions = self.places(scenes, self.key) | self.places(scenes, self.key - 1)
        return images, (~both).long(), regions & both[:, None, None, None]
