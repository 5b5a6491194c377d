"""Steps that Ctrl-C does not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uncut() -> Iterator[None]:
    """Ctrl-C inside the block takes effect at its end: what belongs together is changed together, or not at all.

    For short steps. Only the main thread sees Ctrl-C; in others, and where a program handles it in a way of its own,
    nothing is changed.

    >>> done = []
    >>> try:
    ...     with uncut():
    ...         signal.raise_signal(signal.SIGINT)
    ...         done.append("both halves")
    ... except KeyboardInterrupt:
    ...     done
    ['both halves']
    """
    is_plain = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not is_plain:
        yield
        return
    came: list[int] = []

    def remember(number: int, frame: Any) -> None:
        came.append(number)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt
