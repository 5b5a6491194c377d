"""Activations of all units, read a block of units at a time: from memory, or from a file that is larger than it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.inputs import as_activations, check_values
from absence_plugins.methods.invert.stored import is_stored, read_part

SEEN = 2**24  # activations looked at at a time
AHEAD = 2**28  # activations of a file that are read at a time (1 GB in float32), as one pass over it costs much


class Units:
    """Activations [N, U] in memory, or in a file: blocks of units.

    Args:
        activations: what ``label_units`` takes.

    Raises:
        TypeError: not real numbers. ValueError: another shape, no samples, NaN.
    """

    def __init__(self, activations: Any) -> None:
        self.stored: Any = activations if is_stored(activations) else None
        if self.stored is None:
            values = as_activations(activations)
            self.table: Tensor = values[:, None] if values.dim() == 1 else values
            self.samples, self.count = self.table.shape
            self.device, dtype = self.table.device, self.table.dtype
        else:
            shape = tuple(activations.shape)
            check_values(shape)
            self.samples, self.count = shape[0], shape[1] if len(shape) > 1 else 1
            self.device = torch.device("cpu")
            for part in self._parts():  # rejects NaN before anything is searched
                dtype = part.dtype
        self.is_floating = dtype.is_floating_point
        self._ahead: tuple[int, Tensor] | None = None

    @classmethod
    def of(cls, activations: Any) -> Units:
        """Themselves, or of what they are made of."""
        return activations if isinstance(activations, cls) else cls(activations)

    def __len__(self) -> int:
        return self.samples

    @property
    def is_infinite(self) -> bool:
        """Whether a value is."""
        return self.is_floating and any(bool(part.isinf().any()) for part in self._parts())

    def _parts(self) -> Iterator[Tensor]:
        """Some of the samples after the other, all units."""
        step = max(1, SEEN // self.count)
        for first in range(0, self.samples, step):
            yield self._part(first, min(first + step, self.samples), 0, self.count)

    def _part(self, first: int, last: int, start: int, stop: int) -> Tensor:
        """Units start to stop of some samples [n, u]."""
        if self.stored is None:
            return self.table[first:last, start:stop]
        where = (slice(first, last), slice(start, stop))[: len(self.stored.shape)]
        part = as_activations(read_part(self.stored, *where), first)
        return part if part.dim() == 2 else part[:, None]

    def block(self, start: int, stop: int) -> Tensor:
        """Activations of units start to stop, [stop - start, N]. Of a file, more than these are read, and kept."""
        if self.stored is None:
            return self._gather(start, stop)
        if self._ahead is None or not self._ahead[0] <= start < stop <= self._ahead[0] + len(self._ahead[1]):
            self._ahead = None
            wide = max(stop - start, AHEAD // self.samples)
            self._ahead = (start, self._gather(start, min(self.count, start + wide)))
        first, held = self._ahead
        return held[start - first : stop - first]

    def _gather(self, start: int, stop: int) -> Tensor:
        rows = max(1, SEEN // (stop - start))
        made: Tensor | None = None
        for first in range(0, self.samples, rows):
            last = min(first + rows, self.samples)
            part = self._part(first, last, start, stop)
            if made is None:
                made = part.new_empty(stop - start, self.samples)
            made[:, first:last] = part.T
        assert made is not None
        return made

    def pick(self, units: Sequence[int]) -> Tensor:
        """Activations of some units [N, len(units)], on the CPU."""
        if self.stored is None:
            return self.table[:, list(units)].cpu()
        return torch.cat([part[:, list(units)] for part in self._parts()])

    def rows(self, first: int, last: int) -> np.ndarray[Any, Any]:
        """Activations of some samples, of all units [last - first, U]."""
        found: np.ndarray[Any, Any] = self._part(first, last, 0, self.count).cpu().numpy()
        return found
