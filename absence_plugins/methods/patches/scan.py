"""``find_extreme_patches``: one pass over a data set, an exact running top-k, pixels never kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.checks import check_choice, check_distinct, check_integer, check_running
from absence_plugins.core.devices import device_of
from absence_plugins.core.interrupts import uncut
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import Checkpoint, keep_state
from absence_plugins.methods.identity import (
    Identity,
    check_seen,
    identify_data,
    identify_model,
    number_of,
)
from absence_plugins.methods.patches.images import checked, image_at, read
from absence_plugins.methods.patches.result import ExtremePatches, Extremes
from absence_plugins.methods.patches.shards import SIDES, State, gather_states, load_ranks, open_scan
from absence_plugins.methods.patches.windows import (
    MODES,
    RunningExtremes,
    best_of_each,
    corners,
    keys_of,
    positions_of,
    ranked,
    windows_of,
)
from absence_plugins.methods.ranks import ranks, wait

PRECISIONS = ("exact", "bf16")
SAMPLED = 256  # random windows whose values are kept: where the median patch and the random ones come from
RESCORED = 64  # candidates per unit and side that precision="bf16" scores again


def find_extreme_patches(
    model: nn.Module,
    layer: str | Layer,
    dataset: Any,
    *,
    k: int = 8,
    size: int = 64,
    stride: int = 16,
    mode: str = "crop",
    reduce: str | None = None,
    units: Sequence[int] | None = None,
    images: Sequence[int] | None = None,
    batch_size: int = 128,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    save_every: float = 60.0,
    workers: int = 0,
    progress: bool = True,
    precision: str = "exact",
) -> ExtremePatches:
    """The k patches of a data set on which each unit of a layer is highest, and the k on which it is lowest.

    A patch is a window of side ``size`` on a grid of step ``stride`` from the upper left corner; its score is the
    layer's value for it, reduced over positions. Exact: every window is scored, and of equal scores the lower (image,
    y, x) is better. Under ``torchrun`` the ranks share the images and all get the result, which is bit-identical for
    every number of them (with the same threads per process). Only scores and positions are held.

    Source: Hesse et al., ICML 2026, section 5.

    Args:
        model: it runs in evaluation mode up to the layer, on its own device, and is as before afterwards.
        layer: as in ``model.named_modules()``, or a :class:`~absence_plugins.Layer`, which also says where the channels
            are. A layer that ends in a nonlinearity is read in front of it.
        dataset: items are float images [C, H, W] as the model takes them, or tuples that begin with one.
        k: patches per unit and side; fewer are returned if the data set has fewer.
        size: side of a window, in pixels.
        stride: step of the grid, in pixels.
        mode: "crop": the window is the network's input; "mask": the image, 0 outside the window, for networks
            with a fixed input size such as ViT.
        reduce: over positions or tokens: "mean", "max", "min", "sum" or "cls" (the first token); None: the layer's own,
            of a name "mean".
        units: numbers of the units; None: all.
        images: numbers of the images to scan, such as one of ``halves(dataset)``; None: all.
        batch_size: windows per forward.
        seed: of the random sample of patches (:attr:`ExtremePatches.sample`).
        checkpoint: a folder for the state of the scan; a killed scan is resumed, with any number of ranks.
        save_every: seconds between two saves of the state.
        workers: processes that read images ahead.
        progress: show a progress bar.
        precision: "bf16": about twice as fast; the 64 best candidates of a unit are scored again in full precision.

    Returns:
        An :class:`ExtremePatches`, on the CPU.

    Sign: scores are the layer's own; the lowest patches hold the unit down, or merely lack what it likes: see
    ``insertion_test``.

    Raises:
        ValueError: a setting that does not exist, no such layer or unit, an image without a window, NaN in an image or
            in a score (with the image's number), a checkpoint of another scan.
        TypeError: items that are no float images.

    >>> net = nn.Conv2d(1, 2, 1, bias=False)
    >>> net.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    >>> images = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])  # two of 2x2 pixels
    >>> found = find_extreme_patches(net, "", images, k=2, size=1, stride=1, progress=False)
    >>> found.highest.scores.tolist(), found.lowest.scores.tolist()
    ([[5.0, 5.0], [0.0, -1.0]], [[0.0, 1.0], [-5.0, -5.0]])
    >>> found.highest.positions[0].tolist()  # the first two of four equal ones: image 1, y 0, x 0 and 1
    [[1, 0, 0], [1, 0, 1]]
    """
    k, size, stride, batch_size = _check_settings(k, size, stride, mode, batch_size, precision)
    check_running(seed, workers, save_every)
    at = Layer.of(layer, **({} if reduce is None else {"reduce": reduce}))
    numbers = _image_numbers(dataset, images)
    first = image_at(dataset, numbers[0])
    read_as = {"reduce": at.reduce, "channels": at.channels, "side": at.side}
    with own_folder(checkpoint):
        belongs = Identity()
        if checkpoint is not None:
            probe = windows_of(first, places_of(first, numbers[0], size, stride)[:1], size, mode)
            belongs = identify_model(model, probe, at) | identify_data(dataset, numbers, first)
        with at.reading(model) as run:
            scan = _Scan(run, at, device_of(model, first), size, stride, mode, batch_size, precision == "bf16")
            places = places_of(first, numbers[0], size, stride)
            values = scan.first_values(first, places[:1])
            scan.units = _unit_numbers(units, values.shape[1], at.name)
            blocks = _blocks(numbers, max(1, batch_size // len(places)))
            wide = k if precision == "exact" else max(k, RESCORED)
            state = _empty_state(len(blocks), len(numbers), len(scan.units), wide, scan.device)
            rank, _ = ranks()
            keeper = None
            if checkpoint is not None:
                settings = {
                    "layer": at.name,
                    "units": _digest(scan.units),
                    "images": f"{len(numbers)} of {len(dataset)}, {_digest(numbers)}",
                    **dict(k=k, size=size, stride=stride, mode=mode, batch_size=batch_size, seed=seed),
                    **read_as,
                    "precision": precision,
                }
                keeper = open_scan(checkpoint, settings, belongs, rank, save_every)
                load_ranks(keeper, state)
                if not keeper.has_compared("data", "identity"):
                    check_seen(state.seen, lambda number: image_at(dataset, number), numbers, checkpoint)
                wait()  # all ranks have read before anyone writes: they share out the same rest
            scan.run_blocks(state, blocks, dataset, keeper, workers=workers, seed=seed, progress=progress)
            if precision == "bf16":
                scan.is_fast = False
                for side, sign in SIDES.items():
                    setattr(state, side, scan.rescored(getattr(state, side), dataset, sign, k))
            gather_states(state)
    if not bool(state.done.all()):
        raise RuntimeError(
            f"{int((state.done == 0).sum())} blocks of images were not scanned; run the scan again to resume"
        )
    options = {"size": size, "stride": stride, "mode": mode, **read_as, "seed": seed, "precision": precision}
    chosen = None if images is None else tuple(numbers)
    return _result(state, scan.units, at.name, options, chosen, dataset)


def places_of(image: Tensor, number: int, size: int, stride: int) -> Tensor:
    """The corners of an image's windows. Raises ValueError if there is none."""
    height, width = image.shape[1:]
    if min(height, width) < size:
        raise ValueError(f"image {number} is {height}x{width}: smaller than a patch of size={size}")
    return corners(height, width, size, stride)


