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
ORPHANED = 30  # looks at a lock without an owner: its thread was interrupted while taking it or giving it back


class working_on(guarding):
    """In this block no other thread works on these models, or on another that shares a module with them.

    The thread itself may enter again. Ctrl-C is deferred as in :class:`~absence_plugins.core.interrupts.guarding`. A
    function is not locked. A thread that waits long says for whom (AbsenceWarning); a thread that has ended without
    leaving its block is not waited for (in Python before 3.13, one that was started by other means than ``threading``
    is). All that one block names is taken in one order, whatever the order of the names. ``guest_of``: see
    :class:`lending`. Plain calls of the model by the user hold nothing.

    >>> net = nn.Sequential(nn.Identity())
    >>> with working_on(net), working_on(net[0]):
    ...     net(1)
    1
    """

    is_block = False  # in which a user's own code runs

    def __init__(self, *models: Any, guest_of: Any = None) -> None:
        self._models, self._guest_of = models, guest_of
        self._held: list[tuple[_ModelLock, int]] = []

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            locks = [lock for model in self._models if model is not None for lock in _locks_of(model)]
            if len(locks) > 1:
                locks = sorted(set(locks), key=_ModelLock.by_number)
            for lock in locks:
                self._held.append(lock.acquire(self._guest_of, is_block=self.is_block))
        except BaseException as error:
            self.__exit__(None, error, None)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        while self._held:
            lock, turn = self._held.pop()
            lock.release(turn)
        super().__exit__(kind, error, trace)


class lending(working_on):
    """A block in which a user's own code runs while a model is changed: only what wants the change works on it.

    That is this thread, and in other threads what names the same ``change``, or :data:`ANY`: ``working_on(model,
    guest_of=change)``. They take turns, as the user's code may wait for them. Everything else waits as long as
    something works in the block; 10 s behind that it is rejected, as it may be what the block waits for.

    >>> net, change = nn.Identity(), "merged weights"
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> def work(x: int) -> int:
    ...     with working_on(net, guest_of=change):
    ...         return net(x)
    >>> with lending(change, net), ThreadPoolExecutor(2) as pool:
    ...     list(pool.map(work, range(3)))
    [0, 1, 2]
    """

    is_block = True

    def __init__(self, change: Any, *models: Any) -> None:
        super().__init__(*models)
        self._change, self._is_lent = change, False

    def __enter__(self) -> Self:
        super().__enter__()
        for lock, _ in self._held:
            lock.lend(self._change)
        self._is_lent = True
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for lock, turn in self._held if self._is_lent else ():
            lock.take_back(self._change, turn)
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
        self._free_since = time.monotonic()
        self._lent_for: list[Any] = []  # by blocks of the owner
        self._inside: _ModelLock | None = None  # of the owner and the guests, in such a block

    def by_number(self) -> int:
        """The order in which several are taken."""
        return self.number

    def acquire(self, guest_of: Any = None, *, is_block: bool = False) -> tuple[_ModelLock, int]:
        """Wait until no other thread holds it; returns what is to be released: this lock or one inside, and the
        turn.
        """
        own = current_thread()  # from now on `threading` knows this thread, also one that it has not started
        if self._lock.acquire(blocking=False):  # it is free, as nearly always
            return self._take(own)
        wait, orphaned, began, is_said = 0.0, 0, time.monotonic(), False
        while True:
            with _TABLE:
                inside = self._inside
                if self._owner is own and (inside is None or is_block):
                    self._count += 1
                    return self, self._turn
                is_let_in = inside is not None and (self._is_held_by(own) or self._admits(guest_of))
            if inside is not None and is_let_in:
                held = inside.acquire(guest_of)
                if self._inside is inside:
                    return held
                held[0].release(held[1])  # the block has ended meanwhile
                continue
            owner = self._owner
            orphaned = orphaned + 1 if wait and owner is None else 0
            if self._lock.acquire(timeout=wait) or (wait and self._inherit(owner, orphaned)):
                return self._take(own)
            deliver()  # Ctrl-C
            self._check_awake(own, began)
            if not is_said and time.monotonic() - began > PATIENCE:
                is_said = True
                self._say(own)
            wait = LOOK

    def _take(self, own: Thread) -> tuple[_ModelLock, int]:
        with _TABLE:
            self._owner, self._count, self._turn = own, 1, self._turn + 1
            return self, self._turn

    def release(self, turn: int) -> None:
        """Once for every time it was acquired. Nothing where another thread has taken it over meanwhile."""
        with _TABLE:
            if turn != self._turn:
                return
            self._count -= 1
            if self._count == 0:
                self._owner, self._free_since = None, time.monotonic()
                self._lock.release()

    def lend(self, change: Any) -> None:
        """From now on the owner and guests take turns on a lock inside."""
        with _TABLE:
            self._lent_for.append(change)
            self._inside = self._inside or _ModelLock()

    def take_back(self, change: Any, turn: int) -> None:
        """The end of :meth:`lend`; by whoever has the turn inside."""
        with _TABLE:
            if turn == self._turn:
                self._lent_for.remove(change)
                self._inside = self._inside if self._lent_for else None

    def _admits(self, guest_of: Any) -> bool:
        return guest_of is ANY or any(guest_of is change for change in self._lent_for)

    def _is_held_by(self, thread: Thread) -> bool:
        return self._owner is thread or (self._inside is not None and self._inside._is_held_by(thread))

    def _inherit(self, owner: Thread | None, orphaned: int) -> bool:
        """Take over from a thread that has ended and never left its block, or from nobody; of several that wait one
        does.
        """
        if orphaned < ORPHANED if owner is None else owner in enumerate_threads():
            return False
        with _TABLE:
            if self._owner is not owner or (self._inside is not None and self._inside._owner is not None):
                return False
            self._owner, self._turn, self._inside = current_thread(), self._turn + 1, None
            self._lent_for.clear()
            return True

    def _say(self, own: Thread) -> None:
        owner = self._owner
        warnings.warn(
            f"thread {own.name!r} waits for a model on which thread {owner.name if owner else ''!r} has been working for "
            f"{PATIENCE:g} s; is a `with` block, or a generator with one, still open there?",
            AbsenceWarning,
            stacklevel=4,
        )

    def _check_awake(self, own: Thread, began: float) -> None:
        """Reject to wait for a block in which nothing works any more."""
        owner, inside, lent_for = self._owner, self._inside, list(self._lent_for)
        if inside is None or inside._owner is not None or owner is None:
            return
        if time.monotonic() - max(began, inside._free_since) > PATIENCE:
            raise RuntimeError(
                f"the model is changed by a `with` block of {', '.join(type(one).__name__ for one in lent_for)} in thread "
                f"{owner.name!r}, in which nothing has worked for {PATIENCE:g} s, so thread {own.name!r} does not wait for "
                "it; leave that block first, or work on a copy made before it: copy.deepcopy(model)"
            )


class Shared:
    """What is not a model, but also belongs to one thread at a time: :class:`working_on` takes it after models."""

    def __init__(self) -> None:
        self.locks = (_ModelLock(is_last=True),)


ANY = object()  # a guest of every block
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
