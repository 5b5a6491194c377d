"""Nearness of rows of a table: columns on one scale, and categories that agree or do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from absence_plugins.core.checks import check_choice
from absence_plugins.core.columns import Column
from absence_plugins.core.kinds import TableKind
from absence_plugins.core.spaces import Metric

DISTANCES = ("standardized", "gower")
METRICS: dict[str, Metric] = {"standardized": "squared", "gower": "absolute"}
WORDS = {"standardized": "nearest by standardized columns", "gower": "nearest by Gower's distance"}


@dataclass(frozen=True, eq=False)
class TableSpace:
    r"""The columns of a table, on one scale, in which a :class:`~absence_plugins.ReferenceSet` searches the nearest.

    With :math:`m(x, r)` the number of categorical columns in which x and r differ, over the numbers c,

    .. math::

        \sum_c \frac{(x_c - r_c)^2}{s_c^2} + m(x, r) \quad\text{(standardized)}, \qquad
        \sum_c \frac{|x_c - r_c|}{\max_c - \min_c} + m(x, r) \quad\text{(gower)}.

    Gower's coefficient (Gower 1971, *A general coefficient of similarity and some of its properties*) is the second,
    divided by the number of columns, which changes no order.

    Args:
        kind: the columns.
        rows: [N, E], the references, of which scales are taken: s is the standard deviation (of all N, without Bessel's
            correction), max and min are the extremes. A column that is constant over them has no scale and is left out.
        distance: "standardized" or "gower".

    A category counts 1 where it differs, one-hot or a code; "none" (all entries 0) is a category of its own. A code is
    never compared as a number. Points are float64 and on the CPU, whatever the rows' device and type.

    Raises:
        ValueError: rows of another shape than [N, E], no rows, NaN or infinite values, codes that no category has; the
            column is named.
        TypeError: no TableKind.

    >>> kind = TableKind((Column("age"), Column("color", ("red", "blue"), one_hot=False)))
    >>> rows = torch.tensor([[20.0, 0.0], [40.0, 1.0]])
    >>> points = TableSpace(kind, rows).points(rows)  # the age differs by two standard deviations of 10
    >>> round(float((points[0] - points[1]).square().sum()), 9)
    5.0
    >>> points = TableSpace(kind, rows, "gower").points(rows)
    >>> float((points[0] - points[1]).abs().sum())
    2.0
    """

    kind: TableKind
    rows: Tensor = field(repr=False)
    distance: Literal["standardized", "gower"] = "standardized"
    scales: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, TableKind):
            raise TypeError(f"kind must be a TableKind, got a {type(self.kind).__name__}; table_kind(names) makes one")
        check_choice("distance", self.distance, DISTANCES)
        if not len(self.rows):
            raise ValueError("a TableSpace takes its scales from rows, and there are none")
        rows = _read_rows(self.kind, self.rows)
        span = rows.amax(0) - rows.amin(0)
        scale = span if self.distance == "gower" else rows.std(0, correction=0)
        object.__setattr__(self, "scales", tuple(torch.where(span > 0, scale, 0.0).tolist()))

    @property
    def metric(self) -> Metric:
        """Squared differences of standardized columns, absolute ones of Gower's."""
        return METRICS[self.distance]

    @property
    def words(self) -> str:
        """As a ReferenceSet says it."""
        return WORDS[self.distance]

    def points(self, *inputs: Tensor) -> Tensor:
        """Rows [N, E] as points [N, F], float64 on the CPU, whose distances by ``metric`` are those above."""
        if len(inputs) != 1:
            raise ValueError(f"a table is one input, got {len(inputs)}")
        rows = _read_rows(self.kind, inputs[0])
        # Where two rows differ in a category, two of its coordinates do, by this each.
        step = 0.5**0.5 if self.metric == "squared" else 0.5
        parts = []
        for column, place in zip(self.kind.columns, self.kind.places, strict=True):
            if column.categories:
                parts.append(step * spread_categories(column, rows[:, place]))
            elif self.scales[place.start] > 0:
                parts.append(rows[:, place] / self.scales[place.start])
        return torch.cat(parts, 1) if parts else rows.new_zeros(len(rows), 1)

    def state(self) -> Any:
        """Nothing of it changes."""
        return self.distance, self.kind.columns, self.scales


def spread_categories(column: Column, entries: Tensor) -> Tensor:
    """The entries of a categorical column [N, E] as one-hot [N, categories + 1], the last for none of them.

    Raises:
        ValueError: a code that is none of the column's.

    >>> spread_categories(Column("color", ("red", "blue"), one_hot=False), torch.tensor([[1.0]]))
    tensor([[0., 1., 0.]])
    """
    if column.one_hot:
        return torch.cat([entries, 1 - entries.sum(1, keepdim=True)], 1)
    count = len(column.categories)
    wrong = (entries != entries.trunc()) | (entries < 0) | (entries >= count)
    if bool(wrong.any()):
        raise ValueError(
            f"column {column.name!r} has the code {float(entries[wrong][0]):.6g}, and its {count} categories have 0 to "
            f"{count - 1}; give missing values a category of their own, or call the column a number"
        )
    return torch.nn.functional.one_hot(entries[:, 0].long(), count + 1).to(entries.dtype)


def check_finite(kind: TableKind, rows: Tensor, what: str = "") -> None:
    """Raise ValueError for NaN or infinite values in rows [N, E]; the message names the column and the row, or ``what``
    they are.

    >>> check_finite(TableKind((Column("age"),)), torch.tensor([[20.0], [float("nan")]]))
    Traceback (most recent call last):
    ValueError: row 1 has nan in column 'age'; fill it in, or leave the row out
    """
    wrong = (~torch.isfinite(rows)).nonzero()
    if len(wrong):
        row, entry = wrong[0].tolist()
        name = next(c.name for c, place in zip(kind.columns, kind.places, strict=True) if place.stop > entry)
        remedy = "pass a finite value" if what else "fill it in, or leave the row out"
        raise ValueError(f"{what or f'row {row}'} has {float(rows[row, entry])} in column {name!r}; {remedy}")


def _read_rows(kind: TableKind, rows: Tensor) -> Tensor:
    """Rows as float64 on the CPU."""
    kind.check(rows)
    found = rows.detach().cpu().double()  # some accelerators have no float64
    check_finite(kind, found)
    return found
