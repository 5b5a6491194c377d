"""From a map to things: the columns, runs of tokens, spans of time or regions of a volume with the most evidence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from absence_plugins.core.checks import check_integer
from absence_plugins.core.kinds import Kind, TableKind, TextKind
from absence_plugins.methods.regions.strongest import LARGEST, SMALLEST, grow_regions

LONGEST_RUN = 5  # tokens
VOLUME = (0.001, 0.06)  # the smallest and the largest region, as shares of a volume
PIECES = {1: 256, 3: 16}  # along an axis of a signal or volume, at most; they are as small as that allows


def strongest_things(
    kind: Kind,
    evidence: Tensor,
    count: int = 3,
    *,
    share: tuple[float, float] | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    """The things of one sample that a map names, strongest first: boolean ``[N, *things]``, N <= count, without
    overlap.

    Of a table single columns. Of a text single tokens and runs of up to five, of a signal spans, of a volume connected
    regions: each begins at the strongest piece, and neighbors join it, the strongest first, as long as each has at
    least half the thing's evidence per piece and the thing is no larger than allowed; one that is still too small takes
    its strongest neighbor all the same, as long as that has positive evidence. Things are ordered by their sums.

    Args:
        kind: what the entries are.
        evidence: signed, of one sample, as ``kind.things`` gives it: [columns], [T] or [D, H, W]. Of a map R of what
            suppresses an output, pass -R.
        count: how many things, at most.
        share: of signals and volumes, the smallest and the largest thing as shares of the whole; None: 1 % to 15 % of a
            signal, 0.1 % to 6 % of a volume.
        ids: of a text, the token ids [T] in which the evidence is: of what is missing those of the reference. Places of
            special tokens are left out. Of [M, T] only where all have one.

    Raises:
        TypeError: no kind.
        ValueError: another shape, values that are NaN or infinite, a count below 1, shares that are not in order or of
            a kind that has none, a text with special tokens without ``ids``.

    >>> kind = TextKind({}, special=(0,))
    >>> strongest_things(kind, torch.tensor([9.0, 2.0, 1.5, -1.0]), 2, ids=torch.tensor([0, 5, 6, 7])).int()
    tensor([[0, 1, 1, 0]], dtype=torch.int32)
    """
    check_integer("count", count)
    values = _checked(kind, evidence)
    if isinstance(kind, TableKind):
        _refuse_share(kind, share)
        order = values.argsort(descending=True, stable=True)
        return torch.eye(len(values), dtype=torch.bool)[order[values[order] > 0][:count]]
    if isinstance(kind, TextKind):
        _refuse_share(kind, share)
        values = values.masked_fill(_find_special(kind, ids, len(values)), -torch.inf)
        return _grow(values, 1, 0, LONGEST_RUN, count)
    smallest, largest = share if share is not None else (SMALLEST, LARGEST) if values.dim() == 1 else VOLUME
    if not 0 <= smallest <= largest <= 1:
        raise ValueError(f"share={share} must be the smallest and the largest thing as shares of the whole, in order")
    side = max(1, -(-max(values.shape) // PIECES[values.dim()]))
    return _grow(values, side, smallest * values.numel(), largest * values.numel(), count)


def _checked(kind: Kind, evidence: Tensor) -> Tensor:
    """The evidence as float64 on the CPU."""
    if not isinstance(kind, Kind):
        raise TypeError(
            f"kind must be a TableKind, TextKind, SignalKind or VolumeKind, got a {type(kind).__name__}; of images use "
            "strongest_regions"
        )
    axes = {"region": 3}.get(kind.thing, 1)
    wrong_columns = isinstance(kind, TableKind) and tuple(evidence.shape) != (len(kind.columns),)
    if evidence.dim() != axes or wrong_columns or not evidence.numel():
        wanted = {"column": f"[{len(kind.columns)}]" if isinstance(kind, TableKind) else "", "region": "[D, H, W]"}
        raise ValueError(
            f"evidence has shape {tuple(evidence.shape)}; it must be {wanted.get(kind.thing, '[T]')}, one value per "
            f"{kind.thing} of one sample: pass kind.things(maps)[0]"
        )
    values = evidence.detach().cpu().double()
    if not bool(torch.isfinite(values).all()):
        raise ValueError("evidence has values that are NaN or infinite")
    return values


def _refuse_share(kind: Kind, share: tuple[float, float] | None) -> None:
    if share is not None:
        raise ValueError(f"share={share} is for signals and volumes; leave it out for a {kind.name}")


def _find_special(kind: TextKind, ids: Tensor | None, length: int) -> Tensor:
    """Which places [T] have special tokens."""
    if ids is None:
        if kind.special:
            raise ValueError("the text's kind has special tokens; pass ids=, so that they are left out")
        return torch.zeros(length, dtype=torch.bool)
    if ids.shape[-1:] != (length,) or ids.dim() not in (1, 2):
        raise ValueError(f"ids have shape {tuple(ids.shape)}, the evidence [{length}]; pass one token id per value")
    special = kind.is_special(ids.cpu())
    return special if special.dim() == 1 else special.all(0)


def _grow(values: Tensor, side: int, low: float, high: float, count: int) -> Tensor:
    """The strongest things of pieces of ``side`` along every axis; -inf: never part of one."""
    axes = [torch.arange(length) // side for length in values.shape]
    grid = [int(axis[-1]) + 1 for axis in axes]
    numbers = torch.arange(int(np.prod(grid))).reshape(grid)
    pieces = numbers[tuple(torch.meshgrid(*axes, indexing="ij"))].flatten().numpy()
    sums = np.bincount(pieces, values.flatten().numpy(), minlength=numbers.numel())
    sizes = np.bincount(pieces, minlength=numbers.numel())
    around: list[set[int]] = [set() for _ in range(numbers.numel())]
    for axis, length in enumerate(grid):
        pairs = (numbers.narrow(axis, 0, length - 1).flatten(), numbers.narrow(axis, 1, length - 1).flatten())
        for one, other in zip(*(part.tolist() for part in pairs), strict=True):
            around[one].add(other)
            around[other].add(one)
    chosen = grow_regions(sums, sizes, around, low, max(high, sizes.min()))[:count]
    chosen.sort(key=lambda thing: -sums[thing].sum())
    masks = [torch.from_numpy(np.isin(pieces, thing)).reshape(values.shape) for thing in chosen]
    return torch.stack(masks) if masks else torch.zeros(0, *values.shape, dtype=torch.bool)
