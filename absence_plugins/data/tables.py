"""Small tables as people have them: CSV, TSV and JSON from any spreadsheet on any system, with or without a header.

Nothing is lost silently: what is not understood is refused with file, line and cell, what was inferred is warned of.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from absence_plugins.core import AbsenceWarning
from absence_plugins.data.delimiters import split_cells
from absence_plugins.data.encodings import read_text
from absence_plugins.data.json_tables import is_json, read_json
from absence_plugins.data.same_names import normalize_name

TRUE = ("1", "true", "yes", "1.0", "1,0", "wahr", "ja", "vrai", "oui", "verdadero", "sí", "vero")
FALSE = ("0", "false", "no", "0.0", "0,0", "falsch", "nein", "faux", "non", "falso")  # Excel writes its own language
MINUS = ("-1", "-1.0", "-1,0")  # absent or unknown: decide_minus
UNKNOWN = ("", *MINUS, "?", "nan", "na", "n/a", "none", "null", "unknown")
KEY_WORDS = {
    "class": ("class", "classes", "class name", "name", "label", "category", "concept", "folder", "species", "klasse", ""),
    "child": ("child", "children", "hyponym", "subclass", "class", "concept", "name", "label", "from", "source"),
    "parent": ("parent", "parents", "hypernym", "superclass", "super", "is a", "isa", "category", "to", "target", "of"),
    "file": ("file", "files", "file name", "filename", "image", "images", "image id", "image name", "path", "picture",
             "photo", "id", "img", "name", ""),
    "group": ("group", "groups", "group id", "cluster", "burst", "patient", "patient id", "subject", "original", "source",
              "video", "series", "photograph"),
}  # fmt: skip
WEAK_WORDS = ("id", "name", "")  # of files: another column may name them better


@dataclass(frozen=True)
class Table:
    """The rows of a file as text.

    Attributes:
        path: of the file.
        rows: cells without blanks around them; blank rows are left out. With a header where it has one.
        lines: the line (of JSON the item) that each row begins on.
        named: whether the first row names the columns for certain (keys of JSON objects).
        pairs: of a JSON object child -> parent(s) the pairs; else None.
        notes: what was inferred.
        unit: "line", or "item" of JSON.
    """

    path: Path
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    named: bool = False
    pairs: tuple[tuple[str, str], ...] | None = None
    notes: tuple[str, ...] = ()
    unit: str = "line"

    def place(self, row: int) -> str:
        """Where a row stands, for messages: "parents.csv, line 3"."""
        return f"{self.path}, {self.unit} {self.lines[row]}"

    def with_note(self, note: str) -> Table:
        """The same with one more thing to warn of."""
        return replace(self, notes=(*self.notes, note))

    def warn(self) -> None:
        """One :class:`AbsenceWarning` per note."""
        for note in self.notes:
            warnings.warn(note, AbsenceWarning, stacklevel=3)


def read_table(path: Path | str, known: Iterable[str] = ()) -> Table:
    r"""Read CSV, TSV, semicolon CSV, JSON or JSON lines; which of them it is and its encoding are told by the content.

    Line ends of any system, quotes, delimiters at the end of lines, blank lines, Excel's first line ``sep=;``, byte
    order marks anywhere are understood.

    Args:
        path: of the file.
        known: names that it may contain, which help to tell the encoding.

    Raises:
        ValueError: no table, with the line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = path.write_bytes("sep=;\r\nclass;big;\r\n'T';0;\r\n\r\n".encode("utf-16"))
    >>> read_table(path).rows
    (('class', 'big'), ("'T'", '0'))
    """
    path = Path(path)
    read = read_text(path, known)
    notes = (read.note,) if read.note else ()
    if is_json(path, read.text):
        found = read_json(path, read.text)
        lines = found.lines or tuple(range(1, len(found.rows) + 1))
        return Table(path, found.rows, lines, found.named, found.pairs, notes, "item")
    return Table(path, *split_cells(path, read.text), notes=notes)


def read_pairs(path: Path | str, first: str, second: str, known: Iterable[str] = ()) -> list[tuple[str, str]]:
    r"""Read a table of two columns, such as child and parent; with or without a header, columns in either order.

    The first line is a header if its words are known ones and neither is one of ``known`` or in the data. With a header
    further columns are passed over. A pair that comes twice counts once.

    Args:
        path: of the file; or of JSON: a list of pairs or objects, or an object child -> parent or parents.
        first: kind of the first column, a key of ``KEY_WORDS``: "child" or "file".
        second: of the other: "parent" or "group".
        known: names that the first column may have.

    Raises:
        ValueError: no table, a row that lacks a cell or has more than two, with its line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "parents.csv"
    >>> _ = path.write_text("cat,pet\ntruck,vehicle\n")
    >>> read_pairs(path, "child", "parent")
    [('cat', 'pet'), ('truck', 'vehicle')]
    """
    known = list(known)
    table = read_table(path, known)
    if table.pairs is not None:
        table.warn()
        return list(dict.fromkeys(table.pairs))
    columns = _pair_columns(table, first, second, {normalize_name(name) for name in known})
    start = 0 if columns is None else 1
    one, other = columns or (0, 1)
    pairs: dict[tuple[str, str], int] = {}
    for number in range(start, len(table.rows)):
        row = table.rows[number]
        cells = row if columns is None else [row[place] if place < len(row) else "" for place in (one, other)]
        if len(cells) != 2 or not all(cells):
            raise ValueError(f"{table.place(number)}: {','.join(row)!r} must read {first},{second}, one pair per line")
        pairs.setdefault((cells[0], cells[1]), number)
    if not pairs:
        raise ValueError(f"table {path} has no lines behind its header; it must read {first},{second}")
    if (again := len(table.rows) - start - len(pairs)) > 0:
        table = table.with_note(f"{path}: {again} lines repeat another one and count once")
    table.warn()
    return list(pairs)


def _pair_columns(table: Table, first: str, second: str, known: set[str]) -> tuple[int, int] | None:
    """Where the two columns are, if the first row is a header; else None."""
    head = [_plain(cell) for cell in table.rows[0]]
    own, others = (
        [place for place, word in enumerate(head) if word and word in KEY_WORDS[kind]] for kind in (first, second)
    )
    found = [(one, other) for one in own for other in others if one != other]
    if not found:
        if table.named:
            raise ValueError(
                f"{table.path}: columns are {', '.join(table.rows[0])}; name two of them {first} and {second}"
            )
        return None
    if len(found) > 1:  # "class" and "category" may be either
        named = [pair for pair in found if head[pair[0]].startswith(first) or head[pair[1]].startswith(second)]
        found = named if len(named) == 1 else found[:1]
    body = {normalize_name(cell) for row in table.rows[1:] for cell in row}
    words = {normalize_name(table.rows[0][place]) for place in found[0]}
    if not table.named and words & (body | set(known)):
        if len(table.rows[0]) == 2 and words <= (body | set(known)):
            return None  # a taxonomy may hold "class,category"
        raise ValueError(
            f"{table.place(0)}: {','.join(table.rows[0])!r} may be a header or a pair; begin the file with {first},{second}"
        )
    return found[0]


@dataclass(frozen=True)
class Columns:
    """A table with a key per row.

    Attributes:
        names: of the other columns.
        cells: by key, one per column.
        table: for :meth:`Table.place` and its notes.
        row_of: by key, the row in the table.
    """

    names: tuple[str, ...]
    cells: Mapping[str, tuple[str, ...]]
    table: Table
    row_of: Mapping[str, int]

    def where(self, key: str, column: int) -> str:
        """A cell, for messages: "a.csv, line 3: furry of 'zebra'"."""
        return f"{self.table.place(self.row_of[key])}: {self.names[column]} of {key!r}"


def read_columns(path: Path | str, key: str, known: Sequence[str] = (), *, what: str = "column") -> Columns:
    r"""Read a table that has a row per class or file and a named column per attribute.

    The key is the first column, or the one in which ``known`` stands, or, with a note, the one whose header is a word
    for the key where the first column holds truths or numbers. A column of row numbers without a name (pandas writes
    it) is left out. Rows that repeat another one count once.

    Args:
        path: of the file.
        key: kind of the first column, a key of ``KEY_WORDS``: "class" or "file".
        known: keys to expect.
        what: a column holds, for messages.

    Raises:
        ValueError: no table, no header, a name that is empty or repeated, a row of another width, two rows of one key
            that differ.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.tsv"
    >>> _ = path.write_text("class\tfurry\ncat\t1\n")
    >>> read_columns(path, "class").cells
    {'cat': ('1',)}
    """
    table = read_table(path, known)
    if table.pairs is not None or not table.rows:
        raise ValueError(f"{path} is a JSON object of names; write a list of objects with {key} and a {what} each")
    table, place = _find_key(table, key, {normalize_name(name) for name in known}, what)
    head = table.rows[0]
    names = [cell for column, cell in enumerate(head) if column != place]
    _check_header(table, key, names, what, known)
    if len(table.rows) < 2:
        raise ValueError(f"table {path} has no lines behind its header; it must begin with {key},{what.upper()},...")
    cells: dict[str, tuple[str, ...]] = {}
    row_of: dict[str, int] = {}
    again = 0
    for number, row in enumerate(table.rows[1:], 1):
        if len(row) != len(head):
            raise ValueError(f"{table.place(number)}: {len(row)} cells under a header of {len(head)}")
        own, rest = row[place], row[:place] + row[place + 1 :]
        if not own:
            raise ValueError(f"{table.place(number)}: the cell of the {key} is empty")
        if own in cells:
            if cells[own] != rest:
                raise ValueError(
                    f"{table.place(number)}: {key} {own!r} comes a second time, with other cells than in "
                    f"{table.unit} {table.lines[row_of[own]]}"
                )
            again += 1
            continue
        cells[own], row_of[own] = rest, number
    if again:
        table = table.with_note(f"{path}: {again} lines repeat another one and count once")
    return Columns(tuple(names), cells, table, row_of)


def _check_header(table: Table, key: str, names: Sequence[str], what: str, known: Sequence[str]) -> None:
    """Raises ValueError where there are no columns, or one has no name or that of another or of a key."""
    seen, taken = [normalize_name(name) for name in names], {normalize_name(name) for name in known}
    bad = [name for n, name in enumerate(names) if not name or seen[n] in seen[:n] or seen[n] in taken]
    if not names or bad:
        wrong = f"the column {bad[0]!r} is empty, repeated or a {key}'s name" if bad else f"there is no {what}"
        raise ValueError(
            f"table {table.path}: {wrong}; the header must read {key},{what.upper()},... with distinct names"
        )


def _find_key(table: Table, key: str, known: set[str], what: str) -> tuple[Table, int]:
    """The table without a column of row numbers, and which column is the key. Raises ValueError without a header."""
    head, body = table.rows[0], table.rows[1:]
    numbers = [row[0] for row in body]
    is_index = _plain(head[0]) in ("", "unnamed: 0") and numbers == [str(n) for n in range(len(body))]
    if is_index and len(head) > 2 and not known & set(numbers):
        table = replace(table, rows=tuple(row[1:] for row in table.rows))
        table = table.with_note(f"{table.path}: the first column, row numbers without a name, was left out")
        return _find_key(table, key, known, what)
    table, place = (table, 0) if known else _find_named_key(table, key, what)
    if known and not known & {normalize_name(row[0]) for row in body}:
        columns = [c for c in range(1, len(head)) if known & {normalize_name(row[c]) for row in body if c < len(row)}]
        place = columns[0] if len(columns) == 1 else 0
    own = normalize_name(head[place])
    is_key = own in known and all(own != normalize_name(row[place]) for row in body if place < len(row))
    named = table.named or (_plain(head[place]) in KEY_WORDS[key] and not is_key)
    values = [cell for column, cell in enumerate(head) if column != place]
    is_data = is_key or (values and all(_is_value(cell) for cell in values))
    if not named and is_data:
        raise ValueError(
            f"{table.place(0)}: {','.join(head)!r} is no header; write {key},{what.upper()},... above it, which names "
            "the columns"
        )
    return table, place


def _find_named_key(table: Table, key: str, what: str) -> tuple[Table, int]:
    """Which column is the key by the words of the header: the first one, unless it holds truths or numbers."""
    head, body = table.rows[0], [row for row in table.rows[1:] if len(row) == len(table.rows[0])]
    words = [_plain(cell) for cell in head]
    is_key = words[0] in KEY_WORDS[key]
    if (is_key and words[0] not in WEAK_WORDS) or not body or all(map(_is_value, head)):
        return table, 0
    weak = [place for place, word in enumerate(words) if place and word and word in KEY_WORDS[key]]
    others = [place for place in weak if words[place] not in WEAK_WORDS] or (weak if not words[0] or not is_key else [])
    first = [row[0] for row in body]
    if not all(map(_is_value, first)):
        if others:
            seen, named = head[0], head[others[0]]
            table = table.with_note(
                f"{table.path}: the first column, {seen!r}, is taken for the {key} names; there is a column {named!r}, "
                "too: if it has the names, put it first"
            )
        return table, 0
    if len(others) == 1:
        named = f"{table.path}: the {key} names are those of the column {head[others[0]]!r}, not of the first"
        if head[0]:
            return table.with_note(f"{named}, {head[0]!r}"), others[0]
        table = replace(table, rows=tuple(row[1:] for row in table.rows))
        return table.with_note(f"{named}, which has no name and was left out"), others[0] - 1
    repeated = len(set(first)) < len(first) and all(cell.casefold() in (*TRUE, *FALSE, *UNKNOWN) for cell in first)
    if others or (not is_key and (repeated or any(_is_fraction(cell) for cell in first))):
        near = f"; which of {', '.join(repr(head[place]) for place in others)} has them?" if others else ""
        raise ValueError(
            f"{table.path}: the first column, {head[0]!r}, holds values such as {first[0]!r} and no {key} names{near}; "
            f"put these first: {key},{what.upper()},..."
        )
    return table, 0


def decide_minus(
    cells: Iterable[str], table: Table, minus: str = "auto", *, remedy: str = "pass minus={0!r}"
) -> tuple[bool, Table]:
    r"""Whether -1 means absent rather than unknown, and the table with a note of what was inferred.

    Absent where no cell is 0, as CelebA writes them; unknown beside a 0, as CheXpert writes them. Blank cells are
    unknown in both and decide nothing.

    Args:
        cells: of all columns of truths.
        table: that they stand in.
        minus: "absent" or "unknown", which decides; "auto" infers.
        remedy: what to do if this is wrong, for the note; {0} stands for the other word.

    >>> table = Table(Path("a.csv"), (), ())
    >>> decide_minus(["1", "-1", ""], table)[0], decide_minus(["1", "-1", "0"], table)[0]
    (True, False)
    >>> decide_minus(["1", "-1"], table)[1].notes
    ("a.csv: -1 was read as absent, as no cell is 0; if it means unknown, pass minus='unknown'",)
    """
    kinds = {_sign(cell) for cell in cells}
    if minus != "auto" or -1 not in kinds:
        return minus == "absent", table
    is_absent = 0 not in kinds
    read = "absent, as no cell is 0" if is_absent else "unknown, as other cells are 0"
    blank = "; blank cells are unknown" if is_absent and None in kinds else ""
    other = "unknown" if is_absent else "absent"
    return is_absent, table.with_note(
        f"{table.path}: -1 was read as {read}{blank}; if it means {other}, {remedy.format(other)}"
    )


def _sign(cell: str) -> int | None:
    """1, -1, 0 (a fraction, too), None of an unknown cell."""
    plain = cell.strip().casefold()
    return -1 if plain in MINUS else 1 if plain in TRUE else None if plain in UNKNOWN else 0


def read_truth(cell: str, where: Callable[[], str], *, is_absent: bool = False) -> bool | None:
    """A cell as True, False, or None for unknown: blank, -1, ``?``, ``NaN``.

    Args:
        cell: 0 or 1, true or false, yes or no, in any case; also as Excel writes them in German, French, Spanish,
            Italian.
        where: what to call the cell in a message.
        is_absent: -1 is False, as :func:`decide_minus` decides for a whole table.

    Raises:
        ValueError: it is something else.

    >>> read_truth("1", str), read_truth("No", str), read_truth("", str)
    (True, False, None)
    """
    plain = cell.strip().casefold()
    if plain in TRUE:
        return True
    if plain in FALSE or (is_absent and plain in MINUS):
        return False
    if plain in UNKNOWN:
        return None
    raise ValueError(f"{where()} is {cell!r}; write 0 or 1 (or true or false, yes or no; blank if unknown)")


def _plain(cell: str) -> str:
    return re.sub(r"[\s_\-.]+", " ", cell).strip(" :#").casefold()


def _is_fraction(cell: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d*[.,]\d*[1-9]\d*", cell))


def _is_value(cell: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d*[.,]?\d+", cell)) or cell.casefold() in (*TRUE, *FALSE, *UNKNOWN)
