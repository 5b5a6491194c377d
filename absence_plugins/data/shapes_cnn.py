"""A small network trained on scenes of shapes, one per cell, so that concepts can be put into and taken out of
images.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor, nn

from absence_plugins.data.planted.problem import accuracy
from absence_plugins.data.planted.shapes import CELL, SHAPE, SHAPES, SLACK
from absence_plugins.data.planted.training import train

KINDS = ("plus", "ring", "cross", "square")
SIDE = 2  # cells per side
LAYER = "conv3"  # 32 channels at SIDE x SIDE positions, before its rectifier
BLANK = -1
_TRAINED_ON, _HELD_OUT, _SPECKLE = 2400, 800, 0.1


@dataclass(frozen=True, eq=False)
class ShapeScenes:
    """What stands where: ``kind`` (index into KINDS, or BLANK), ``row``, ``column``, ``level``, each [N, 4];
    ``noise``.
    """

    kind: Tensor
    row: Tensor
    column: Tensor
    level: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, index: Tensor) -> ShapeScenes:
        return ShapeScenes(*(column[index] for column in vars(self).values()))

    @property
    def masks(self) -> Tensor:
        """Where each kind is, at the resolution of LAYER: [N, 2, 2, 4] bool."""
        hot = self.kind[..., None] == torch.arange(len(KINDS))
        return hot.view(-1, SIDE, SIDE, len(KINDS))

    def render(self) -> Tensor:
        """Images [N, 1, 16, 16]: bright shapes on dark speckle."""
        cells = _bank()[self.kind.clamp(min=0), self.row, self.column]
        cells = cells * (self.kind != BLANK)[:, :, None, None] * self.level[:, :, None, None]
        grid = cells.view(-1, SIDE, SIDE, CELL, CELL).transpose(2, 3)
        return torch.maximum(grid.reshape(-1, 1, SIDE * CELL, SIDE * CELL), self.noise)

    def without(self, kind: int) -> ShapeScenes:
        """The same scenes with nothing where that kind stood."""
        return replace(self, kind=torch.where(self.kind == kind, BLANK, self.kind))

    def with_one(self, kind: int) -> ShapeScenes:
        """The same scenes with that kind in the first blank cell of each."""
        blank = self.kind == BLANK
        first = blank & (blank.cumsum(1) == 1)
        return replace(self, kind=torch.where(first, kind, self.kind))


@dataclass(frozen=True, eq=False)
class ShapesProblem:
    """A trained network whose logits are held up by some shapes and down by the others.

    Class k is the pair ``classes[k]`` of kinds that an image shows; images have both, and nothing else but blank
    cells. The sign: a kind of the pair raises the class's logit, any other holds it down.

    Attributes:
        model: images [N, 1, 16, 16] to logits [N, 6]; features of LAYER are [N, 32, 2, 2].
        scenes: held-out scenes, also as ``images`` [N, 1, 16, 16].
        labels: [N].
        classes: the pair of kinds of every class.
        accuracy: held-out.
    """

    model: nn.Sequential
    scenes: ShapeScenes
    images: Tensor
    labels: Tensor
    classes: tuple[tuple[int, int], ...]
    accuracy: float

    def __repr__(self) -> str:
        return f"ShapesProblem({len(self.images)} images, {len(self.classes)} classes, accuracy {self.accuracy:.2f})"

    @torch.no_grad()
    def true_effects(self) -> Tensor:
        """Mean change of every logit when a shape is put into an image: [4 kinds, 6 classes].

        The mean over putting one into a blank cell and, negated, taking all of a kind out of an image that has it.
        """
        effects = []
        for kind in range(len(KINDS)):
            blank = (self.scenes.kind == BLANK).any(1) & (self.scenes.kind != kind).all(1)
            there = (self.scenes.kind == kind).any(1)
            before, holding = self.scenes[blank], self.scenes[there]
            put_in = self.model(before.with_one(kind).render()) - self.model(before.render())
            taken = self.model(holding.render()) - self.model(holding.without(kind).render())
            effects.append((put_in.mean(0) + taken.mean(0)) / 2)
        return torch.stack(effects)


@lru_cache(maxsize=4)
def shapes_problem(seed: int = 0) -> ShapesProblem:
    """Scenes of a pair of shapes in four cells, and a network trained to name the pair.

    Trained on the first call, in seconds, on one thread; the same seed gives the same bits, the global random state
    is untouched. The result is cached: treat it as read-only.

    >>> shapes_problem()
    ShapesProblem(800 images, 6 classes, accuracy ...)
    """
    generator = torch.Generator().manual_seed(seed)
    classes = tuple(combinations(range(len(KINDS)), 2))
    scenes, labels = _scenes(_TRAINED_ON, classes, generator)
    model = _network(len(classes))
    train(model, scenes.render(), labels, generator)
    scenes, labels = _scenes(_HELD_OUT, classes, generator)
    images = scenes.render()
    return ShapesProblem(model, scenes, images, labels, classes, accuracy(model, images, labels))


def _scenes(count: int, classes: tuple[tuple[int, int], ...], generator: torch.Generator) -> tuple[ShapeScenes, Tensor]:
    labels = torch.randint(len(classes), (count,), generator=generator)
    pair = torch.tensor(classes)[labels]
    extra = torch.randint(3, (count, 2), generator=generator)  # one more of either kind, or blank
    more = torch.where(extra == 2, BLANK, pair.gather(1, extra.clamp(max=1)))
    kind = torch.cat([pair, more], 1)
    cells = SIDE * SIDE
    kind = kind.gather(1, torch.rand(count, cells, generator=generator).argsort(1))
    row, column = (torch.randint(SLACK, (count, cells), generator=generator) for _ in range(2))
    level = 0.7 + 0.3 * torch.rand(count, cells, generator=generator)
    noise = _SPECKLE * torch.rand(count, 1, SIDE * CELL, SIDE * CELL, generator=generator)
    return ShapeScenes(kind, row, column, level, noise), labels


def _network(classes: int) -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 16, 3, padding=1),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(16, 32, 3, padding=1),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 32, 2, stride=2),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(32, 32, 1),
                relu4=nn.ReLU(),
                pool4=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(32, classes),
            )
        )


@lru_cache(maxsize=1)
def _bank() -> Tensor:
    """All kinds at all offsets: [kind, row, column, CELL, CELL]."""
    shapes = torch.tensor([[[c == "#" for c in line] for line in SHAPES[name]] for name in KINDS], dtype=torch.float32)
    bank = torch.zeros(len(KINDS), SLACK, SLACK, CELL, CELL)
    for row in range(SLACK):
        for column in range(SLACK):
            bank[:, row, column, row : row + SHAPE, column : column + SHAPE] = shapes
    return bank
