"""Rows of a table, as a user has them, together with what is known of their columns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.kinds import TableKind
from absence_plugins.core.table_empties import choose_empty
from absence_plugins.core.table_kinds import table_kind
from absence_plugins.core.table_space import check_finite

UNSCALED = 10.0  # at most one scaled value in a hundred is further from 0


@dataclass(frozen=True, eq=False)
class Table:
    """Rows [N, E] of floating dtype, their columns, the row that counts as nothing [E], and what it is in words."""

    rows: Tensor
    kind: TableKind
    empty: Tensor
    empty_words: str


def read_table(rows: Any, columns: TableKind | Sequence[str] | None = None, empty: Any = "median") -> Table:
    """Check rows and columns of a table, and choose what counts as nothing; arguments as ``ReferenceSet.from_table``.

    Warns (AbsenceWarning): a scaler belongs to the columns, and the rows do not seem to be scaled.

    >>> table = read_table([[20, 1], [40, 5]], ["age", "size"])
    >>> table.rows.dtype, table.empty_words
    (torch.float32, 'the median of each column')
    """
    own = [str(name) for name in rows.columns] if hasattr(rows, "columns") and hasattr(rows, "to_numpy") else None
    if columns is None and own is None:
        raise ValueError("the columns have no names; pass columns=table_kind(names), or a DataFrame")
    kind = columns if isinstance(columns, TableKind) else table_kind(own if columns is None else columns)
    if own is not None:
        _check_names(own, kind)
    values = _read_values(rows)
    kind.check(values)
    check_finite(kind, values)
    for column, place in zip(kind.columns, kind.places, strict=True):
        if column.categories and column.one_hot:
            _check_one_hot(column.name, values[:, place])
    _check_scaled(kind, values)
    return Table(values, kind, *choose_empty(kind, values, empty))


def _read_values(rows: Any) -> Tensor:
    """Rows as a tensor of floating dtype."""
    given = rows.to_numpy() if hasattr(rows, "to_numpy") else rows
    try:
        if (
            str(getattr(given, "dtype", "")) == "object"
        ):  # of a frame with numbers and booleans, as get_dummies makes it
            given = given.astype(float)
        values = given.detach() if isinstance(given, Tensor) else torch.tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the rows are no numbers ({error}); pass them as the network gets them, categories one-hot or as codes"
        ) from None
    if values.is_complex():
        raise ValueError("the rows are complex numbers; a table holds real ones")
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


def _check_names(names: list[str], kind: TableKind) -> None:
    """Raise ValueError where a data frame's columns are not the kind's, in its order."""
    wanted: list[str] = []
    for column in kind.columns:
        is_spread = column.categories and column.one_hot
        wanted += [f"{column.name}_{value}" for value in column.categories] if is_spread else [column.name]
    if len(names) != len(wanted):
        raise ValueError(
            f"the DataFrame has {len(names)} columns, and the table's columns take {len(wanted)} entries; encode the "
            "categories as the network gets them (pandas.get_dummies), or name the columns that there are"
        )
    for place, column in zip(kind.places, kind.columns, strict=True):
        own, other = names[place], wanted[place]
        if column.entries > 1 and own != other and sorted(own) == sorted(other):
            raise ValueError(
                f"the entries of column {column.name!r} are {', '.join(own)} in the DataFrame, and {', '.join(other)} in the "
                "table; list its categories in the network's order"
            )
    plain = [place for place, column in zip(kind.places, kind.columns, strict=True) if column.entries == 1]
    for place in plain:
        if names[place.start] != wanted[place.start]:
            raise ValueError(
                f"column {place.start} of the DataFrame is {names[place.start]!r}, of the table {wanted[place.start]!r}; "
                "put the columns in the network's order"
            )


def _check_one_hot(name: str, entries: Tensor) -> None:
    wrong = ~(((entries == 0) | (entries == 1)).all(1) & (entries.sum(1) <= 1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {row} has {entries[row].tolist()} in column {name!r}, which is no category; where the entries of "
            "categories are scaled, name them as columns of numbers"
        )


def _check_scaled(kind: TableKind, rows: Tensor) -> None:
    """Warn where half of a column's values are far outside of what its scaler makes."""
    for column, place in zip(kind.columns, kind.places, strict=True):
        if column.categories or column.mean == 0 or column.std == 1:  # not both centered and scaled: any value may be
            continue
        usual = rows[:, place.start].abs().median()
        if float(usual) > UNSCALED:
            warnings.warn(
                f"half of the rows have {float(usual):.4g} or more in column {column.name!r}, which would be "
                f"{column.says(usual)}: they seem not to be scaled; pass what the scaler's transform returns",
                AbsenceWarning,
                stacklevel=4,
            )
            return
