"""What a column of a table is when nothing is known of it: a choice, which is said with every explanation of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.columns import Column
from absence_plugins.core.kinds import TableKind
from absence_plugins.core.nearest import describe_nearest
from absence_plugins.core.table_space import spread_categories

SAID = {"median": "the median", "mode": "the most common value", "mean": "the mean"}
CHOICES = tuple(SAID)
SHOWN = 6  # columns that a sentence names


def choose_empty(kind: TableKind, rows: Tensor, empty: Any = "median") -> tuple[Tensor, str]:
    """The row that stands for nothing [E], and what it is in words.

    Args:
        kind: the columns.
        rows: [N, E], the references.
        empty: "median" (of an even number of values the mean of the middle two), "mode" (the most common value, of
            several the lowest) or "mean" of each column over the rows, of a categorical column always its most common
            category; a number for all columns, in their own units; a mapping {column: one of these, or a category},
            where the columns that it leaves out take the median; or a tensor [E] of the network's own entries.

    In a standardized table 0 is the mean, not nothing: so a number for all is rejected where columns are scaled.

    Raises:
        ValueError: another word, a column or category that does not exist, NaN or infinite values (the column is
            named), a tensor of another shape, a number for scaled or categorical columns.

    >>> kind, rows = TableKind((Column("age"), Column("size"))), torch.tensor([[1.0, 5.0], [2.0, 5.0], [9.0, 7.0]])
    >>> choose_empty(kind, rows)
    (tensor([2., 5.]), 'the median of each column')
    >>> choose_empty(kind, rows, {"age": 0})
    (tensor([0., 5.]), "0 in 'age', elsewhere the median of each column")
    """
    if isinstance(empty, Mapping):
        unknown = next((name for name in empty if name not in {column.name for column in kind.columns}), None)
        if unknown is not None:
            names = describe_nearest(str(unknown), (column.name for column in kind.columns))
            raise ValueError(f"empty names {unknown!r}, and there is no such column: {names}")
        wanted = {column.name: empty.get(column.name, "median") for column in kind.columns}
        return _choose_all(kind, rows, wanted), _say_columns(kind, empty)
    if not isinstance(empty, str) and hasattr(empty, "__len__") and (not hasattr(empty, "ndim") or empty.ndim):
        return _check_row(kind, rows, torch.as_tensor(empty)), "a stated row"
    _check_for_all(kind, empty)
    words = _say_rest(kind, empty) if isinstance(empty, str) else f"{float(empty):.4g} in every column"
    return _choose_all(kind, rows, {column.name: empty for column in kind.columns}), words


def _choose_all(kind: TableKind, rows: Tensor, wanted: Mapping[str, Any]) -> Tensor:
    return torch.cat([_choose(column, entries, wanted[column.name]) for column, entries in _columns(kind, rows)])


def _columns(kind: TableKind, rows: Tensor) -> list[tuple[Column, Tensor]]:
    return [(column, rows[:, place]) for column, place in zip(kind.columns, kind.places, strict=True)]


def _check_row(kind: TableKind, rows: Tensor, empty: Tensor) -> Tensor:
    if empty.shape != (kind.entries,):
        raise ValueError(
            f"empty has shape {tuple(empty.shape)}, and a row has {kind.entries} entries; pass one for each"
        )
    for column, place in zip(kind.columns, kind.places, strict=True):
        if not bool(torch.isfinite(empty[place]).all()):
            raise ValueError(f"empty is {empty[place].tolist()} in column {column.name!r}; pass a finite value")
    return empty.detach().to(rows)


def _check_for_all(kind: TableKind, empty: Any) -> None:
    if isinstance(empty, str):
        if empty not in CHOICES:
            raise ValueError(f"empty={empty!r} must be one of {', '.join(CHOICES)}, a value, or {{column: value}}")
        return
    for column in kind.columns:
        if column.categories:
            raise ValueError(
                f"empty={empty!r} is no category of column {column.name!r}; pass {{column: value}}, or one of "
                f"{', '.join(CHOICES)}"
            )
        if (column.mean, column.std) != (0.0, 1.0):
            raise ValueError(
                f"empty={empty!r} may be meant in the unit of column {column.name!r}, or in the network's, where 0 is "
                f"{column.says(torch.zeros(1))}; pass {{column: value in its own unit}}, a tensor of the network's "
                f"{kind.entries} entries, or one of {', '.join(CHOICES)}"
            )


def _choose(column: Column, entries: Tensor, empty: Any) -> Tensor:
    """The entries of one column [its entries]."""
    if column.categories:
        return _choose_category(column, entries, empty)
    values = entries[:, 0]
    if isinstance(empty, str):
        if empty == "median":
            ordered = values.sort().values
            middle = ordered[[(len(values) - 1) // 2, len(values) // 2]]
            return middle[:1] / 2 + middle[1:] / 2
        if empty == "mode":
            found, counts = torch.unique(values, return_counts=True)
            common: Tensor = found[counts.argmax()]
            return common.reshape(1)
        if empty == "mean":
            return values.mean(0, keepdim=True)
        raise ValueError(
            f"empty of column {column.name!r} is {empty!r}; it must be one of {', '.join(CHOICES)}, or a number"
        )
    try:
        number = math.nan if isinstance(empty, bool) else float(empty)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"empty of column {column.name!r} is {empty!r}; pass a finite number in its unit")
    return values.new_tensor([(number - column.mean) / column.std])


def _choose_category(column: Column, entries: Tensor, empty: Any) -> Tensor:
    place = None
    if str(empty) in column.categories:
        place = column.categories.index(str(empty))
    elif empty in CHOICES:
        place = find_most_common(column, entries)
    if place is None:
        raise ValueError(
            f"empty of column {column.name!r} is {empty!r}; it must be one of {', '.join(CHOICES)}, or a category: "
            f"{describe_nearest(str(empty), column.categories)}"
        )
    if not column.one_hot:
        return entries.new_tensor([place])
    return (torch.arange(len(column.categories)) == place).to(entries)


def find_most_common(column: Column, entries: Tensor) -> int:
    """The number of the category that most rows [N, its entries] have; the first of several, len(categories) for none.

    >>> find_most_common(Column("color", ("red", "blue")), torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))
    1
    """
    return int(spread_categories(column, entries).sum(0).argmax())


def _say_columns(kind: TableKind, empty: Mapping[str, Any]) -> str:
    """Of a mapping, as "0 in 'age', elsewhere the median of each column"."""
    said: dict[str, list[str]] = {}
    for column in kind.columns:
        if column.name in empty:
            said.setdefault(_say_value(column, empty[column.name]), []).append(column.name)
    words = [
        f"{value} in {', '.join(map(repr, names)) if len(names) <= SHOWN else f'{len(names)} columns'}"
        for value, names in said.items()
    ]
    if len(empty) == len(kind.columns):
        return ", ".join(words)
    return ", ".join([*words, f"{'elsewhere ' * bool(words)}{_say_rest(kind, 'median')}"])


def _say_value(column: Column, value: Any) -> str:
    if column.categories:
        return repr(str(value)) if str(value) in column.categories else "the most common category"
    if isinstance(value, str):
        return SAID[value]
    return f"{float(value):.4g}" + f" {column.unit}" * bool(column.unit)


def _say_rest(kind: TableKind, choice: str) -> str:
    with_categories = choice != "mode" and any(column.categories for column in kind.columns)
    return f"{SAID[choice]} of each column" + ", of categories the most common" * with_categories
