"""Delimited text as rows of cells: which delimiter it is, Excel's first line, delimiters at the end of lines."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from absence_plugins.core.table import restore_cell
from absence_plugins.data.encodings import REMEDY

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def split_cells(path: Path, text: str) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...]]:
    r"""Rows of cells and the lines they begin on, with the delimiter that all lines have; blank lines are left out.

    Cells that :func:`~absence_plugins.core.table.guard_cell` made text, so that no spreadsheet computes them, are as
    before.

    Raises:
        ValueError: several delimiters would do, or a quote is left open, with the line.

    >>> split_cells(Path("a.csv"), "class;big;\n\ncat;0,5;\n")
    ((('class', 'big'), ('cat', '0,5')), (1, 3))
    """
    said = re.match(r'\s*"?sep=(.)"?[ ]*\n', text, re.IGNORECASE)
    if said:
        skipped = text[: said.end()].count("\n")
        return _without_margin(*_rows(path, text[said.end() :], said.group(1), skipped))
    fitting = {}
    for delimiter in DELIMITERS:
        if delimiter not in text:
            continue
        try:
            rows, lines = _rows(path, text, delimiter)
        except ValueError:
            continue
        least = min(len(row) for row in rows)
        fitting[delimiter] = (least > 1, len({len(row) for row in rows}) == 1, -rows.count([]), (rows, lines))
    if not fitting:
        return _without_margin(*_rows(path, text, ","))
    best = max(score[:2] for score in fitting.values())
    chosen = [delimiter for delimiter, score in fitting.items() if score[:2] == best]
    if path.suffix.lower() in (".tsv", ".tab") and "\t" in chosen:
        chosen = ["\t"]
    if len(chosen) > 1 and "," in chosen and not re.search(r"(?<!\d),|,(?!\d)", text):
        chosen.remove(",")  # decimal commas
    if len(chosen) > 1 and best[0]:
        spelled = " or ".join(DELIMITERS[one] for one in chosen)
        raise ValueError(
            f"{path}: the columns may be divided by {spelled}; put quotes around cells that hold one of them, or write "
            f"sep={chosen[0]} as the first line"
        )
    return _without_margin(*fitting[chosen[0]][3])


def _rows(path: Path, text: str, delimiter: str, skipped: int = 0) -> tuple[list[list[str]], list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows, lines, line = [], [], 1 + skipped
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([restore_cell(cell.strip()) for cell in row])
                lines.append(line)
            line = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error} (is a quote left open?); {REMEDY}") from None
    if not rows:
        raise ValueError(f"table {path} is empty")
    return rows, lines


def _without_margin(rows: list[list[str]], lines: list[int]) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...]]:
    """Without the empty columns that delimiters at the end of lines make."""
    width = max((place + 1 for row in rows[:1] for place, cell in enumerate(row) if cell), default=0)
    full = max(len(row) for row in rows)
    if any(cell for row in rows for cell in row[width:]) and len(rows[0]) == full:
        width = full  # a column without a name
    kept = [tuple(row[:width] if not any(row[width:]) else row) for row in rows]
    return tuple(kept), tuple(lines)
