"""Steps along directions, image by image: what they do to every output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import count as count_up
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions.explained import ExplainedOutputs
from absence_plugins.methods.directions.heads import Head, layer_features
from absence_plugins.methods.directions.inputs import (
    Inputs,
    batches_in_turn,
    count_samples,
    is_padded,
    take_rows,
)
from absence_plugins.methods.directions.pairs import DirectionPairs
from absence_plugins.methods.directions.positions import count_positions
from absence_plugins.methods.ranks import from_first, gather, own_share, ranks

Tick = Callable[[int], object]
PLACES = "places"  # the file of a checkpoint


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images at a layer.

    Attributes:
        features: [n, H, W, D].
        counted: [n, H * W], the positions that may be moved.
        first: number of the first image.
        inputs: where what follows the layer depends on more than its features, or the example is padded or has another
            length; else None.
    """

    features: Tensor
    counted: Tensor
    first: int
    inputs: Inputs | None

    @property
    def samples(self) -> Tensor:
        """The images' numbers, [n]."""
        return torch.arange(self.first, self.first + len(self.features))


@dataclass(frozen=True, eq=False)
class Source:
    """Images, and how a model's layer is read on them; ``prefix``: tokens that are no places."""

    model: nn.Module
    layer: Layer
    dataset: Any
    batch_size: int
    prefix: int
    head: Head

    def inputs(self, wants: Callable[[range], bool]) -> Iterator[tuple[range, Inputs | None]]:
        """The images' numbers of every batch; and the batch, if it is wanted."""
        return batches_in_turn(self.dataset, self.batch_size, self.model, wants)

    def batch(self, first: int, inputs: Inputs) -> Batch:
        """What a batch is at the layer."""
        features = layer_features(self.model, self.layer, inputs)
        counted = count_positions(inputs, features, self.prefix)
        alike = tuple(features.shape[1:3]) == self.head.positions
        whole = not is_padded(inputs) and not is_padded(self.head.example)  # the head alone runs on its example
        return Batch(features, counted, first, None if alike and whole else inputs)


def count_places(pairs: DirectionPairs, source: Source, checkpoint: Checkpoint | None, *, progress: bool) -> Tensor:
    """How often a direction's detector fires at each position, [H * W, I] float64, all above 0; kept when complete.

    Of texts of several lengths as many positions as the longest has. Several ranks share out the batches.

    Raises:
        ValueError: images of several sizes at the layer.
    """
    if checkpoint is not None and (kept := from_first(lambda: checkpoint.load(PLACES))):
        return kept["share"]
    rank, world = ranks()
    turns = count_up()
    times, count, sizes = torch.zeros(0, pairs.n_directions, dtype=torch.long), 0, source.head.positions
    shown = tqdm(
        total=count_samples(source.dataset), desc="where directions fire", unit="image", leave=False,
        disable=not progress or rank > 0,
    )  # fmt: skip
    with own_share(), shown as bar:
        for numbers, inputs in source.inputs(lambda _: next(turns) % world == rank):
            bar.update(len(numbers))
            if inputs is None:
                continue
            batch = source.batch(numbers.start, inputs)
            fires = (pairs.logits(batch.features) > 0).flatten(1, 2) & batch.counted[..., None]
            here = (batch.features.shape[1], batch.features.shape[2])
            if here != sizes and (here[0], sizes[0]) != (1, 1):
                raise ValueError(
                    f"the layer has {sizes[0]} x {sizes[1]} positions for some images and {here[0]} x {here[1]} for "
                    f"image {batch.first}; steps need the same positions in all: resize the images to one size"
                )
            times = _add_times(times, fires.sum(0).cpu())
            count += len(fires)
    everyone = gather((times, count))
    times, count = reduce(_add_times, (found for found, _ in everyone)), sum(images for _, images in everyone)
    share = (times.double() + 0.01) / max(count, 1)
    if checkpoint is not None and rank == 0:
        checkpoint.save(PLACES, {"share": share})
    return share


