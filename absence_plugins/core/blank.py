"""What a black picture becomes on its way through a data set: the value of a blank pixel.

The data set is read as it always is, while what it calls (``transform``, ``preprocess``, a loader's ``collate_fn``,
...) is recorded. The same calls then run on a black picture of the same kind. So the normalization is found wherever it
stands: in a ``Compose``, a module, a function, several in a row, or after the transform in ``__getitem__``, as far as
that is a factor and an offset per channel. Nothing of the data set is changed, and no black picture reaches it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.dataset_items import image_and_label
from absence_plugins.core.randomness import seeded
from absence_plugins.core.replayed_calls import (
    RecordedCall,
    UnknownBlackError,
    find_leaves,
    is_pillow,
    read_recorded,
    replay_black,
)

SEEDS = range(4)  # of random augmentations; black must come out the same in all of them
SAME = 1e-5  # relative difference of two values that count as equal
FITS = 1e-3  # residual of a factor and offset per channel, in standard deviations
MOST_CHANNELS = 4  # of what may be a picture
DEEPEST = 5  # levels of wrappers in which a Normalize is looked for
UNNAMED = ("target_transform", "loader")  # attributes of data sets that do not change the picture


def find_blanks(dataset: Any) -> tuple[Tensor | None, ...]:
    """What black becomes, one value per channel [C, 1, 1], for each input of a data set or loader; None where that
    cannot be found out by running its transforms, () where nothing can be run.

    The first and the last sample are tried.

    Warns (AbsenceWarning): they differ.

    >>> class Scans(torch.utils.data.Dataset):
    ...     def __init__(self): self.transform = lambda scan: (scan / 255 - 0.5) / 0.25
    ...     def __len__(self): return 2
    ...     def __getitem__(self, index): return self.transform(torch.full((1, 2, 2), 255, dtype=torch.uint8)), index
    >>> find_blanks(Scans())[0].flatten()
    tensor([-2.])
    """
    found = [made for last in (False, True) if (made := _run_black(dataset, last))]
    if not found or len(found[0]) != len(found[-1]):
        return ()
    return tuple(map(_agree, found[0], found[-1]))


def settle_blanks(dataset: Any, found: tuple[Tensor | None, ...], images: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """The value of a blank pixel of every input: as :func:`find_blanks` found it, else what the Normalize steps of the
    data set make of 0, else 0.

    Warns (AbsenceWarning): pictures with values below it.
    """
    steps = () if any(value is not None for value in found) else find_steps(dataset)
    settled: list[Any] = []
    for place, part in enumerate(images):
        value = found[place] if place < len(found) else None
        if value is None and steps and part.dim() > 2:
            value = _apply_steps(steps)
        settled.append(0.0 if value is None else value)
        black = 0.0 if value is None else value.reshape(-1, 1, 1) if value.dim() == 1 else value
        if not has_values_below(part, black):
            continue
        how = "below 0, and what its transforms make of black cannot be found out, so 0 is a guess"
        if value is not None:
            how = f"below {float(value.min()):.3g}, which its transforms make of black"
        warnings.warn(
            f"`empty`, the value of a blank pixel: the images of this dataset have values {how}; pass empty=, the value "
            "of a black pixel: a number, one per channel (-mean / std), or the Normalize itself",
            AbsenceWarning,
            stacklevel=3,
        )
    return tuple(settled)


def has_values_below(images: Tensor, blank: Tensor | float) -> bool:
    """Whether more than one value in a hundred of pictures [N, C, H, W] lies clearly below what a blank pixel would be.

    >>> has_values_below(torch.tensor([[[[-1.0, 0.5]]]]), 0.0), has_values_below(torch.tensor([[-1.0, 0.5]]), 0.0)
    (True, False)
    """
    if not may_be_pictures(images) or not images.is_floating_point():
        return False
    span = float(images.max() - images.min())
    return float((images < torch.as_tensor(blank).to(images) - 0.02 * span).float().mean()) > 0.01


def may_be_pictures(images: Tensor) -> bool:
    """Whether a batch has the shape of pictures: one to four channels, first or last.

    >>> [may_be_pictures(torch.zeros(shape)) for shape in ((2, 3, 8, 8), (2, 8, 8, 1), (2, 64, 4, 4), (2, 3))]
    [True, True, False, False]
    """
    if images.dim() != 4:
        return False
    _, rows, columns, last = images.shape
    return rows <= MOST_CHANNELS or (last <= MOST_CHANNELS < min(rows, columns))


def _run_black(dataset: Any, last: bool) -> tuple[Tensor | None, ...]:
    calls: list[RecordedCall] = []
    try:
        with seeded(0):
            parts, _ = image_and_label(read_recorded(dataset, last, calls))
        return tuple(_find_black(part, calls) for part in parts)
    except (
        Exception
    ):  # whatever a data set does when its transforms are called from outside; the reading itself raises it
        return ()


def _agree(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """What the first and the last sample say; where they differ, the first, with a warning."""
    if one is None or other is None:
        return one if other is None else other
    if one.shape != other.shape or not _is_same(one, other):
        warnings.warn(
            f"`empty`, the value of a blank pixel: black is {float(one.min()):.3g} in the first sample of the dataset and "
            f"{float(other.min()):.3g} in the last, and the first is taken; normalize all of it alike, or pass empty=",
            AbsenceWarning,
            stacklevel=4,
        )
    return one


def _find_black(part: Tensor, calls: list[RecordedCall]) -> Tensor | None:
    """What black becomes, from the last call whose output is the item's image, up to a factor and offset per channel;
    None if there is none, or if black comes out differently every time.
    """
    for call in reversed(calls):
        for place, leaf in enumerate(find_leaves(call.output)):
            relation = _relate(leaf, part)
            if relation is None:
                continue
            values = []
            for seed in SEEDS:
                with seeded(seed), torch.no_grad():
                    try:
                        black = _as_picture(find_leaves(replay_black(call, calls))[place], part).double()
                        values.append(_usual_value(relation[0] * black + relation[1]))
                    except UnknownBlackError:
                        return None
            return values[0].to(part.dtype) if all(_is_same(value, values[0]) for value in values) else None
    return None


def _as_picture(leaf: Any, part: Tensor) -> Tensor:
    """A picture as a tensor of the item's shape, channels where they are there.

    Raises:
        UnknownBlackError: another shape.
    """
    if is_pillow(leaf):
        if leaf.mode not in ("L", "RGB"):
            raise UnknownBlackError
        leaf = torch.frombuffer(bytearray(leaf.tobytes()), dtype=torch.uint8).reshape(leaf.size[1], leaf.size[0], -1)
    found = torch.as_tensor(leaf).detach().to(part.device)
    ways = [found, found.movedim(-1, 0), found.squeeze(0), found[..., 0]]
    fitting = next((way for way in ways if way.shape == part.shape), None)
    if fitting is None:
        raise UnknownBlackError
    return fitting.as_subclass(Tensor)


def _relate(leaf: Any, part: Tensor) -> tuple[Tensor, Tensor] | None:
    """The factor and the offset per channel that make a picture the item's; None where no such make it."""
    try:
        given = _as_picture(leaf, part).double()
    except (UnknownBlackError, TypeError, ValueError, RuntimeError):
        return None
    wanted, axes = part.double(), _other_axes(part)
    center, aim = given.mean(axes, keepdim=True), wanted.mean(axes, keepdim=True)
    spread = (given - center).square().mean(axes, keepdim=True)
    if torch.equal(given, wanted):
        return torch.ones_like(center), torch.zeros_like(center)
    if not bool((spread > 0).all()):
        return None
    slope = ((given - center) * (wanted - aim)).mean(axes, keepdim=True) / spread
    offset = aim - slope * center
    residual = (slope * given + offset - wanted).square().mean().sqrt()
    is_close = bool(residual <= FITS * wanted.std()) and bool((slope != 0).all())
    return (slope, offset) if is_close else None


