"""Files that are whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from absence_plugins.core.interrupts import guarding
from absence_plugins.core.locks import try_lock

STALE = 24 * 60 * 60.0  # seconds after which a draft counts as abandoned where locks cannot tell
_DRAFT = re.compile(r"\..+\.(?P<host>[0-9a-f]{4})[0-9a-f]{8}\.part", re.DOTALL)
_swept: set[Path] = set()  # folders in which this process has looked for drafts


@contextmanager
def whole_file(path: Path | str, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of ``path`` in one step when the block ends.

    It is written under another name in the same folder. Whatever ends the block early (a full disk, Ctrl-C, an
    exception) leaves the former file as it was, and nothing of the new one. What a killed process left is removed when
    another one writes in the folder.

    Args:
        path: of the file; its folder exists.
        durable: wait until it is on the disk, for the state of long work, which should outlive a power cut.

    Raises:
        OSError: what the system says, such as a full disk, with the path.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers"
    >>> write_whole(path, "1 2 3")
    >>> with whole_file(path) as file:
    ...     _ = file.write(b"4 5")
    ...     raise ValueError("not six")
    Traceback (most recent call last):
    ValueError: not six
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('1 2 3', 1)
    """
    path = Path(path)
    if (folder := path.parent.absolute()) not in _swept:
        _swept.add(folder)
        remove_drafts(folder)
    with guarding():
        file, draft = _open_draft(path)
        try:
            with file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                if os.name != "nt":  # locked until it has its name
                    os.replace(draft, path)
            if os.name == "nt":
                os.replace(draft, path)
        except OSError as error:
            if error.errno is not None and error.filename in (None, str(draft)):  # a failed write names no file
                raise type(error)(error.errno, error.strerror, str(path)) from error
            raise
        finally:
            draft.unlink(missing_ok=True)


def _open_draft(path: Path) -> tuple[IO[bytes], Path]:
    """An open file beside ``path``, locked as long as it is open, so that no other process removes it."""
    while True:
        draft = path.with_name(f".{path.name}.{_host()}{uuid.uuid4().hex[:8]}.part")
        try:
            file = draft.open("wb")
            if try_lock(file.fileno()) is not False and draft.exists():  # else it is being removed as abandoned
                return file, draft
            file.close()
        except BaseException as error:
            draft.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise type(error)(error.errno, error.strerror, str(path)) from error
            raise
        draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder: drafts of :func:`whole_file` that nobody holds.

    Drafts of other hosts, and those on file systems without locks, are removed a day after their last change.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole_file(folder / "numbers") as file:
    ...     remove_drafts(folder)  # is held
    ...     len(list(folder.iterdir()))
    1
    """
    with suppress(OSError):
        for entry in os.scandir(folder):
            if found := _DRAFT.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_draft(entry.path, is_own=found["host"] == _host())


def _remove_draft(path: str, *, is_own: bool) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        is_free = try_lock(descriptor)
        is_old = time.time() - os.fstat(descriptor).st_mtime > STALE
        is_left = (is_free and is_own) or (is_free is not False and is_old)
        if is_left and os.name != "nt":
            os.unlink(path)
    finally:
        os.close(descriptor)
    if is_left and os.name == "nt":  # which removes no open file
        os.unlink(path)


def _host() -> str:
    """Four digits that tell this host from others in a draft's name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


def write_whole(path: Path | str, content: bytes | str, *, durable: bool = False) -> None:
    """Write a whole file by :func:`whole_file`; text in UTF-8, bytes of a name that are none as an escape."""
    with whole_file(path, durable=durable) as file:
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_json(path: Path | str, data: Any) -> None:
    """Write data as indented JSON by :func:`whole_file`."""
    write_whole(path, json.dumps(data, indent=1) + "\n")


def require_folder(path: Path | str, *, make: bool = False) -> Path:
    """Return the path of a folder to write to, after a check that no file is in its place.

    Args:
        path: of a folder, which need not exist.
        make: make it, and the folders above it.

    Raises:
        ValueError: there is a file.

    >>> import tempfile
    >>> folder = require_folder(Path(tempfile.mkdtemp()) / "page", make=True)
    >>> write_whole(folder / "index.html", "")
    >>> require_folder(folder / "index.html")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...index.html is an existing file; name a folder, or remove the file
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is an existing file; name a folder, or remove the file")
    if make:
        path.mkdir(parents=True, exist_ok=True)
    return path
