"""How much memory a forward takes, and how many samples fit into one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HELD = 2  # tensors that wait for a later operation, as those of a residual connection, next to the largest operation
ON_CPU = 128 * 2**20  # bytes of one forward: larger batches are not faster there, as they do not fit into the cache
ON_GPU = 4 * 2**30


class Weighing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of what each operation of a forward reads and puts out; ``largest`` is the most of one.

    >>> with Weighing() as weighing:
    ...     _ = torch.zeros(4, 2).exp()
    >>> weighing.largest
    64
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler at the first operation, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        found = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, found)) if isinstance(one, Tensor)]
        self.largest = max(self.largest, sum(one.numel() * one.element_size() for one in tensors))
        return found


def count_fitting(bytes_per_sample: float, device: torch.device) -> int:
    """How many samples fit into one forward, at least 1.

    >>> count_fitting(2**20, torch.device("cpu"))
    64
    """
    budget = ON_CPU
    if device.type == "cuda":
        budget = min(ON_GPU, torch.cuda.mem_get_info(device)[0] // 4)
    return max(1, int(budget // (HELD * max(bytes_per_sample, 1))))
