"""Folders of images, as users have them: which of their files can be read, and a data set that reads one at a time."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.commands.models import Preprocessing
from absence_plugins.commands.pace import say_line
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.files import write_json, write_whole
from absence_plugins.core.names import spell_name
from absence_plugins.core.ownership import own_folder
from absence_plugins.data.folders import FoundImages, describe_frames, find_images
from absence_plugins.data.groups import Groups, group_files
from absence_plugins.data.picture_features import SIDE
from absence_plugins.data.pictures import OF_THE_SYSTEM, UnreadableImage, read_picture
from absence_plugins.data.reading_ahead import read_ahead
from absence_plugins.data.whole_files import BEGIN, is_surely_whole
from absence_plugins.methods.ranks import from_first, gather, is_first, ranks

KNOWN = "readable.json"  # in a checkpoint: which files were read, so that they are not decoded again
LISTED = "unreadable.json"  # beside a page: the files that were left out
SAVED_EVERY = 2000  # files, at least,
SAVED_SHARE = 4  # and a part of all: every save writes all, so their number must not grow with the folder
MARKED = 3  # numbers by which an unchanged file is known
AT_ONCE = 16  # files that a thread checks without coming back
LARGEST_FILE = 2**26  # bytes that are read at a time
DIGITS = 16  # of a hash


@dataclass(frozen=True)
class Readable:
    """The images of a folder that can be read, in their order, and those that cannot, with the reason.

    Attributes:
        found: the images that can be read; its ``unreadable`` are the others.
        places: of the images among all that were looked at.
        has_classes: whether they are used by class, so that the notes speak of that.
        frames: how many an image has, of which the first is read, where there are several.
        digests: a hash of the content of each of ``files``.
    """

    found: FoundImages
    places: tuple[int, ...]
    has_classes: bool = False
    frames: tuple[tuple[Path, int], ...] = ()
    digests: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """That can be read."""
        return self.found.files

    @property
    def folder(self) -> Path:
        """That all lie in."""
        return self.found.folder

    @property
    def unreadable(self) -> tuple[tuple[Path, str], ...]:
        """Path and reason of the files that cannot be read."""
        return self.found.unreadable

    def __len__(self) -> int:
        return len(self.files)

    def item_name(self, number: int) -> str:
        """A file's path below the folder."""
        return self.found.relative(self.files[number])

    def item_identity(self, number: int) -> str:
        """A file's path and content, by which a checkpoint knows it."""
        return f"{self.item_name(number)} {self.digests[number]}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a page says of what was left out, in sentences; what cannot be read comes first."""
        classes = self.found.class_notes if self.has_classes else ()
        frames = [(self.found.relative(path), count) for path, count in self.frames]
        return (
            *self.found.explain_unreadable(LISTED),
            *describe_frames(frames, spell_name(self.folder)),
            *self.found.explain_passed_over(),
            *classes,
        )

    def write(self, out: Path) -> None:
        """List all that were left out in ``unreadable.json`` beside a page; where there are none, remove such a
        list.
        """
        if self.unreadable:
            write_json(out / LISTED, {self.found.relative(path): why for path, why in self.unreadable})
        else:
            (out / LISTED).unlink(missing_ok=True)


