"""Windows of an image: what the network sees of each, their numbers, and the most extreme of them so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

MODES = ("crop", "mask")
_SIDE = 1 << 16  # no image is larger
NOWHERE = torch.iinfo(torch.int64).max  # the key of no window


def corners(height: int, width: int, size: int, stride: int) -> Tensor:
    """Upper left corners [windows, 2] (y, x) of all windows that lie wholly in the image, row by row.

    The grid begins at (0, 0); what a stride leaves over at the right and lower edge is not covered.

    >>> corners(224, 224, 64, 16).shape, corners(5, 4, 3, 2).tolist()
    (torch.Size([121, 2]), [[0, 0], [2, 0]])
    """
    rows, columns = (torch.arange(0, side - size + 1, stride) for side in (height, width))
    return torch.cartesian_prod(rows, columns).reshape(-1, 2)


def windows_of(image: Tensor, places: Tensor, size: int, mode: str) -> Tensor:
    """What the network sees of each window: crops [n, C, size, size], or full images that are 0 outside it [n, C, H,
    W].

    >>> windows_of(torch.arange(4.0).reshape(1, 2, 2), torch.tensor([[0, 1]]), 1, "mask").tolist()
    [[[[0.0, 1.0], [0.0, 0.0]]]]
    """
    if mode == "crop":
        every = image.unfold(1, size, 1).unfold(2, size, 1)  # a view, [C, rows, columns, size, size]
        rows, columns = places.to(image.device).unbind(1)
        return every[:, rows, columns].transpose(0, 1).contiguous()
    masked = image.new_zeros(len(places), *image.shape)
    for row, (y, x) in enumerate(places.tolist()):
        masked[row, :, y : y + size, x : x + size] = image[:, y : y + size, x : x + size]
    return masked


def split_windows(counts: Sequence[int], batch_size: int) -> Iterator[list[tuple[int, int, int]]]:
    """The windows of several images, ``counts`` of each, in batches: of every batch (image, first window, end).

    >>> list(split_windows([3, 2], 4))
    [[(0, 0, 3), (1, 0, 1)], [(1, 1, 2)]]
    """
    batch: list[tuple[int, int, int]] = []
    room = batch_size
    for image, count in enumerate(counts):
        first = 0
        while first < count:
            end = min(count, first + room)
            batch.append((image, first, end))
            room -= end - first
            first = end
            if not room:
                yield batch
                batch, room = [], batch_size
    if batch:
        yield batch


def keys_of(image: int, places: Tensor) -> Tensor:
    """One integer per window, in the order of (image, y, x)."""
    return (image * _SIDE + places[:, 0]) * _SIDE + places[:, 1]


def positions_of(keys: Tensor) -> Tensor:
    """Back to (image, y, x): [...] -> [..., 3].

    >>> positions_of(keys_of(7, torch.tensor([[3, 5]]))).tolist()
    [[7, 3, 5]]
    """
    return torch.stack([keys // _SIDE**2, keys // _SIDE % _SIDE, keys % _SIDE], -1)


class RunningExtremes:
    """The k best windows of every unit so far; of equal scores the lower (image, y, x) is better.

    Attributes:
        scores: [units, k], best first; -inf where there is none yet. Of the lowest, negated.
        keys: [units, k].
    """

    def __init__(self, units: int, k: int, device: Any = "cpu") -> None:
        self.scores = torch.full((units, k), -torch.inf, device=device)
        self.keys = torch.full((units, k), NOWHERE, device=device)

    @property
    def width(self) -> int:
        """k."""
        return self.scores.shape[1]

    def take(self, k: int) -> RunningExtremes:
        """The k best only."""
        found = RunningExtremes(len(self.scores), 0, self.scores.device)
        found.scores, found.keys = self.scores[:, :k].contiguous(), self.keys[:, :k].contiguous()
        return found

    def update(self, values: Tensor, keys: Tensor) -> None:
        """Take in values [units, n] of windows with keys [n] or [units, n]; a window that is known counts once.

        Keys are in rising order where the values are those of one row.
        """
        values, keys = values.to(self.scores), keys.to(self.keys.device).expand(len(values), -1)
        if not values.numel():
            return
        if self.scores.device.type != "cpu":  # to ask which rows change would be to wait for the device
            self.scores, self.keys = self._merge(self.scores, self.keys, values, keys)
            return
        rows = (values.amax(1) >= self.scores[:, -1]).nonzero()[:, 0]
        values, keys = values[rows], keys[rows]
        worst, worst_key = self.scores[rows, -1:], self.keys[rows, -1:]
        better = (values > worst) | ((values == worst) & (keys < worst_key) & (values > -torch.inf))
        chosen = better.any(1).nonzero()[:, 0]
        if len(chosen):
            rows = rows[chosen]
            self.scores[rows], self.keys[rows] = self._merge(
                self.scores[rows], self.keys[rows], values[chosen], keys[chosen]
            )

    def _merge(self, scores: Tensor, keys: Tensor, values: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """The best of known windows, and of new ones [rows, n] by their keys; nothing here depends on a value, so that
        a GPU is not waited for.
        """
        width = self.width
        if values.shape[1] > width:
            chosen = find_best(values, width)
            values, others = values.gather(1, chosen), others.gather(1, chosen)
        scores, keys = ranked(torch.cat([scores, values], 1), torch.cat([keys, others], 1))
        return scores[:, :width], keys[:, :width]


def find_best(values: Tensor, k: int) -> Tensor:
    """Columns [rows, k] of the k highest values [rows, n] of every row, of equal ones the first columns.

    What two sorts of all columns would find, in one selection: value and column are joined in one integer each, which
    are never equal.

    >>> find_best(torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0]]), 2).tolist()
    [[1, 3]]
    """
    bits = (values.float() + 0.0).view(torch.int32)  # -0 becomes 0
    rising = torch.where(bits < 0, bits ^ torch.iinfo(torch.int32).max, bits)  # integers in the order of the floats
    joined = (rising.long() << 32) - torch.arange(values.shape[1], device=values.device)
    return joined.topk(k, dim=1).indices


def best_of_each(values: Tensor, keys: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
    """The best window of every image: values [units, n] with keys [n], images one after the other -> [units, images]
    both.

    >>> best_of_each(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), torch.arange(4), [3, 1])
    (tensor([[3., 2.]]), tensor([[1, 3]]))
    """
    best, where = [], []
    for part, own in zip(torch.split(values, counts, 1), torch.split(keys, counts), strict=True):
        best.append(part.amax(1))
        where.append(torch.where(part == best[-1][:, None], own.to(part.device), NOWHERE).amin(1))
    return torch.stack(best, 1), torch.stack(where, 1)


def ranked(scores: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in order of falling score, equal scores in order of rising key; a key that comes again goes to the end."""
    keys, order = keys.sort(dim=1, stable=True)
    scores = scores.gather(1, order)
    again = torch.zeros_like(keys, dtype=torch.bool)
    again[:, 1:] = (keys[:, 1:] == keys[:, :-1]) & (keys[:, 1:] != NOWHERE)
    scores, keys = scores.masked_fill(again, -torch.inf), keys.masked_fill(again, NOWHERE)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return scores, keys.gather(1, order)
