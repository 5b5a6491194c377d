"""Ctrl-C that is not lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptions() -> Iterator[list[bool]]:
    """A list that is no longer empty once Ctrl-C was pressed inside the block.

    Python drops a ``KeyboardInterrupt`` that comes up while it frees an object (seen in a weak reference's callback),
    and Lucent's optimization takes it as a wish to return what it has. Who looks at the list between two pieces of work
    still stops. What Ctrl-C does otherwise stays as it was.

    >>> with interruptions() as seen:
    ...     bool(seen)
    False
    """
    seen: list[bool] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield seen  # no handler can be set here, or Ctrl-C is ignored
        return

    def notice(number: int, frame: Any) -> None:
        seen.append(True)
        before(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
