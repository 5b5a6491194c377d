"""Sentences about columns: what they compare, how they order, and the sign in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from absence_plugins import Column, Explanation, SignalKind, TableKind
from absence_plugins.core.column_words import ColumnEvidence, describe_columns, read_columns

KIND = TableKind((
    Column("age", mean=40.0, std=10.0, unit="years"),
    Column("color", ("red", "green", "blue")),
    Column("size", ("small", "large"), one_hot=False),
))  # fmt: skip
ROW = torch.tensor([-1.0, 1.0, 0.0, 0.0, 1.0])
OTHERS = torch.tensor([[0.0, 0.0, 1.0, 0.0, 1.0], [2.0, 0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0, 1.0]])


def explained(signed: list[float], references: Tensor | None = OTHERS, **changes: Any) -> Explanation:
    found = Explanation(
        torch.tensor([signed]), None, None, "target", None, None, torch.zeros(1), None, None, None,
        kind=KIND, inputs=ROW[None], references=None if references is None else references[None],
    )  # fmt: skip
    return replace(found, **changes)


def test_a_sentence_names_value_reference_and_effect() -> None:
    assert describe_columns(explained([2.0, -3.0, 0.0, 1.0, 0.25])) == [
        "'age' is 30 years, below the 50 years of the references: raises the explained output by 2",
        "'color' is red, not blue as in the references: holds the explained output down by 2",
        "'size' is large, as in the references: raises the explained output by 0.25",
    ]


def test_the_effect_of_a_category_is_the_sum_over_its_entries_and_none_is_left_out() -> None:
    found = describe_columns(explained([0.0, -3.0, 2.0, 1.0, -0.5]))
    assert found == ["'size' is large, as in the references: holds the explained output down by 0.5"]
    assert describe_columns(explained([1.0, 0.0, 2.0, 0.0, -0.5]), count=1)[0].startswith("'color'")


def test_what_is_missing_alone() -> None:
    found = describe_columns(explained([1.0, 1.0, 0.0, 0.0, 5.0]), only_missing=True)
    assert [sentence.split("'")[1] for sentence in found] == ["age", "color"]
    above = describe_columns(explained([1.0, 0.0, 0.0, 0.0, 0.0], OTHERS - torch.tensor([3.0, 0, 0, 0, 0])), count=1)
    assert above == ["'age' is 30 years, above the 20 years of the references: raises the explained output by 1"]
    assert describe_columns(explained([1.0, 0.0, 0.0, 0.0, 0.0], OTHERS[:, :1] * 0 + ROW), only_missing=True) == []


def test_without_references_nothing_is_compared() -> None:
    assert describe_columns(explained([-1.5, 0.0, 0.0, 0.0, 0.0], None)) == [
        "'age' is 30 years: holds the explained output down by 1.5"
    ]


def test_a_row_equal_to_all_references_is_as_they_are() -> None:
    """Also where the mean of equal numbers is rounded."""
    kind, row = TableKind((Column("a"),)), torch.tensor([0.1], dtype=torch.float64)
    for count in (1, 3, 7):
        assert read_columns(kind, row, row, row.expand(count, 1))[0].relation == "as"
    near = read_columns(kind, row, row, row.expand(3, 1) + 1e-9)[0]
    assert str(near).startswith("'a' is 0.1, slightly below the 0.1 of the references")
    assert read_columns(kind, row, row, row + 1)[0].relation == "below"  # one reference [E]


def test_references_without_a_category() -> None:
    none = torch.zeros(2, 5)
    found = {one.name: one for one in read_columns(KIND, torch.ones(5), ROW, none)}
    assert (found["color"].reference, found["color"].relation) == ("none", "not")
    assert found["size"].reference == "small"
    soft = {one.name: one for one in read_columns(KIND, torch.ones(5), ROW, none - 0.5 * (torch.arange(5) == 1))}
    assert (soft["color"].reference, soft["color"].relation) == ("mixed (-0.5, 0, 0)", "not")


def test_equal_effects_stand_in_the_order_of_the_table() -> None:
    signed = torch.tensor([1.0, 0.0, -1.0, 0.0, 1.0])
    assert [one.name for one in read_columns(KIND, signed, ROW, OTHERS)] == ["age", "color", "size"]
    assert str(ColumnEvidence("a", "1", "", "", 0.0)) == "'a' is 1: changes nothing"


def test_what_is_no_row_of_a_table_is_rejected() -> None:
    signed = [1.0, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="the explanation is of no kind of data"):
        describe_columns(explained(signed, kind=None))
    with pytest.raises(ValueError, match="the explanation is of a signal"):
        describe_columns(explained(signed, kind=SignalKind()))
    with pytest.raises(ValueError, match="not of a layer"):
        describe_columns(explained(signed, attribution=torch.zeros(1, 7)))
    for sample in (1, -1):
        with pytest.raises(ValueError, match=f"sample={sample} does not exist"):
            describe_columns(explained(signed), sample)
    with pytest.raises(ValueError, match="against references only"):
        describe_columns(explained(signed, None), only_missing=True)


def test_a_long_table_has_a_short_repr() -> None:
    assert repr(KIND) == "TableKind(3 columns: 'age', 'color', 'size')"
    assert len(repr(TableKind(tuple(Column(f"c{i}") for i in range(500))))) < 80
