"""Texts as people save them: a file with one per line, or a table with a column of texts and one of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absence_plugins.commands.kinds.read_rows import read_rows
from absence_plugins.core.names import spell_name
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.data.encodings import read_text

TABLES = (".csv", ".tsv", ".tab", ".json", ".jsonl")
TEXT_WORDS = ("text", "texts", "sentence", "sentences", "review", "content", "document", "message")
LABEL_WORDS = ("label", "labels", "class", "category", "sentiment", "target")


@dataclass(frozen=True)
class Texts:
    """The texts of a file.

    Attributes:
        path: of the file.
        texts: without blanks around them.
        lines: the line that each begins on.
        labels: of each, "" where it has none; None: the file has none.
        notes: what was inferred.
    """

    path: Path
    texts: tuple[str, ...]
    lines: tuple[int, ...]
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, places: Sequence[int], note: str) -> Texts:
        """Some of the texts, with one more note."""
        texts, lines = (tuple(own[place] for place in places) for own in (self.texts, self.lines))
        labels = None if self.labels is None else tuple(self.labels[place] for place in places)
        return Texts(self.path, texts, lines, labels, (*self.notes, note))  # type: ignore[arg-type]


def read_texts(path: Path, label: str | None = None) -> Texts:
    r"""Read texts: one per line, or of a table (CSV, TSV, JSON) those of the column "text", with labels of another one.

    label: the column of labels; None: one that is called label, class, category, sentiment or target, if there is one.

    Raises:
        ValueError: no text, a table without a column of texts, no such column of labels.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "texts.txt"
    >>> _ = path.write_text("good\n\nnot good\n")
    >>> found = read_texts(path)
    >>> found.texts, found.lines, found.notes[0].partition(": ")[2]
    (('good', 'not good'), (1, 3), '1 empty line was passed over')
    """
    shown = spell_name(path)
    if path.suffix.lower() in TABLES:
        return _read_table(path, label)
    if label is not None:
        raise ValueError(
            f"--label {label}: {shown} has one text per line and no columns; save a table text,label as .csv"
        )
    try:
        found = read_text(path)
    except ValueError as error:
        raise ValueError(
            str(error).removeprefix("table ").replace("save it as CSV UTF-8", "save it as text in UTF-8")
        ) from None
    every = found.text.removesuffix("\n").split("\n")
    kept = [(number, line.strip()) for number, line in enumerate(every, 1) if line.strip()]
    empty = len(every) - len(kept)
    notes = [found.note] if found.note else []
    if empty:
        notes.append(f"{shown}: {empty} empty line{'s were' if empty > 1 else ' was'} passed over")
    return Texts(path, tuple(text for _, text in kept), tuple(number for number, _ in kept), notes=tuple(notes))


def _read_table(path: Path, label: str | None) -> Texts:
    rows = read_rows(path)
    shown = spell_name(path)
    if label is not None and label not in rows.names:
        raise ValueError(
            f"--label {spell_name(label)!r}: {shown} has no such column; it has: {describe_nearest(label, rows.names)}"
        )
    if label is None:
        label = _find(rows.names, LABEL_WORDS)
    others = [name for name in rows.names if name != label]
    own = _find(others, TEXT_WORDS) or (others[0] if len(others) == 1 else None)
    if own is None:
        raise ValueError(
            f"{shown} has the columns {', '.join(map(spell_name, rows.names))}, and none is called text; call the "
            "column of "
            "the texts so"
        )
    cells = rows.column(own)
    kept = [row for row, cell in enumerate(cells) if cell]
    if not kept:
        raise ValueError(f"{shown}: the column {spell_name(own)!r} is empty")
    empty = len(cells) - len(kept)
    notes = [
        *rows.notes,
        *[f"{shown}: {empty} row{'s' * (empty > 1)} without a text {'were' if empty > 1 else 'was'} passed over"]
        * bool(empty),
    ]
    labels = None if label is None else tuple(rows.column(label)[row] for row in kept)
    return Texts(path, tuple(cells[row] for row in kept), tuple(rows.lines[row] for row in kept), labels, tuple(notes))


def _find(names: Sequence[str], words: Sequence[str]) -> str | None:
    """The first column that has one of these names, in any case."""
    return next((name for word in words for name in names if name.lower() == word), None)
