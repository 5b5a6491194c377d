"""Python's search for unused cycles of objects, kept off what lives until the process ends: imported modules."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """A block of imports: no search for cycles inside it, and none later in what it imported.

    torch and matplotlib bring a few hundred thousand objects, which Python searches again and again while they come in
    and whenever others are made: half a second of CPU. Nothing changes where the block imports nothing new.

    >>> with importing():
    ...     import json
    >>> gc.isenabled()
    True
    """
    was_enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if was_enabled:
            gc.enable()


def end_without_search() -> None:
    """When the process ends, nothing is searched for cycles, since all its memory is given back: half a second of CPU
    with torch. For a process of one's own; Python does not promise to finalize objects that still exist at the end.
    """
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
