"""Rows of a table as people save them: a header, numbers with points or commas, categories, cells that are empty."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absence_plugins.core.names import spell_name
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.data.folders import list_names
from absence_plugins.data.tables import read_table

MISSING = ("", "?", "na", "n/a", "nan", "null")  # cells that hold nothing
POINT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")
SHOWN = 6  # columns in a sentence


@dataclass(frozen=True)
class Rows:
    """The rows of a file with a header, as text.

    Attributes:
        path: of the file.
        names: of the columns, distinct.
        cells: one tuple per row.
        lines: the line of the file that each row begins on.
        numbers: of each row, counted from 0 in the file behind its header.
        notes: what was inferred.
        unit: "line", or "item" of JSON.
    """

    path: Path
    names: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.cells)

    def column(self, name: str) -> list[str]:
        """The cells of a column, from the top."""
        place = self.names.index(name)
        return [row[place] for row in self.cells]

    def place(self, row: int, name: str) -> str:
        """Where a cell stands, for messages: "rows.csv, row 3 (line 5), column 'age'"."""
        return (
            f"{spell_name(self.path)}, row {self.numbers[row]} ({self.unit} {self.lines[row]}), column "
            f"{spell_name(name)!r}"
        )

    def take(self, rows: Sequence[int]) -> Rows:
        """Some of the rows, by their places."""
        cells, lines, numbers = (tuple(own[row] for row in rows) for own in (self.cells, self.lines, self.numbers))
        return Rows(self.path, self.names, cells, lines, numbers, self.notes, self.unit)  # type: ignore[arg-type]


def read_rows(path: Path) -> Rows:
    r"""Read a table with a header: CSV (commas, semicolons, tabs), TSV or JSON, in any usual encoding.

    A first column without a name that counts the rows, as pandas writes it, is left out.

    Raises:
        ValueError: no table, no header, an empty or repeated name, no rows, a row of another width, with its line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> _ = path.write_text("\ufeffage;color\n3,5;red\n")
    >>> read_rows(path).cells
    (('3,5', 'red'),)
    """
    table = read_table(path)
    shown = spell_name(path)
    if table.pairs is not None:
        raise ValueError(f"{shown} is one JSON object; write a list of objects, one per row")
    head, body = list(table.rows[0]), list(table.rows[1:])
    if not table.named and _is_data(head, body):
        raise ValueError(
            f"{shown} has no header: its first line, {', '.join(map(spell_name, head[:SHOWN]))}, is a row of numbers; "
            "write "
            "the columns' names in the first line"
        )
    if not body:
        raise ValueError(f"{shown} has no rows behind its header")
    for number, row in enumerate(body, 1):
        if len(row) != len(head):
            raise ValueError(f"{table.place(number)}: {len(row)} cells under a header of {len(head)}")
    notes = list(table.notes)
    if head[0] == "" and _counts(row[0] for row in body):
        head, body = head[1:], [row[1:] for row in body]
        notes.append(f"{shown}: the first column, which has no name and counts the rows, was left out")
    _check_names(shown, head)
    return Rows(
        Path(path), tuple(head), tuple(body), tuple(table.lines[1:]), tuple(range(len(body))), tuple(notes), table.unit
    )


def _is_data(head: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Whether a first line is a row of numbers: wherever the column below it holds numbers, it does too."""
    rows = [row for row in body if len(row) == len(head)] or [head]
    numeric = [place for place in range(len(head)) if all(is_number(row[place]) for row in rows)]
    return bool(numeric) and all(is_number(head[place]) for place in numeric)


def _counts(cells: object) -> bool:
    found = list(cells)  # type: ignore[call-overload]
    return all(cell.isascii() and cell.isdigit() for cell in found) and len(set(found)) == len(found)


