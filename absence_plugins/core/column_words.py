"""A sentence per column of an explained row: its value, that of the references, and what it does to the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from absence_plugins.core.columns import Column
from absence_plugins.core.explanation import Explanation
from absence_plugins.core.kinds import TableKind
from absence_plugins.core.table_empties import find_most_common
from absence_plugins.core.wording import Names

Relation = Literal["below", "above", "as", "not", ""]
LEGEND = ("raises the explained output", "holds the explained output down")


@dataclass(frozen=True)
class ColumnEvidence:
    """One column of one explained row.

    Attributes:
        name: of the column.
        value: in the row, in the column's own unit.
        reference: that of the references: of a number their mean, of a category the most common; "" without references.
        relation: "below" or "above" the reference, "not" its category, "as" the reference; "" without references.
        effect: the signed evidence of all its entries: > 0 raises the explained output, < 0 holds it down.
        legend: what both are called.
    """

    name: str
    value: str
    reference: str
    relation: Relation
    effect: float
    legend: tuple[str, str] = LEGEND

    def __str__(self) -> str:
        slightly = "slightly " * (self.value == self.reference)  # less than the digits show
        compared = {
            "below": f", {slightly}below the {self.reference} of the references",
            "above": f", {slightly}above the {self.reference} of the references",
            "not": f", not {self.reference} as in the references",
            "as": ", as in the references",
            "": "",
        }[self.relation]
        does = self.legend[0 if self.effect > 0 else 1]
        amount = f"{does} by {abs(self.effect):.3g}" if self.effect else "changes nothing"
        return f"{self.name!r} is {self.value}{compared}: {amount}"


def describe_columns(
    explanation: Explanation, sample: int = 0, *, count: int = 3, names: Names = None, only_missing: bool = False
) -> list[str]:
    """Say in sentences which columns of a row weigh most, the heaviest first.

    Args:
        explanation: of a table, as ``explain`` returns it with a ``ReferenceSet`` that has a ``TableKind``.
        sample: which row.
        count: how many columns at most; columns without any evidence are left out.
        names: of the classes.
        only_missing: leave out what stands above the references, or as in them: what remains is missing.

    The sign is in the words: "raises ... by" is R > 0, "holds ... down by" is R < 0, R the sum over the column's
    entries. The value of the references is their mean, or of categories the most common one.

    Raises:
        ValueError: an explanation of another kind of data, or of a layer; no such row; ``only_missing`` without
            references.

    >>> from absence_plugins import ReferenceSet
    >>> kind, one = TableKind((Column("age"), Column("size"))), torch.ones(1)
    >>> found = Explanation(
    ...     torch.tensor([[2.0, -0.5]]), None, None, "target", None, None, one, None, None, None,
    ...     kind=kind, inputs=torch.tensor([[30.0, 7.0]]), references=torch.tensor([[[50.0, 6.0], [60.0, 6.0]]]),
    ... )
    >>> for sentence in describe_columns(found): print(sentence)
    'age' is 30, below the 55 of the references: raises the explained output by 2
    'size' is 7, above the 6 of the references: holds the explained output down by 0.5
    """
    kind, x, signed = explanation.kind, explanation.inputs, explanation.attribution
    if not isinstance(kind, TableKind) or x is None:
        what = "no kind of data" if kind is None else f"a {kind.name}"
        raise ValueError(f"the explanation is of {what}; explain with a ReferenceSet that has a TableKind")
    if not isinstance(signed, Tensor) or signed.shape != x.shape:
        raise ValueError("the map has not the shape of the rows; describe an explanation of the inputs, not of a layer")
    if not 0 <= sample < len(x):
        raise ValueError(f"sample={sample} does not exist; there are {len(x)}, counted from 0")
    references = None if explanation.references is None else explanation.references[sample]
    found = read_columns(kind, signed[sample], x[sample], references, explanation.legend(sample, names))
    if only_missing:
        if references is None:
            raise ValueError("what is missing shows against references only; explain with a ReferenceSet's references")
        found = [one for one in found if one.relation in ("below", "not")]
    return [str(one) for one in found[:count] if one.effect]


def read_columns(
    kind: TableKind, signed: Tensor, x: Tensor, reference: Tensor | None, legend: tuple[str, str] = LEGEND
) -> list[ColumnEvidence]:
    """The evidence of every column of one row, the heaviest first; equal ones in the order of the table.

    Args:
        kind: the columns.
        signed: the map [E]: R > 0 raises the explained output, R < 0 holds it down.
        x: the row [E].
        reference: a row [E] or several [k, E]; None: there is none.
        legend: what R > 0 and R < 0 do.

    >>> read_columns(TableKind((Column("age"),)), torch.ones(1), torch.tensor([30.0]), torch.tensor([50.0]))[0].relation
    'below'
    """
    effects = kind.things(signed.detach().cpu().double())
    own = x.detach().cpu().double()
    others = None if reference is None else reference.detach().cpu().double().reshape(-1, len(own))
    found = []
    for column, place, effect in zip(kind.columns, kind.places, effects.tolist(), strict=True):
        value = column.says(own[place])
        said, relation = ("", "") if others is None else _compare(column, own[place], others[:, place])
        found.append(ColumnEvidence(column.name, value, said, relation, effect, legend))  # type: ignore[arg-type]
    return sorted(found, key=lambda one: -abs(one.effect))


def _compare(column: Column, own: Tensor, others: Tensor) -> tuple[str, Relation]:
    """What the references have, and how the row's value stands to it."""
    if not column.categories:
        mean = others[0] if bool((others == others[0]).all()) else others.mean(0)
        relation: Relation = "below" if own < mean else "above" if own > mean else "as"
        return column.says(mean), relation
    place = find_most_common(column, others)
    alike = others[_is_category(column, others, place)]
    usual = alike[0] if len(alike) else others.mean(0)  # of entries that are no categories
    return column.says(usual), "as" if torch.equal(own, usual) else "not"


def _is_category(column: Column, entries: Tensor, place: int) -> Tensor:
    if not column.one_hot:
        return entries[:, 0] == place
    return entries.argmax(1) == place if place < entries.shape[1] else ~entries.any(1)
