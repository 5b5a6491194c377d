"""One thread at a time works on a model: hooks, modes and merged weights of one would change the results of another."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from threading import Lock, current_thread, get_ident
from threading import enumerate as enumerate_threads
from typing import Any, Self

from torch import nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.interrupts import deliver, guarding

PATIENCE = 10.0  # seconds until a thread that waits says for whom
LOOK = 0.1  # seconds between two looks whether to go on waiting


class working_on(guarding):
    """In this block no other thread works on these models, or on another that shares a module with them.

    The thread itself may enter again. Ctrl-C is deferred as in
    :class:`~absence_plugins.core.interrupts.guarding`. What is no module (a function) is not locked. A thread that
    waits long says for whom (AbsenceWarning); a thread that has ended without leaving its block is not waited for.
    Plain calls of the model by the user hold nothing.

    >>> net = nn.Sequential(nn.Identity())
    >>> with working_on(net), working_on(net[0]):
    ...     net(1)
    1
    """

    def __init__(self, *models: Any) -> None:
        self._models = models
        self._held: list[_ModelLock] = []

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            for model in self._models:
                for lock in _locks_of(model):
                    lock.acquire()
                    self._held.append(lock)
        except BaseException as error:
            self.__exit__(None, error, None)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        while self._held:
            self._held.pop().release()
        super().__exit__(kind, error, trace)


class _ModelLock:
    """Reentrant; knows who holds it. It may be released by another thread: that which frees a generator."""

    made = 0

    def __init__(self) -> None:
        _ModelLock.made += 1
        self.number = _ModelLock.made  # the order in which several are taken
        self._lock = Lock()
        self._owner = 0  # of a thread
        self._count = 0

    def acquire(self) -> None:
        """Wait until no other thread holds it."""
        own = get_ident()
        if self._owner != own:
            if not self._lock.acquire(blocking=False):
                self._wait()
            self._owner = own
        self._count += 1

    def release(self) -> None:
        """Once for every time it was acquired."""
        self._count -= 1
        if self._count == 0:
            self._owner = 0
            self._lock.release()

    def _wait(self) -> None:
        began, is_said = time.monotonic(), False
        while not self._lock.acquire(timeout=LOOK):
            deliver()  # Ctrl-C
            owner = self._owner
            name = {thread.ident: thread.name for thread in enumerate_threads()}.get(owner)
            if owner and name is None and self._inherit(owner):
                return
            if not is_said and time.monotonic() - began > PATIENCE:
                is_said = True
                warnings.warn(
                    f"thread {current_thread().name!r} waits for a model on which thread {name!r} has been working for "
                    f"{PATIENCE:g} s; is a `with` block, or a generator with one, still open there?",
                    AbsenceWarning,
                    stacklevel=4,
                )

    def _inherit(self, owner: int) -> bool:
        """Take over from a thread that has ended and never left its block; of several that wait one does."""
        with _TABLE:
            if self._owner != owner:
                return False
            self._owner, self._count = get_ident(), 0
            return True


class Shared:
    """What is not a model, but also belongs to one thread at a time: :class:`working_on` takes it beside models."""

    def __init__(self) -> None:
        self.locks = (_ModelLock(),)


_TABLE = Lock()
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
    _TABLE = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