def _other_axes(part: Tensor) -> tuple[int, ...]:
    """All axes but that of the channels: the first, or the last where only that one is short."""
    if part.dim() < 3:
        return tuple(range(part.dim()))
    is_last = part.shape[0] > MOST_CHANNELS >= part.shape[-1]
    return tuple(axis for axis in range(part.dim()) if axis != (part.dim() - 1 if is_last else 0))


def _usual_value(black: Tensor) -> Tensor:
    """The value that most pixels have, per channel.

    Raises:
        UnknownBlackError: no value is that of most pixels.
    """
    axes = _other_axes(black)
    middle = black
    for axis in axes:
        middle = middle.median(axis, keepdim=True).values
    flat = black.reshape(-1) if len(axes) == black.dim() else black.movedim(_channel_axis(black), 0).flatten(1)
    wanted = flat.median() if flat.dim() == 1 else flat.median(1).values
    value = wanted.reshape(middle.shape)
    if bool((((black - value).abs() <= SAME * value.abs().clamp(min=1)).double().mean(axes) <= 0.5).any()):
        raise UnknownBlackError
    return value


def _channel_axis(part: Tensor) -> int:
    return next(axis for axis in range(part.dim()) if axis not in _other_axes(part))


def _is_same(one: Tensor, other: Tensor) -> bool:
    return bool(((one - other).abs() <= SAME * other.abs().clamp(min=1)).all())


