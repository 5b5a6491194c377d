"""Which file a table means: by its path, the end of it, or its name, on any system."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from absence_plugins.core.names import spell_name
from absence_plugins.data.same_names import normalize_name


def list_files(files: Sequence[Path], folder: Path) -> list[str]:
    """Paths below a folder as text, with slashes.

    >>> list_files([Path("photos/cat/1.png")], Path("photos"))
    ['cat/1.png']
    """
    return [spell_name(path.relative_to(folder)).replace(os.sep, "/") for path in files]


def index_files(names: Sequence[str]) -> dict[str, list[int]]:
    """By every way to name a file, which ones it may be: its path, the ends of it, these without the extension.

    >>> found = index_files(["cat/1.png", "dog/1.png"])
    >>> found[key_of("dog/1.png")], found[key_of("1.PNG")], found[key_of("cat/1")]
    ([1], [0, 1], [0])
    """
    found: dict[str, list[int]] = {}
    whole = {normalize_name(name): place for place, name in enumerate(names)}
    for place, name in enumerate(names):
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):
            end = PurePosixPath(*parts[start:])
            for key in dict.fromkeys((str(end), str(end.with_suffix("")))):
                found.setdefault(normalize_name(key), []).append(place)
    for key, place in whole.items():
        found[key] = [place]
    return found


def index_paths(files: Sequence[Path], folder: Path) -> dict[str, list[int]]:
    """As :func:`index_files`, of the paths below a folder; longer paths, with the folder's own name, are understood,
    too.

    >>> found = index_paths([Path("sets/val/1.png")], Path("sets/val"))
    >>> [key_of(name) in found for name in ("1", "val/1.png", "./sets/val/1.png", "train/1.png")]
    [True, True, True, False]
    """
    names = list_files(files, folder)
    near = index_files(names)
    around = [f"{spell_name(folder.absolute())}/{name}".replace(os.sep, "/").lstrip("/") for name in names]
    return index_files(around) | near


def key_of(name: str) -> str:
    """A name as :func:`index_files` knows it."""
    parts = PureWindowsPath(name).parts if "\\" in name else PurePosixPath(name).parts
    return normalize_name("/".join(part for part in parts if part not in (".", "", "/")))
