"""One thread at a time works on a model: hooks, modes and merged weights of one would change the results of another."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from threading import Lock, RLock, Thread, current_thread
from threading import enumerate as enumerate_threads
from typing import Any, Self

from torch import nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.interrupts import deliver, guarding

PATIENCE = 10.0  # seconds until a thread that waits says for whom
LOOK = 0.1  # seconds between two looks whether to go on waiting
ORPHANED = 30  # looks at which a lock was nobody's: who had it was broken off while taking it or giving it back


class working_on(guarding):
    """In this block no other thread works on these models, or on another that shares a module with them.

    The thread itself may enter again. Ctrl-C is deferred as in
    :class:`~absence_plugins.core.interrupts.guarding`. What is no module (a function) is not locked. A thread that
    waits long says for whom (AbsenceWarning); a thread that has ended without leaving its block is not waited for
    (in Python before 3.13, one that was started by other means than ``threading`` is). All that one block names is
    taken in one order, whatever the order of the names. Plain calls of the model by the user hold nothing.

    >>> net = nn.Sequential(nn.Identity())
    >>> with working_on(net), working_on(net[0]):
    ...     net(1)
    1
    """

    def __init__(self, *models: Any) -> None:
        self._models = models
        self._held: list[tuple[_ModelLock, int]] = []

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            locks = {lock.number: lock for model in self._models for lock in _locks_of(model)}
            for number in sorted(locks):
                self._held.append((locks[number], locks[number].acquire()))
        except BaseException as error:
            self.__exit__(None, error, None)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        while self._held:
            lock, turn = self._held.pop()
            lock.release(turn)
        super().__exit__(kind, error, trace)


class _ModelLock:
    """Reentrant; knows who holds it. It may be released by another thread: that which frees a generator."""

    made = 0

    def __init__(self, *, is_last: bool = False) -> None:
        _ModelLock.made += 1
        self.number = _ModelLock.made + is_last * 2**62  # the order in which several are taken
        self._lock = Lock()
        self._owner: Thread | None = None  # no number, which another thread may get later
        self._count = 0
        self._turn = 0  # how often it went to a thread

    def acquire(self) -> int:
        """Wait until no other thread holds it; returns what :meth:`release` takes."""
        own = current_thread()  # from now on `threading` knows this thread, also one that it has not started
        if self._owner is not own:
            if not self._lock.acquire(blocking=False):
                self._wait()
            with _TABLE:
                self._owner, self._count, self._turn = own, 0, self._turn + 1
        with _TABLE:
            self._count += 1
            return self._turn

    def release(self, turn: int) -> None:
        """Once for every time it was acquired. Nothing where another thread has taken it over meanwhile."""
        with _TABLE:
            if turn != self._turn:
                return
            self._count -= 1
            if self._count == 0:
                self._owner = None
                self._lock.release()

    def _wait(self) -> None:
        began, is_said, orphaned = time.monotonic(), False, 0
        while not self._lock.acquire(timeout=LOOK):
            deliver()  # Ctrl-C
            owner = self._owner
            orphaned = orphaned + 1 if owner is None else 0
            is_left = orphaned >= ORPHANED if owner is None else owner not in enumerate_threads()
            if is_left and self._inherit(owner):
                return
            if not is_said and time.monotonic() - began > PATIENCE:
                is_said = True
                warnings.warn(
                    f"thread {current_thread().name!r} waits for a model on which thread {owner.name if owner else ''!r} "
                    f"has been working for {PATIENCE:g} s; is a `with` block, or a generator with one, still open there?",
                    AbsenceWarning,
                    stacklevel=4,
                )

    def _inherit(self, owner: Thread | None) -> bool:
        """Take over from a thread that has ended and never left its block, or from nobody; of several that wait one does."""
        with _TABLE:
            if self._owner is not owner:
                return False
            self._owner, self._count, self._turn = current_thread(), 0, self._turn + 1
            return True


class Shared:
    """What is not a model, but also belongs to one thread at a time: :class:`working_on` takes it after models."""

    def __init__(self) -> None:
        self.locks = (_ModelLock(is_last=True),)


_TABLE = RLock()  # whatever is freed under it may give a lock back
_OF_MODULE: weakref.WeakKeyDictionary[nn.Module, _ModelLock] = weakref.WeakKeyDictionary()
_OF_MODEL: weakref.WeakKeyDictionary[nn.Module, tuple[_ModelLock, ...]] = weakref.WeakKeyDictionary()


def _locks_of(model: Any) -> tuple[_ModelLock, ...]:
    """The locks of a model: one, or of a model that is made of others all of theirs. Modules are looked up once."""
    if not isinstance(model, nn.Module):
        inner = model if isinstance(model, Shared) else getattr(model, "__self__", None)  # model.forward
        return inner.locks if isinstance(inner, Shared) else _locks_of(inner) if isinstance(inner, nn.Module) else ()
    found = _OF_MODEL.get(model)
    if found is None:
        with _TABLE:
            modules = list(model.modules())
            known = {lock.number: lock for module in modules if (lock := _OF_MODULE.get(module)) is not None}
            found = tuple(known[number] for number in sorted(known)) or (_ModelLock(),)
            for module in modules:
                _OF_MODULE.setdefault(module, found[0])
            _OF_MODEL[model] = found
    return found


def _forget() -> None:
    """In a forked process, where another thread of its parent may have held it."""
    global _TABLE
    _TABLE = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