@dataclass(frozen=True)
class _Block:
    """Images that are scored together; ``first`` is the place of the first one in the scan's order."""

    index: int
    first: int
    images: list[int]


@dataclass
class _Scan:
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

    def values(self, image: Tensor, places: Tensor) -> Tensor:
        """Of one image's windows: [n, all units]."""
        return self.forward(windows_of(image, places, self.size, self.mode))

    def first_values(self, image: Tensor, places: Tensor) -> Tensor:
        """As :meth:`values`; on the CPU with channels last from here on, by which convolutions are a fifth faster."""
        if self.device.type == "cpu":
            self.layout = torch.channels_last
            with suppress(RuntimeError):  # the model calls .view() on what a convolution returns
                return self.values(image, places)
            self.layout = torch.contiguous_format
        return self.values(image, places)

    def forward(self, windows: Tensor) -> Tensor:
        """[n, C, h, w] -> [n, all units], float."""
        fast = torch.autocast(self.device.type, torch.bfloat16) if self.is_fast else nullcontext()
        with fast:
            return torch.cat(
                [
                    self.layer.reduced(self.run(part.to(self.device).contiguous(memory_format=self.layout))).float()
                    for part in torch.split(windows, self.batch_size)
                ]
            )

    def run_blocks(
        self,
        state: State,
        blocks: list[_Block],
        dataset: Any,
        keeper: Checkpoint | None,
        *,
        workers: int,
        seed: int,
        progress: bool,
    ) -> None:
        """Score this rank's share of the blocks that are not done, and keep the state."""
        rank, world = ranks()
        rest = (state.done == 0).nonzero()[:, 0].tolist()[rank::world]
        drawn = _drawn(sum(len(block.images) for block in blocks), seed)
        with (
            keep_state(keeper, f"rank-{rank:05d}", state.tensors) as save,
            tqdm(total=len(rest), desc="scanning", unit="block", disable=not progress or rank != 0) as bar,
        ):
            found = read(dataset, [blocks[number].images for number in rest], workers)
            for block, items in zip(rest, found, strict=True):
                self.block(state, blocks[block], items, drawn)
                bar.update()
                save()

    def block(self, state: State, block: _Block, items: list[Any], drawn: dict[int, list[tuple[int, float]]]) -> None:
        """Score the windows of some images."""
        windows, keys, sampled, seen = [], [], [], []
        at = 0
        for place, (number, item) in enumerate(zip(block.images, items, strict=True), block.first):
            image = checked(item, number)
            places = places_of(image, number, self.size, self.stride)
            seen.append(number_of(image))
            windows.append(windows_of(image, places, self.size, self.mode))
            keys.append(keys_of(number, places))
            sampled += [(column, at + int(share * len(places))) for column, share in drawn.get(place, ())]
            at += len(places)
        values = self.forward(_stacked(windows, block.images))
        joined = torch.cat(keys)
        bad = ~torch.isfinite(values).all(1)
        if bool(bad.any()):
            number = int(joined[bad.cpu().nonzero()[0, 0]]) >> 32
            raise ValueError(f"the layer's output for image {number} is NaN or infinite")
        if len(self.units) != values.shape[1]:
            values = values[:, list(self.units)]
        table, counts = values.T, [len(part) for part in keys]
        with uncut():  # scores, places and what is done belong together
            for sign, side, apart in ((1, state.high, state.high_apart), (-1, state.low, state.low_apart)):
                side.update(sign * table, joined)
                apart.update(*best_of_each(sign * table, joined, counts))
            if sampled:
                columns, rows = (torch.tensor(part) for part in zip(*sampled, strict=True))
                state.sample[:, columns] = table[:, rows].to(state.sample)
                state.keys[columns] = joined[rows].to(state.keys)
            state.seen[block.first : block.first + len(seen)] = torch.tensor(seen)
            state.done[block.index] = 1

    def rescored(self, part: RunningExtremes, dataset: Any, sign: int, k: int) -> RunningExtremes:
        """The k best of the candidates by their values in full precision."""
        best = RunningExtremes(len(self.units), k, self.device)
        keys = torch.unique(part.keys[part.scores > -torch.inf]).cpu()
        for number in torch.unique(positions_of(keys)[:, 0]).tolist():
            own = keys[positions_of(keys)[:, 0] == number]
            values = self.values(image_at(dataset, number), positions_of(own)[:, 1:])[:, list(self.units)].T * sign
            candidates = (part.keys.cpu()[:, :, None] == own).any(1).to(values.device)
            best.update(values.masked_fill(~candidates, -torch.inf), own)
        return best


