"""The features that ablation methods replace: windows that slide over the inputs, or groups of entries by a mask.

A feature is a number from 0 to ``count`` - 1, in Captum's order. Both kinds say which entries of each input belong to a
feature, where an input differs from a baseline in them, and how effects [B, count] become maps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate, product
from math import prod
from typing import Any

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]


class Features(ABC):
    """What an ablation replaces in inputs [B, ...]."""

    count: int

    @abstractmethod
    def inside(self, images: Tensor, numbers: Tensor) -> list[Tensor | None]:
        """Per input which entries of a sample [N] belong to a feature [N]: bool [N, ...], to be broadcast; None: none."""

    @abstractmethod
    def touched(self, differs: Sequence[Tensor]) -> Tensor:
        """Which features hold an entry that differs [B, count], from one bool tensor [B, ...] per input."""

    @abstractmethod
    def spread(self, effects: Tensor) -> Inputs:
        """One map [B, ...] per input from the effects [B, count] of the features."""

    @abstractmethod
    def boxes(self, images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Of a single input [B, C, ...] the first place and the one behind the last [N, axes] along the axes behind C."""


class Windows(Features):
    """Windows of one shape per input that slide over it, the last one cut off at the border.

    The map of an entry is the mean effect of the windows that hold it, in float32 as Captum's.
    """

    def __init__(self, inputs: Inputs, shapes: Sequence[tuple[int, ...]], strides: Sequence[tuple[int, ...]]) -> None:
        self._inputs = inputs
        self._starts, self._ends = [], []
        for part, shape, stride in zip(inputs, shapes, strides, strict=True):
            sizes = part.shape[1:]
            steps = [-(-(size - own) // step) + 1 for size, own, step in zip(sizes, shape, stride, strict=True)]
            numbers = [list(reversed(one)) for one in product(*map(range, reversed(steps)))]  # the first axis fastest
            starts = torch.tensor(numbers) * torch.tensor(stride)
            self._starts.append(starts)
            self._ends.append(torch.minimum(starts + torch.tensor(shape), torch.tensor(sizes)))
        self._offsets = [0, *accumulate(len(starts) for starts in self._starts)]
        self.count = self._offsets[-1]

    def inside(self, images: Tensor, numbers: Tensor) -> list[Tensor | None]:
        """As :class:`Features`."""
        found: list[Tensor | None] = []
        for part, starts, ends, own in zip(self._inputs, self._starts, self._ends, self._owned(numbers), strict=True):
            if not bool(own.any()):
                found.append(None)
                continue
            places = (numbers - self._offsets[len(found)]).where(own, 0)
            held = own.reshape(-1, *[1] * (part.dim() - 1))
            for axis, size in enumerate(part.shape[1:]):
                along = torch.arange(size)
                start, end = starts[places, axis, None], ends[places, axis, None]
                shape = [len(numbers), *[1] * (part.dim() - 1)]
                shape[axis + 1] = size
                held = held & ((along >= start) & (along < end)).reshape(shape)
            found.append(held.to(part.device))
        return found

    def touched(self, differs: Sequence[Tensor]) -> Tensor:
        """As :class:`Features`."""
        found = [
            one[(slice(None), *place)].flatten(1).any(1)
            for number, one in enumerate(differs)
            for place in self._slices(number)
        ]
        return torch.stack(found, 1)

    def spread(self, effects: Tensor) -> Inputs:
        """As :class:`Features`."""
        maps = []
        for number, part in enumerate(self._inputs):
            total = torch.zeros(len(effects), *part.shape[1:], dtype=effects.dtype, device=part.device)
            weights = torch.zeros(part.shape[1:], device=part.device)
            own = effects[:, self._offsets[number] : self._offsets[number + 1]].to(part.device)
            for place, effect in zip(self._slices(number), own.unbind(1), strict=True):
                total[(slice(None), *place)] += effect.reshape(-1, *[1] * (part.dim() - 1))
                weights[place] += 1
            maps.append(total.float() / weights)
        return tuple(maps)

    def boxes(self, images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`Features`."""
        return self._starts[0][numbers][:, 1:], self._ends[0][numbers][:, 1:]

    def _owned(self, numbers: Tensor) -> list[Tensor]:
        pairs = zip(self._offsets, self._offsets[1:], strict=False)
        return [(numbers >= first) & (numbers < behind) for first, behind in pairs]

    def _slices(self, number: int) -> list[tuple[slice, ...]]:
        pairs = zip(self._starts[number].tolist(), self._ends[number].tolist(), strict=True)
        return [tuple(slice(start, end) for start, end in zip(*pair, strict=True)) for pair in pairs]


class Groups(Features):
    """Entries with the same number in a mask, over all inputs; without a mask every entry alone.

    The map of an entry is the effect of its group.
    """

    def __init__(self, inputs: Inputs, masks: Inputs | None) -> None:
        self.masks = masks
        if masks is None:
            counts = [prod(part.shape[1:]) for part in inputs]
            self.count = sum(counts)
            self.known = torch.arange(self.count)
            starts = accumulate(counts, initial=0)
            self._places = [
                torch.arange(start, start + count, device=part.device).reshape(1, *part.shape[1:])
                for start, count, part in zip(starts, counts, inputs, strict=False)
            ]
            self._narrow = self._places
            return
        self.known = torch.unique(torch.cat([mask.flatten().to(masks[0].device) for mask in masks]))
        self.count = len(self.known)
        self._narrow = [  # as small as the masks are
            torch.searchsorted(self.known.to(part.device), mask.to(part.device).contiguous())
            for mask, part in zip(masks, inputs, strict=True)
        ]
        self._places = [place.expand(-1, *part.shape[1:]) for place, part in zip(self._narrow, inputs, strict=True)]

    def inside(self, images: Tensor, numbers: Tensor) -> list[Tensor | None]:
        """As :class:`Features`."""
        return [
            self._of(place, images) == numbers.to(place.device).reshape(-1, *[1] * (place.dim() - 1))
            for place in self._narrow
        ]

    def hold(self, members: Tensor, images: Tensor) -> list[Tensor]:
        """Per input which entries of samples [N] belong to one of several features, ``members`` [N, count]: bool [N,
        ...], to be broadcast.
        """
        found = []
        for place in self._narrow:
            own, of = members.to(place.device), self._of(place, images).flatten(1)
            held = own.index_select(1, of[0]) if len(place) == 1 else own.gather(1, of)
            found.append(held.reshape(-1, *place.shape[1:]))
        return found

    def touched(self, differs: Sequence[Tensor]) -> Tensor:
        """As :class:`Features`."""
        if self.masks is None:
            return torch.cat([one.flatten(1).to(differs[0].device) for one in differs], 1)
        found = differs[0].new_zeros(len(differs[0]), self.count)
        for place, one in zip(self._places, differs, strict=True):
            own = place.expand_as(one).flatten(1)
            hits = torch.zeros(len(one), self.count, device=one.device).scatter_add_(1, own, one.flatten(1).float())
            found |= (hits > 0).to(found.device)
        return found

    def spread(self, effects: Tensor) -> Inputs:
        """As :class:`Features`."""
        return tuple(
            effects.to(place.device).gather(1, place.flatten(1).expand(len(effects), -1)).reshape(-1, *place.shape[1:])
            for place in self._places
        )

    def order(self) -> list[tuple[int, list[int]]]:
        """The features in the order in which Captum comes to them, and the inputs that hold each."""
        if self.masks is None:
            return [(one, [number]) for number, place in enumerate(self._places) for one in place.flatten().tolist()]
        holders: dict[int, list[int]] = {}
        for number, place in enumerate(self._places):
            for feature in torch.unique(place).tolist():
                holders.setdefault(feature, []).append(number)
        return list(holders.items())

    def mask_of(self, number: int, feature: int) -> Tensor:
        """Where an input holds a feature, as Captum writes it: bool, of the shape of the mask that was given."""
        if self.masks is None:
            return self._places[number] == feature
        mask = self.masks[number].to(self._places[number].device)
        return mask == self.known[feature].to(mask.device)

    def boxes(self, images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`Features`."""
        starts, ends = self._extents()
        rows = images if len(starts) > 1 else torch.zeros_like(images)
        return starts[rows, numbers], ends[rows, numbers]

    def _extents(self) -> tuple[Tensor, Tensor]:
        """The boxes around all groups [1 or B, count, axes]."""
        if not hasattr(self, "_found"):
            place = self._places[0].cpu()
            first = place.new_full((len(place), self.count, place.dim() - 2), 2**62)
            last = torch.full_like(first, -1)
            for axis in range(2, place.dim()):
                shape = [1] * place.dim()
                shape[axis] = -1
                along = torch.arange(place.shape[axis]).view(shape).expand_as(place).flatten(1)
                first[..., axis - 2].scatter_reduce_(1, place.flatten(1), along, "amin")
                last[..., axis - 2].scatter_reduce_(1, place.flatten(1), along, "amax")
            self._found = (first, last + 1)
        return self._found

    @staticmethod
    def _of(place: Tensor, images: Tensor) -> Tensor:
        return place if len(place) == 1 else place[images.to(place.device)]


def find_features(call: Mapping[str, Any], inputs: Inputs, mask: str = "feature_mask") -> Features | None:
    """The features that a call of an ablation method names; None where Captum is to judge its arguments.

    ``mask``: the argument that groups entries.
    """
    if any(part.dim() < 2 or part.numel() == 0 for part in inputs):
        return None
    if "sliding_window_shapes" in call:
        return _find_windows(call["sliding_window_shapes"], call.get("strides"), inputs)
    masks = call.get(mask)
    if masks is None:
        return Groups(inputs, None)
    masks = masks if isinstance(masks, tuple) else (masks,)
    if len(masks) != len(inputs) or not all(_fits(mask, part) for mask, part in zip(masks, inputs, strict=True)):
        return None
    return Groups(inputs, masks)


def _fits(mask: Any, part: Tensor) -> bool:
    return (
        isinstance(mask, Tensor)
        and not mask.is_floating_point()
        and mask.dim() == part.dim()
        and all(own in (1, size) for own, size in zip(mask.shape, part.shape, strict=True))
    )


def _find_windows(shapes: Any, strides: Any, inputs: Inputs) -> Windows | None:
    shapes = shapes if isinstance(shapes, tuple) and shapes and isinstance(shapes[0], tuple) else (shapes,)
    if strides is None or isinstance(strides, int):
        strides = (strides or 1,) * len(inputs)
    elif isinstance(strides, tuple) and len(inputs) == 1 and not isinstance(strides[0], tuple):
        strides = (strides,)
    if not isinstance(strides, tuple) or len(shapes) != len(inputs) or len(strides) != len(inputs):
        return None
    found = []
    for part, shape, stride in zip(inputs, shapes, strides, strict=True):
        stride = (stride,) * (part.dim() - 1) if isinstance(stride, int) else stride
        whole = (shape, stride)
        if not all(isinstance(one, tuple) and len(one) == part.dim() - 1 for one in whole):
            return None
        if not all(isinstance(size, int) and size > 0 for one in whole for size in one):
            return None
        sizes = zip(part.shape[1:], shape, stride, strict=True)
        if not all(own <= size and (own == size or step <= own) for size, own, step in sizes):
            return None
        found.append(stride)
    return Windows(inputs, shapes, found)
