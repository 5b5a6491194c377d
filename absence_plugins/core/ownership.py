"""One folder of kept work has one owner at a time; a second one is told who it is.

The owner locks a file in the folder (:mod:`absence_plugins.core.locks`) and writes into it who it is. The system gives
the lock back when the process ends, in whatever way, so a killed run never blocks the one that resumes it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from ctypes import wintypes
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import distributed

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.files import remove_drafts, require_folder
from absence_plugins.core.interrupts import guarding, uncut
from absence_plugins.core.locks import try_lock

FILE = ".owner"
PATIENCE = 0.3  # seconds until an owner that is just starting has said who it is
GROUP_PATIENCE = 10.0  # the same among ranks, which start together
QUERY, NO_SUCH_PROCESS, STILL_ACTIVE = 0x1000, 87, 259  # of Windows


class FolderInUse(RuntimeError):
    """Another process, thread or call works in the folder."""


@dataclass(frozen=True)
class Owner:
    """Who works in a folder.

    Attributes:
        pid: of the process.
        host: where it runs.
        command: as typed.
        since: local time.
        group: by which the ranks of one ``torchrun`` know each other; "": one process.
    """

    pid: int
    host: str
    command: str
    since: str
    group: str = ""

    @classmethod
    def this(cls) -> Owner:
        """This process."""
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(os.getpid(), socket.gethostname(), shlex.join(sys.argv), since, _group())

    def __str__(self) -> str:
        me = " (this one)" if (self.pid, self.host) == (os.getpid(), socket.gethostname()) else ""
        return f"process {self.pid}{me} on {self.host}, which runs {self.command or 'Python'!r} since {self.since}"


_held: ContextVar[frozenset[tuple[int, Path]]] = ContextVar("held", default=frozenset())  # with the process, for forks
_descriptors: dict[Path, int] = {}  # of this process, over all threads
_guard = threading.RLock()  # a signal's handler may own a folder, too


@contextmanager
def own_folder(folder: Path | str | None) -> Iterator[None]:
    """Be the only one who works in a folder, for the time of the block; drafts of killed processes are removed first.

    The folder is made where it is missing. A block inside another one for the same folder is part of its work. The
    ranks of one ``torchrun`` are one owner together. Where a file system has no locks, a warning says so, and a file
    says who owns the folder: a killed owner on this host is noticed, unless the system has given its number to another
    process since; one on another host is not.

    Args:
        folder: to own; None: nothing is done.

    Raises:
        FolderInUse: another process, or another thread or call of this one, owns it; says who.
        ValueError: it is a file.
        OSError: what the system says, such as a full disk.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> def enter():
    ...     with own_folder(folder):
    ...         return "mine"
    >>> with own_folder(folder):
    ...     enter()
    'mine'
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with own_folder(folder), ThreadPoolExecutor() as pool:
    ...     pool.submit(enter).result()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    absence_plugins.core.ownership.FolderInUse: ... is in use by process ... wait until it has ended, or name another folder
    """
    if folder is None:
        yield
        return
    is_new = not Path(folder).exists()
    path = require_folder(folder, make=True).resolve()
    mark, before = (os.getpid(), path), _held.get()
    if mark in before:
        yield
        return
    descriptor = None
    with guarding():
        try:
            with uncut():  # what is taken is known, and so is given back
                descriptor = _take(path, Path(folder))
                _held.set(before | {mark})
            remove_drafts(path)
            yield
        finally:
            with uncut():
                if descriptor is not None:
                    _held.set(before)
                    _release(path, descriptor)
                if is_new:
                    with suppress(OSError):  # it holds something now, as a rule
                        path.rmdir()


def _take(path: Path, shown: Path) -> int:
    """Lock the folder's file; returns its descriptor. ``shown``: as the user wrote the folder."""
    me, file = Owner.this(), path / FILE
    end = time.monotonic() + (GROUP_PATIENCE if me.group else PATIENCE)
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with _guard:  # who finds the folder free has it before another thread looks
                owner = _try_own(descriptor, path, me)
                if owner is me:
                    _descriptors[path] = descriptor
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        is_known = owner is not None and owner.pid  # else it is just starting, or has just ended
        if time.monotonic() > end or (is_known and not me.group):
            raise FolderInUse(
                f"{shown} is in use by {owner or 'another process'}; wait until it has ended, or name another folder"
            )
        time.sleep(0.02)


