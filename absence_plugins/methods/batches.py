"""Samples in batches that are the same ones whoever runs them: what goes through a model together changes last bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batches:
    """Samples in their order, in batches; any of them can be read without the others.

    Attributes:
        count: of the samples.
        size: samples of a batch; the last one may have fewer.
        read: from some of the batches, each the numbers of its samples, to their model inputs [B, ...], one batch after
            the other.

    >>> import torch
    >>> batches = Batches.of(torch.arange(5.0), 2)
    >>> batches.numbers, batches.first().tolist()
    ([range(0, 2), range(2, 4), range(4, 5)], [0.0, 1.0])
    """

    count: int
    size: int
    read: Callable[[Sequence[range]], Iterable[Tensor]]

    @classmethod
    def of(cls, inputs: Tensor, size: int) -> Batches:
        """Of inputs [N, ...] in memory."""
        return cls(len(inputs), size, lambda wanted: (inputs[part.start : part.stop] for part in wanted))

    @property
    def numbers(self) -> list[range]:
        """The samples' numbers, batch by batch."""
        return [range(at, min(at + self.size, self.count)) for at in range(0, self.count, self.size)]

    def first(self) -> Tensor:
        """The first batch; a StopIteration where there is none."""
        return next(iter(self.read(self.numbers[:1])))
