"""Which samples are not independent: exact copies, crops and turned copies of one picture, or groups that a table
names.

A group is a number per sample, equal for samples of one group. What is judged on held-out samples must not have seen
their copies, so a group lies on one side of a split.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.names import spell_name
from absence_plugins.data.file_names import index_paths, key_of, list_files
from absence_plugins.data.picture_features import Candidate, Corners, find_candidates, find_corners, shrink
from absence_plugins.data.reading_ahead import read_ahead
from absence_plugins.data.same_names import describe_missing
from absence_plugins.data.same_photograph import show_same
from absence_plugins.data.tables import read_pairs

CHOICES = ("exact", "auto", "none")
LEAST = 0.15  # share of either picture that the other one must show
SMALL = 48  # pixels of a side, below which drawings of one shape (digits) cannot be told from copies
SHOWN = 3


@dataclass(frozen=True)
class Groups:
    """Groups of samples.

    Attributes:
        numbers: [N], equal for samples of one group; the groups are numbered in the order of their first samples.
        how: "exact", "auto", "none" or the table's name.
        note: what was found, in a sentence; "" if every sample is alone.
    """

    numbers: tuple[int, ...]
    how: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def count(self) -> int:
        """How many groups there are: the number of independent samples."""
        return len(set(self.numbers))

    def tensor(self) -> Tensor | None:
        """The numbers [N], or None if every sample is alone."""
        return None if self.count == len(self.numbers) else torch.tensor(self.numbers)

    def take(self, places: Iterable[int]) -> Groups:
        """Of some of the samples."""
        return Groups(tuple(number_groups([self.numbers[place] for place in places])), self.how, self.note)


def number_groups(keys: Iterable[object]) -> list[int]:
    """Numbers from 0 for equal keys, in the order of their first samples.

    >>> number_groups(["b", "a", "b"])
    [0, 1, 0]
    """
    known: dict[object, int] = {}
    return [known.setdefault(key, len(known)) for key in keys]


def find_copies(files: Sequence[Path], digests: Sequence[str] = ()) -> list[int]:
    """Groups of files with the same content, whatever their names. Only files of equal size are read.

    digests: a hash of the content of each file where they are known, and then none is read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, content in {"a": b"1", "b": b"2", "c": b"1"}.items():
    ...     _ = (folder / name).write_bytes(content)
    >>> find_copies([folder / name for name in "abc"])
    [0, 1, 0]
    """
    if digests:
        return number_groups(digests)
    sizes = [path.stat().st_size for path in files]
    alone = {size for size, many in _count(sizes).items() if many == 1}

    def key(place: int) -> object:
        if sizes[place] in alone:
            return place
        with files[place].open("rb") as file:
            return sizes[place], hashlib.file_digest(file, "sha256").digest()

    return number_groups(map(key, range(len(files))))


def find_equal_rows(samples: Tensor) -> list[int]:
    """Groups of equal samples [N, ...] of one tensor, bit by bit. Constant ones (blank images) are no copies.

    >>> find_equal_rows(torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    [0, 1, 0]
    """
    flat = samples.detach().cpu().flatten(1)
    is_blank = (flat == flat[:, :1]).all(1).tolist()
    rows = (hashlib.sha256(row.contiguous().view(torch.uint8).numpy().tobytes()).digest() for row in flat)
    return number_groups(
        (place if blank else row) for place, (row, blank) in enumerate(zip(rows, is_blank, strict=True))
    )


def find_same_pictures(
    picture: Callable[[int], Tensor], count: int, *, known: Sequence[int] | None = None, progress: bool = False
) -> list[int]:
    """Groups of pictures that show the same photograph: re-encoded, resized, cropped (down to about half its side),
    turned by any angle, mirrored, lighter or darker.

    Corners of the pictures are matched through hash tables (:mod:`~absence_plugins.data.picture_features`), which
    costs N, not N^2, comparisons; pairs that agree are laid over each other and compared with
    :func:`~absence_plugins.data.same_photograph.show_same`. Two pictures of a group need not overlap each other: a
    chain of pictures that do is one group. Pictures without texture, or with a side below 48 pixels, are
    never matched: small drawings of one shape, such as digits, look like copies.

    Args:
        picture: of a sample's number: gray [H, W], any range; called in several threads.
        count: of samples.
        known: groups that are known to be the same, such as exact copies; one picture of each is looked at.
        progress: show a progress bar.

    >>> generator = torch.Generator().manual_seed(0)
    >>> made = F.interpolate(torch.rand(2, 1, 12, 12, generator=generator), (96, 96), mode="bicubic")[:, 0]
    >>> pictures = [made[0], made[1], made[0, 8:80, 16:88].flip(1)]  # the third one is a mirrored crop of the first
    >>> find_same_pictures(pictures.__getitem__, 3)
    [0, 1, 0]
    """
    groups = list(range(count)) if known is None else list(known)
    first: dict[int, int] = {}
    for place, group in enumerate(groups):
        first.setdefault(group, place)
    places = list(first.values())

    def look(place: int) -> tuple[Corners, Tensor]:
        gray = picture(place).float()
        gray = (gray - gray.amin()) / (gray.amax() - gray.amin()).clamp(min=1e-6)
        small = shrink(gray)
        return (find_corners(small) if min(gray.shape) >= SMALL else Corners.none()), small.half()

    looked = list(tqdm(read_ahead(look, places), total=len(places), desc="looking for copies", disable=not progress))
    root = list(range(len(places)))

    def find(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for pair in sorted(find_candidates([corners for corners, _ in looked]), key=lambda pair: -pair.votes):
        one, other = find(pair.first), find(pair.second)
        if one != other and overlay_same(looked[pair.first][1].float(), looked[pair.second][1].float(), pair):
            root[max(one, other)] = min(one, other)
    merged = {group: find(place) for place, group in enumerate(first)}
    return number_groups(merged[group] for group in groups)


def overlay_same(first: Tensor, second: Tensor, pair: Candidate) -> bool:
    """Whether two gray pictures show the same where a transform lays one over the other."""
    height, width = first.shape
    matrix = torch.from_numpy(pair.matrix).float()
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([right, down, torch.ones_like(right)], -1).float() @ matrix.T
    inside = ((points >= 0) & (points <= torch.tensor([second.shape[1] - 1, second.shape[0] - 1]))).all(-1)
    scale = abs(float(torch.linalg.det(matrix[:, :2])))
    covered = float(inside.float().sum())
    if covered < LEAST * first.numel() or covered * scale < LEAST * second.numel():
        return False
    rows, columns = inside.float().mean(1) > 0.4, inside.float().mean(0) > 0.4
    if int(rows.sum()) < 24 or int(columns.sum()) < 24:
        rows, columns = inside.any(1), inside.any(0)
    box = (slice(*_ends(rows)), slice(*_ends(columns)))
    grid = (points[box] + 0.5) / torch.tensor([second.shape[1], second.shape[0]]) * 2 - 1
    warped = F.grid_sample(second[None, None], grid[None], align_corners=False)[0, 0]
    seen = inside[box].float()
    own = first[box] * seen + (1 - seen) * float((first[box] * seen).sum() / seen.sum())
    warped = warped * seen + (1 - seen) * float((warped * seen).sum() / seen.sum())
    return bool(show_same(own[None], warped[None, None], (1.0,))[0])


def read_groups(path: Path | str, files: Sequence[Path], folder: Path) -> list[int]:
    r"""Groups from a table file,group (CSV, TSV or JSON), for every one of ``files``.

    A file is named by its path below ``folder``, by the end of it, or by its name with or without the extension, if
    only one file has it. A file that the table lacks is a group of its own, with a warning; JSON may also be an object
    group -> files.

    Raises:
        ValueError: no table, a name that several files have, a file in two groups, no file of the folder in it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "patients.csv"
    >>> _ = path.write_text("image,patient\n1,Smith\n2,Doe\n3,Smith\n")
    >>> read_groups(path, [Path("scans/1.png"), Path("scans/2.png"), Path("scans/3.png")], Path("scans"))
    [0, 1, 0]
    """
    names = list_files(files, folder)
    pairs = read_pairs(path, "file", "group", names)
    places = index_paths(files, folder)
    if not any(key_of(one) in places for one, _ in pairs) and any(key_of(other) in places for _, other in pairs):
        pairs = [(other, one) for one, other in pairs]  # group -> files
    group: dict[int, str] = {}
    strange = []
    for name, own in pairs:
        found = places.get(key_of(name), [])
        if len(found) > 1:
            shown = " or ".join(names[place] for place in found[:SHOWN])
            raise ValueError(f"{path}: {name!r} may be {shown}; write the path below {spell_name(folder)}")
        if not found:
            strange.append(name)
        elif group.setdefault(found[0], own) != own:
            raise ValueError(f"{path}: {name!r} is in two groups, {group[found[0]]!r} and {own!r}; write one")
    if not group:
        near = describe_missing(names[0], (name for name, _ in pairs))
        raise ValueError(f"{path} names no file of {spell_name(folder)}, such as {names[0]}; {near}")
    if lacking := len(names) - len(group):
        missing = next(name for place, name in enumerate(names) if place not in group)
        note = f"{path} names {len(group):,} of {len(names):,} files; the other {lacking:,}, such as {missing}, count as groups of their own"
        warnings.warn(note + (f" ({strange[0]!r} is no file there)" if strange else ""), AbsenceWarning, stacklevel=2)
    return number_groups(("group", group[place]) if place in group else ("file", place) for place in range(len(names)))


def group_files(
    files: Sequence[Path],
    folder: Path,
    choice: str | Path | None = None,
    *,
    digests: Sequence[str] = (),
    picture: Callable[[int], Tensor] | None = None,
    progress: bool = False,
) -> Groups:
    """The groups of the images of a folder, as ``--groups`` says.

    Args:
        files: of the images.
        folder: that they lie in.
        choice: "auto" (exact copies, crops and other versions of a picture), "none", a table file,group; None: exact
            copies.
        digests: a hash of the content of each file where they are known.
        picture: of a file's number, gray [H, W], for "auto".
        progress: show a progress bar.

    Raises:
        ValueError: what :func:`read_groups` rejects.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name, content in {"a.png": b"1", "b.png": b"2", "c.png": b"1"}.items():
    ...     _ = (folder / name).write_bytes(content)
    >>> group_files(sorted(folder.iterdir()), folder).numbers
    (0, 1, 0)
    """
    if choice == "none":
        return Groups(tuple(range(len(files))), "none")
    if choice in (None, "exact", "auto"):
        copies = find_copies(files, digests)
        if choice != "auto" or picture is None:
            return Groups(tuple(copies), "exact", _copies_note(files, folder, copies))
        numbers = find_same_pictures(picture, len(files), known=copies, progress=progress)
        return Groups(tuple(numbers), "auto", _same_note(files, folder, numbers))
    numbers = read_groups(Path(choice), files, folder)
    note = f"{len(files):,} images in {len(set(numbers)):,} groups of {choice}, none of which is split."
    return Groups(tuple(numbers), str(choice), note)


def _copies_note(files: Sequence[Path], folder: Path, numbers: Sequence[int]) -> str:
    many = len(numbers) - len(set(numbers))
    if not many:
        return ""
    return (
        f"{many:,} of {len(files):,} images of {spell_name(folder)} are exact copies of others ({_pairs(files, folder, numbers)}); "
        f"copies stay on one side of the held-out split and count once. --groups auto also finds crops and other versions "
        "of one picture, --groups FILE reads a table file,group."
    )


def _same_note(files: Sequence[Path], folder: Path, numbers: Sequence[int]) -> str:
    many = len(numbers) - len(set(numbers))
    if not many:
        return ""
    return (
        f"{len(files):,} images of {spell_name(folder)} show {len(set(numbers)):,} pictures (copies, crops, turned ones: "
        f"{_pairs(files, folder, numbers)}); those of one picture stay on one side of the held-out split and count once. "
        "Drawings and plain shapes may be too alike to tell apart: if these are different pictures, pass --groups none, or a "
        "table file,group."
    )


def _pairs(files: Sequence[Path], folder: Path, numbers: Sequence[int]) -> str:
    """The first few samples that are not alone, with the first one of their group."""
    first: dict[int, int] = {}
    found = []
    for place, number in enumerate(numbers):
        if first.setdefault(number, place) != place:
            found.append((place, first[number]))
    shown = [
        f"{spell_name(files[one].relative_to(folder))} = {spell_name(files[other].relative_to(folder))}"
        for one, other in found[:SHOWN]
    ]
    return "; ".join(shown) + (f"; and {len(found) - SHOWN:,} more" if len(found) > SHOWN else "")


def _count(values: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found


def _ends(chosen: Tensor) -> tuple[int, int]:
    places = chosen.nonzero()[:, 0]
    return int(places[0]), int(places[-1]) + 1
