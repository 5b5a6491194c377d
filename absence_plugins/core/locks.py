"""Advisory locks on open files: the system gives them back when a process dies, in whatever way."""

from __future__ import annotations

import errno
from typing import Any

try:
    import fcntl as _fcntl
except ImportError:  # Windows
    _locks: Any = None
else:
    _locks = _fcntl

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # what flock says of a lock that another one holds


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock an open file without waiting: True if it is locked now, False if another process or thread holds it.

    None: this system, or this file system, has no such locks.

    descriptor: of ``os.open``; every opening is a holder of its own, also in one process. shared: with other shared
    locks; a lock that is there is converted.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "lock")
    >>> first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    >>> try_lock(first), try_lock(second)
    (True, False)
    >>> os.close(first)
    >>> try_lock(second)
    True
    >>> os.close(second)
    """
    if _locks is None:
        return None
    try:
        _locks.flock(descriptor, (_locks.LOCK_SH if shared else _locks.LOCK_EX) | _locks.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD else None
    return True
