"""The one walk over a folder of images: which files count as images, and which folders as classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from absence_plugins.core.names import normal_name, spell_name

SHOWN = 3  # names in a sentence
# What operating systems, file servers and tools leave in folders, in lower case. So does any name with a dot in front.
SYSTEM = frozenset(
    {
        "__macosx", "__pycache__", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "$recycle.bin",
        "recycler", "system volume information", "lost+found", "found.000", "thumbs.db", "ehthumbs.db",
        "ehthumbs_vista.db", "desktop.ini", "icon\r",
    }
)  # fmt: skip
HIDDEN, OTHER, AGAIN, LOOP, CLOSED, PAGE = "hidden", "other", "again", "loop", "closed", "page"
GENERATOR = b'<meta name="generator" content="absence-plugins">'  # near the beginning of every page that commands write
HEAD = 200  # bytes of it
# One and several of them, in the order in which they are said.
KINDS = {
    CLOSED: ("folder that cannot be opened", "folders that cannot be opened"),
    HIDDEN: ("hidden or system file or folder", "hidden or system files and folders"),
    PAGE: ("folder of a page of absence-plugins", "folders of pages of absence-plugins"),
    OTHER: ("file without the ending of an image", "files without the ending of an image"),
    AGAIN: ("second link to the same images", "further links to the same images"),
    LOOP: ("link back to a folder that holds it", "links back to folders that hold them"),
}


@dataclass(frozen=True)
class FoundImages:
    """The images below a folder and their classes.

    Attributes:
        folder: that all lie in.
        files: the images' paths, each below ``folder``, in the order of torchvision's ``ImageFolder``; images beside
            the class folders stand where their names do among those of the folders.
        classes: the subfolders that hold images, by their names (:func:`~absence_plugins.core.names.normal_name`), in
            the order of ``ImageFolder``; none where all images lie in the folder itself.
        labels: for every file the index of its class; None for an image beside the class folders.
        passed_over: what else is there, with the reason: "hidden", "other" (extension), "again" (a link to what is
            there already), "loop", "closed" (a folder that cannot be opened), "page" (that a command wrote).
        unreadable: what has the name of an image and cannot be read, with the reason, such as a broken link.
        class_notes: sentences on the classes: folders without images, images beside the folders, or in two classes.
    """

    folder: Path
    files: tuple[Path, ...]
    classes: tuple[str, ...]
    labels: tuple[int | None, ...]
    passed_over: tuple[tuple[Path, str], ...] = ()
    unreadable: tuple[tuple[Path, str], ...] = ()
    class_notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"FoundImages({len(self.files)} images of {spell_name(self.folder)}, {len(self.classes)} classes)"

    def take(self, places: Iterable[int]) -> FoundImages:
        """Only the files at some places; the classes stay the same."""
        kept = list(places)
        files, labels = tuple(self.files[place] for place in kept), tuple(self.labels[place] for place in kept)
        return replace(self, files=files, labels=labels)

    def of_class(self, name: str) -> FoundImages:
        """Only the images of one class, and what was left out beside them, without classes."""
        label = self.classes.index(name)
        part = self.take(place for place, own in enumerate(self.labels) if own == label)
        passed_over, unreadable = (
            tuple(each for each in given if normal_name(each[0].relative_to(self.folder).parts[0]) == name)
            for given in (self.passed_over, self.unreadable)
        )
        return FoundImages(self.folder, part.files, (), (None,) * len(part), passed_over, unreadable)

    def with_class(self) -> FoundImages:
        """Only the images that have a class."""
        return self.take(place for place, label in enumerate(self.labels) if label is not None)

    def join(self, other: FoundImages, folder: Path) -> FoundImages:
        """These and others of the same classes, all below ``folder``: first these, then those."""
        return FoundImages(
            folder,
            self.files + other.files,
            self.classes,
            self.labels + other.labels,
            self.passed_over + other.passed_over,
            self.unreadable + other.unreadable,
            self.class_notes + other.class_notes,
        )

    def relative(self, path: Path) -> str:
        """A path as it is named in a text: below the folder, spelled."""
        return spell_name(path.relative_to(self.folder))

    def explain_unreadable(self, listed: str = "") -> tuple[str, ...]:
        """A sentence on the files that cannot be read, or nothing. listed: a file that names all of them."""
        if not self.unreadable:
            return ()
        shown = "; ".join(f"{self.relative(path)} ({why})" for path, why in self.unreadable[:SHOWN])
        others = len(self.unreadable) - SHOWN
        more = f"; and {others} more{f', all in {listed}' if listed else ''}" if others > 0 else ""
        return (
            f"{len(self.unreadable)} of {len(self.files) + len(self.unreadable)} files of {spell_name(self.folder)} "
            f"cannot be read as images and were left out: {shown}{more}.",
        )

    def explain_passed_over(self) -> tuple[str, ...]:
        """A sentence on what was passed over, or nothing."""
        found = []
        for kind, forms in KINDS.items():
            names = [self.relative(path) for path, why in self.passed_over if why == kind]
            if names:
                found.append(f"{len(names):,} {forms[len(names) > 1]} ({list_names(names)})")
        return (f"Passed over in {spell_name(self.folder)}: {'; '.join(found)}.",) if found else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in sentences: what cannot be read first."""
        return (*self.explain_unreadable(), *self.explain_passed_over())


