"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def whole_file(path: Path | str, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of ``path`` in one step when the block ends.

    It is written under another name in the same folder. Whatever ends the block early (a full disk, Ctrl-C, an
    exception) leaves the former file as it was, and nothing of the new one.

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
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")  # of ranks on several machines, too
    try:
        with draft.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(draft)):  # a failed write names no file
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path | str, content: bytes | str, *, durable: bool = False) -> None:
    """Write a whole file by :func:`whole_file`; text in UTF-8."""
    with whole_file(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


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
