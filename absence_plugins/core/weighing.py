"""How much memory a forward takes, and how many samples fit into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

HELD = 2  # tensors that wait for a later operation, as those of a residual connection, next to the largest operation
ON_CPU = 64 * 2**20  # bytes of one forward
CACHED = 8 * 2**20  # bytes on a CPU that stay in its cache, and that glibc does not map anew, each page a fault
FEW = 8  # samples of one forward that share the reading of the weights, even where they overflow the cache
ON_GPU = 4 * 2**30


class Weighing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of what each operation of a forward reads and puts out.

    ``largest`` is the most of one without weights, which are there once for all samples; ``total`` is that of all
    ``calls`` with them. Of those since the last :meth:`mark`
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
        self._weights: set[int] = set()  # the storages of parameters, and so of what is seen of them

    def mark(self) -> None:
        """Tell the operations in front of this point from those behind it."""
        self.marked, self.largest_behind = self.total, 0

    @staticmethod
    def mark_running() -> None:
        """The same of the one that adds up what runs now, if any."""
        running = _get_current_dispatch_mode()
        if isinstance(running, Weighing):
            running.mark()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler at the first operation, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        found = func(*args, **(kwargs or {}))
        read = 0
        for one in _find_tensors((args, found, list((kwargs or {}).values()))):
            size = one.numel() * one.element_size()
            self.total += size
            read += 0 if self._is_weight(one) else size
        self.largest, self.largest_behind = max(self.largest, read), max(self.largest_behind, read)
        self.calls += 1
        return found

    def _is_weight(self, one: Tensor) -> bool:
        try:
            storage = one.untyped_storage()._cdata
        except (NotImplementedError, RuntimeError):  # as of a sparse one
            return isinstance(one, nn.Parameter)
        if isinstance(one, nn.Parameter):
            self._weights.add(storage)
        return storage in self._weights


def _find_tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments and results, and in lists of them."""
    for one in values:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple)):
            yield from _find_tensors(one)


def count_fitting(bytes_per_sample: float, device: torch.device, *, in_cache: bool = True) -> int:
    """How many samples fit into one forward, at least 1; on a CPU as many as fit into its cache, or :data:`FEW`.

    in_cache: False where an operation is on so little of a sample that its fixed costs matter more than the cache.

    >>> count_fitting(2**17, torch.device("cpu"))
    32
    >>> count_fitting(2**21, torch.device("cpu"))
    8
    """
    taken = HELD * max(bytes_per_sample, 1)
    if device.type == "cuda":
        return max(1, int(min(ON_GPU, torch.cuda.mem_get_info(device)[0] // 4) // taken))
    most = int(ON_CPU // taken)
    return max(1, min(most, max(FEW, int(CACHED // taken))) if in_cache else most)
