"""Labels of images from tables: ``file,a,b,c`` as people and ISIC and CheXpert write it, CelebA's list, CUB's lists."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Sequence
from functools import lru_cache, partial
from pathlib import Path

import torch

from absence_plugins.core import AbsenceWarning
from absence_plugins.data.encodings import read_text
from absence_plugins.data.folders import list_names
from absence_plugins.data.labels.image_labels import ImageLabels, check_distinct, find_repeated, stack_truths
from absence_plugins.data.tables import FALSE, MINUS, TRUE, UNKNOWN, Columns, decide_minus, read_columns, read_truth

NOT_VISIBLE, CERTAIN = 1, 4  # of CUB's certainties; 2: guessing, 3: probably
ANSWERS = [(value, str(certainty)) for value in "01" for certainty in range(NOT_VISIBLE, CERTAIN + 1)]
MEANINGS = ("auto", "absent", "unknown")  # of -1
REMEDY = (
    'pass threshold=, such as 0.5, or take read_score_table (on the command line --labels-threshold 0.5, or "auto", which '
    "chooses one per concept)"
)
SHOWN = 3
NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)


def read_image_table(
    path: Path | str, columns: Sequence[str] | None = None, *, threshold: float | None = None, minus: str = "auto"
) -> ImageLabels:
    r"""A table with a row per image: its file, and a column per concept with 0 or 1.

    Args:
        path: CSV, TSV or JSON, as :func:`~absence_plugins.data.tables.read_table` reads it.
        columns: those that are concepts; None: all that hold nothing but truths (and unknown cells). Others (age, sex,
            ...) are left out with a warning, which names the first other cell of each.
        threshold: of tables with probabilities, from 0 to below 1: present if above. Columns of scores beyond 0 to 1
            (cosines, logits) are concepts then, too, with a warning, and it may be any number. None: a fraction is
            rejected.
        minus: what -1 means: "absent" (CelebA), "unknown" (CheXpert), or "auto", which infers it with a warning
            (:func:`~absence_plugins.data.tables.decide_minus`): absent where no cell of the table's concepts is 0,
            whichever of them are asked for, else unknown.

    Raises:
        ValueError: no table, a column that does not exist or is named twice, a cell that is no truth, with its line; a
            threshold with which everything or nothing would be present.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = path.write_text("file,dog,leash\n1.jpg,1,0\n2.jpg,0,\n")
    >>> found = read_image_table(path)
    >>> found.images, found.names, found.concepts.tolist()
    (('1.jpg', '2.jpg'), ('dog', 'leash'), [[1.0, 0.0], [0.0, nan]])
    """
    if minus not in MEANINGS:
        raise ValueError(f"minus={minus!r} must be one of {', '.join(MEANINGS)}")
    table = read_columns(path, "file", what="concept")
    cells = {key: [_spell_number(cell) for cell in row] for key, row in table.cells.items()}
    columns_of = list(zip(*cells.values(), strict=True))
    scored = [column for column, own in enumerate(columns_of) if _holds_scores(own)]
    _check_threshold(threshold, bool(scored), table)
    above = [] if threshold is None else scored
    found = [column for column, own in enumerate(columns_of) if column in above or _holds_truths(own)]
    chosen = _choose(table, found, columns, columns_of, scored)
    deciding = (cell for column in {*found, *chosen} - {*above} for cell in columns_of[column])
    is_absent, noted = decide_minus(
        deciding, table.table, minus, remedy="pass minus={0!r} (on the command line --labels-minus {0})"
    )

    def truth(key: str, column: int) -> bool | None:
        cell, where = cells[key][column], partial(table.where, key, column)
        if column in scored or (share := _share(cell)) is not None:
            score = _read_score(cell) if column in scored else share
            if score is None or math.isnan(score):
                return None
            if threshold is None:
                raise ValueError(f"{where()} is {cell}, a probability or score; {REMEDY}")
            return score > threshold
        if threshold is not None and NUMBER.fullmatch(cell) and cell not in ("1", "0", "-1"):
            raise ValueError(f"{where()} is {cell}, no probability from 0 to 1")
        return read_truth(cell, where, is_absent=is_absent)

    rows = [[truth(key, column) for column in chosen] for key in cells]
    noted.warn()
    if threshold is not None and (beyond := [table.names[column] for column in chosen if column in above]):
        said = f"scores beyond 0 to 1, present above {threshold:g}: {list_names(beyond)}"
        said = f"{table.table.path}: {_count(len(beyond), 'holds', 'hold')} {said}"
        warnings.warn(said, AbsenceWarning, stacklevel=2)
    return ImageLabels(tuple(cells), tuple(table.names[column] for column in chosen), stack_truths(rows))


def _check_threshold(threshold: float | None, has_scores: bool, table: Columns) -> None:
    """Raises ValueError for one with which everything or nothing would be present."""
    if threshold is not None and not (0 <= threshold < 1 or (has_scores and math.isfinite(threshold))):
        why = "" if has_scores else f", as no column of {table.table.path} holds scores beyond 0 to 1"
        raise ValueError(f"threshold={threshold!r} must be at least 0 and below 1, such as 0.5{why}")


def read_score_table(path: Path | str, columns: Sequence[str] | None = None) -> ImageLabels:
    r"""A table with a row per image: its file, and a column per concept with a score, such as a probability or a
    cosine.

    Args:
        path: as in :func:`read_image_table`.
        columns: those that are concepts; None: all that hold nothing but numbers and unknown cells.

    Returns:
        Images, names, and scores [N, K] in place of labels, NaN where unknown; for ``ConceptScores``.

    Raises ValueError for no table, a column that does not exist or is named twice, none with numbers, an infinite
    score.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
    >>> _ = path.write_text("file,dog,note\n1.jpg,0.31,x\n2.jpg,,y\n")
    >>> read_score_table(path).to_dict()
    {'images': ['1.jpg', '2.jpg'], 'names': ['dog'], 'concepts': [[0.31], [None]]}
    """
    table = read_columns(path, "file", what="concept")
    values = [[_read_score(cell) for cell in row] for row in table.cells.values()]
    found = [k for k, own in enumerate(zip(*values, strict=True)) if None not in own and any(v == v for v in own)]
    if columns is not None:
        missing = [name for name in columns if name not in [table.names[k] for k in found]]
        if missing:
            raise ValueError(
                f"{table.table.path} has no column of numbers {missing[0]!r}; there are: {', '.join(table.names)}"
            )
        if (twice := find_repeated(columns)) is not None:
            raise ValueError(f"the column {twice!r} is named twice")
        found = [table.names.index(name) for name in columns]
    for key, row in zip(table.cells, values, strict=True):
        for column in found:
            if math.isinf(row[column] or 0.0):
                raise ValueError(
                    f"{table.where(key, column)} is {table.cells[key][column]}; leave the cell blank if unknown"
                )
    if not found:
        raise ValueError(f"{table.table.path}: no column holds nothing but numbers")
    table.table.warn()
    others = [name for k, name in enumerate(table.names) if k not in found]
    if columns is None and others:
        was = "was" if len(others) == 1 else "were"
        said = (
            f"{table.table.path}: {_count(len(others), 'holds', 'hold')} other cells than numbers and {was} left out: "
        )
        warnings.warn(said + list_names(others), AbsenceWarning, stacklevel=2)
    scores = torch.tensor([[row[k] for k in found] for row in values], dtype=torch.float64)
    return ImageLabels(tuple(table.cells), tuple(table.names[k] for k in found), scores)


def _read_score(cell: str) -> float | None:
    """A number, NaN for a cell that is unknown, None for another one."""
    if NUMBER.fullmatch(cell) or INFINITE.fullmatch(cell):
        return float(cell.replace(",", "."))
    return math.nan if cell.casefold() in UNKNOWN else None


def _choose(
    table: Columns,
    found: Sequence[int],
    columns: Sequence[str] | None,
    cells: Sequence[Sequence[str]],
    scored: Sequence[int],
) -> list[int]:
    """Which columns are concepts: those named, or found. cells: of every column; scored: columns of scores."""
    if columns is not None:
        missing = [name for name in columns if name not in table.names]
        if missing:
            raise ValueError(f"{table.table.path} has no column {missing[0]!r}; there are: {', '.join(table.names)}")
        if (twice := find_repeated(columns)) is not None:
            raise ValueError(f"the column {twice!r} is named twice")
        return [table.names.index(name) for name in columns]
    others = [column for column in range(len(table.names)) if column not in set(found)]
    mixed = [column for column in others if any(map(_is_truth, set(cells[column])))]
    has_any = {*found} & {*scored} or any(map(_is_truth, {cell for column in found for cell in cells[column]}))
    if not has_any and (mixed or not found):
        if scored:
            key, cell = next(
                (key, cell) for key, cell in zip(table.cells, cells[scored[0]], strict=True) if _is_fraction(cell)
            )
            raise ValueError(f"{table.where(key, scored[0])} is {cell}, a probability or score; {REMEDY}")
        for key, cell in zip(table.cells, cells[mixed[0]] if mixed else (), strict=False):
            read_truth("1" if _is_truth(cell) else cell, partial(table.where, key, mixed[0]))  # raises
        raise ValueError(f"{table.table.path}: no column holds 0 and 1, true and false or yes and no")
    _warn_of_others(table, [column for column in others if column not in set(mixed)], mixed, {*others} & {*scored})
    return list(found)


def _warn_of_others(table: Columns, without: Sequence[int], mixed: Sequence[int], scored: Collection[int]) -> None:
    """Of columns without truths, and with truths and other cells; scored: those of them that hold scores."""
    told = []
    for columns, what in ((without, "no truths"), (mixed, "other cells than truths")):
        shown = []
        for column in columns[:SHOWN]:
            key, cell = next(
                (key, row[column]) for key, row in table.cells.items() if row[column] and not _is_allowed(row[column])
            )
            shown.append(
                f"{table.names[column]} ({cell!r} in {table.table.unit} {table.table.lines[table.row_of[key]]})"
            )
        if columns:
            more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
            was = "was" if len(columns) == 1 else "were"
            told.append(f"{_count(len(columns), 'holds', 'hold')} {what} and {was} left out: {', '.join(shown)}{more}")
    if mixed:
        told[-1] += "; correct these cells if a column is a concept"
    if scored:
        told[-1] += "; if columns hold scores, pass threshold= (on the command line --labels-threshold)"
    for text in told:
        warnings.warn(f"{table.table.path}: {text}", AbsenceWarning, stacklevel=4)


def _count(number: int, one: str, several: str) -> str:
    """As "1 column holds" and "2 columns hold"."""
    return f"1 column {one}" if number == 1 else f"{number} columns {several}"


def _holds_scores(cells: Sequence[str]) -> bool:
    """Nothing but numbers and unknown cells, of them fractions, and some beyond 0 to 1: no counts, no probabilities."""
    numbers = [float(cell.replace(",", ".")) for cell in set(cells) if NUMBER.fullmatch(cell)]
    others = {cell for cell in cells if not NUMBER.fullmatch(cell)}
    is_beyond = any(not 0 <= number <= 1 and number != -1 for number in numbers)
    return (
        is_beyond
        and any(not number.is_integer() for number in numbers)
        and all(c.casefold() in UNKNOWN for c in others)
    )


def _is_fraction(cell: str) -> bool:
    return bool(NUMBER.fullmatch(cell)) and not float(cell.replace(",", ".")).is_integer()


def _holds_truths(cells: Sequence[str]) -> bool:
    """Nothing but truths and unknown cells, and at least one truth unless all cells are blank."""
    different = set(cells)
    return all(map(_is_allowed, different)) and (any(map(_is_truth, different)) or not any(different))


def _is_allowed(cell: str) -> bool:
    return cell.casefold() in UNKNOWN or _is_truth(_spell_number(cell))


def _is_truth(cell: str) -> bool:
    return cell.casefold() in (*TRUE, *FALSE, *MINUS) or _share(cell) is not None


@lru_cache(maxsize=4096)
def _share(cell: str) -> float | None:
    """A number between 0 and 1; None of all other cells."""
    number = float(cell.replace(",", ".")) if NUMBER.fullmatch(cell) else 0.0
    return number if 0 < number < 1 else None


@lru_cache(maxsize=4096)
def _spell_number(cell: str) -> str:
    """1, 0 and -1 plainly, however they are written (1.00, 0e+00); other cells as they are."""
    number = float(cell.replace(",", ".")) if NUMBER.fullmatch(cell) else None
    return str(int(number)) if number in (1, 0, -1) and number is not None else cell


def read_celeba(path: Path | str) -> ImageLabels:
    r"""CelebA's ``list_attr_celeba.txt``: the number of images, the names of the attributes, then a file and 1 or -1
    each.

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