def _check_settings(
    k: int, size: int, stride: int, mode: str, batch_size: int, precision: str
) -> tuple[int, int, int, int]:
    check_choice("mode", mode, MODES)
    check_choice("precision", precision, PRECISIONS)
    sizes = check_integer("size", size), check_integer("stride", stride)
    return check_integer("k", k), *sizes, check_integer("batch_size", batch_size)


def _image_numbers(dataset: Any, images: Sequence[int] | None) -> list[int]:
    try:
        count = len(dataset)
    except TypeError:
        raise TypeError(
            "a scan names images by number, so the data set needs a length and items by number; a "
            f"{type(dataset).__name__} has none"
        ) from None
    numbers = list(range(count)) if images is None else sorted({int(number) for number in images})
    if not numbers:
        raise ValueError("there are no images to scan")
    if numbers[0] < 0 or numbers[-1] >= count:
        raise ValueError(f"images must lie between 0 and {count - 1}, got {numbers[0]} to {numbers[-1]}")
    return numbers


def _unit_numbers(units: Sequence[int] | None, count: int, layer: str) -> tuple[int, ...]:
    chosen = tuple(range(count)) if units is None else tuple(check_distinct("units", units))
    wrong = [unit for unit in chosen if not 0 <= unit < count]
    if wrong or not chosen:
        raise ValueError(
            f"units={wrong or chosen}: layer {layer!r} has units 0 to {count - 1}, one for each of its {count} channels"
        )
    return chosen


