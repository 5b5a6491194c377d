"""Broden (Network Dissection): concepts of images from masks, as presence in an image or position by position.

``index.csv`` has a row per image: its file, and for each kind of concept (color, object, part, material, scene,
texture) the files of masks below ``images/`` or the numbers of labels that hold on the whole image, divided by
semicolons. A mask is a PNG whose label is R + 256 G; 0 is no label. ``label.csv`` says what the numbers are and of
which kinds.

A blank cell says that nobody labelled this kind on the image, so its labels are *unknown* there, not absent.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.data.encodings import read_text
from absence_plugins.data.file_names import index_files, key_of
from absence_plugins.data.labels.image_labels import ImageLabels, check_distinct, find_repeated, settle

OTHERS = ("image", "split", "ih", "iw", "sh", "sw")  # columns of index.csv that are no kind of concept
SHOWN = 3


@dataclass(frozen=True)
class _Concept:
    """A row of label.csv: the kinds as columns of the index."""

    number: int
    name: str
    kinds: frozenset[str]


@dataclass(frozen=True)
class _Index:
    """What the two tables say; cells: per image and kind the masks (paths) and numbers."""

    folder: Path
    images: tuple[str, ...]
    cells: tuple[dict[str, tuple[str, ...]], ...]
    concepts: tuple[_Concept, ...]
    numbers: frozenset[int]

    @property
    def names(self) -> tuple[str, ...]:
        return check_distinct([one.name for one in self.concepts], [str(one.number) for one in self.concepts])

    def labels(self, row: int) -> Iterator[tuple[str, Tensor | int]]:
        """The kind and the labels [h, w] of every mask of an image, and the numbers that hold on all of it."""
        for kind, cell in self.cells[row].items():
            for entry in cell:
                value = int(entry) if entry.isdecimal() else _read_mask(self.folder / "images" / entry)
                strange = {value} if isinstance(value, int) else set(torch.unique(value).tolist())
                strange -= {0, *self.numbers}
                if strange:
                    raise ValueError(
                        f"{self.folder}: {kind} of {self.images[row]!r} has the label {min(strange)}, which label.csv lacks"
                    )
                yield kind, value

    def known(self, row: int) -> Tensor:
        """Which concepts [K] were looked for in an image: those all of whose kinds have a cell."""
        there = {kind for kind, cell in self.cells[row].items() if cell}
        return torch.tensor([one.kinds <= there for one in self.concepts])

    def find(self, images: Sequence[str] | None) -> list[int]:
        """Rows of images named by their path, the end of it, or their name. Raises ValueError for one that is
        missing.
        """
        if images is None:
            return list(range(len(self.images)))
        places = index_files(self.images)
        rows = []
        for name in images:
            found = places.get(key_of(name), [])
            if len(found) != 1:
                what = f"{len(found)} images" if found else "no image"
                raise ValueError(
                    f"{self.folder / 'index.csv'} has {what} called {name!r}, only such as {self.images[0]}"
                )
            rows.append(found[0])
        return rows


def read_broden(
    folder: Path | str,
    kinds: Sequence[str] | None = None,
    *,
    wanted: Callable[[str], bool] | None = None,
    least: float = 0.0,
) -> ImageLabels:
    r"""Which concepts of Broden are in an image.

    Present where more than ``least`` of the image's pixels (of one mask) have the label; absent where they do not and
    all kinds of the concept were labelled on the image; else unknown (NaN). A label that is an object and a part was
    looked for only where both were. Concepts that are nowhere known to be present are left out.

    Args:
        folder: that holds ``index.csv``, ``label.csv`` and ``images/``; or its ``index.csv``.
        kinds: columns to read, such as ("object", "texture"); None: all.
        wanted: whether an image of this name is read; None: all are. Only their masks are read.
        least: share of the pixels that a label must exceed.

    Raises:
        ValueError: a table without the columns, a kind that is not there, an image twice, a mask that is missing or has
            a label that ``label.csv`` lacks.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> rows = "a.jpg,train,4,4,2,2,1,\nb.jpg,val,4,4,2,2,2,3\n"
    >>> _ = (folder / "index.csv").write_text("image,split,ih,iw,sh,sw,scene,texture\n" + rows)
    >>> rows = "1,street,scene(1)\n2,sea,scene(1)\n3,dotted,texture(1)\n"
    >>> _ = (folder / "label.csv").write_text("number,name,category\n" + rows)
    >>> read_broden(folder).to_dict()
    {'images': ['a.jpg', 'b.jpg'], 'names': ['street', 'sea', 'dotted'], 'concepts': [[1, 0, None], [0, 1, 1]]}
    """
    index = _read_index(folder, kinds)
    rows = [row for row, name in enumerate(index.images) if wanted is None or wanted(name)]
    place = {one.number: k for k, one in enumerate(index.concepts)}
    concepts = torch.full((len(rows), len(place)), torch.nan, dtype=torch.float64)
    for n, row in enumerate(rows):
        concepts[n, index.known(row)] = 0.0
        for kind, value in index.labels(row):
            if isinstance(value, int):
                numbers, shares = [value], [1.0]
            else:
                found, counts = torch.unique(value, return_counts=True)
                numbers, shares = found.tolist(), (counts / value.numel()).tolist()
            for number, share in zip(numbers, shares, strict=True):
                if share > least and number in place and kind in index.concepts[place[number]].kinds:
                    concepts[n, place[number]] = 1.0
    kept = (concepts == 1).any(0)
    if rows and not bool(kept.any()):
        raise ValueError(f"no label of {index.folder} covers more than {least} of one of {len(rows)} images")
    names = tuple(name for name, keep in zip(index.names, kept.tolist(), strict=True) if keep)
    return ImageLabels(tuple(index.images[row] for row in rows), names, settle(concepts[:, kept]))


def read_broden_masks(
    folder: Path | str,
    size: tuple[int, int],
    names: Sequence[str],
    *,
    images: Sequence[str] | None = None,
    share: float = 0.5,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Where concepts of Broden are, at the resolution of a layer.

    For :func:`~absence_plugins.methods.directions.interpretability`.

    A concept is present at a position if the label covers at least ``share`` of that part of the image.

    Args:
        folder: as in :func:`read_broden`.
        size: H, W of the layer's positions.
        names: C concepts, as :func:`read_broden` names them.
        images: N images in the order of the features; None: all, in the order of ``index.csv``.
        share: of the pixels of a position.
        transform: what the images go through before the model, as far as it moves pixels, for example torchvision's
            ``Compose([Resize(256), CenterCrop(224)])``: is called with [C, h, w], the share of each label in every
            pixel. None: the model sees whole images.

    Returns:
        [N, H, W, C]: bool if everything is known; else float32 with 1, 0 and NaN where the kind was not labelled.

    Raises:
        ValueError: as :func:`read_broden`; a name that is not there.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "images").mkdir()
    >>> Image.fromarray(np.array([[[7, 1, 0], [0, 0, 0]]] * 2, dtype=np.uint8)).save(folder / "images" / "a_object.png")
    >>> _ = (folder / "index.csv").write_text("image,split,ih,iw,sh,sw,object\na.jpg,train,4,4,2,2,a_object.png\n")
    >>> _ = (folder / "label.csv").write_text("number,name,category\n263,cup,object(1)\n")
    >>> read_broden_masks(folder, (1, 2), ["cup"])[0, 0, :, 0]
    tensor([ True, False])
    """
    index = _read_index(folder, None)
    rows = index.find(images)
    known = {name: k for k, name in enumerate(index.names)}
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"{index.folder / 'label.csv'} has no {missing[0]!r}; there are: {', '.join(list(known)[:SHOWN])}, ..."
        )
    chosen = [index.concepts[known[name]] for name in names]
    place = {one.number: c for c, one in enumerate(chosen)}
    masks = torch.full((len(rows), *size, len(chosen)), torch.nan)
    for n, row in enumerate(rows):
        looked_for = index.known(row)[[known[name] for name in names]]
        masks[n, :, :, looked_for] = 0.0
        for kind, value in index.labels(row):
            if isinstance(value, int):
                found, shares = [value], torch.ones(1, *size)
            else:
                found = [number for number in torch.unique(value).tolist() if number in place]
                pixels = torch.stack([value == number for number in found]).float() if found else torch.zeros(0, *size)
                shares = F.adaptive_avg_pool2d(pixels if transform is None or not found else transform(pixels), size)
            for number, part in zip(found, shares, strict=True):
                if number in place and kind in chosen[place[number]].kinds:
                    masks[n, :, :, place[number]][part >= share] = 1.0
    return masks if bool(masks.isnan().any()) else masks == 1


