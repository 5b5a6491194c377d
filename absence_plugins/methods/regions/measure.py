"""Is what a map says of a region true? Change the region, read the output; the same elsewhere as a control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from absence_plugins.core.checks import check_integers
from absence_plugins.core.filling import FILLINGS, Filling, fill
from absence_plugins.methods.regions.places import place_elsewhere
from absence_plugins.methods.regions.result import RegionTest, RegionTests

Output = Callable[[Tensor], Tensor]
DRAWS = 19  # the fewest with which p can be 0.05
MOST, ENTRIES = 256, 5 * 3 * 224 * 224  # inputs in a forward, and entries of all of them: more do not fit the cache
LEAST = 1e-3  # of the largest output that was read: a smaller change counts as none
STEPS = 8  # of the output's number format, in which it counts as none, too
DEFAULT: Filling = "blurred"  # at random places nearly the least destructive, and made once for all of them


def measure_regions(
    output: Output,
    x: Tensor,
    regions: Tensor,
    source: Tensor | Filling = DEFAULT,
    *,
    rises: bool = True,
    columns: Sequence[int] | None = None,
    target: int | None = None,
    others: Sequence[Filling] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> RegionTests:
    """Change every region of x on its own, and regions of its shape elsewhere, and read the output.

    Sign: ``rises`` is what the map says. Content that suppresses u is blanked: u must rise. Content that is missing is
    pasted: u must fall (``rises=False``).

    Args:
        output: images [B, C, H, W] -> u [B], or several outputs [B, K]; no gradient is asked for.
        x: [C, H, W], as the model takes it.
        regions: boolean [N, H, W], as of :func:`strongest_regions`.
        source: what takes a region's place: an image [C, H, W], such as a reference (the control pastes the same
            content at another place); or a filling of :func:`~absence_plugins.core.filling.fill`, made anew at every
            place.
        rises: whether the map says that u rises, or falls.
        columns: of several outputs, the one that each region is about [N]; default: 0.
        target: the number of another output to report beside u.
        others: fillings whose change of u is reported, too, without a control.
        draws: other places per region, drawn by ``seed``: beside the region, around the edges of the image; as many as
            there are on an image of fewer pixels. With fewer than 19 no region is borne out.
        seed: of the places.

    Raises:
        TypeError: regions that are not boolean, a ``source`` that is neither.
        ValueError: shapes that do not fit, a filling, a column or a target that does not exist, outputs that are NaN or
            infinite.

    >>> x = torch.ones(1, 5, 5)
    >>> regions = torch.zeros(1, 5, 5, dtype=torch.bool)
    >>> regions[0, 0, 0] = True  # holds u down; all other pixels raise it
    >>> measure_regions(lambda images: images.flatten(1).sum(1) - 6 * images[:, 0, 0, 0], x, regions, x * 0)
    RegionTests(1 regions, pasted; p = 0.05)
    region  of the image  before  after  change     elsewhere  target  borne out
    1               4.0%   19.00  24.00   +5.00  -1.00 ± 0.00                yes
    """
    about = _checked(x, regions, source, columns, others)
    check_integers(draws=draws)
    x = x.detach()
    changes = _Changes.of(x, source)
    shifts = [place_elsewhere(where, draws, seed + number) for number, where in enumerate(regions)]
    draws = min(map(len, shifts), default=draws)
    shifts = [own_shifts[:draws] for own_shifts in shifts]
    own = torch.stack([x, *changes.make(regions, [(0, 0)] * len(regions))]) if len(regions) else x[None]
    read, step = read_outputs(output, own)
    used = [*about, *([] if target is None else [target])]
    check_columns(used, read)
    places = [(where, shift) for where, own_shifts in zip(regions, shifts, strict=True) for shift in own_shifts]
    parts = [read_outputs(output, changes.make(*_columns(part)))[0] for part in _batches(places, choose_batch(x))]
    random = torch.cat(parts).view(len(regions), draws, -1) if parts else read.new_zeros(0, draws, read.shape[1])
    under = {
        kind: read_outputs(output, _Changes.of(x, kind).make(regions, [(0, 0)] * len(regions)))[0]
        for kind in others
        if about
    }
    check_finite([values[..., used] for values in (read, random, *under.values())])
    tests = tuple(
        RegionTest(
            where=regions[i].cpu(),
            image=own[i + 1],
            rises=rises,
            before=float(read[0, column]),
            after=float(read[i + 1, column]),
            random_values=random[i, :, column],
            target_before=None if target is None else float(read[0, target]),
            target_after=None if target is None else float(read[i + 1, target]),
            target_random=None if target is None else random[i, :, target],
            column=column,
            others={kind: float(values[i, column] - read[0, column]) for kind, values in under.items()},
            least=find_least(step, read[[0, i + 1], column], random[i, :, column]),
        )
        for i, column in enumerate(about)
    )
    return RegionTests(tests, source if isinstance(source, str) else "pasted")


@dataclass(frozen=True, eq=False)
class _Changes:
    """Copies of an image with a region changed."""

    x: Tensor
    source: Tensor | Filling
    is_moved: bool  # the source moves with the region

    @classmethod
    def of(cls, x: Tensor, source: Tensor | Filling) -> _Changes:
        """From what was passed: a filling that is the same wherever the region lies is made once."""
        if isinstance(source, str) and source != "inpainted":
            return cls(x, fill(x, torch.ones_like(x[0], dtype=torch.bool), source), is_moved=False)
        return cls(x, source, is_moved=True)

    def make(self, regions: Sequence[Tensor] | Tensor, shifts: Sequence[tuple[int, ...]]) -> Tensor:
        """One copy per region and shift [N, C, H, W]."""
        masks = torch.stack([w.roll(s, (0, 1)) for w, s in zip(regions, shifts, strict=True)]).to(self.x.device)
        if isinstance(self.source, str):
            return torch.stack([fill(self.x, mask, self.source) for mask in masks])
        source = self.source.to(self.x)
        sources = torch.stack([source.roll(shift, (1, 2)) for shift in shifts]) if self.is_moved else source
        return torch.where(masks[:, None], sources, self.x)


def choose_batch(x: Tensor) -> int:
    """How many inputs like x [...] go into a forward.

    >>> choose_batch(torch.zeros(3, 224, 224)), choose_batch(torch.zeros(1, 32, 32))
    (5, 256)
    """
    return max(1, min(MOST, ENTRIES * (1 if x.device.type == "cpu" else 16) // x.numel()))


def read_outputs(output: Output, inputs: Tensor, at_once: int | None = None) -> tuple[Tensor, float]:
    """The outputs [B, K] of inputs, float64 on the CPU, a few inputs at a time (default: :func:`choose_batch`); and the
    relative size of their rounding.

    Raises:
        ValueError: outputs of another shape than [B] or [B, K].
    """
    each = choose_batch(inputs[0]) if at_once is None else at_once
    with torch.no_grad():
        parts = [output(part).detach() for part in torch.split(inputs, each)]
    parts = [part[None] if part.dim() == 0 else part for part in parts]
    step = STEPS * torch.finfo(parts[0].dtype).eps if parts[0].is_floating_point() else 0.0
    found = torch.cat([part.double().cpu() for part in parts])
    if found.dim() not in (1, 2) or len(found) != len(inputs):
        raise ValueError(
            f"output returned shape {tuple(found.shape)} for {len(inputs)} inputs; it must be [B] or [B, K]"
        )
    return (found[:, None] if found.dim() == 1 else found), step


def check_columns(columns: Sequence[int], read: Tensor) -> None:
    """Raise ValueError for a column that outputs [B, K] have not."""
    for column in columns:
        if not -read.shape[1] <= column < read.shape[1]:
            raise ValueError(f"output {column} does not exist; there are {read.shape[1]}")


def check_finite(read: Sequence[Tensor]) -> None:
    """Raise ValueError for outputs that are NaN or infinite."""
    if not all(bool(torch.isfinite(values).all()) for values in read):
        raise ValueError("the output is NaN or infinite on the input or on a changed one, so nothing can be compared")


def find_least(step: float, *read: Tensor) -> float:
    """The change of an output that counts as none: a thousandth of the largest that was read, or its rounding."""
    return max(LEAST, step) * float(torch.cat(read).abs().max())


def check_about(columns: Sequence[int] | None, count: int, words: str) -> list[int]:
    """The output that each region is about, by default 0. Raises ValueError for another number of them."""
    about = [0] * count if columns is None else [int(column) for column in columns]
    if len(about) != count:
        raise ValueError(f"{len(about)} columns for {count} {words}; pass one for each")
    return about


def _batches(
    places: Sequence[tuple[Tensor, tuple[int, ...]]], size: int
) -> Iterator[list[tuple[Tensor, tuple[int, ...]]]]:
    waiting = iter(places)
    while part := list(islice(waiting, size)):
        yield part


def _columns(part: list[tuple[Tensor, tuple[int, ...]]]) -> tuple[list[Tensor], list[tuple[int, ...]]]:
    return [where for where, _ in part], [shift for _, shift in part]


def _checked(
    x: Tensor, regions: Tensor, source: Tensor | str, columns: Sequence[int] | None, others: Sequence[str]
) -> list[int]:
    """The output that each region is about."""
    if x.dim() != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be one image [C, H, W]")
    if regions.dtype != torch.bool:
        raise TypeError(f"regions must be boolean, True inside, got {regions.dtype}")
    if regions.dim() != 3 or regions.shape[1:] != x.shape[1:]:
        raise ValueError(f"regions have shape {tuple(regions.shape)}, x {tuple(x.shape)}; they must be [N, H, W]")
    for kind in (source, *others):
        if isinstance(kind, str) and kind not in FILLINGS:
            raise ValueError(f"source={kind!r} must be an image, or one of {', '.join(FILLINGS)}")
    if isinstance(source, Tensor):
        if source.shape != x.shape:
            raise ValueError(f"source has shape {tuple(source.shape)}, x {tuple(x.shape)}; they must be the same")
    elif not isinstance(source, str):
        raise TypeError(f"source must be an image or a filling, got {type(source).__name__}")
    return check_about(columns, len(regions), "regions")
