"""How windows are scored, block by block: on the model's device, which is not waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.interrupts import uncut
from absence_plugins.core.units import Layer
from absence_plugins.methods.identity import number_of
from absence_plugins.methods.patches.images import checked
from absence_plugins.methods.patches.shards import State
from absence_plugins.methods.patches.windows import best_of_each, corners, keys_of, split_windows, windows_of

Drawn = dict[int, list[tuple[int, float]]]  # by an image's place: columns of the sample, and which of its windows


def places_of(image: Tensor, number: int, size: int, stride: int) -> Tensor:
    """The corners of an image's windows. Raises ValueError if there is none."""
    height, width = image.shape[1:]
    if min(height, width) < size:
        raise ValueError(f"image {number} is {height}x{width}: smaller than a patch of size={size}")
    return corners(height, width, size, stride)


@dataclass(frozen=True)
class Block:
    """Images that are scored together; ``first`` is the place of the first one in the scan's order."""

    index: int
    first: int
    images: list[int]


@dataclass(frozen=True)
class Scored:
    """What the network says of a block.

    table: [units, n] values of its windows. keys: [n]. counts: windows of each image. sampled: column in the sample and
    window. seen: a hash of every image. is_good: waits, and says which windows' values are all finite [n].
    """

    block: Block
    table: Tensor
    keys: Tensor
    counts: list[int]
    sampled: list[tuple[int, int]]
    seen: list[int]
    is_good: Callable[[], Tensor]


@dataclass
class Scorer:
    """How a window is scored."""

    run: Callable[[Tensor], Tensor]
    layer: Layer
    device: torch.device
    size: int
    stride: int
    mode: str
    batch_size: int
    is_fast: bool
    units: tuple[int, ...] = ()
    layout: torch.memory_format = torch.contiguous_format

    @property
    def ahead(self) -> int:
        """Blocks that are on their way through the network while results are kept: one on a device that works beside
        the CPU.
        """
        return 0 if self.device.type == "cpu" else 1

    def values(self, images: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
        """Of windows of some images, by the corners in each: [n, all units], float.

        Images go to the device, where their windows are cut, as many at a time as one forward takes.
        """
        held = [_send(image, self.device) for image in images]
        fast = torch.autocast(self.device.type, torch.bfloat16) if self.is_fast else nullcontext()
        found = []
        with fast:
            for batch in split_windows([len(part) for part in places], self.batch_size):
                cut = [windows_of(held[i], places[i][first:end], self.size, self.mode) for i, first, end in batch]
                windows = cut[0] if len(cut) == 1 else torch.cat(cut)
                windows = windows.contiguous(memory_format=self.layout)
                found.append(self.layer.reduced(self.run(windows)).float())
        return torch.cat(found)

    def first_values(self, image: Tensor, places: Tensor) -> Tensor:
        """As :meth:`values`; on the CPU with channels last from here on, by which convolutions are a fifth faster."""
        if self.device.type == "cpu":
            self.layout = torch.channels_last
            with suppress(RuntimeError):  # the model calls .view() on what a convolution returns
                return self.values([image], [places])
            self.layout = torch.contiguous_format
        return self.values([image], [places])

    def score(self, block: Block, items: Sequence[Any], drawn: Drawn) -> Scored:
        """Score the windows of some images; a GPU is not waited for."""
        images = [checked(item, number) for number, item in zip(block.images, items, strict=True)]
        places = [
            places_of(image, number, self.size, self.stride) for number, image in zip(block.images, images, strict=True)
        ]
        _check_shapes(images, block.images, self.size, self.mode)
        values = self.values(images, places)
        is_good = _receive(torch.isfinite(values).all(1))
        sampled, at = [], 0
        for place, part in enumerate(places, block.first):
            sampled += [(column, at + int(share * len(part))) for column, share in drawn.get(place, ())]
            at += len(part)
        if len(self.units) != values.shape[1]:
            values = values[:, list(self.units)]
        return Scored(
            block,
            values.T.contiguous(),
            torch.cat([keys_of(number, part) for number, part in zip(block.images, places, strict=True)]),
            [len(part) for part in places],
            sampled,
            [number_of(image) for image in images],
            is_good,
        )

    def keep(self, state: State, scored: Scored) -> None:
        """Take in what was found in a block. Raises ValueError for values that are not finite."""
        block, table, keys = scored.block, scored.table, scored.keys
        is_good = scored.is_good()
        if not bool(is_good.all()):
            number = int(keys[(~is_good).nonzero()[0, 0]]) >> 32
            raise ValueError(f"the layer's output for image {number} is NaN or infinite")
        with uncut():  # scores, places and what is done belong together
            for values, side, apart in ((table, state.high, state.high_apart), (-table, state.low, state.low_apart)):
                side.update(values, keys)
                apart.update(*best_of_each(values, keys, scored.counts))
            if scored.sampled:
                columns, rows = (torch.tensor(part) for part in zip(*scored.sampled, strict=True))
                state.sample[:, columns] = table[:, rows].to(state.sample)
                state.keys[columns] = keys[rows].to(state.keys)
            state.seen[block.first : block.first + len(scored.seen)] = torch.tensor(scored.seen)
            state.done[block.index] = 1


def _check_shapes(images: Sequence[Tensor], numbers: Sequence[int], size: int, mode: str) -> None:
    shapes = {tuple(image.shape) if mode == "mask" else (len(image), size, size) for image in images}
    if len(shapes) > 1:
        raise ValueError(
            f"images {numbers[0]} to {numbers[-1]} have different shapes {sorted(shapes)}, which one forward cannot "
            "take: with mode='crop' they must have the same channels, with mode='mask' also the same size"
        )


def _send(image: Tensor, device: torch.device) -> Tensor:
    """An image on the device; a GPU fetches it while it computes."""
    if device.type != "cuda" or image.device == device:
        return image.to(device)
    return image.pin_memory().to(device, non_blocking=True)


def _receive(flags: Tensor) -> Callable[[], Tensor]:
    """A few numbers on the CPU once they are there; what is queued behind them on a GPU is not waited for."""
    if flags.device.type != "cuda":
        return flags.cpu
    here = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
    here.copy_(flags, non_blocking=True)
    event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(flags.device))

    def wait() -> Tensor:
        event.synchronize()
        return here

    return wait
