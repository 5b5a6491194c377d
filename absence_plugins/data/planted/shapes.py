"""Is the key shape missing? Scenes of small bright shapes on black, and the networks that are asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from absence_plugins.data.planted.networks import normalized_network, plain_network, residual_network
from absence_plugins.data.planted.problem import Drawn, Planted, Problem, Scenes, accuracy

CELLS = 3  # scenes are CELLS x CELLS cells with at most one shape each
CELL = 8
SIZE = CELLS * CELL
SHAPE = 5  # shapes are SHAPE x SHAPE pixels
SLACK = CELL - SHAPE + 1  # number of offsets of a shape inside its cell, per axis

SHAPES = {
    "plus": ("..#..", "..#..", "#####", "..#..", "..#.."),
    "cross": ("#...#", ".#.#.", "..#..", ".#.#.", "#...#"),
    "ring": ("#####", "#...#", "#...#", "#...#", "#####"),
    "square": (".....", ".###.", ".###.", ".###.", "....."),
    "dot": (".....", "..##.", "..##.", ".....", "....."),
    "horizontal": (".....", ".....", "#####", ".....", "....."),
    "vertical": ("..#..", "..#..", "..#..", "..#..", "..#.."),
}
NOTHING = -1


@cache
def shape_missing(seed: int = 0) -> Planted:
    """Is the plus missing? Logit 1 encodes its absence; batch norm, max pooling, pixels in [0, 1] on black 0.

    Region: the plus. Scenes hold one to five distractor shapes at random places; class 0 has the plus in addition.
    The same ``seed`` gives the same bits. The result is cached: treat it as read-only.

    >>> shape_missing()
    Planted(100 images and 950 references of 1 x 24 x 24, logit 1: key missing, accuracy ...)
    """
    return ShapeProblem("plus", ("square", "dot", "ring", "horizontal", "vertical"), seed).solve(normalized_network())


@cache
def shape_missing_normalized(seed: int = 0) -> Planted:
    """Is the cross missing? Logit 1 encodes its absence; no batch norm, max pooling, pixels in [-1, 1] on black -1.

    Region: the cross. Otherwise as :func:`shape_missing`.
    """
    distractors = ("square", "dot", "ring", "horizontal", "vertical")
    return ShapeProblem("cross", distractors, seed, normalized=True).solve(plain_network())


@cache
def shape_missing_residual(seed: int = 0) -> Planted:
    """Is the plus missing? Logit 1 encodes its absence; residual sums, batch norm, average pooling only.

    Region: the plus. Sums of branches are the module :class:`~absence_plugins.data.planted.Sum`, for which a host's
    rules must be asked for (``layer_map=[(Sum, rule)]``). Otherwise as :func:`shape_missing`.
    """
    return ShapeProblem("plus", ("square", "dot", "ring", "horizontal", "vertical"), seed).solve(residual_network())


@cache
def shape_missing_dead(seed: int = 0) -> Planted:
    """Is the ring missing? Logit 1 encodes its absence through one unit, which is dead wherever the ring is.

    h = ReLU(b - detector(ring)), logits = (c - h, h - c): a trained detector with a head set by hand, b so that h = 0
    for every image of the problem that has the ring. There the gradient of both logits is exactly zero, so a method
    that looks only at the image itself finds nothing. Region: the ring. Otherwise as :func:`shape_missing_normalized`,
    with pixels in [0, 1] on black 0.
    """
    distractors = ("square", "dot", "plus", "horizontal", "vertical")
    planted = ShapeProblem("ring", distractors, seed).solve(plain_network())
    assert isinstance(planted.model, nn.Sequential)
    model = _with_dead_head(planted.model, planted)
    return replace(planted, model=model, accuracy=accuracy(model, planted.images, planted.labels))


@torch.no_grad()
def _with_dead_head(detector: nn.Sequential, planted: Planted) -> nn.Sequential:
    """The detector's body with the head h = ReLU(b - logit 0), logits (c - h, h - c)."""
    detected, labels = (
        torch.cat(both)
        for both in zip(
            (detector(planted.images)[:, 0], planted.labels),
            (detector(planted.pool_images)[:, 0], planted.pool_labels),
            strict=True,
        )
    )
    weakest = float(detected[labels == planted.presence_unit].min())
    usual = float(detected[labels == planted.absence_unit].median())
    threshold = weakest - 0.1 * (weakest - usual)
    *body, linear = detector.named_children()
    assert isinstance(linear[1], nn.Linear)
    with torch.device("meta"):  # torch's default initialization would advance the global random state
        absence, head = nn.Linear(linear[1].in_features, 1), nn.Linear(1, 2)
    absence, head = absence.to_empty(device="cpu"), head.to_empty(device="cpu")
    absence.weight.copy_(-linear[1].weight[:1])
    absence.bias.copy_(threshold - linear[1].bias[:1])
    head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    head.bias.copy_(torch.tensor([0.5, -0.5]) * (threshold - usual))
    model = nn.Sequential()
    for name, module in (*body, ("absence", absence), ("relu4", nn.ReLU()), ("linear", head)):
        model.add_module(name, module)
    return model.eval()


