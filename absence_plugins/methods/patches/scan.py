"""``find_extreme_patches``: one pass over a data set, an exact running top-k, pixels never kept."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from absence_plugins.core.checks import check_choice, check_distinct, check_integer, check_running
from absence_plugins.core.devices import device_of
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import Checkpoint, keep_state
from absence_plugins.methods.identity import (
    Identity,
    check_seen,
    identify_data,
    identify_model,
)
from absence_plugins.methods.patches.images import image_at, read
from absence_plugins.methods.patches.rescoring import RESCORED, rescore
from absence_plugins.methods.patches.result import ExtremePatches, Extremes
from absence_plugins.methods.patches.scoring import Block, Drawn, Scored, Scorer, places_of
from absence_plugins.methods.patches.shards import SIDES, State, gather_states, load_ranks, open_scan
from absence_plugins.methods.patches.windows import (
    MODES,
    RunningExtremes,
    positions_of,
    ranked,
    windows_of,
)
from absence_plugins.methods.ranks import ranks, wait

PRECISIONS = ("exact", "bf16")
SAMPLED = 256  # random windows whose values are kept: where the median patch and the random ones come from


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
        precision: "bf16": about twice as fast; the 64 best candidates of a unit are scored again in full precision, and
            a warning names the units of which another patch may belong to the best. Where only the best patch of each
            image counts, those that bf16 cannot tell apart may take each other's place.

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
            scorer = Scorer(run, at, device_of(model, first), size, stride, mode, batch_size, precision == "bf16")
            places = places_of(first, numbers[0], size, stride)
            values = scorer.first_values(first, places[:1])
            scorer.units = _unit_numbers(units, values.shape[1], at.name)
            blocks = _blocks(numbers, max(1, batch_size // len(places)))
            wide = k if precision == "exact" else max(k, RESCORED) + 1  # and the best one that is left out
            state = _empty_state(len(blocks), len(numbers), len(scorer.units), wide, scorer.device)
            rank, _ = ranks()
            keeper = None
            if checkpoint is not None:
                settings = {
                    "layer": at.name,
                    "units": _digest(scorer.units),
                    "images": f"{len(numbers)} of {len(dataset)}, {_digest(numbers)}",
                    **dict(k=k, size=size, stride=stride, mode=mode, batch_size=batch_size, seed=seed),
                    **read_as,
                    "precision": precision if precision == "exact" else f"{precision}, {wide} kept",
                }
                keeper = open_scan(checkpoint, settings, belongs, rank, save_every)
                load_ranks(keeper, state)
                if not keeper.has_compared("data", "identity"):
                    check_seen(state.seen, lambda number: image_at(dataset, number), numbers, checkpoint)
                wait()  # all ranks have read before anyone writes: they share out the same rest
            _run_blocks(scorer, state, blocks, dataset, keeper, workers=workers, seed=seed, progress=progress)
            gather_states(state)
            if not bool(state.done.all()):
                raise RuntimeError(
                    f"{int((state.done == 0).sum())} blocks of images were not scanned; run the scan again to resume"
                )
            if precision == "bf16":
                rescore(scorer, state, dataset, k)
    options = {"size": size, "stride": stride, "mode": mode, **read_as, "seed": seed, "precision": precision}
    chosen = None if images is None else tuple(numbers)
    return _result(state, scorer.units, at.name, options, chosen, dataset)


def _run_blocks(
    scorer: Scorer,
    state: State,
    blocks: list[Block],
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
        waiting: deque[Scored] = deque()
        for block, items in zip(rest, found, strict=True):
            waiting.append(scorer.score(blocks[block], items, drawn))
            if len(waiting) > scorer.ahead:
                scorer.keep(state, waiting.popleft())
                bar.update()
                save()
        for scored in waiting:
            scorer.keep(state, scored)
            bar.update()
            save()


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


def _blocks(numbers: list[int], images: int) -> list[Block]:
    """Always the same ones, however many ranks there are."""
    starts = range(0, len(numbers), images)
    return [Block(index, start, numbers[start : start + images]) for index, start in enumerate(starts)]


def _drawn(images: int, seed: int) -> Drawn:
    """Random windows: by the image's place, its columns in the sample and which of its windows, as a share of them."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(images, (SAMPLED,), generator=generator).tolist()
    shares = torch.rand(SAMPLED, generator=generator, dtype=torch.float64).tolist()
    drawn: Drawn = {}
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
