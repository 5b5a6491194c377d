"""Folders of images, as users have them: which of their files can be read, and a data set that reads one at a time."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.commands.models import Preprocessing, image_files
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.files import write_json, write_whole
from absence_plugins.data.pictures import UnreadableImage, read_picture

KNOWN = "readable.json"  # in a checkpoint: which files were read, so that they are not decoded again
LISTED = "unreadable.json"  # beside a page: the files that were left out
SHOWN = 3  # of them in a warning and on the page
SAVED_EVERY = 2000  # files
THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes without Python's lock


@dataclass(frozen=True)
class Readable:
    """The files that can be read, in their order, and those that cannot, with the reason.

    Attributes:
        files: that can be read.
        places: of these among all that were looked at.
        unreadable: path and reason of the others.
        folder: that all lie in, for messages.
    """

    files: tuple[Path, ...]
    places: tuple[int, ...]
    unreadable: tuple[tuple[Path, str], ...]
    folder: Path

    @property
    def notes(self) -> tuple[str, ...]:
        """What a page says of the files that were left out: a sentence, or nothing."""
        if not self.unreadable:
            return ()
        shown = "; ".join(f"{path.relative_to(self.folder)} ({why})" for path, why in self.unreadable[:SHOWN])
        others = len(self.unreadable) - SHOWN
        more = f"; and {others} more, all in {LISTED}" if others > 0 else ""
        return (
            f"{len(self.unreadable)} of {len(self.files) + len(self.unreadable)} files of {self.folder} cannot be read "
            f"as images and were left out: {shown}{more}.",
        )

    @property
    def identity(self) -> str:
        """A hash of the files' names and sizes, by which a checkpoint knows them."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(f"{path.relative_to(self.folder).as_posix()} {path.stat().st_size}\n".encode())
        return digest.hexdigest()[:16]

    def write(self, out: Path) -> None:
        """List all that were left out in ``unreadable.json`` beside a page; where there are none, remove such a
        list.
        """
        if self.unreadable:
            named = {str(path.relative_to(self.folder)): why for path, why in self.unreadable}
            write_json(out / LISTED, named)
        else:
            (out / LISTED).unlink(missing_ok=True)


def readable(
    files: Sequence[Path], folder: Path, channels: int = 3, *, known: Path | None = None, progress: bool = True
) -> Readable:
    """Decode every file once, before hours of work on them, and leave out files that are not complete images, with a warning.

    Why at once, and not when its turn comes: the numbers of a scan's images are places in the list of files, and so are
    the two halves of the data, the concepts of a label and the share of every rank. All of them stay what they are for
    as long as the list does, so the list is settled first. Only decoding finds a file that was cut off; it costs a few
    milliseconds a file, in several threads, which is little next to a network that runs on a hundred windows of each.

    Args:
        files: paths below ``folder``.
        folder: for messages.
        channels: 1 for gray.
        known: a folder that remembers what was decoded, by name, size and time of change, so that resuming stopped
            work does not decode again. Only what can be read is remembered: the others are tried anew.
        progress: show a progress bar.

    Raises:
        ValueError: none of the files can be read.
        UnreadableImage: (when an image is read later) the file has changed since.
    """
    memory = _Memory(folder, channels, known)
    fresh = [path for path in files if not memory.has(path)]
    failures: dict[Path, str] = {}

    def tried(path: Path) -> str | None:
        try:
            read_picture(path, channels)
        except UnreadableImage as error:
            return error.why
        return None

    with ThreadPoolExecutor(THREADS) as threads:
        bar = tqdm(total=len(fresh), desc="checking images", unit="image", disable=not progress)
        try:
            for start in range(0, len(fresh), SAVED_EVERY):  # what was decoded is remembered now and then
                part = fresh[start : start + SAVED_EVERY]
                for path, why in zip(part, threads.map(tried, part), strict=True):
                    bar.update()
                    if why is None:
                        memory.add(path)
                    else:
                        failures[path] = why
                memory.save()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
        finally:
            bar.close()
            memory.save()
    places = tuple(place for place, path in enumerate(files) if path not in failures)
    found = Readable(tuple(files[place] for place in places), places, tuple(failures.items()), folder)
    if failures and not places:
        path, why = found.unreadable[0]
        raise ValueError(f"none of the {len(files)} files of {folder} is an image that can be read; {path}: {why}")
    for note in found.notes:
        warnings.warn(note, AbsenceWarning, stacklevel=2)
    return found


class _Memory:
    """Files that were decoded, by name, size and time of change."""

    def __init__(self, folder: Path, channels: int, known: Path | None) -> None:
        self.folder, self.path, self.is_new = folder, None if known is None else known / KNOWN, False
        self.setting = f"{folder.resolve()} {channels}"
        self.marks: dict[str, list[int]] = {}
        if self.path is not None and self.path.is_file():
            try:
                read = json.loads(self.path.read_text(encoding="utf-8"))
                self.marks = read["files"] if read["of"] == self.setting else {}
            except (ValueError, KeyError, TypeError):  # a damaged file: decoding again does no harm
                self.marks = {}

    def has(self, path: Path) -> bool:
        name = str(path.relative_to(self.folder))
        return name in self.marks and self.marks[name] == _mark(path)

    def add(self, path: Path) -> None:
        if self.path is not None:
            self.marks[str(path.relative_to(self.folder))] = _mark(path)
            self.is_new = True

    def save(self) -> None:
        if self.path is not None and self.is_new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps({"of": self.setting, "files": self.marks}))
            self.is_new = False


def _mark(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]  # the last one also sees a change of permissions


class FolderImages(torch.utils.data.Dataset[Any]):
    """All images below a folder, in order of their names, as the model takes them: float tensors [C, size, size].

    Files that are no images are left out from the start, with a warning: see :func:`readable`.

    Args:
        folder: of images, read recursively.
        preprocessing: of the model.
        known: as in :func:`readable`.
        progress: likewise.

    Raises:
        ValueError: no such folder, no images in it; when read: a file that is no image any more, with its name.

    Attributes:
        files: the images' paths.
        folder: that all lie in.
        found: what was left out, and how to say so.
        identity: by which a checkpoint knows the files.
    """

    def __init__(
        self, folder: Path, preprocessing: Preprocessing, *, known: Path | None = None, progress: bool = False
    ) -> None:
        if not folder.is_dir():
            raise ValueError(f"folder {folder} does not exist")
        files = image_files(folder)
        if not files:
            raise ValueError(f"folder {folder} holds no images")
        self.found = readable(files, folder, preprocessing.channels, known=known, progress=progress)
        self.files = list(self.found.files)
        self.folder = folder
        self.identity = self.found.identity
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocessing.normalize(self.preprocessing.picture(self.files[index]))
