"""The one saver of long work: what a folder belongs to, tensors saved now and then, JSON records.

What work belongs to is said in :mod:`absence_plugins.methods.identity`; rows of samples are kept by
:mod:`absence_plugins.methods.kept_rows`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.methods.identity import NOTHING, Identity, describe_differences, digest_of

FORMAT, VERSION = "format", 2  # of a folder: files of the first format did not say whose they are
DETAILS, CONTENT = "details", "content"
FULL = (errno.ENOSPC, errno.EDQUOT)


class Checkpoint:
    """A folder with the settings of some work, and tensors by file name. All files are whole, whatever ends the work.

    Every file says whose work it is. What is damaged is named in a warning, set aside under another name, and made
    again. That one process works in the folder at a time is up to its user:
    :func:`~absence_plugins.core.ownership.own_folder`.

    Args:
        folder: made where it is missing.
        settings: what the work depends on, ready for JSON; other settings are rejected.
        work: what it is, for messages; also the name of the file of settings, as in ``scan.json``.
        belongs: the model and the data of the work.
        writes: False for ranks that only read.
        save_every: seconds between two saves of :meth:`save_if_due`.

    Raises:
        ValueError: the folder is a file, or holds the state of other work; says what differs.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Checkpoint(folder, {"seed": 0}, "scan").save("table", {"values": torch.ones(2)})
    >>> Checkpoint(folder, {"seed": 0}, "scan").load("table")
    {'values': tensor([1., 1.])}
    >>> Checkpoint(folder, {"seed": 1}, "scan")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: checkpoint ... belongs to another scan: seed is 0 there and 1 here; name another folder, or delete it
    """

    def __init__(
        self,
        folder: Path | str,
        settings: Mapping[str, Any],
        work: str,
        *,
        belongs: Identity = NOTHING,
        writes: bool = True,
        save_every: float = 60.0,
    ) -> None:
        self.folder, self.work, self.writes = require_folder(folder, make=True), work, writes
        self.save_every, self.saved = save_every, time.monotonic()
        plain = {FORMAT: VERSION, **settings, **belongs.settings}
        self.settings: dict[str, Any] = json.loads(json.dumps(plain))  # as they will be read again
        self.details: dict[str, Any] = json.loads(json.dumps(dict(belongs.details)))
        known = self.folder / f"{work}.json"
        self.before = self._read_settings(known) if known.is_file() else None
        if self.before is not None:
            self._compare(self.before, self.folder)
            return
        for path in sorted(self.folder.glob("*.safetensors")):  # the settings are gone, and every part has them
            self._own(path, read_metadata(path))
        if writes:
            write_whole(known, json.dumps({**self.settings, DETAILS: self.details}, indent=1), durable=True)

    def has_compared(self, *names: str) -> bool:
        """Whether one of these settings was there, is here, and is the same."""
        return self.before is not None and any(name in self.before and name in self.settings for name in names)

    def _read_settings(self, path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError(f"it holds a {type(found).__name__}")
            return found
        except ValueError as error:
            self._set_aside(path, error, "it is written again, as every other file says whose work it is")
            return None

    def _compare(self, before: Mapping[str, Any], where: Path) -> None:
        """Raise ValueError if the settings of a file are those of other work."""
        rest = "name another folder, or delete it"
        if FORMAT not in before:
            raise ValueError(
                f"checkpoint {where} was written by an older version, which did not know images by content and models "
                f"by what they compute; {rest}"
            )
        there = Identity({name: value for name, value in before.items() if name != DETAILS}, before.get(DETAILS, {}))
        if different := describe_differences(there, Identity(self.settings, self.details)):
            raise ValueError(f"checkpoint {where} belongs to another {self.work}: {'; '.join(different)}; {rest}")

    def _own(self, path: Path, metadata: Mapping[str, str]) -> bool:
        """Whether a file says that it is part of this kind of work; raises ValueError if it is part of another run."""
        if metadata.get("work") != self.work:
            return False
        self._compare(json.loads(metadata["settings"]), path)
        return True

    def _set_aside(self, path: Path, error: object, then: str) -> None:
        """Name a damaged file in a warning, and move it out of the way."""
        aside = path.with_name(path.name + ".damaged")
        if self.writes:
            with suppress(FileNotFoundError):  # another rank was first
                os.replace(path, aside)
        moved = f"; it is kept as {aside.name}" if self.writes else ""
        warnings.warn(f"{path} is damaged ({error}): {then}{moved}", AbsenceWarning, stacklevel=2)

    def load(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``name``.safetensors; {} if there are none, or if the file is damaged, with a warning.

        Raises:
            ValueError: the file is part of other work.
        """
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            return {}
        try:
            tensors, metadata = _read_checked(path)
            if "work" not in metadata:
                raise ValueError("it does not say whose work it is")
        except ValueError as error:
            self._set_aside(path, error, "what it held is computed again")
            return {}
        if not self._own(path, metadata):
            raise ValueError(
                f"{path} is part of another kind of work ({metadata['work']}, not {self.work}); name another folder, "
                "or delete it"
            )
        return tensors

    def load_all(self, prefix: str) -> Iterator[dict[str, Tensor]]:
        """The tensors of every file whose name begins with ``prefix``, as :meth:`load`, in the order of the names."""
        for path in sorted(self.folder.glob(f"{prefix}*.safetensors")):
            if found := self.load(path.stem):
                yield found

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write ``name``.safetensors in one step: a kill or a full disk leaves the former file or the new one.

        Raises:
            OSError: what the system says, with the file's name; of a full disk also what to do.
        """
        if self.writes:
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            metadata = {"work": self.work, "settings": json.dumps(self.settings), CONTENT: _content(plain)}
            try:
                write_tensors(self.folder / f"{name}.safetensors", plain, durable=True, metadata=metadata)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                words = f"{error.strerror}; what was saved before is whole: make space, and the same call resumes"
                raise type(error)(error.errno, words, error.filename) from error
        self.saved = time.monotonic()

    def save_files(self, name: str, paths: Sequence[Path]) -> None:
        """Say in ``name``.safetensors that these files, which something else wrote, are part of the work."""
        self.save(name, {"content": torch.tensor([_number_of_file(path) for path in paths])})

    def has_files(self, name: str, paths: Sequence[Path]) -> bool:
        """Whether the files are there as :meth:`save_files` saw them; a changed one is named in a warning.

        Raises:
            ValueError: they are part of other work.
        """
        wanted = self.load(name)
        if not wanted:
            return False
        changed = [
            path
            for path, number in zip(paths, wanted["content"].tolist(), strict=True)
            if not path.is_file() or _number_of_file(path) != number
        ]
        for path in changed:
            words = f"{path} is damaged or missing: what it held is made again"
            warnings.warn(words, AbsenceWarning, stacklevel=2)
        return not changed

    @property
    def is_due(self) -> bool:
        """Whether the last save was ``save_every`` seconds ago, or longer."""
        return time.monotonic() - self.saved >= self.save_every

    def save_if_due(self, name: str, pack: Callable[[], Mapping[str, Tensor]]) -> None:
        """Call :meth:`save` with ``pack()`` if the last save was long enough ago."""
        if self.is_due:
            self.save(name, pack())


@contextmanager
def keep_state(
    checkpoint: Checkpoint | None, name: str, pack: Callable[[], Mapping[str, Tensor]]
) -> Iterator[Callable[[], None]]:
    """Save the state ``pack()`` as ``name`` when it is due, and when the block ends in whatever way.

    The block gets a function to call after every step. Without a checkpoint nothing is saved.

    >>> import tempfile
    >>> checkpoint, state = Checkpoint(tempfile.mkdtemp(), {}, "sum"), {"total": torch.zeros(())}
    >>> with keep_state(checkpoint, "state", lambda: state) as save:
    ...     for number in range(3):
    ...         state["total"] += number
    ...         save()
    >>> checkpoint.load("state")
    {'total': tensor(3.)}
    """
    if checkpoint is None:
        yield lambda: None
        return
    try:
        yield lambda: checkpoint.save_if_due(name, pack)
    finally:
        checkpoint.save(name, pack())


def read_record(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The JSON object that :func:`write_record` wrote; None for none, a damaged one (with a warning), and that of other
    work.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "unit.json"
    >>> write_record(path, "a", {"auc": 0.9})
    >>> read_record(path, "a"), read_record(path, "b")
    ({'auc': 0.9, 'fingerprint': 'a'}, None)
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"{path} is damaged ({error}): what it held is made again", AbsenceWarning, stacklevel=2)
        return None
    return found if found.get("fingerprint") == fingerprint else None


def write_record(path: Path, fingerprint: str, record: Mapping[str, Any]) -> None:
    """Write a JSON object in one step; ``fingerprint`` says to what work it belongs."""
    text = json.dumps({**record, "fingerprint": fingerprint}, ensure_ascii=False, indent=1)
    write_whole(path, text + "\n")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file. Raises ValueError for a damaged one, with its name."""
    try:
        return _read_checked(path)[0]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and what it held is computed again") from None


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; {} for a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _read_checked(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata. Raises ValueError if the file is damaged, as far as it can be told."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error) or "it is empty") from None
    if CONTENT in metadata and metadata[CONTENT] != _content(tensors):
        raise ValueError("its tensors are not those that were written")
    return tensors, metadata


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, durable: bool = False, metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file, whole or not at all; ``metadata``: what it says of itself."""
    from safetensors.torch import save

    plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(plain, None if metadata is None else dict(metadata)), durable=durable)


def _number_of_file(path: Path) -> int:
    return int(hashlib.sha256(path.read_bytes()).hexdigest()[:15], 16)


def _content(tensors: Mapping[str, Tensor]) -> str:
    return " ".join(f"{name}:{digest_of(tensors[name])}" for name in sorted(tensors))