def _read_index(folder: Path | str, kinds: Sequence[str] | None) -> _Index:
    folder = Path(folder).parent if Path(folder).is_file() else Path(folder)
    rows = _read_rows(folder / "index.csv", "image")
    columns = [name for name in rows[0][1] if name not in OTHERS]
    strange = [kind for kind in kinds or () if kind not in columns]
    if strange or not columns:
        what = f"no column {strange[0]!r}" if strange else "no column of concepts"
        raise ValueError(f"{folder / 'index.csv'} has {what}; there are: {', '.join(rows[0][1])}")
    wanted = list(kinds or columns)
    images: dict[str, dict[str, tuple[str, ...]]] = {}
    for line, row in rows:
        if images.setdefault(row["image"], {}):
            raise ValueError(f"{folder / 'index.csv'}, line {line}: {row['image']!r} comes a second time")
        images[row["image"]] |= {
            kind: tuple(e for part in row[kind].split(";") if (e := part.strip())) for kind in wanted
        }
    concepts = []
    numbers: set[int] = set()
    for line, row in _read_rows(folder / "label.csv", "number", "name", "category"):
        if not row["number"].isdecimal() or int(row["number"]) in numbers:
            raise ValueError(f"{folder / 'label.csv'}, line {line}: {row['number']!r} is no number of its own")
        own = frozenset(re.sub(r"\(.*\)", "", part).strip() for part in row["category"].split(";")) & set(wanted)
        numbers.add(int(row["number"]))
        if own:
            concepts.append(_Concept(int(row["number"]), row["name"], own))
    if not concepts:
        raise ValueError(f"{folder / 'label.csv'} has no label of {', '.join(wanted)}")
    return _Index(folder, tuple(images), tuple(images.values()), tuple(concepts), frozenset(numbers))


