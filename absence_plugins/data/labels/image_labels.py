"""What is known of the concepts in each image, and which of a folder's files these images are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.names import spell_name
from absence_plugins.data.file_names import index_paths, key_of, list_files

SHOWN = 3


@dataclass(frozen=True, eq=False, repr=False)
class ImageLabels:
    """Labels of images.

    Attributes:
        images: names of the N images, as the source writes them, distinct.
        names: of the K concepts, distinct.
        concepts: [N, K]: bool if everything is known; else float64 with 1 (present), 0 (absent) and NaN (unknown); or
            scores, as :func:`~absence_plugins.data.labels.read_score_table` reads them.

    Raises ValueError for an image or a name that comes twice.

    >>> labels = ImageLabels(("2", "cat/1.jpg"), ("furry",), torch.tensor([[False], [True]]))
    >>> labels.match([Path("photos/cat/1.jpg"), Path("photos/dog/2.jpg")], Path("photos")).concepts.tolist()
    [[True], [False]]
    """

    images: tuple[str, ...]
    names: tuple[str, ...]
    concepts: Tensor

    def __post_init__(self) -> None:
        for what, listed in (("image", self.images), ("concept", self.names)):
            if len(set(listed)) < len(listed):
                raise ValueError(
                    f"the labels have the {what} {find_repeated(listed)!r} twice; call each by a name of its own"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def unknown(self) -> int:
        """How many of the N K labels are unknown."""
        return int(self.concepts.isnan().sum())

    def __repr__(self) -> str:
        total = self.concepts.numel()
        return f"ImageLabels({len(self)} images, {len(self.names)} concepts, {self.unknown} of {total} unknown)"

    def locate(self, files: Sequence[Path], folder: Path) -> tuple[dict[int, int], tuple[str, ...]]:
        """Which row each file has, by its place among ``files``, and the images that are no file.

        An image is found by its path below the folder, the end of it, or its name, with or without the extension; the
        path may begin further up, with the folder's own name.

        Raises:
            ValueError: a name that several files have, two labels of one file, no file with labels.
        """
        listed = list_files(files, folder)
        places = index_paths(files, folder)
        row: dict[int, int] = {}
        strange = []
        for number, name in enumerate(self.images):
            found = places.get(key_of(name), [])
            if len(found) > 1:
                shown = " or ".join(listed[place] for place in found[:SHOWN])
                raise ValueError(f"labels of {name!r} may be those of {shown}; name it by its path in the labels")
            if not found:
                strange.append(name)
            elif row.setdefault(found[0], number) != number:
                raise ValueError(f"{listed[found[0]]} has labels twice, as {self.images[row[found[0]]]!r} and {name!r}")
        if not row:
            raise ValueError(
                f"no file of {spell_name(folder)}, such as {listed[0] if listed else 'none'}, has labels; they are of "
                f"{', '.join(self.images[:SHOWN])}, ..."
            )
        return row, tuple(strange)

    def take(self, rows: Sequence[int]) -> ImageLabels:
        """Those of some images, by their numbers."""
        return ImageLabels(tuple(self.images[row] for row in rows), self.names, settle(self.concepts[list(rows)]))

    def match(self, files: Sequence[Path], folder: Path) -> ImageLabels:
        """The labels of some files, in their order; everything of a file without labels is unknown, with a warning.

        Files are found, and ValueError raised, as by :meth:`locate`.
        """
        row, strange = self.locate(files, folder)
        listed = list_files(files, folder)
        lacking = [listed[place] for place in range(len(listed)) if place not in row]
        if lacking:
            warnings.warn(
                f"{len(lacking):,} of {len(listed):,} files have no labels, which are unknown: {', '.join(lacking[:SHOWN])}"
                + (f"; {len(strange):,} labels are of no file, such as {strange[0]}" if strange else ""),
                AbsenceWarning,
                stacklevel=2,
            )
        concepts = self.concepts[[row.get(place, 0) for place in range(len(listed))]]
        if lacking:
            concepts = concepts.double()
            concepts[[place for place in range(len(listed)) if place not in row]] = torch.nan
        return ImageLabels(tuple(listed), self.names, concepts)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists; None where unknown."""
        rows = [
            [None if value != value else int(value) if value in (0, 1) else value for value in row]
            for row in self.concepts.tolist()
        ]
        return {"images": list(self.images), "names": list(self.names), "concepts": rows}


def stack_truths(rows: Sequence[Sequence[bool | None]]) -> Tensor:
    """Rows of True, False and None as a tensor: bool, or float64 with NaN where something is unknown.

    >>> stack_truths([[True, None]]), stack_truths([[True, False]])
    (tensor([[1., nan]], dtype=torch.float64), tensor([[ True, False]]))
    """
    if all(value is not None for row in rows for value in row):
        return torch.tensor(rows, dtype=torch.bool)
    return torch.tensor([[torch.nan if value is None else float(value) for value in row] for row in rows]).double()


def settle(concepts: Tensor) -> Tensor:
    """Labels of 1, 0 and NaN as bool if none is unknown, else, and scores, as they are.

    >>> settle(torch.tensor([[1.0, 0.0]])), settle(torch.tensor([[1.0, torch.nan]]))
    (tensor([[ True, False]]), tensor([[1., nan]]))
    """
    return concepts == 1 if bool(((concepts == 0) | (concepts == 1)).all()) else concepts


def find_repeated(names: Sequence[str]) -> str | None:
    """The first name that came before; None where all are distinct.

    >>> find_repeated(["a", "b", "a", "b"])
    'a'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_distinct(names: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """Names, with their keys behind them where several are the same. Raises ValueError where that does not help.

    >>> check_distinct(["crane", "cat", "crane"], ["n01", "n02", "n03"])
    ('crane (n01)', 'cat', 'crane (n03)')
    """
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    told = tuple(name if counts[name] == 1 else f"{name} ({key})" for name, key in zip(names, keys, strict=True))
    if (twice := find_repeated(told)) is not None:
        raise ValueError(f"two concepts are called {twice!r}; call each by a name of its own")
    return told
