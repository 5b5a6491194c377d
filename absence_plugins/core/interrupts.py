"""Ctrl-C that leaves everything as before: it does not cut in two what belongs together.

Python raises KeyboardInterrupt wherever it stands, also between a ``with`` block and the removal of its hook
(python/cpython#74174). While a :class:`guarding` block is open, an exception that a signal raises waits as long as a
context manager, anybody's, is being entered or left, an object is being freed, or a function marked :func:`undivided`
runs; then it is raised. So hooks, modes, patches, random states and files of every ``with`` block are put back, those
of torch and of the hosts included. The program's own handler runs at once: only what it raises waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from _signal import getsignal  # type: ignore[import-not-found]  # 20 times as fast
from _signal import signal as set_handler
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from inspect import CO_GENERATOR
from threading import get_ident, main_thread
from types import CodeType, FrameType
from typing import Any, NoReturn, Self, TypeVar

SIGNALS = (int(signal.SIGINT), int(signal.SIGTERM))  # the second only where the program handles it
LONGEST = 2.0  # seconds that an exception waits; a step that takes longer is broken off
LOOKS = 100  # and so many looks at least: a process that was stopped for seconds has not taken long
REMINDER = 0.002  # seconds between two looks whether the step has ended
AGAIN = 0.1  # seconds until a look that did not come about is repeated
NAMES = frozenset(
    {"__enter__", "__exit__", "__del__", "enter_context", "remove"}
)  # "remove": hooks and weak references
Function = TypeVar("Function", bound=Callable[..., Any])

_UNDIVIDED: set[CodeType] = set()


def undivided(function: Function) -> Function:
    """Mark a function as a short step that Ctrl-C does not cut: in a guarded block the exception waits for its end."""
    _UNDIVIDED.add(function.__code__)
    return function


class guarding:
    """In this block an exception that a signal raises waits for the end of what is being entered, left or freed.

    Costs a few microseconds at the outermost block, nothing inside it. Only the main thread sees signals;
    in others nothing is done, nor where the program ignores Ctrl-C.

    >>> class Patch:
    ...     def __enter__(self):
    ...         self.is_on = True
    ...     def __exit__(self, *error):
    ...         signal.raise_signal(signal.SIGINT)
    ...         self.is_on = False
    >>> patch = Patch()
    >>> try:
    ...     with guarding(), patch:
    ...         pass
    ... except KeyboardInterrupt:
    ...     patch.is_on
    False
    """

    _is_open = False

    def __enter__(self) -> Self:
        if get_ident() == _WAITING.thread:
            if _WAITING.open == 0:
                _WAITING.begin(sys._getframe(1))
            self._is_open = True
            _WAITING.open += 1
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._is_open:
            self._is_open = False
            _WAITING.open -= 1
            if _WAITING.open == 0:
                _WAITING.end(error)


class uncut(guarding):
    """Ctrl-C inside the block takes effect at its end: what belongs together is changed together, or not at all.

    For short steps.

    >>> done = []
    >>> try:
    ...     with uncut():
    ...         signal.raise_signal(signal.SIGINT)
    ...         done.append("both halves")
    ... except KeyboardInterrupt:
    ...     done
    ['both halves']
    """

    def __enter__(self) -> Self:
        super().__enter__()
        if self._is_open:
            _WAITING.steps += 1
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._is_open:
            _WAITING.steps -= 1
            super().__exit__(kind, error, trace)
            if _WAITING.kept and not _WAITING.is_within_step(sys._getframe(1)):
                _WAITING.deliver(error)


def deliver() -> None:
    """Raise now what waits: inside of a step that itself waits for something, and has changed nothing yet."""
    if get_ident() == _WAITING.thread:
        _WAITING.deliver(None)


class _Waiting:
    """The exceptions that signals have raised and that wait, and the handlers. Only the main thread gets signals."""

    def __init__(self) -> None:
        self.thread = main_thread().ident
        self.open = 0  # blocks
        self.steps = 0  # of `uncut`
        self.root: FrameType | None = None  # of the outermost block: who called it is not asked
        self.before: dict[int, Any] = {}  # the program's own handlers
        self.kept: list[tuple[BaseException, float, int]] = []  # with the time, and the looks since
        self.again: list[tuple[BaseException, float, int]] = []  # on their way back
        self.raised: list[BaseException] = []  # in the outermost block
        self.handler = self.handle  # one object
        self.lock = allocate_lock()  # no reminder is sent while the handlers are put back, nor behind that

    def begin(self, frame: FrameType) -> None:
        """The handler is put in front of the program's own. ``frame``: that of the ``with`` statement, or inside it."""
        while frame.f_back is not None and (frame.f_code.co_name in NAMES or frame.f_code.co_flags & CO_GENERATOR):
            frame = frame.f_back  # a context manager written as a generator is left from another frame
        self.root = frame
        for number in SIGNALS:
            before = getsignal(number)
            if callable(before) and before is not self.handler:
                self.before[number] = before
                set_handler(number, self.handler)

    def end(self, error: BaseException | None) -> None:
        """The program's own handlers are put back, where it has not set others; what waits is raised."""
        with self.lock:
            self.root = None
            for number, before in self.before.items():
                if getsignal(number) is self.handler:
                    try:  # contextlib.suppress takes as long as the rest
                        set_handler(number, before)
                    except ValueError:  # in another thread, which frees a generator: next time
                        continue
            if self.again:  # of a reminder that was sent, and has not arrived
                self.kept += self.again
                self.again.clear()
        if self.kept or self.raised:
            try:
                self.deliver(error)
            finally:
                self.kept.clear()  # beside the interruption that is on its way
                self.raised.clear()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler: raises, or keeps what it would raise and has itself called again."""
        if self.again:  # a reminder has sent it; it looks and sends with the lock, so that none comes behind this one
            if not self.lock.acquire(blocking=False):
                return  # it is just sending, and sends again; or the block ends, and raises what is left
            try:
                error, since, looks = self.again.pop()
            finally:
                self.lock.release()
        else:
            before = self.before.get(number, signal.default_int_handler)
            if not self.open and not self.is_within_step(frame):  # a program had saved the handler, and put it back
                before(number, frame)
                return
            try:
                before(number, frame)
                return
            except BaseException as raised:  # whatever the program's handler raises
                error, since, looks = (raised, time.monotonic(), 0) if not self.kept else self.kept.pop()
        is_long = looks >= LOOKS and time.monotonic() - since > LONGEST
        if is_long or not self.is_within_step(frame):
            self.throw(error)
        self.kept.append((error, since, looks + 1))
        with contextlib.suppress(RuntimeError):  # no thread can be started any more: raised at the end of the block
            start_new_thread(self.remind, (number,))

    def remind(self, number: int) -> None:
        """In a thread: the handler is called again, if nobody has raised what waits."""
        time.sleep(REMINDER)
        with self.lock:
            try:
                entry = self.kept.pop()
            except IndexError:
                return
            self.again.append(entry)
            self._send(number)
        while any(one is entry for one in self.again):  # it came just in front of a call of the system, which goes on
            time.sleep(AGAIN)
            with self.lock:
                if any(one is entry for one in self.again):
                    self._send(number)

    def _send(self, number: int) -> None:
        ident = main_thread().ident
        if hasattr(signal, "pthread_kill") and ident is not None:
            signal.pthread_kill(ident, number)  # also wakes a call of the system
        else:
            signal.raise_signal(number)

    def is_within_step(self, frame: FrameType | None) -> bool:
        """Whether a context manager is being entered or left, an object freed, or an undivided function runs.

        The frames are those that Python hands to a signal's handler; nothing else tells where it came.
        """
        while frame is not None and frame is not self.root:
            if frame.f_code.co_name in NAMES or frame.f_code in _UNDIVIDED:
                return True
            frame = frame.f_back
        return self.steps > 0

    def deliver(self, error: BaseException | None) -> None:
        """Raise what waits; not beside an interruption that is on its way and says as much.

        SystemExit and GeneratorExit are none, unless a handler has raised them.
        """
        try:
            waiting = self.kept[-1][0]
            is_interrupted = isinstance(error, KeyboardInterrupt) or any(error is one for one in self.raised)
            if is_interrupted and isinstance(waiting, (KeyboardInterrupt, type(error))):
                return
            self.kept.pop()
        except IndexError:  # none, or a reminder has just taken it
            return
        self.throw(waiting)

    def throw(self, error: BaseException) -> NoReturn:
        """Raise an interruption."""
        if self.open:
            self.raised.append(error)
        raise error.with_traceback(None)

    def forget(self) -> None:
        """In a forked process: what waits is raised in its parent."""
        self.thread = get_ident()
        self.kept.clear()
        self.again.clear()
        self.raised.clear()
        self.lock = allocate_lock()


_WAITING = _Waiting()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WAITING.forget)