def find_steps(dataset: Any) -> list[Any]:
    """The steps of a data set's transform that have a mean and a std, in their order.

    >>> class Step:
    ...     def __init__(self, mean): self.mean, self.std = mean, 1.0
    >>> class Compose:
    ...     transforms = [Step(0.5), nn.Sequential(), Step(2.0)]
    >>> class Data:
    ...     def __init__(self): self.transform = Compose()
    >>> [step.mean for step in find_steps(Data())]
    [0.5, 2.0]
    """
    if isinstance(dataset, torch.utils.data.DataLoader):
        return find_steps(dataset.dataset)
    if hasattr(dataset, "datasets"):  # ConcatDataset
        return next(filter(None, map(find_steps, dataset.datasets)), [])
    held = getattr(dataset, "__dict__", {})
    names = sorted((name for name in held if name not in UNNAMED), key=lambda name: "transform" not in name)
    found = next(filter(None, (_steps_of(held[name], 0) for name in names if name != "dataset")), [])
    return found or (find_steps(dataset.dataset) if hasattr(dataset, "dataset") else [])  # Subset


def _steps_of(transform: Any, depth: int) -> list[Any]:
    if depth > DEEPEST or isinstance(transform, (type, Tensor, str, torch.utils.data.Dataset)):
        return []
    if _has_scale(transform):
        return [transform]
    return [step for part in _parts_of(transform) for step in _steps_of(part, depth + 1)]


def _has_scale(transform: Any) -> bool:
    mean, std = getattr(transform, "mean", None), getattr(transform, "std", None)
    return mean is not None and std is not None and not callable(mean) and not callable(std)


def _parts_of(transform: Any) -> Iterator[Any]:
    """What a transform calls: its list, its children, the variables of a function, the attributes of an object."""
    if isinstance(getattr(transform, "transforms", None), Iterable):
        yield from transform.transforms
    elif isinstance(transform, nn.Module):
        yield from transform.children()
    elif isinstance(transform, functools.partial):
        yield from (transform.func, *transform.args, *transform.keywords.values())
    elif callable(transform):
        for cell in getattr(transform, "__closure__", None) or ():
            yield cell.cell_contents
        yield from getattr(transform, "__dict__", {}).values()


def _apply_steps(steps: list[Any]) -> Tensor:
    value = torch.zeros(1)
    for step in steps:
        mean, std = torch.as_tensor(step.mean).flatten(), torch.as_tensor(step.std).flatten()
        value = (value - mean) / std
    return value
