"""How much memory a forward takes, and how many samples fit into one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

HELD = 2  # tensors that wait for a later operation, as those of a residual connection, next to the largest operation
ON_CPU = (
    64 * 2**20
)  # bytes of one forward: in larger ones glibc maps tensors anew, each page a fault; the cache overflows
ON_GPU = 4 * 2**30


class Weighing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of what each operation of a forward reads and puts out.

    ``largest`` is the most of one, ``total`` that of all ``calls``. Of those since the last :meth:`mark`
    ``largest_behind`` is the most, and ``marked`` the total in front of it.

    >>> with Weighing() as weighing:
    ...     _ = torch.zeros(4, 2).exp()
    >>> weighing.largest
    64
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = self.total = self.calls = 0
        self.largest_behind = self.marked = 0

    def mark(self) -> None:
        """Tell the operations in front of this point from those behind it."""
        self.marked, self.largest_behind = self.total, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler at the first operation, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        found = func(*args, **(kwargs or {}))
        read = _count_bytes(args) + _count_bytes((found,))
        if kwargs:
            read += _count_bytes(kwargs.values())
        self.largest, self.largest_behind = max(self.largest, read), max(self.largest_behind, read)
        self.total += read
        self.calls += 1
        return found


def _count_bytes(values: Iterable[Any]) -> int:
    """Of the tensors among an operation's arguments or results, and in lists of them."""
    found = 0
    for one in values:
        if isinstance(one, Tensor):
            found += one.numel() * one.element_size()
        elif isinstance(one, (list, tuple)):
            found += _count_bytes(one)
    return found


def count_fitting(bytes_per_sample: float, device: torch.device) -> int:
    """How many samples fit into one forward, at least 1.

    >>> count_fitting(2**20, torch.device("cpu"))
    32
    """
    budget = ON_CPU
    if device.type == "cuda":
        budget = min(ON_GPU, torch.cuda.mem_get_info(device)[0] // 4)
    return max(1, int(budget // (HELD * max(bytes_per_sample, 1))))