@dataclass(frozen=True, eq=False)
class Shapes(Scenes):
    """What stands where, in 9 cells.

    ``kind`` (index into the shapes, or NOTHING), ``row`` and ``column`` offsets and ``level`` (brightness), each [N,
    9];
    ``key`` [N]: the cell of the key shape or of its counterfactual place.
    """

    kind: Tensor
    row: Tensor
    column: Tensor
    level: Tensor
    key: Tensor


class ShapeProblem(Problem[Shapes]):
    """Scenes with distractors in one to five of nine cells; the key shape stands in one of the others, or nowhere."""

    def __init__(self, key: str, distractors: tuple[str, ...], seed: int, *, normalized: bool = False) -> None:
        super().__init__(seed)
        self.normalized = normalized
        self.empty = -1.0 if normalized else 0.0
        self.pixels = (self.empty, 1.0)
        self.key = self.kinds = len(distractors)  # the key's index; how many kinds stand in other cells
        names = (*distractors, key)
        rows = [[[c == "#" for c in line] for line in SHAPES[name]] for name in names]
        shapes = torch.tensor(rows, dtype=torch.float32)
        # all shapes at all offsets: [kind, row, column, CELL, CELL]
        self.bank = torch.zeros(len(names), SLACK, SLACK, CELL, CELL)
        for row in range(SLACK):
            for column in range(SLACK):
                self.bank[:, row, column, row : row + SHAPE, column : column + SHAPE] = shapes

    def scenes(self, count: int) -> Shapes:
        """Distractors in one to five cells; the key cell is one of the others and still empty."""
        cells = CELLS * CELLS
        order = torch.rand(count, cells, generator=self.generator).argsort(1)
        rank = order.argsort(1)  # rank 0 is the key cell
        occupied = (rank >= 1) & (rank <= self.integers(1, 6, count, 1))
        kind = torch.where(occupied, self.integers(0, self.kinds, count, cells), NOTHING)
        row, column = (self.integers(0, SLACK, count, cells) for _ in range(2))
        return Shapes(kind, row, column, self.uniform(0.6, 1.0, count, cells), order[:, 0])

    def with_key(self, scenes: Shapes) -> Shapes:
        """The key shape in its cell."""
        return replace(scenes, kind=scenes.kind.scatter(1, scenes.key[:, None], self.key))

    def without_key(self, scenes: Shapes) -> Shapes:
        """Nothing where the key shape was."""
        return replace(scenes, kind=torch.where(scenes.kind == self.key, NOTHING, scenes.kind))

    def jittered(self, scenes: Shapes) -> Shapes:
        """A quarter of the shapes one pixel aside, all a little dimmer or brighter."""
        shape = scenes.kind.shape
        moved = (self.uniform(0, 1, *shape) < 0.25).long()
        row = (scenes.row + moved * self.integers(-1, 2, *shape)).clamp(0, SLACK - 1)
        column = (scenes.column + moved * self.integers(-1, 2, *shape)).clamp(0, SLACK - 1)
        level = (scenes.level + self.uniform(-0.1, 0.1, *shape)).clamp(0.5, 1.0)
        return replace(scenes, row=row, column=column, level=level)

    def elsewhere(self, scenes: Shapes) -> Shapes:
        """The key cell at another empty cell, at another offset."""
        count, cells = scenes.kind.shape
        blank = scenes.kind == NOTHING
        free = torch.rand(count, cells, generator=self.generator) * blank
        row = self.integers(0, SLACK, count, cells).where(blank, scenes.row)
        column = self.integers(0, SLACK, count, cells).where(blank, scenes.column)
        return replace(scenes, row=row, column=column, key=free.argmax(1))

    def render(self, scenes: Shapes) -> Drawn:
        """Images, labels and regions of the key shape."""
        cells = self._draw(scenes, scenes.kind != NOTHING)
        images = _assemble(cells * scenes.level[:, :, None, None])
        labels = (~(scenes.kind == self.key).any(1)).long()
        return (images * 2 - 1 if self.normalized else images), labels, self.places(scenes, self.key)

    def places(self, scenes: Shapes, kind: int) -> Tensor:
        """The pixels of one kind of shape: [N, 1, SIZE, SIZE] bool."""
        return _assemble(self._draw(scenes, scenes.kind == kind)) > 0

    def _draw(self, scenes: Shapes, chosen: Tensor) -> Tensor:
        """The shapes of the chosen cells [N, 9] at brightness 1: [N, 9, CELL, CELL]."""
        cells = self.bank[scenes.kind.clamp(min=0), scenes.row, scenes.column]
        return cells * chosen[:, :, None, None]


def _assemble(cells: Tensor) -> Tensor:
    """[N, 9, CELL, CELL] put together to [N, 1, SIZE, SIZE]."""
    grid = cells.view(-1, CELLS, CELLS, CELL, CELL).transpose(2, 3)
    return grid.reshape(-1, 1, SIZE, SIZE)
