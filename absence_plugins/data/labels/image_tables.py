"""Labels of images from tables: ``file,a,b,c`` as people and ISIC and CheXpert write it, CelebA's list, CUB's lists."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absence_plugins.core import AbsenceWarning
from absence_plugins.data.encodings import read_text
from absence_plugins.data.labels.image_labels import ImageLabels, check_distinct, find_repeated, stack_truths
from absence_plugins.data.tables import Columns, decide_minus, read_columns, read_truth

NOT_VISIBLE, CERTAIN = 1, 4  # of CUB's certainties; 2: guessing, 3: probably
ANSWERS = [(value, str(certainty)) for value in "01" for certainty in range(NOT_VISIBLE, CERTAIN + 1)]
SHOWN = 3


def read_image_table(
    path: Path | str, columns: Sequence[str] | None = None, *, threshold: float | None = None, minus: str = "auto"
) -> ImageLabels:
    r"""A table with a row per image: its file, and a column per concept with 0 or 1.

    Args:
        path: CSV, TSV or JSON, as :func:`~absence_plugins.data.tables.read_table` reads it.
        columns: those that are concepts; None: all that hold truths. Others (age, sex, ...) are left out with a warning.
        threshold: of tables with probabilities: present if above. None: a fraction is rejected.
        minus: what -1 means: "absent" (CelebA), "unknown" (CheXpert), or "auto", which infers it with a warning
            (:func:`~absence_plugins.data.tables.decide_minus`): absent where all cells are 1 or -1, else unknown.

    Raises:
        ValueError: no table, a column that does not exist, a cell that is no truth, with its line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = path.write_text("file,dog,leash\n1.jpg,1,0\n2.jpg,0,\n")
    >>> found = read_image_table(path)
    >>> found.images, found.names, found.concepts.tolist()
    (('1.jpg', '2.jpg'), ('dog', 'leash'), [[1.0, 0.0], [0.0, nan]])
    """
    if minus not in ("auto", "absent", "unknown"):
        raise ValueError(f"minus={minus!r} must be one of auto, absent, unknown")
    table = read_columns(path, "file", what="concept")
    chosen = _choose(table, columns)
    cells = {key: [row[column] for column in chosen] for key, row in table.cells.items()}
    is_absent, noted = decide_minus((cell for row in cells.values() for cell in row), table.table, minus)

    def truth(key: str, place: int) -> bool | None:
        cell = cells[key][place]
        number = _number(cell)
        if threshold is not None and isinstance(number, float) and number != -1:
            return number > threshold
        where = partial(table.where, key, chosen[place])
        if isinstance(number, float) and 0 < number < 1:
            raise ValueError(f"{where()} is {cell}, a probability; pass threshold=, such as 0.5")
        return read_truth(cell, where, is_absent=is_absent)

    rows = [[truth(key, place) for place in range(len(chosen))] for key in cells]
    noted.warn()
    return ImageLabels(tuple(cells), tuple(table.names[column] for column in chosen), stack_truths(rows))


def _choose(table: Columns, columns: Sequence[str] | None) -> list[int]:
    """Which columns are concepts."""
    if columns is not None:
        missing = [name for name in columns if name not in table.names]
        if missing:
            raise ValueError(f"{table.table.path} has no column {missing[0]!r}; there are: {', '.join(table.names)}")
        return [table.names.index(name) for name in columns]
    chosen: list[int] = []
    others: list[int] = []
    for column in range(len(table.names)):
        cells = [row[column] for row in table.cells.values()]
        is_concept = any(_is_truth(cell) for cell in cells) or not any(cells)
        (chosen if is_concept else others).append(column)
    if not chosen:
        raise ValueError(f"{table.table.path}: no column holds 0 and 1, true and false or yes and no")
    if others:
        names = ", ".join(table.names[column] for column in others[:SHOWN])
        warnings.warn(
            f"{table.table.path}: {len(others)} columns hold no truths and were left out: {names}",
            AbsenceWarning,
            stacklevel=3,
        )
    return chosen


def _is_truth(cell: str) -> bool:
    try:
        return isinstance(_number(cell), float) or read_truth(cell, str) is not None
    except ValueError:
        return False


def _number(cell: str) -> float | str:
    """-1, 0, 1 or a fraction as a number; other cells as they are."""
    if not re.fullmatch(r"-1(?:[.,]0+)?|[01](?:[.,]0+)?|0?[.,]\d+", cell):
        return cell
    return float(cell.replace(",", "."))


def read_celeba(path: Path | str) -> ImageLabels:
    r"""CelebA's ``list_attr_celeba.txt``: the number of images, the names of the attributes, then a file and 1 or -1 each.

    Raises ValueError for a line of another length or a value other than 1 and -1, with the line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "list_attr_celeba.txt"
    >>> _ = path.write_text("1\nBald Hat\n000001.jpg -1 1\n")
    >>> read_celeba(path).to_dict()
    {'images': ['000001.jpg'], 'names': ['Bald', 'Hat'], 'concepts': [[0, 1]]}
    """
    lines = [line.split() for line in read_text(path).text.split("\n")]
    if not lines[0] or len(lines[0]) != 1 or not lines[0][0].isdecimal() or len(lines) < 3:
        raise ValueError(f"{path} does not begin with the number of images, as list_attr_celeba.txt does")
    names = lines[1]
    if (twice := find_repeated(names)) is not None:
        raise ValueError(f"{path}, line 2: the attribute {twice!r} comes twice")
    rows: dict[str, list[bool | None]] = {}
    for number, line in enumerate(lines[2:], 3):
        if not line:
            continue
        if len(line) != len(names) + 1:
            raise ValueError(f"{path}, line {number}: {len(line) - 1} values for {len(names)} attributes")
        wrong = [value for value in line[1:] if value not in ("1", "-1")]
        if wrong or line[0] in rows:
            what = f"{wrong[0]!r} is neither 1 nor -1" if wrong else f"{line[0]} comes a second time"
            raise ValueError(f"{path}, line {number}: {what}")
        rows[line[0]] = [value == "1" for value in line[1:]]
    if len(rows) != int(lines[0][0]):
        raise ValueError(f"{path} has labels of {len(rows)} images and says {lines[0][0]}; is it half a file?")
    return ImageLabels(tuple(rows), tuple(names), stack_truths(list(rows.values())))


def read_cub(folder: Path | str, least_certainty: int = NOT_VISIBLE + 1) -> ImageLabels:
    r"""CUB-200-2011: ``images.txt``, ``attributes/attributes.txt`` and ``attributes/image_attribute_labels.txt``.

    Args:
        folder: that holds ``images.txt``.
        least_certainty: an attribute that the annotator was less certain of is unknown: 1 "not visible", 2 "guessing",
            3 "probably", 4 "definitely".

    Raises ValueError for a file that is missing, a line that is not understood, a number or an image that comes twice,
    two answers of one attribute and image.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "attributes").mkdir()
    >>> lines = {"images": "1 001.Crow/a.jpg", "attributes/attributes": "1 hooked\n2 black"}
    >>> lines["attributes/image_attribute_labels"] = "1 1 1 4 2.5\n1 2 0 1 0.5"
    >>> for name, text in lines.items():
    ...     _ = (folder / f"{name}.txt").write_text(text)
    >>> read_cub(folder).to_dict()["concepts"]  # "black" was not visible
    [[1, None]]
    """
    folder = Path(folder)
    images = _pairs(folder / "images.txt")
    listed = folder / "attributes" / "attributes.txt"
    attributes = _pairs(listed if listed.is_file() else folder.parent / "attributes.txt")
    path = folder / "attributes" / "image_attribute_labels.txt"
    row, column = ({key: place for place, key in enumerate(keys)} for keys in (images, attributes))
    answers = [bytearray(len(column)) for _ in row]  # 0: none; else its place in ANSWERS
    for number, line in enumerate(read_text(path).text.split("\n"), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) < 4 or cells[0] not in row or cells[1] not in column or tuple(cells[2:4]) not in ANSWERS:
            raise ValueError(
                f"{path}, line {number}: {line!r} must read image, attribute, 0 or 1, certainty ({NOT_VISIBLE} to {CERTAIN})"
            )
        image, attribute, answer = row[cells[0]], column[cells[1]], ANSWERS.index((cells[2], cells[3])) + 1
        if answers[image][attribute] not in (0, answer):
            raise ValueError(
                f"{path}, line {number}: attribute {cells[1]} of image {cells[0]} has another answer than before"
            )
        answers[image][attribute] = answer
    known = [None, *(value == "1" if int(certainty) >= least_certainty else None for value, certainty in ANSWERS)]
    names = check_distinct(list(attributes.values()), list(attributes))
    return ImageLabels(tuple(images.values()), names, stack_truths([[known[own] for own in one] for one in answers]))


def _pairs(path: Path) -> dict[str, str]:
    """Lines of a number and a name. Raises ValueError for another line, or a number that comes twice."""
    found: dict[str, str] = {}
    for number, line in enumerate(read_text(path).text.split("\n"), 1):
        key, _, name = line.strip().partition(" ")
        if not key:
            continue
        if not name:
            raise ValueError(f"{path}, line {number}: {line!r} must read a number and a name")
        if found.setdefault(key, name.strip()) != name.strip():
            raise ValueError(f"{path}, line {number}: the number {key} comes a second time, with another name")
    return found
