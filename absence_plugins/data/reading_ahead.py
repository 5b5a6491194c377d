"""Reading ahead: what is read next is on its way while something else computes, in order, and never more than a few."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Asked = TypeVar("Asked")
Found = TypeVar("Found")
THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes without Python's lock
EACH = 2  # of a thread: what it reads, and what waits to be taken


def read_ahead(read: Callable[[Asked], Found], asked: Iterable[Asked], threads: int = THREADS) -> Iterator[Found]:
    """``read`` of one after the other, in order, by some threads that are up to two for each ahead of what is taken.

    Whatever is raised comes in its turn, behind what was asked for before. However much is asked for, no more than
    ``2 * threads`` are held; where the reader stops, what was not begun is not read.

    Args:
        read: called in several threads; must not draw from the global random state.
        asked: one argument of each call.
        threads: that read.

    >>> list(read_ahead(lambda number: number * number, range(5)))
    [0, 1, 4, 9, 16]
    """
    coming: deque[Future[Found]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reading")
    try:
        for one in asked:
            coming.append(pool.submit(read, one))
            if len(coming) >= EACH * threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
