"""Trained networks whose encoded absences are known by construction.

Both problems ask "is the key shape missing?": scenes hold several distractor shapes at random
places; class 0 scenes hold the key shape in addition, class 1 scenes do not. Logit 1
(``absence_unit``) therefore encodes the absence of the key shape, and ``regions`` says where the
key shape is.

The evaluation and the reference pool are new scenes, not those of the training. Most of the pool
are counterfactuals of evaluation scenes: the same distractors, some moved by a pixel, all a little
brighter or dimmer, with the key shape put in (or taken out). So the nearest references in input
space differ from an image by little more than the key shape.

Import as ``import planted``. Networks are trained on the first call and kept for the session:
treat everything returned as read-only.

Measured with Captum on seeds 0 to 2, share of absence evidence within 2 pixels of the key shape
(``dilate(regions, 2)``): .82 and more for integrated gradients, DeepLIFT (given a clone before each
ReLU and max pooling), GradientShap and 3x3 occlusion, sign right always. Each logit has a sigmoid
cross-entropy of its own: softmax cross-entropy fixes only the difference of the two, and with one
seed in five logit 1 then hardly encoded the absence (4.9 without the shape, 1.5 with it).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELLS = 3  # scenes are CELLS x CELLS cells with at most one shape each
CELL = 8
SIZE = CELLS * CELL
SHAPE = 5  # shapes are SHAPE x SHAPE pixels
SLACK = CELL - SHAPE + 1  # number of offsets of a shape inside its cell, per axis

_SHAPES = {
    "plus": ("..#..", "..#..", "#####", "..#..", "..#.."),
    "cross": ("#...#", ".#.#.", "..#..", ".#.#.", "#...#"),
    "ring": ("#####", "#...#", "#...#", "#...#", "#####"),
    "square": (".....", ".###.", ".###.", ".###.", "....."),
    "dot": (".....", "..##.", "..##.", ".....", "....."),
    "horizontal": (".....", ".....", "#####", ".....", "....."),
    "vertical": ("..#..", "..#..", "..#..", "..#..", "..#.."),
}
NOTHING = -1


@dataclass(frozen=True, eq=False)
class Planted:
    """A trained network, held-out scenes and a reference pool with known places of the key shape.

    Attributes:
        model: In eval mode; images ``[N, 1, 24, 24]`` to logits ``[N, 2]``.
        images: Held-out evaluation scenes ``[N, 1, 24, 24]``.
        labels: ``[N]`` int64; 0: key shape present, 1: missing.
        regions: ``[N, 1, 24, 24]`` bool, pixels of the key shape; False everywhere in class 1.
        pool_images, pool_labels, pool_regions: The reference pool, same shapes and meaning.
        empty: Pixel value of the background.
        absence_unit: The logit that rises when the key shape is missing (1).
        accuracy: Share of ``images`` classified correctly.
    """

    model: nn.Sequential
    images: Tensor
    labels: Tensor
    regions: Tensor
    pool_images: Tensor
    pool_labels: Tensor
    pool_regions: Tensor
    empty: float
    absence_unit: int
    accuracy: float


@dataclass(frozen=True, eq=False)
class _Scenes:
    """What stands where: ``kind`` (index into the shapes or NOTHING), ``row``, ``column`` offsets
    and ``level`` (brightness), each ``[N, 9]``; ``key`` ``[N]`` is the cell of the key shape or of
    its counterfactual place."""

    kind: Tensor
    row: Tensor
    column: Tensor
    level: Tensor
    key: Tensor

    def __len__(self) -> int:
        return len(self.key)

    def __getitem__(self, index: Tensor) -> _Scenes:
        return _Scenes(
            self.kind[index],
            self.row[index],
            self.column[index],
            self.level[index],
            self.key[index],
        )


@cache
def shape_missing(seed: int = 0) -> Planted:
    """Is the plus missing? Pixels in [0, 1], black is 0; a network with batch norm."""
    problem = _Problem("plus", ("square", "dot", "ring", "horizontal", "vertical"), seed)
    with torch.device("meta"):  # initialized in training, from the problem's own generator
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 12, 3, padding=1),
                norm1=nn.BatchNorm2d(12),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(12, 24, 3, padding=1),
                norm2=nn.BatchNorm2d(24),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(24, 24, 3, padding=1),
                norm3=nn.BatchNorm2d(24),
                relu3=nn.ReLU(),
                pool3=nn.MaxPool2d(6),
                flatten=nn.Flatten(),
                linear=nn.Linear(24, 2),
            )
        )
    return problem.solve(model)


@cache
def shape_missing_normalized(seed: int = 0) -> Planted:
    """Is the cross missing? Pixels in [-1, 1], black is -1; a network without batch norm."""
    problem = _Problem("cross", ("square", "dot", "ring", "horizontal", "vertical"), seed, True)
    with torch.device("meta"):  # initialized in training, from the problem's own generator
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 16, 3, padding=1),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(16, 32, 3, padding=1),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(32, 32, 3, padding=1),
                relu3=nn.ReLU(),
                pool3=nn.MaxPool2d(6),
                flatten=nn.Flatten(),
                linear=nn.Linear(32, 2),
            )
        )
    return problem.solve(model)


def dilate(regions: Tensor, radius: int) -> Tensor:
    """Grow regions ``[N, 1, H, W]`` bool by ``radius`` pixels in all eight directions."""
    return F.max_pool2d(regions.float(), 2 * radius + 1, stride=1, padding=radius) > 0


class _Problem:
    """Draws scenes, trains a network on them and assembles the :class:`Planted` result."""

    train_scenes = 3000  # twice as many images: each scene with and without the key shape
    evaluation_scenes = 100
    unrelated_scenes = 150
    variants = 8
    epochs = 10
    batch_size = 64

    def __init__(self, key: str, distractors: tuple[str, ...], seed: int, normalized: bool = False) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.normalized = normalized
        self.key = len(distractors)
        names = (*distractors, key)
        rows = [[[c == "#" for c in line] for line in _SHAPES[name]] for name in names]
        shapes = torch.tensor(rows, dtype=torch.float32)
        # all shapes at all offsets: [kind, row, column, CELL, CELL]
        self.bank = torch.zeros(len(names), SLACK, SLACK, CELL, CELL)
        for row in range(SLACK):
            for column in range(SLACK):
                self.bank[:, row, column, row : row + SHAPE, column : column + SHAPE] = shapes

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def scenes(self, count: int) -> _Scenes:
        """Distractors in 1 to 5 cells; the key cell is one of the others and still empty."""
        cells = CELLS * CELLS
        order = torch.rand(count, cells, generator=self.generator).argsort(1)
        rank = order.argsort(1)  # rank 0 is the key cell
        occupied = (rank >= 1) & (rank <= self.integers(1, 6, count, 1))
        kind = torch.where(occupied, self.integers(0, self.key, count, cells), NOTHING)
        return _Scenes(
            kind,
            self.integers(0, SLACK, count, cells),
            self.integers(0, SLACK, count, cells),
            self.uniform(0.6, 1.0, count, cells),
            order[:, 0],
        )

    def with_key(self, scenes: _Scenes) -> _Scenes:
        kind = scenes.kind.scatter(1, scenes.key[:, None], self.key)
        return _Scenes(kind, scenes.row, scenes.column, scenes.level, scenes.key)

    def without_key(self, scenes: _Scenes) -> _Scenes:
        kind = torch.where(scenes.kind == self.key, NOTHING, scenes.kind)
        return _Scenes(kind, scenes.row, scenes.column, scenes.level, scenes.key)

    def jittered(self, scenes: _Scenes) -> _Scenes:
        """The same scenes, a quarter of the shapes one pixel aside, all a little dimmer or not."""
        shape = scenes.kind.shape
        moved = (self.uniform(0, 1, *shape) < 0.25).long()
        row = (scenes.row + moved * self.integers(-1, 2, *shape)).clamp(0, SLACK - 1)
        column = (scenes.column + moved * self.integers(-1, 2, *shape)).clamp(0, SLACK - 1)
        level = (scenes.level + self.uniform(-0.1, 0.1, *shape)).clamp(0.5, 1.0)
        return _Scenes(scenes.kind, row, column, level, scenes.key)

    def elsewhere(self, scenes: _Scenes) -> _Scenes:
        """The same scenes with the key cell at another empty cell, at another offset."""
        count, cells = scenes.kind.shape
        free = torch.rand(count, cells, generator=self.generator) * (scenes.kind == NOTHING)
        return _Scenes(
            scenes.kind,
            self.integers(0, SLACK, count, cells).where(scenes.kind == NOTHING, scenes.row),
            self.integers(0, SLACK, count, cells).where(scenes.kind == NOTHING, scenes.column),
            scenes.level,
            free.argmax(1),
        )

    def render(self, scenes: _Scenes) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and regions of the key shape."""
        cells = self.bank[scenes.kind.clamp(min=0), scenes.row, scenes.column]
        cells = cells * (scenes.kind != NOTHING)[:, :, None, None]
        images = self.assemble(cells * scenes.level[:, :, None, None])
        is_key = scenes.kind == self.key
        regions = self.assemble(cells * is_key[:, :, None, None]) > 0
        labels = (~is_key.any(1)).long()
        return (images * 2 - 1 if self.normalized else images), labels, regions

    @staticmethod
    def assemble(cells: Tensor) -> Tensor:
        """Put ``[N, 9, CELL, CELL]`` together to ``[N, 1, SIZE, SIZE]``."""
        grid = cells.view(-1, CELLS, CELLS, CELL, CELL).transpose(2, 3)
        return grid.reshape(-1, 1, SIZE, SIZE)

    def pairs(self, scenes: _Scenes) -> tuple[Tensor, Tensor, Tensor]:
        """Every scene with and without the key shape."""
        return self.render(_joined(self.with_key(scenes), scenes))

    def solve(self, model: nn.Sequential) -> Planted:
        images, labels, _ = self.pairs(self.scenes(self.train_scenes))
        self.train(model, images, labels)

        present = self.with_key(self.scenes(self.evaluation_scenes // 2))
        missing = self.scenes(self.evaluation_scenes // 2)
        images, labels, regions = self.render(_joined(present, missing))

        pool = self.pairs(self.scenes(self.unrelated_scenes // 2))
        many = torch.arange(self.evaluation_scenes // 2).repeat(self.variants)
        put_in = self.with_key(self.jittered(self.elsewhere(missing[many])))
        taken_out = self.jittered(self.without_key(present[many]))
        counterfactual = self.render(_joined(put_in, taken_out))
        pool_images, pool_labels, pool_regions = (torch.cat(both) for both in zip(pool, counterfactual, strict=True))

        with torch.no_grad():
            correct = model(images).argmax(1) == labels
        return Planted(
            model=model,
            images=images,
            labels=labels,
            regions=regions,
            pool_images=pool_images,
            pool_labels=pool_labels,
            pool_regions=pool_regions,
            empty=-1.0 if self.normalized else 0.0,
            absence_unit=1,
            accuracy=float(correct.double().mean()),
        )

    def train(self, model: nn.Sequential, images: Tensor, labels: Tensor) -> None:
        """Cross-entropy; on one thread, so that the number of cores does not change the result."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self.fit(model, images, labels)
        finally:
            torch.set_num_threads(threads)
        model.zero_grad(set_to_none=True)
        model.eval()

    def initialize(self, model: nn.Sequential) -> None:
        model.to_empty(device="cpu")
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()  # ones and zeros, nothing random
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_uniform_(module.weight, generator=self.generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def fit(self, model: nn.Sequential, images: Tensor, labels: Tensor) -> None:
        self.initialize(model)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
        steps = self.epochs * -(-len(images) // self.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
        for _ in range(self.epochs):
            order = torch.randperm(len(images), generator=self.generator)
            for batch in torch.split(order, self.batch_size):
                wanted = F.one_hot(labels[batch], 2).float()
                loss = F.binary_cross_entropy_with_logits(model(images[batch]), wanted)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()


def _joined(first: _Scenes, second: _Scenes) -> _Scenes:
    parts = zip(vars(first).values(), vars(second).values(), strict=True)
    return _Scenes(*(torch.cat(both) for both in parts))