def find_images(folder: str | Path, called: str = "folder") -> FoundImages:
    """All images below a folder, with their classes: what every command and function that takes a folder works on.

    A file is an image if its name ends as one of a format that Pillow opens, in any case. What begins with a dot, and
    what operating systems and tools leave (``__MACOSX``, ``@eaDir``, ``Thumbs.db``, ...), is neither image nor class;
    nor are the pages that commands of this package wrote there, with their figures.
    Symbolic links are followed, to files and to folders, but not to a folder that holds them. An image that is reached
    twice in the same class counts once, by its own name rather than a link's; one that two classes hold counts once in
    each, and it is said. Subfolders that hold images, at any depth, are the classes; two whose names are the same
    letters (composed and decomposed Unicode) are one. The order is that of torchvision's ``ImageFolder``. Whether the
    files *are* images shows when they are decoded, which this does not do.

    Args:
        folder: of images.
        called: what it is, for messages.

    Raises:
        ValueError: no such folder, one that cannot be opened, no images in it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in (".cache/1.png", "cat/2.PNG", "cat/notes.txt", "dog/3.jpg"):
    ...         path = Path(folder) / name
    ...         path.parent.mkdir(exist_ok=True)
    ...         path.touch()
    ...     found = find_images(folder)
    >>> found.classes, [path.name for path in found.files], found.labels
    (('cat', 'dog'), ['2.PNG', '3.jpg'], (0, 1))
    >>> [(path.name, why) for path, why in found.passed_over]
    [('.cache', 'hidden'), ('notes.txt', 'other')]
    """
    folder = Path(folder)
    spelled = f"{called} {spell_name(folder)}"
    if not folder.is_dir():
        raise ValueError(f"{spelled} {'is a file' if folder.exists() else 'does not exist'}")
    try:
        found = _Walk(folder).find()
    except OSError as error:
        raise ValueError(f"{spelled} cannot be opened ({error.strerror})") from None
    if not found.files:
        raise ValueError(" ".join((f"{spelled} holds no images.", *found.notes)).removesuffix("."))
    return found


def _suffixes() -> frozenset[str]:
    from absence_plugins.data.pictures import SUFFIXES  # which needs Pillow

    return SUFFIXES


@dataclass(frozen=True)
class _Entry:
    """What lies in a folder: ``path`` as it is reached, ``real`` without links."""

    path: str
    real: str
    is_folder: bool
    is_link: bool


