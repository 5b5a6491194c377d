"""One thread while a small network is trained: the same bits on any number of cores, and no threads that wait for each
other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from absence_plugins.core.interrupts import guarding


@contextmanager
def one_thread() -> Iterator[None]:
    """A single thread inside the block; the number from before afterwards.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    with guarding():
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)
