"""A AND NOT b: is the ring there and the cross not?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from absence_plugins.data.planted.networks import plain_network
from absence_plugins.data.planted.problem import Drawn, Planted, joined
from absence_plugins.data.planted.shapes import NOTHING, ShapeProblem, Shapes


@cache
def conjunction(seed: int = 0) -> Planted:
    """Is the ring there and the cross missing? Logit 1 encodes "ring AND NOT cross"; pixels in [-1, 1] on black -1.

    Region: the cross, the key. All images hold a ring, class 0 a cross in addition; ``needed`` are the ring's pixels,
    without which logit 1 falls. So logit 1 has evidence for it and against it in one image. Logit 2 is the class "no
    ring", with and without a cross, which is only trained on. No batch norm, max pooling.
    """
    return ConjunctionProblem(seed).solve(plain_network(outputs=3))


class ConjunctionProblem(ShapeProblem):
    """Scenes that all hold the ring, some the cross, and distractors; without the ring they belong to class 2."""

    train_scenes = 350  # four images each

    def __init__(self, seed: int) -> None:
        super().__init__("cross", ("square", "dot", "horizontal", "vertical", "ring"), seed, normalized=True)
        self.condition = self.kinds = self.key - 1  # the ring comes last and is no distractor

    def scenes(self, count: int) -> Shapes:
        """Distractors in up to four cells, and the ring in one."""
        scenes = super().scenes(count)
        chance = torch.rand(scenes.kind.shape, generator=self.generator) * (scenes.kind != NOTHING)
        place = chance.argmax(1, keepdim=True)
        return replace(scenes, kind=scenes.kind.scatter(1, place, self.condition))

    def lessons(self, count: int) -> Shapes:
        """With and without the cross, with and without the ring: else a network could do without looking for the
        ring.
        """
        plain = self.scenes(count)
        bare = replace(plain, kind=torch.where(plain.kind == self.condition, NOTHING, plain.kind))
        return joined(joined(self.with_key(plain), plain), joined(self.with_key(bare), bare))

    def render(self, scenes: Shapes) -> Drawn:
        """Images, regions of the cross, and labels: 0 both, 1 the ring alone, 2 no ring."""
        images, labels, regions = super().render(scenes)
        has_condition = (scenes.kind == self.condition).any(1)
        return images, torch.where(has_condition, labels, 2), regions

    def needed(self, scenes: Shapes) -> Tensor:
        """The ring's pixels."""
        return self.places(scenes, self.condition)