def readable(
    found: FoundImages,
    channels: int = 3,
    *,
    known: Path | None = None,
    has_classes: bool = False,
    progress: bool = True,
) -> Readable:
    """Check every file, before hours of work on them, and leave out files that are not complete images, with a warning.

    Why at once, and not when its turn comes: the numbers of a scan's images are places in the list of files, and so are
    the two halves of the data, the concepts of a label and the share of every rank. All of them stay what they are for
    as long as the list does, so the list is settled first. The usual JPEG is proven whole from its bytes, which is a
    twentieth of reading it (:mod:`~absence_plugins.data.whole_files`); every other file is decoded, in several threads.
    Under ``torchrun`` every rank checks its share of the files, and all get the same list.

    What the walk passed over is said in the same way, after the files that cannot be read.

    Args:
        found: the images, by :func:`~absence_plugins.data.folders.find_images`.
        channels: 1 for gray.
        known: a folder that remembers what was decoded and what it held, by name, size and times of change, so that
            resuming stopped work does not read it again. Only what can be read is remembered: the others are tried
            anew.
        has_classes: the images are used by class.
        progress: show a progress bar.

    Raises:
        ValueError: none of the files can be read; another rank found other files.
        UnreadableImage: (when an image is read later) the file has changed since.
    """
    files = found.files
    memory = _Memory(found.folder, channels, known)
    with own_folder(known):
        failures = _try_files(files, memory, channels, progress=progress)
    places = tuple(place for place, path in enumerate(files) if path not in failures)
    unreadable = tuple(sorted((*found.unreadable, *failures.items())))
    if failures and not places:
        path, why = unreadable[0]
        raise ValueError(
            f"none of the {len(unreadable)} files of {spell_name(found.folder)} is an image that can be read; "
            f"{spell_name(path)}: {why}"
        )
    usable = [files[place] for place in places]
    frames = tuple((path, count) for path in usable if (count := memory.frames(path)) > 1)
    taken = replace(found.take(places), unreadable=unreadable)
    kept = Readable(taken, places, has_classes, frames, tuple(map(memory.digest, usable)))
    for note in kept.notes:
        warnings.warn(note, AbsenceWarning, stacklevel=2)
    return kept


def _try_files(files: Sequence[Path], memory: _Memory, channels: int, *, progress: bool) -> dict[Path, str]:
    """Check what the memory does not know, and put it in; why the others cannot be read. Ranks share out the files."""
    (rank, world), failures = ranks(), {}
    names = hashlib.sha256("\n".join(map(memory.name, files)).encode(errors="surrogateescape")).hexdigest()
    _check_alike(len(files), names)
    memory.marks = from_first(lambda: memory.marks)
    fresh = from_first(lambda: [place for place, path in enumerate(files) if not memory.has(path)])

    def check(several: Sequence[int]) -> list[str | list[Any]]:
        return [check_file(files[place], channels) for place in several]

    def take(place: int, answer: str | list[Any]) -> None:
        if isinstance(answer, str):
            failures[files[place]] = answer
        else:
            memory.add(files[place], answer)

    bar = tqdm(total=len(fresh), desc="checking images", unit="image", disable=not progress or rank > 0)
    try:
        for start in range(0, len(fresh), SAVED_EVERY * world):  # what was checked is remembered now and then
            part = fresh[start : start + SAVED_EVERY * world]
            mine = part[rank::world]
            several, own = [mine[at : at + AT_ONCE] for at in range(0, len(mine), AT_ONCE)], []
            for places, answers in zip(several, read_ahead(check, several), strict=True):
                own += answers
                for place, answer in zip(places, answers, strict=True):
                    take(place, answer)
                bar.update(min(world * len(places), len(fresh) - bar.n))
            for turn, answers in enumerate(gather(own)):
                for place, answer in zip(part[turn::world], answers, strict=True) if turn != rank else ():
                    take(place, answer)
            memory.save_if_due()
    finally:
        bar.close()
        memory.save()
    return failures


def _check_alike(count: int, names: str) -> None:
    """Raise ValueError if the ranks of a torchrun have found other files than the first one."""
    every = gather((count, names))
    for rank, other in enumerate(every):
        if other != every[0]:
            raise ValueError(
                f"rank {rank} finds {other[0]:,} images and rank 0 {every[0][0]:,}, or others; the folder must be the "
                "same on all hosts"
            )


def group_images(found: Readable, choice: str | Path | None = None, progress: bool = False) -> Groups:
    """Which of the images are not independent, as ``--groups`` says; what was found is said, and warned of if nobody
    asked. Of several ranks the first looks.

    choice: as in :func:`~absence_plugins.data.groups.group_files`.
    """

    def picture(place: int) -> Tensor:
        return torch.from_numpy(np.asarray(read_picture(found.files[place], 1, side=SIDE), dtype=np.float32))

    groups = from_first(
        lambda: group_files(
            found.files, found.folder, choice, digests=found.digests, picture=picture, progress=progress
        )
    )
    if groups.note and choice in (None, "exact"):
        warnings.warn(groups.note, AbsenceWarning, stacklevel=3)
    elif groups.note:
        say_line(groups.note)
    return groups