def _blocks(numbers: list[int], images: int) -> list[_Block]:
    """Always the same ones, however many ranks there are."""
    starts = range(0, len(numbers), images)
    return [_Block(index, start, numbers[start : start + images]) for index, start in enumerate(starts)]


def _drawn(images: int, seed: int) -> dict[int, list[tuple[int, float]]]:
    """Random windows: by the image's place, its columns in the sample and which of its windows, as a share of them."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(images, (SAMPLED,), generator=generator).tolist()
    shares = torch.rand(SAMPLED, generator=generator, dtype=torch.float64).tolist()
    drawn: dict[int, list[tuple[int, float]]] = {}
    for column, (place, share) in enumerate(zip(places, shares, strict=True)):
        drawn.setdefault(place, []).append((column, share))
    return drawn


def _empty_state(blocks: int, images: int, units: int, k: int, device: torch.device) -> State:
    return State(
        done=torch.zeros(blocks, dtype=torch.uint8),
        seen=torch.zeros(images, dtype=torch.int64),
        sample=torch.full((units, SAMPLED), torch.nan),
        keys=torch.full((SAMPLED,), -1),
        **{side: RunningExtremes(units, k, device) for side in SIDES},
    )


def _stacked(windows: list[Tensor], images: list[int]) -> Tensor:
    shapes = {tuple(part.shape[1:]) for part in windows}
    if len(shapes) > 1:
        raise ValueError(
            f"images {images[0]} to {images[-1]} have different shapes {sorted(shapes)}, which one forward cannot "
            "take: with mode='crop' they must have the same channels, with mode='mask' also the same size"
        )
    return torch.cat(windows)


def _digest(numbers: Sequence[int]) -> str:
    return hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:16]


def _result(
    state: State,
    units: tuple[int, ...],
    layer: str,
    options: dict[str, Any],
    images: tuple[int, ...] | None,
    dataset: Any,
) -> ExtremePatches:
    def extremes(part: RunningExtremes, sign: int) -> Extremes:
        found = int((part.scores > -torch.inf).sum(1).min())  # the data set may have fewer windows than k
        scores, keys = ranked(part.scores.cpu(), part.keys.cpu())
        return Extremes(sign * scores[:, :found], positions_of(keys[:, :found]), options["size"])

    keys, order = torch.unique(state.keys, return_inverse=True)
    first = torch.full((len(keys),), len(order)).scatter_reduce(0, order, torch.arange(len(order)), "amin")
    scores, rank = state.sample[:, first].sort(dim=1, stable=True)
    sample = Extremes(scores, positions_of(keys[rank]), options["size"])
    high, low, high_apart, low_apart = (extremes(getattr(state, name), sign) for name, sign in SIDES.items())
    return ExtremePatches(high, low, high_apart, low_apart, sample, units, layer, options, images, dataset)