def _try_own(descriptor: int, path: Path, me: Owner) -> Owner | None:
    """``me`` if the folder is ours now, else who owns it, as far as it is known."""
    file, is_locked = path / FILE, try_lock(descriptor)
    if is_locked is None:
        return _try_without_locks(descriptor, path, me)
    if is_locked:
        if not _is_same(descriptor, file):  # the former owner has removed it
            return None
        _write(descriptor, me)
        return me if not me.group or try_lock(descriptor, shared=True) else None
    owner = _read(descriptor)
    if owner is None or not me.group or owner.group != me.group or path in _descriptors:
        return owner
    return me if try_lock(descriptor, shared=True) and _is_same(descriptor, file) else None


def _try_without_locks(descriptor: int, path: Path, me: Owner) -> Owner | None:
    """The same where there are no locks: by what the file says, and by what this process knows of itself."""
    owner, file = _read(descriptor), path / FILE
    if not _is_same(descriptor, file):
        return None
    if path in _descriptors:
        return replace(owner or me)
    is_other = owner is not None and not (me.group and owner.group == me.group)
    if owner is not None and is_other and _may_work(owner, me):
        return replace(owner, command=f"{owner.command} (if it has ended, delete {file})")
    warnings.warn(
        f"the file system of {file.parent} has no locks; {FILE} in it says who works there, and after a kill on "
        "another host it has to be deleted",
        AbsenceWarning,
        stacklevel=2,
    )
    _write(descriptor, me)
    return me


def _may_work(owner: Owner, me: Owner) -> bool:
    """Whether the owner that a file names, and that is not known to this process, may still run."""
    if owner.host != me.host:
        return True
    return owner.pid != me.pid and _is_running(owner.pid)  # in a container every run may have the same number


def _is_running(pid: int) -> bool:
    """Whether a process of this host runs; where that cannot be asked it counts as running."""
    if os.name == "nt":
        return _is_running_on_windows(pid)  # os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_running_on_windows(pid: int) -> bool:
    windows: Any = ctypes
    kernel = windows.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    kernel.OpenProcess.restype = wintypes.HANDLE
    kernel.GetExitCodeProcess.argtypes = (wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD))
    kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
    process = kernel.OpenProcess(QUERY, False, pid)
    if not process:
        return bool(windows.get_last_error() != NO_SUCH_PROCESS)
    try:
        code = wintypes.DWORD()
        return not kernel.GetExitCodeProcess(process, ctypes.byref(code)) or code.value == STILL_ACTIVE
    finally:
        kernel.CloseHandle(process)


def _release(path: Path, descriptor: int) -> None:
    """Give the folder back; the last rank of a group removes the file."""
    with _guard, suppress(OSError):
        if _descriptors.get(path) == descriptor:
            del _descriptors[path]
        is_last = try_lock(descriptor) is not False and _is_same(descriptor, path / FILE)
        if os.name == "nt":  # which removes no open file
            os.close(descriptor)
        if is_last:
            (path / FILE).unlink()
    if os.name != "nt":
        with suppress(OSError):
            os.close(descriptor)


def _is_same(descriptor: int, file: Path) -> bool:
    """Whether an open file is still there."""
    if os.name == "nt":
        return True  # which removes no open file
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _write(descriptor: int, owner: Owner) -> None:
    """Say who owns it; on a full disk the lock alone must do."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(asdict(owner)).encode())


def _read(descriptor: int) -> Owner | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return Owner(**json.loads(os.read(descriptor, 1 << 16)))
    except (OSError, ValueError, TypeError):
        return None


def _group() -> str:
    """By which the ranks of a distributed run know each other; "" without one."""
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and "MASTER_PORT" in os.environ:
        return " ".join(os.environ.get(name, "") for name in names)
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return f"children of {os.getppid()} on {socket.gethostname()}"  # started by torch.multiprocessing
    return ""


def _forget() -> None:
    """In a forked process: the parent's locks are not its own, and must not outlive the parent."""
    global _guard
    _guard = threading.RLock()  # another thread of the parent may have held it
    for descriptor in _descriptors.values():
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
