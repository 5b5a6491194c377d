"""Is the green pixel missing? The colored pixels of Hesse et al., with counterfactuals to compare with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from absence_plugins.data.colored_pixels import FEWEST, GREEN, MOST, OTHERS, SIDE, colored_pixel_net
from absence_plugins.data.planted.problem import Drawn, Planted, Problem, Scenes

KEY = 0  # the first of the pixels is the green one, or its counterfactual


@cache
def green_missing(seed: int = 0) -> Planted:
    """Is the green pixel missing? Logit 1 encodes its absence; 3 channels on black 0, two 1x1 convolutions, the mean.

    Region: the green pixel, one of 32 x 32. Images hold eight to eleven red, blue and magenta pixels, class 0 a green
    one in addition. The network is :func:`~absence_plugins.data.colored_pixels.colored_pixel_net`, which never saw
    these images.

    Source: Hesse et al., ICML 2026 (the network and the images).
    """
    net = colored_pixel_net(seed + 1)  # that of seed 1 converges from its first start, so seed 0 takes seconds
    return PixelProblem(seed).asked(net.model)


@dataclass(frozen=True, eq=False)
class Pixels(Scenes):
    """What stands where, for at most MOST pixels.

    ``place`` [N, MOST]: which pixel of the image, none twice; ``color`` [N, MOST]: index into OTHERS; ``level`` [N,
    MOST]:
    brightness; ``there`` [N, MOST] bool: whether it is there at all.
    """

    place: Tensor
    color: Tensor
    level: Tensor
    there: Tensor


class PixelProblem(Problem[Pixels]):
    """A few colored pixels on black, and one green pixel, or none."""

    def scenes(self, count: int) -> Pixels:
        """FEWEST to MOST - 1 pixels that are not green."""
        order = torch.rand(count, SIDE * SIDE, generator=self.generator).argsort(1)
        number = self.integers(FEWEST, MOST, count, 1)
        slot = torch.arange(MOST)
        return Pixels(
            place=order[:, :MOST],
            color=self.integers(0, len(OTHERS), count, MOST),
            level=torch.ones(count, MOST),
            there=(slot > KEY) & (slot <= number),
        )

    def with_key(self, scenes: Pixels) -> Pixels:
        """The scenes with a green pixel."""
        return replace(scenes, there=scenes.there | _is_key(scenes))

    def without_key(self, scenes: Pixels) -> Pixels:
        """Black where the green pixel was."""
        return replace(scenes, there=scenes.there & ~_is_key(scenes))

    def jittered(self, scenes: Pixels) -> Pixels:
        """All a little dimmer."""
        return replace(scenes, level=scenes.level - self.uniform(0, 0.1, *scenes.level.shape))

    def elsewhere(self, scenes: Pixels) -> Pixels:
        """The green pixel at another place that is still black."""
        free = torch.rand(len(scenes), SIDE * SIDE, generator=self.generator)
        place = free.scatter(1, scenes.place, 0.0).argmax(1, keepdim=True)
        return replace(scenes, place=torch.where(_is_key(scenes), place, scenes.place))

    def render(self, scenes: Pixels) -> Drawn:
        """Images [N, 3, SIDE, SIDE], labels and the green pixel."""
        green = _is_key(scenes)
        colors = torch.where(green[..., None], torch.tensor(GREEN), torch.tensor(OTHERS)[scenes.color])
        colors = colors * (scenes.level * scenes.there)[..., None]
        count = len(scenes)
        images = torch.zeros(count, SIDE * SIDE, 3)
        images = images.scatter(1, scenes.place[..., None].expand(-1, -1, 3), colors).transpose(1, 2)
        key = scenes.there & green
        regions = torch.zeros(count, SIDE * SIDE, dtype=torch.bool).scatter(1, scenes.place, key)
        return images.reshape(count, 3, SIDE, SIDE), (~key.any(1)).long(), regions.view(count, 1, SIDE, SIDE)


def _is_key(scenes: Pixels) -> Tensor:
    """Whether a slot is that of the key: [N, MOST] bool."""
    return (torch.arange(MOST) == KEY).expand_as(scenes.there)