def _read_rows(path: Path, *needed: str) -> list[tuple[int, dict[str, str]]]:
    """Lines and cells by column of a table with commas (cells hold semicolons). Raises ValueError without a column."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; Broden has index.csv, label.csv and images/ in one folder")
    reader = csv.DictReader(io.StringIO(read_text(path).text, newline=""), restkey="", restval=None, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error} (is a quote left open?)") from None
    found = []
    for line, row in rows:
        if "" in row or None in row.values():
            raise ValueError(f"{path}, line {line}: another number of cells than the header has")
        found.append((line, {key.strip(): cell.strip() for key, cell in row.items()}))
    head = [name.strip() for name in reader.fieldnames or ()]
    if (twice := find_repeated(head)) is not None:
        raise ValueError(f"{path} has the column {twice!r} twice")
    missing = [name for name in needed if not found or name not in found[0][1]]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}, or no rows")
    for line, row in found:
        if blank := [name for name in needed if name != "category" and not row[name]]:
            raise ValueError(f"{path}, line {line}: the cell of {blank[0]} is empty")
    return found


def _read_mask(path: Path) -> Tensor:
    """Labels [h, w] of a PNG: R + 256 G, or the values of a grayscale one."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f'masks need Pillow ({error}); pip install "absence-plugins[report]"') from error
    try:
        with Image.open(path) as opened:
            is_plain = opened.mode in ("L", "I", "I;16")
            pixels = np.asarray(opened if is_plain else opened.convert("RGB")).astype(np.int64)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"the mask {path} cannot be read ({error})") from None
    return torch.from_numpy(pixels if is_plain else pixels[..., 0] + 256 * pixels[..., 1])