def _add_times(one: Tensor, other: Tensor) -> Tensor:
    """The sum of two counts [positions, I]; the shorter one is 0 behind its end."""
    longest = max(len(one), len(other))
    one, other = (F.pad(part, (0, 0, 0, longest - len(part))) for part in (one, other))
    return one + other


def draw_numbers(generator: torch.Generator, images: int, directions: int) -> Tensor:
    """Numbers in [0, 1) that choose positions, [n, I, 2]; image by image, whatever the size of a batch."""
    return torch.rand(images, directions, 2, generator=generator, dtype=torch.float64)


def step_effects(
    pairs: DirectionPairs, read: ExplainedOutputs, batch: Batch, ways: Tensor, places: Tensor, drawn: Tensor, tick: Tick
) -> Tensor:
    """Change of every output towards presence, [n, I, K].

    ways: [D, I], steps; places: [H * W, I], how often a detector fires there; drawn: of :func:`draw_numbers`; ``tick``
    is told of n effects more after each direction.
    """
    features = batch.features
    n, h, w, d = features.shape
    before = read.read(features, batch.samples, batch.inputs)
    read.check(before, batch.first)
    fires = (pairs.logits(features) > 0).reshape(n, h * w, -1)
    drawn = drawn.to(features.device)
    effects = before.new_zeros(n, ways.shape[1], before.shape[1])
    for i in range(ways.shape[1]):
        parts = torch.zeros(n, 1, device=before.device)
        there = fires[..., i]
        for which, (at, sign) in enumerate(((there & batch.counted, -1.0), (~there & batch.counted, 1.0))):
            rows, chosen = choose_places(at, places[: h * w, i].to(features.device), drawn[:, i, which])
            if len(rows):
                moved = features[rows].reshape(len(rows), h * w, d)  # a copy
                moved[torch.arange(len(rows), device=rows.device), chosen] += sign * ways[:, i]
                inputs = None if batch.inputs is None else take_rows(batch.inputs, rows)
                after = read.read(moved.reshape(len(rows), h, w, d), batch.samples[rows.cpu()], inputs)
                effects[rows, i] += sign * (after - before[rows])
                parts[rows] += 1
        effects[:, i] /= parts.clamp(min=1)
        tick(n)
    for i in torch.nonzero(~torch.isfinite(effects).all(2).all(0)).flatten().tolist():
        read.check(effects[:, i], batch.first, f", after a step along direction {i}")
    return effects


def choose_places(allowed: Tensor, weights: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """A position of each image that has any: the images' rows [m] and positions [m].

    allowed: bool [n, P]; weights: [P], above 0, in proportion to which positions are chosen; drawn: [n] in [0, 1).

    >>> allowed = torch.tensor([[False, True, True], [False, False, False]])
    >>> choose_places(allowed, torch.ones(3, dtype=torch.float64), torch.tensor([0.6, 0.6]))
    (tensor([0]), tensor([2]))
    """
    rows = allowed.any(1).nonzero().flatten()
    sums = (allowed[rows] * weights).cumsum(1)
    aim = drawn[rows, None] * sums[:, -1:] * (1 - 1e-12)  # below the sum, so that a position is found
    return rows, torch.searchsorted(sums, aim.to(sums), right=True).flatten()


def rcav_scores(read: ExplainedOutputs, batch: Batch, ways: Tensor, tick: Tick) -> Tensor:
    """Images in which an output rises minus those in which it falls, of a class its probability: [I, K].

    ways: [D, I]; ``tick`` as in :func:`step_effects`.
    """
    features, samples = batch.features, batch.samples
    before = read.read(features, samples, batch.inputs, probabilities=True)
    read.check(before, batch.first)
    moves = batch.counted.reshape(*features.shape[:3], 1).to(features)
    sums = []
    for way in ways.T:
        after = read.read(features + way * moves, samples, batch.inputs, probabilities=True)
        sums.append((after - before).sign().sum(0))
        tick(len(features))
    return torch.stack(sums)
