"""How a network's inputs are made of the columns of a table: numbers, categories, and what is done about gaps."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from absence_plugins import Column, TableKind
from absence_plugins.commands.kinds.read_rows import (
    SHOWN,
    Rows,
    is_missing,
    is_numeric,
    read_number_cells,
    require_columns,
)
from absence_plugins.commands.kinds.words import MISSING_WORDS
from absence_plugins.core.names import spell_name
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.core.table_kinds import table_kind
from absence_plugins.data.folders import list_names

REFUSE, MEDIAN, DROP = MISSING_WORDS
WRITTEN = re.compile(r"[-+$€£]?\s?\d[\d.,' \u00a0\u202f]*\s?[%$€£]?")  # as people write numbers for people


@dataclass(frozen=True, eq=False)
class RowInputs:
    """From rows of cells to a network's inputs.

    Attributes:
        kind: the columns, in the order of the entries.
        fillings: what an empty cell of a column counts as; empty where gaps are rejected.
        notes: what the reader must know of it.
    """

    kind: TableKind
    fillings: dict[str, float | str]
    notes: tuple[str, ...] = ()

    def encode(self, rows: Rows) -> Tensor:
        """Inputs [N, entries], float64.

        Raises:
            ValueError: an empty cell, text among numbers, a category that is not known, each with row and column.
        """
        return torch.cat([self._encode_column(rows, column) for column in self.kind.columns], 1)

    def _encode_column(self, rows: Rows, column: Column) -> Tensor:
        if not column.categories:
            found = [
                self._fill(rows, row, column.name, v) for row, v in enumerate(read_number_cells(rows, column.name))
            ]
            return ((torch.tensor(found, dtype=torch.float64) - column.mean) / column.std)[:, None]
        places = {name: place for place, name in enumerate(column.categories)}
        codes = []
        for row, cell in enumerate(rows.column(column.name)):
            name = str(self._fill(rows, row, column.name, None if is_missing(cell) else cell))
            if name not in places:
                raise ValueError(
                    f"{rows.place(row, column.name)}: {spell_name(name)!r} is no category that the model knows; there "
                    "are: "
                    f"{describe_nearest(name, map(spell_name, column.categories))}"
                )
            codes.append(places[name])
        codes_of = torch.tensor(codes)
        if not column.one_hot:
            return codes_of[:, None].double()
        return torch.nn.functional.one_hot(codes_of, len(places)).double()

    def _fill(self, rows: Rows, row: int, name: str, value: Any) -> Any:
        if value is not None:
            return value
        if name not in self.fillings:
            raise ValueError(
                f"{rows.place(row, name)}: the cell is empty; fill it, or say --missing median (a column's median, or "
                "its "
                "most frequent category), or --missing drop (without such rows)"
            )
        return self.fillings[name]


def drop_gaps(rows: Rows, names: Sequence[str]) -> Rows:
    """Without the rows that have an empty cell in one of the columns; how many these are is a note.

    Raises:
        ValueError: no row is left.
    """
    places = [rows.names.index(name) for name in names]
    kept = [row for row, cells in enumerate(rows.cells) if not any(is_missing(cells[place]) for place in places)]
    if not kept:
        raise ValueError(f"{spell_name(rows.path)}: every row has an empty cell; say --missing median")
    lost = len(rows) - len(kept)
    if not lost:
        return rows
    said = (
        f"{spell_name(rows.path)}: {lost} row{'s' * (lost > 1)} with empty cells {'were' if lost > 1 else 'was'} left "
        "out"
    )
    return replace(rows.take(kept), notes=(*rows.notes, said))


def make_inputs(
    rows: Rows,
    references: Rows | None,
    names: Sequence[str],
    *,
    preprocessing: Any = None,
    categories: Sequence[str] = (),
    missing: str = REFUSE,
) -> RowInputs:
    """How the inputs are made.

    Without ``preprocessing`` the columns are taken in the order of the file of references (without one, of the rows):
    numbers as they are, text as one entry per category, in sorted order. With it its own columns are taken by name.

    Args:
        rows: to explain.
        references: to compare with; what a category or a median is, they say.
        names: the columns that are inputs, in order.
        preprocessing: a :class:`~absence_plugins.TableKind`, a sequence of :class:`~absence_plugins.Column`, or a
            fitted ``StandardScaler`` or ``MinMaxScaler`` of the columns (of the numbers, where there are categories).
        categories: columns whose values are categories, even if they look like numbers.
        missing: "refuse", "median" or "drop" (rows that are dropped already).

    Raises:
        ValueError: a column that is not there, that holds numbers and text, or that the preprocessing does not fit.
        TypeError: no such preprocessing.
    """
    known = rows if references is None else references
    given = _given_columns(preprocessing)
    files = [rows] if references is None else [references, rows]
    if given is not None:
        own = f"columns that the model's preprocessing names, {len(given)} in all"
        for one in files:
            require_columns(one, [column.name for column in given], own)
        extra = [name for name in names if name not in {column.name for column in given}]
        columns = tuple(given)
        notes = [f"Columns that the model does not take: {list_names(list(map(spell_name, extra)), SHOWN)}."] * bool(
            extra
        )
    else:
        wrong = [name for name in categories if name not in names]
        if wrong:
            raise ValueError(
                f"--categories {spell_name(wrong[0])!r}: there is no such column; there are: "
                f"{describe_nearest(wrong[0], names)}"
            )
        plain = [_plain_column(files, name, is_category=name in categories) for name in names]
        columns, notes = _scale(plain, preprocessing)
    fillings = {} if missing != MEDIAN else {column.name: _usual(known, column) for column in columns}
    return RowInputs(TableKind(columns), fillings, tuple(notes))


def _given_columns(preprocessing: Any) -> tuple[Column, ...] | None:
    """The columns that a preprocessing names itself; None for a scaler, or none."""
    if isinstance(preprocessing, TableKind):
        return preprocessing.columns
    if isinstance(preprocessing, Sequence) and not isinstance(preprocessing, str):
        if preprocessing and all(isinstance(one, Column) for one in preprocessing):
            return tuple(preprocessing)
        raise TypeError("the preprocessing beside the model must be Columns, a TableKind, or a fitted scaler")
    return None


def _plain_column(files: Sequence[Rows], name: str, *, is_category: bool) -> Column:
    if not is_category and is_numeric(files, name):
        return Column(name)
    cells = [cell for cell in files[0].column(name) if not is_missing(cell)]
    if not cells:
        raise ValueError(f"column {spell_name(name)!r} of {spell_name(files[0].path)} is empty; leave it out")
    said = f"column {spell_name(name)!r} of {spell_name(files[0].path)} has"
    if not is_category and all(WRITTEN.fullmatch(cell) for cell in cells):
        raise ValueError(
            f"{said} {spell_name(cells[0])!r}, a number with other signs; write plain numbers such as 1234.5, or say "
            f"--categories {spell_name(name)} if its values are categories"
        )
    if len(set(cells)) == 1:  # the one entry of it would be 1, also for "False"
        raise ValueError(
            f"{said} the one value {spell_name(cells[0])!r}, which does not say how the model's input is made of it; let the "
            "factory return (model, columns), or write the number that the model gets"
        )
    return Column(name, categories=tuple(sorted(set(cells))))


def _scale(columns: Sequence[Column], scaler: Any) -> tuple[tuple[Column, ...], list[str]]:
    """The columns with the mean and scale of a fitted scaler of their numbers, in its order where it has one."""
    known = {column.name: column.categories for column in columns if column.categories}
    names = [column.name for column in columns]
    fitted = getattr(scaler, "feature_names_in_", None)
    if fitted is not None:
        named = list(map(str, fitted))
        lacking = [name for name in named if name not in names or name in known]
        if lacking:
            raise ValueError(
                f"the model's scaler was fitted on a column {spell_name(lacking[0])!r}, and the rows have no such "
                "column "
                f"of numbers; they have: {describe_nearest(lacking[0], names)}"
            )
        names = [*named, *(name for name in names if name not in named)]
    kind = table_kind(names, categories=known, scaler=scaler)
    said = "as they stand in the file" if scaler is None else f"scaled by the model's {type(scaler).__name__}"
    listed = list_names(list(map(spell_name, names)), SHOWN)
    return kind.columns, [f"The model gets the columns in this order: {listed}; numbers {said}."]


def _usual(rows: Rows, column: Column) -> float | str:
    """The median of a column of numbers, the most frequent value of one of categories (of equals the first)."""
    if column.categories:
        counted = Counter(cell for cell in rows.column(column.name) if cell in column.categories)
        return max(sorted(counted), key=counted.__getitem__) if counted else column.categories[0]
    values = [value for value in read_number_cells(rows, column.name) if value is not None]
    if not values:
        raise ValueError(f"column {spell_name(column.name)!r} of {spell_name(rows.path)} is empty; it has no median")
    return statistics.median(values)
