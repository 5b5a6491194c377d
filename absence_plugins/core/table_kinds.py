"""The columns of a table, from what a user has: names, a data frame, the scaler of the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absence_plugins.core.columns import Column
from absence_plugins.core.kinds import TableKind
from absence_plugins.core.nearest import describe_nearest

Scaling = tuple[list[float], list[float]]  # of every number column, mean and std
SCALERS = "StandardScaler, MinMaxScaler, RobustScaler or MaxAbsScaler"


def table_kind(
    names: Any,
    *,
    categories: Mapping[str, Sequence[Any]] | None = None,
    one_hot: bool = True,
    scaler: Any = None,
    units: Mapping[str, str] | None = None,
) -> TableKind:
    """Name the columns of a table, in the order in which the network gets them.

    Args:
        names: of the columns; or a pandas DataFrame, whose columns they are: of type ``category`` its categories, of
            text its values in alphabetical order (as ``get_dummies`` and ``OneHotEncoder`` take them).
        categories: of a categorical column its values, in the order of its entries or codes. Where the names are those
            of the entries ("color_blue", "color_red", as ``get_dummies`` and ``OneHotEncoder`` call them), they become
            one column "color".
        one_hot: a categorical column takes one entry per category; False: one entry, the category's code.
        scaler: that made the network's numbers of them, fitted on the number columns, as of scikit-learn: a
            ``StandardScaler``, ``MinMaxScaler``, ``RobustScaler`` or ``MaxAbsScaler``. With it, values are shown in
            their own unit.
        units: of number columns.

    Raises:
        ValueError: a name that comes twice, categories or a unit of a column that does not exist, entries of a
            category that do not stand together in its order, a scaler that is not fitted, or fitted on other columns
            (the first that differs is named).
        TypeError: another scaler; names that are no text.

    >>> kind = table_kind(["age", "color_blue", "color_red"], categories={"color": ["blue", "red"]})
    >>> [(column.name, column.entries) for column in kind.columns]
    [('age', 1), ('color', 2)]
    """
    known = {name: _read_categories(name, values) for name, values in (categories or {}).items()}
    if hasattr(names, "columns") and hasattr(names, "dtypes"):
        known = {**_frame_categories(names), **known}
        names = [str(name) for name in names.columns]
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise TypeError(f"names must be those of the columns, or a DataFrame, got a {type(names).__name__}")
    names = list(names)
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise TypeError(f"the column {wrong!r} must be called by a text, got a {type(wrong).__name__}; pass str(name)")
    names = _merge_entries(names, known, one_hot)
    numbers = [name for name in names if name not in known]
    _check_known("categories", known, names)
    _check_known("units", units or {}, numbers, "number column")
    means, stds = ([0.0] * len(numbers), [1.0] * len(numbers)) if scaler is None else _read_scaler(scaler, numbers)
    scaling = dict(zip(numbers, zip(means, stds, strict=True), strict=True))
    columns = []
    for name in names:
        if name in known:
            columns.append(Column(name, known[name], one_hot))
        else:
            columns.append(Column(name, mean=scaling[name][0], std=scaling[name][1], unit=(units or {}).get(name, "")))
    return TableKind(tuple(columns))


def _read_categories(name: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ValueError(f"the categories of column {name!r} are {values!r}; pass all of them, as ['red', 'blue']")
    found = tuple(str(value) for value in values)
    twice = next((value for value in found if found.count(value) > 1), None)
    if not found or twice is not None:
        fault = "none" if twice is None else f"{twice!r} twice"
        raise ValueError(f"column {name!r} has {fault} among its categories; name each once")
    return found


def _frame_categories(frame: Any) -> dict[str, tuple[str, ...]]:
    """The categories of a data frame's columns of categories or text."""
    found = {}
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        listed = getattr(dtype, "categories", None)
        if listed is None and str(dtype).lower() in ("object", "str", "string"):
            values = [value for value in frame[name] if value is not None and value == value]  # NaN is not itself
            listed = sorted({str(value) for value in values})
        if listed is not None:
            found[str(name)] = _read_categories(str(name), listed)
    return found


def _merge_entries(names: list[str], known: Mapping[str, tuple[str, ...]], one_hot: bool) -> list[str]:
    """Names, with those of a column's entries (column_category) as the column's own."""
    for column, values in known.items():
        entries = [f"{column}_{value}" for value in values]
        if column in names or not one_hot or not set(entries) & set(names):
            continue
        missing = next((entry for entry in entries if entry not in names), None)
        if missing is not None:
            raise ValueError(f"column {column!r} has no entry {missing!r}; name the categories that the table has")
        start = min(map(names.index, entries))
        if names[start : start + len(entries)] != entries:
            raise ValueError(
                f"the entries of column {column!r} are {', '.join(n for n in names if n in entries)} in the table; "
                "they must stand together, and its categories be listed in their order"
            )
        names = [*names[:start], column, *names[start + len(entries) :]]
    return names


def _check_known(what: str, given: Mapping[str, Any], names: Sequence[str], noun: str = "column") -> None:
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise ValueError(f"{what} names {unknown!r}, and there is no such {noun}: {describe_nearest(unknown, names)}")


def _read_scaler(scaler: Any, numbers: Sequence[str]) -> Scaling:
    """Mean and std of every number column, with which its value is ``entry * std + mean``."""
    name = type(scaler).__name__
    count = getattr(scaler, "n_features_in_", None)
    if count is None and hasattr(scaler, "fit"):
        raise ValueError(f"the {name} is not fitted; call its fit on the training rows first")
    if not hasattr(scaler, "scale_") or count is None:
        raise TypeError(
            f"scaler must be a fitted {SCALERS}, got a {name}; of a pipeline or several steps pass that one"
        )
    if count != len(numbers):
        raise ValueError(
            f"the {name} was fitted on {count} columns, and the table has {len(numbers)} of numbers; fit it on these "
            "alone (scaled categories are no categories: name their entries as columns of numbers)"
        )
    fitted = getattr(scaler, "feature_names_in_", None)
    if fitted is not None:
        for place, (own, given) in enumerate(zip(map(str, fitted), numbers, strict=True)):
            if own != given:
                raise ValueError(
                    f"column {place} of the {name} is {own!r}, of the table {given!r}; list the columns in the scaler's "
                    "order, which is the network's"
                )
    scale = [1.0] * count if scaler.scale_ is None else [float(value) for value in scaler.scale_]
    if hasattr(scaler, "data_range_"):  # MinMaxScaler multiplies: x * scale_ + min_
        offsets = [float(value) for value in scaler.min_]
        return [-offset / one for offset, one in zip(offsets, scale, strict=True)], [1 / one for one in scale]
    center = getattr(scaler, "center_", None) if hasattr(scaler, "center_") else getattr(scaler, "mean_", None)
    if getattr(scaler, "with_mean", True) is False or center is None:
        center = [0.0] * count  # StandardScaler keeps the mean that it does not subtract
    return [float(value) for value in center], scale
