"""The one saver of long work: what a folder belongs to, tensors saved now and then, rows in order, JSON records."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.files import require_folder, write_whole


class Checkpoint:
    """A folder with the settings of some work, and tensors by file name. All files are whole, whatever ends the work.

    Args:
        folder: made where it is missing.
        settings: what the work depends on, ready for JSON; other settings are rejected.
        work: what it is, for messages; also the name of the file of settings, as in ``scan.json``.
        writes: False for ranks that only read.
        save_every: seconds between two saves of :meth:`save_if_due`.

    Raises:
        ValueError: the folder is a file, holds the state of other work, or a damaged file.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Checkpoint(folder, {"seed": 0}, "scan").save("table", {"values": torch.ones(2)})
    >>> Checkpoint(folder, {"seed": 0}, "scan").load("table")
    {'values': tensor([1., 1.])}
    >>> Checkpoint("state", {"seed": 0}, "scan")._compare({"seed": 1})
    Traceback (most recent call last):
    ValueError: checkpoint state belongs to another scan: seed is 1 there and 0 here; name another folder, or delete it
    """

    def __init__(
        self,
        folder: Path | str,
        settings: Mapping[str, Any],
        work: str,
        *,
        writes: bool = True,
        save_every: float = 60.0,
    ) -> None:
        self.folder, self.work, self.writes = require_folder(folder, make=True), work, writes
        self.save_every, self.saved = save_every, time.monotonic()
        self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))  # as they will be read again
        known = self.folder / f"{work}.json"
        if known.is_file():
            try:
                before = json.loads(known.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(_describe_damage(known, error)) from None
            self._compare(before)
        elif writes:
            write_whole(known, json.dumps(self.settings, indent=1), durable=True)

    def _compare(self, before: dict[str, Any]) -> None:
        for name in {**before, **self.settings}:
            if before.get(name) != self.settings.get(name):
                raise ValueError(
                    f"checkpoint {self.folder} belongs to another {self.work}: {name} is {before.get(name)!r} there "
                    f"and {self.settings.get(name)!r} here; name another folder, or delete it"
                )

    def load(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``name``.safetensors, {} if there are none. Raises ValueError for a damaged file."""
        path = self.folder / f"{name}.safetensors"
        return read_tensors(path) if path.is_file() else {}

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write ``name``.safetensors in one step: a kill leaves the former file or the new one."""
        if self.writes:
            write_tensors(self.folder / f"{name}.safetensors", tensors, durable=True)
        self.saved = time.monotonic()

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


class KeptRows:
    """Rows that are computed in order: in memory, and with a checkpoint also in files, so that they are computed once.

    As a context: what was appended is saved when it is due, and when the block ends in whatever way.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with KeptRows(Checkpoint(folder, {}, "values")) as kept:
    ...     kept.append(torch.zeros(2, 3))
    ...     kept.append(torch.ones(1, 3))
    >>> len(KeptRows(Checkpoint(folder, {}, "values")))
    3
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        self.checkpoint = checkpoint
        self.rows: list[Tensor] = []
        self.pending: list[Tensor] = []
        while checkpoint is not None and (part := checkpoint.load(self._name(checkpoint))):
            self.rows.append(part["rows"])

    def __len__(self) -> int:
        return sum(len(part) for part in (*self.rows, *self.pending))

    def __enter__(self) -> KeptRows:
        return self

    def __exit__(self, *error: object) -> None:
        self._save()

    def append(self, rows: Tensor) -> None:
        """Add rows [n, ...] of the next samples."""
        self.pending.append(rows)
        if self.checkpoint is not None and self.checkpoint.is_due:
            self._save()

    def joined(self) -> Tensor:
        """All rows [N, ...]."""
        return torch.cat([*self.rows, *self.pending])

    def _save(self) -> None:
        """Move what is pending into a file of its own."""
        moved = list(self.pending)
        if moved and self.checkpoint is not None:
            joined = torch.cat(moved).cpu().contiguous()
            self.checkpoint.save(self._name(self.checkpoint), {"rows": joined})
            self.rows.append(joined)
            del self.pending[: len(moved)]

    def _name(self, checkpoint: Checkpoint) -> str:
        return f"{checkpoint.work}-{len(self.rows):05d}"


def read_record(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The JSON object that :func:`write_record` wrote; None for none, a damaged one, and that of other work.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "unit.json"
    >>> write_record(path, "a", {"auc": 0.9})
    >>> read_record(path, "a"), read_record(path, "b")
    ({'auc': 0.9, 'fingerprint': 'a'}, None)
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("fingerprint") == fingerprint else None


def write_record(path: Path, fingerprint: str, record: Mapping[str, Any]) -> None:
    """Write a JSON object in one step; ``fingerprint`` says to what work it belongs."""
    text = json.dumps({**record, "fingerprint": fingerprint}, ensure_ascii=False, indent=1)
    write_whole(path, text + "\n")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file. Raises ValueError for a damaged one, with its name."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(_describe_damage(path, error)) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, durable: bool = False) -> None:
    """A safetensors file, whole or not at all."""
    from safetensors.torch import save

    write_whole(path, save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}), durable=durable)


def fingerprint(model: nn.Module, first: Tensor, dataset: Any = None) -> dict[str, str]:
    """What tells this model and these images from others: hashes of the weights, of the first image, and of the files.

    dataset: one with an ``identity``, such as a folder's names and sizes; others are told apart by their first image.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    found = {"model": digest.hexdigest()[:16], "first image": digest_of(first)}
    identity = getattr(dataset, "identity", None)
    return found if identity is None else {**found, "files": str(identity)}


def digest_of(*tensors: Tensor) -> str:
    """A short hash of tensors' values and shapes.

    >>> digest_of(torch.zeros(2)) == digest_of(torch.zeros(2)), digest_of(torch.zeros(2)) == digest_of(torch.ones(2))
    (True, False)
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    found: bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return found


def _describe_damage(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error}); delete it, and what it held is computed again"