class _Walk:
    """One walk; what it passes over is collected."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.real = folder, os.path.realpath(folder)
        self.passed_over: dict[str, str] = {}
        self.unreadable: dict[str, str] = {}

    def find(self) -> FoundImages:
        """The images in the folder itself, and those of every class."""
        top = list(self._entries(os.fspath(self.folder), self.real))
        own = self._once([each for each in top if not each.is_folder])
        classes: dict[str, list[_Entry]] = {}
        for each in sorted((each for each in top if each.is_folder), key=lambda each: each.path):
            classes.setdefault(normal_name(os.path.basename(each.path)), []).append(each)
        below = {name: self._below(folders) for name, folders in classes.items()}
        notes = [
            _say_one_class(name, classes[name]) for name, found in below.items() if found and len(classes[name]) > 1
        ]
        empty = [name for name, found in below.items() if not found and classes[name][0].path not in self.passed_over]
        below = {name: found for name, found in below.items() if found}
        owners: dict[str, list[str]] = {}
        for name, found in below.items():
            for real in found:
                owners.setdefault(real, []).append(name)
        for real in [real for real in own if real in owners]:  # its class links to it
            self.passed_over[own.pop(real)] = AGAIN
        rows: list[tuple[str, str, int | None]] = [(os.path.basename(path), path, None) for path in own.values()]
        for label, (name, found) in enumerate(below.items()):
            place = os.path.basename(classes[name][0].path)
            rows += [(place, path, label) for path in found.values()]
        rows.sort(key=lambda row: (row[0], os.path.split(row[1])))
        notes += self._say_of_classes(empty, own if below else {}, owners)
        return FoundImages(
            self.folder,
            tuple(Path(path) for _, path, _ in rows),
            tuple(below),
            tuple(label for _, _, label in rows),
            tuple((Path(path), why) for path, why in sorted(self.passed_over.items())),
            tuple((Path(path), why) for path, why in sorted(self.unreadable.items())),
            tuple(notes),
        )

    def _entries(self, path: str, real: str) -> Iterator[_Entry]:
        """The folders and images in a folder, in the order of their names; the rest is passed over."""
        with os.scandir(path) as scanned:
            inside = sorted(scanned, key=lambda each: each.name)
        is_page = _is_page(path)
        for each in inside:
            where = os.path.join(path, each.name)
            if each.name.startswith(".") or each.name.lower() in SYSTEM:
                self.passed_over[where] = HIDDEN
                continue
            is_image, is_link = os.path.splitext(each.name)[1].lower() in _suffixes(), each.is_symlink()
            is_folder = _asked(each.is_dir)
            if is_folder and (_is_page(where) or (is_page and each.name == "figures")):
                self.passed_over[where] = PAGE
            elif not is_folder and (is_image or is_link) and not _asked(each.is_file):
                self.unreadable[where] = "a broken link" if is_link else "no regular file"
            elif is_folder or is_image:
                itself = os.path.join(real, each.name)
                aim = os.path.realpath(where) if is_folder or is_link else itself
                yield _Entry(where, aim, is_folder, aim != itself)
            else:
                self.passed_over[where] = OTHER

    def _below(self, folders: Sequence[_Entry]) -> dict[str, str]:
        """The images of a class by their real path: what is there itself first, then what links lead to."""
        waiting = [each for each in folders if not each.is_link or self._leads_on(each)]
        files: list[_Entry] = []
        seen: set[str] = set()
        links: list[_Entry] = []
        while waiting or links:
            if not waiting:
                waiting, links = links[:1], links[1:]
            here = waiting.pop(0)
            if here.real in seen:
                self.passed_over[here.path] = AGAIN
                continue
            seen.add(here.real)
            try:
                inside = list(self._entries(here.path, here.real))
            except OSError:
                self.passed_over[here.path] = CLOSED
                continue
            files += [each for each in inside if not each.is_folder]
            waiting += [each for each in inside if each.is_folder and not each.is_link]
            links = sorted(
                [*links, *(each for each in inside if each.is_folder and each.is_link and self._leads_on(each))],
                key=lambda each: each.path,
            )
        return self._once(files)

    def _leads_on(self, link: _Entry) -> bool:
        """Whether a link to a folder can be followed: not back to one that holds it."""
        holds = os.path.realpath(os.path.dirname(link.path))
        if any(_is_in(place, link.real) for place in (holds, self.real)):
            self.passed_over[link.path] = LOOP
            return False
        return True

    def _once(self, files: Iterable[_Entry]) -> dict[str, str]:
        """Paths by real path, each image once: by its own name if it has one here, else by the first link's."""
        found: dict[str, str] = {}
        for each in sorted(files, key=lambda each: (each.is_link, each.path)):
            if each.real in found:
                self.passed_over[each.path] = AGAIN
            else:
                found[each.real] = each.path
        return found

    def _say_of_classes(
        self, empty: Sequence[str], beside: Iterable[str], owners: dict[str, list[str]]
    ) -> Iterator[str]:
        folder = spell_name(self.folder)
        if empty:
            were = "1 folder of {} holds no images and is no class" if len(empty) == 1 else None
            were = were or f"{len(empty)} folders of {{}} hold no images and are no classes"
            yield f"{were.format(folder)}: {list_names(empty)}."
        lying = [spell_name(os.path.basename(path)) for path in beside]
        if lying:
            are = "1 image lies" if len(lying) == 1 else f"{len(lying):,} images lie"
            yield f"{are} beside the class folders of {folder} and belong{'s' * (len(lying) == 1)} to no class: {list_names(lying)}."
        shared = {real: names for real, names in owners.items() if len(names) > 1}
        if shared:
            real, names = min(shared.items())
            are = "1 image of {} is" if len(shared) == 1 else f"{len(shared):,} images of {{}} are"
            yield (
                f"{are.format(folder)} in more than one class, by links, and count{'s' * (len(shared) == 1)} in each: "
                f"{spell_name(os.path.basename(real))} in {' and '.join(names)}{', ...' if len(shared) > 1 else ''}."
            )


def _say_one_class(name: str, folders: Sequence[_Entry]) -> str:
    return (
        f"{len(folders)} folders are called {name}, in letters that are encoded differently (composed and decomposed "
        "Unicode); they are one class."
    )


def _asked(question: Callable[[], bool]) -> bool:
    """The answer on a link's aim; no where there is none, or only another link, round and round."""
    try:
        return question()
    except OSError:
        return False


def _is_page(folder: str) -> bool:
    """Whether a folder holds a page that a command wrote, with its figures, which are no images of the user's."""
    try:
        with open(os.path.join(folder, "index.html"), "rb") as file:
            return GENERATOR in file.read(HEAD)
    except OSError:
        return False


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def describe_frames(frames: Sequence[tuple[str, int]], folder: str = "") -> tuple[str, ...]:
    """A sentence on the files that have several frames, by name and number of frames; none where there are none.

    >>> describe_frames([("a.gif", 12), ("b.tif", 2)])
    ('2 images have several frames or pages, of which the first is taken: a.gif (12), b.tif (2).',)
    """
    if not frames:
        return ()
    what = f"file{'s' * (len(frames) > 1)} of {folder}" if folder else f"image{'s' * (len(frames) > 1)}"
    has = "has" if len(frames) == 1 else "have"
    shown = list_names([f"{name} ({count})" for name, count in frames])
    return (f"{len(frames)} {what} {has} several frames or pages, of which the first is taken: {shown}.",)


def list_names(names: Sequence[str], count: int = SHOWN) -> str:
    """The first names, ``count`` of them, and how many others there are.

    >>> list_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