def check_file(path: Path, channels: int) -> str | list[Any]:
    """What is remembered of an image file: size, times, a hash of its content, and frames if they are several; or why
    it cannot be read.
    """
    mark = _mark(path)  # before it is read: what changes meanwhile is read again the next time
    digest = _prove_whole(path)
    if digest:
        return [*mark, digest]
    try:
        frames = int(read_picture(path, channels).info.get("frames", 1))
    except UnreadableImage as error:
        return spell_name(error.why)
    return [*mark, _digest(path), *([frames] if frames > 1 else [])]


def _prove_whole(path: Path) -> str:
    """The hash of a file that is known to be whole from its bytes; "" of others."""
    try:
        with path.open("rb") as file:
            first = file.read(len(BEGIN))
            if first != BEGIN or path.stat().st_size > LARGEST_FILE:
                return ""
            content = first + file.read()
    except OSError as error:
        if error.errno in OF_THE_SYSTEM:
            raise
        return ""  # reading says what is wrong
    return hashlib.sha256(content).hexdigest()[:DIGITS] if is_surely_whole(content) else ""


class _Memory:
    """Files that were decoded, by name: size, times of change, a hash of the content, and frames if they are
    several.
    """

    def __init__(self, folder: Path, channels: int, known: Path | None) -> None:
        self.folder, self.path, self.fresh = folder, None if known is None else known / KNOWN, 0
        self.setting = f"{folder.resolve()} {channels}"
        self.marks: dict[str, list[Any]] = {}
        if self.path is not None and self.path.is_file():
            try:
                read = json.loads(self.path.read_text(encoding="utf-8"))
                self.marks = dict(read["files"]) if read["of"] == self.setting else {}
            except (ValueError, KeyError, TypeError) as error:
                words = f"{self.path} is damaged ({error}): all images are read again"
                warnings.warn(words, AbsenceWarning, stacklevel=3)

    def has(self, path: Path) -> bool:
        known = self.marks.get(self.name(path), [])
        return len(known) > MARKED and isinstance(known[MARKED], str) and known[:MARKED] == _mark(path)

    def add(self, path: Path, mark: list[Any]) -> None:
        self.marks[self.name(path)] = mark
        self.fresh += 1

    def digest(self, path: Path) -> str:
        return str(self.marks[self.name(path)][MARKED])

    def frames(self, path: Path) -> int:
        return int((self.marks[self.name(path)][MARKED + 1 :] or [1])[0])

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def save_if_due(self) -> None:
        if self.fresh >= max(SAVED_EVERY, len(self.marks) // SAVED_SHARE):
            self.save()

    def save(self) -> None:
        if self.path is not None and self.fresh and is_first():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps({"of": self.setting, "files": self.marks}))
            self.fresh = 0


def _mark(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]  # the last one also sees a change of permissions


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


class FolderImages(torch.utils.data.Dataset[Any]):
    """All images below a folder, in order of their names, as the model takes them: float tensors [C, size, size].

    Files that are no images are left out from the start, with a warning: see :func:`readable`.

    Args:
        folder: of images, read recursively; or what was found in it, and then classes are of interest.
        preprocessing: of the model.
        known: as in :func:`readable`.
        progress: likewise.

    Raises:
        ValueError: no such folder, no images in it; when read: a file that is no image any more, with its name.

    Attributes:
        files: the images' paths.
        folder: that all lie in.
        found: what was left out, and how to say so.
        identity: how files become model inputs, by which a checkpoint knows it.
        reads_in_threads: True: a scan without workers reads ahead in a thread.
    """

    reads_in_threads = True

    def __init__(
        self,
        folder: Path | FoundImages,
        preprocessing: Preprocessing,
        *,
        known: Path | None = None,
        progress: bool = False,
    ) -> None:
        has_classes = isinstance(folder, FoundImages)
        found = folder if isinstance(folder, FoundImages) else find_images(folder)
        self.found = readable(found, preprocessing.channels, known=known, has_classes=has_classes, progress=progress)
        self.files = list(self.found.files)
        self.folder = found.folder
        self.preprocessing = preprocessing
        self.identity = repr(replace(preprocessing, source=""))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocessing.input(self.files[index])

    def item_name(self, number: int) -> str:
        """A file's path below the folder."""
        return self.found.item_name(number)

    def item_identity(self, number: int) -> str:
        """A file's path and content, by which a checkpoint knows it."""
        return self.found.item_identity(number)