def _check_names(shown: str, head: Sequence[str]) -> None:
    if "" in head:
        raise ValueError(f"{shown}: column {head.index('') + 1} has no name; write one in the first line")
    doubled = [name for place, name in enumerate(head) if name in head[:place]]
    if doubled:
        raise ValueError(f"{shown}: two columns are called {spell_name(doubled[0])!r}; give every column its own name")


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number, with a decimal point or a decimal comma.

    >>> [is_number(cell) for cell in ("1", "-.5e3", "1,5", "1_000", "inf", "1e999")]
    [True, True, True, False, False, False]
    """
    return bool(POINT.fullmatch(cell) or COMMA.fullmatch(cell)) and math.isfinite(float(cell.replace(",", ".")))


def is_missing(cell: str) -> bool:
    """Whether a cell holds nothing.

    >>> is_missing("NaN"), is_missing("none")
    (True, False)
    """
    return cell.lower() in MISSING


def is_numeric(files: Sequence[Rows], name: str) -> bool:
    """Whether a column holds numbers in all files, or text in all; missing cells are neither.

    Raises:
        ValueError: it holds both, with the cell; it holds nothing.
    """
    filled = [(rows, row, cell) for rows in files for row, cell in enumerate(rows.column(name)) if not is_missing(cell)]
    if not filled:
        raise ValueError(f"column {spell_name(name)!r} of {spell_name(files[0].path)} is empty; leave it out")
    numeric = [is_number(cell) for _, _, cell in filled]
    if any(numeric) and not all(numeric):
        few = numeric.count(False) <= numeric.count(True)  # the rarer of both is shown
        rows, row, cell = next(one for one, number in zip(filled, numeric, strict=True) if number != few)
        other = "numbers" if few else "text"
        raise ValueError(
            f"{rows.place(row, name)}: {spell_name(cell)!r} stands among {other}; correct the cell, or say "
            "--categories "
            f"{spell_name(name)} if its values are categories"
        )
    return numeric[0]


def read_number_cells(rows: Rows, name: str) -> list[float | None]:
    """A column as numbers, None where a cell is missing.

    Raises:
        ValueError: a cell that is no number, decimal points and commas in one column, commas that may divide thousands.
    """
    cells = rows.column(name)
    commas = [row for row, cell in enumerate(cells) if "," in cell and not is_missing(cell)]
    points = [row for row, cell in enumerate(cells) if "." in cell]
    for row, cell in enumerate(cells):
        if not is_missing(cell) and not is_number(cell) and not THOUSANDS.fullmatch(cell):
            raise ValueError(f"{rows.place(row, name)}: {spell_name(cell)!r} is no number")
    if commas and points:
        one, other = commas[0], points[0]
        raise ValueError(
            f"{rows.place(one, name)}: {cells[one]!r} has a comma and {cells[other]!r} of row {rows.numbers[other]} a "
            "point; write all numbers with a decimal point"
        )
    if commas and all(THOUSANDS.fullmatch(cells[row]) for row in commas):
        row = commas[0]
        plain = cells[row].replace(",", "")
        raise ValueError(
            f"{rows.place(row, name)}: {cells[row]!r} may be {plain} or {cells[row].replace(',', '.')}; write numbers "
            "without commas"
        )
    for row in commas:
        if not COMMA.fullmatch(cells[row]):
            raise ValueError(f"{rows.place(row, name)}: {cells[row]!r} is no number; write it without commas")
    return [None if is_missing(cell) else float(cell.replace(",", ".")) for cell in cells]


def require_columns(rows: Rows, names: Sequence[str], why: str) -> None:
    """Raise ValueError unless a file has all of these columns, naming those that it lacks.

    why: whose columns they are, as "columns of rows.csv".
    """
    lacking = [name for name in names if name not in rows.names]
    if lacking:
        near = f"; it has: {describe_nearest(lacking[0], rows.names)}" if len(lacking) == 1 else ""
        raise ValueError(
            f"{spell_name(rows.path)} lacks {len(lacking)} of the {why}: "
            f"{list_names([spell_name(name) for name in lacking], SHOWN)}{near}"
        )
