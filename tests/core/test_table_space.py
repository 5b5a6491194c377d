"""Nearness of rows: against plain Python, for numbers, one-hot categories and codes, on any device."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from absence_plugins import Column, ReferenceSet, SignalKind, TableKind, TableSpace
from absence_plugins.core.spaces import Space

COLORS = ("red", "green", "blue")
KIND = TableKind((Column("age"), Column("color", COLORS), Column("flat"), Column("size", COLORS[:2], one_hot=False)))
DISTANCES = ("standardized", "gower")


def draw(count: int, seed: int) -> Tensor:
    """Rows of KIND with few values, so that distances tie; "flat" is constant, and some have no color."""
    generator = torch.Generator().manual_seed(seed)
    ages = torch.randint(0, 4, (count, 1), generator=generator).double()
    colors = torch.eye(4, dtype=torch.float64)[torch.randint(0, 4, (count,), generator=generator), :3]
    sizes = torch.randint(0, 2, (count, 1), generator=generator).double()
    return torch.cat([ages, colors, torch.full((count, 1), 0.1, dtype=torch.float64), sizes], 1)


def plain_distance(x: list[float], r: list[float], rows: list[list[float]], distance: str) -> float:
    """The definition, of one pair of rows of KIND."""
    ages = [row[0] for row in rows]
    mean = sum(ages) / len(ages)
    std = math.sqrt(sum((age - mean) ** 2 for age in ages) / len(ages))
    span = max(ages) - min(ages)
    mismatches = (x[1:4] != r[1:4]) + (x[5] != r[5])
    if span == 0:
        return mismatches
    return mismatches + ((x[0] - r[0]) ** 2 / std**2 if distance == "standardized" else abs(x[0] - r[0]) / span)


def reached(space: TableSpace, x: Tensor, rows: Tensor) -> Tensor:
    difference = space.points(x)[:, None] - space.points(rows)[None]
    return difference.square().sum(2) if space.metric == "squared" else difference.abs().sum(2)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from(DISTANCES), st.integers(1, 9))
def test_distances_and_nearest_are_those_of_plain_python(seed: int, distance: Any, count: int) -> None:
    rows, x = draw(count, seed), draw(3, seed + 1)
    space = TableSpace(KIND, rows, distance)
    wanted = [[plain_distance(a, b, rows.tolist(), distance) for b in rows.tolist()] for a in x.tolist()]
    torch.testing.assert_close(
        reached(space, x, rows), torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )
    references = ReferenceSet(rows, kind=KIND, k=1, nearest_in=space)
    for row, near in zip(wanted, references.nearest_indices(x).tolist(), strict=True):
        assert row[near[0]] <= min(row) + 1e-12
    assert references.nearest_indices(x).tolist() == [
        references.nearest_indices(x[i : i + 1])[0].tolist() for i in range(3)
    ]


@pytest.mark.parametrize("one_hot", [True, False])
def test_codes_are_never_compared_as_numbers_not_even_by_default(one_hot: bool) -> None:
    kind = TableKind((Column("age"), Column("city", tuple("abcdefghij"), one_hot)))
    code = torch.tensor([0, 9, 1])
    city = torch.nn.functional.one_hot(code, 10).float() if one_hot else code[:, None].float()
    rows = torch.cat([torch.tensor([[1.0], [0.2], [3.0]]), city], 1)
    x = torch.cat([torch.tensor([[0.0]]), city[:1]], 1)
    # City 1 is as far from city 0 as city 9: the age decides, and it is 0.2 against 3.
    references = ReferenceSet(rows[1:], kind=kind, k=2)
    assert references.nearest_indices(x).tolist() == [[0, 1]]
    assert isinstance(references.nearest_in, TableSpace)
    assert "nearest by standardized columns" in repr(references)


def test_one_unit_for_a_mismatch_one_hot_and_codes_alike() -> None:
    one_hot, codes = Column("color", COLORS), Column("color", COLORS, one_hot=False)
    rows = torch.cat([torch.eye(3), torch.zeros(1, 3)])
    for distance in DISTANCES:
        wanted = 1 - torch.eye(4, dtype=torch.float64)  # also to "none"
        torch.testing.assert_close(reached(TableSpace(TableKind((one_hot,)), rows, distance), rows, rows), wanted)
        numbers = torch.arange(3)[:, None]
        space = TableSpace(TableKind((codes,)), numbers, distance)
        torch.testing.assert_close(reached(space, numbers, numbers), wanted[:3, :3])


def test_a_column_on_another_scale_changes_no_distance() -> None:
    kind = TableKind((Column("a"), Column("b")))
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for distance in DISTANCES:
        own = reached(TableSpace(kind, rows, distance), rows, rows)
        scale = torch.tensor([1000.0, 0.01], dtype=torch.float64)
        torch.testing.assert_close(
            reached(TableSpace(kind, rows * scale + 7, distance), rows * scale + 7, rows * scale + 7), own
        )
        assert float(own.max()) > 0


def test_constant_columns_alone_make_all_rows_equally_near() -> None:
    kind = TableKind((Column("a"),))
    rows = torch.full((3, 1), 0.1)  # whose standard deviation is not 0 in every arithmetic
    for distance in DISTANCES:
        space = TableSpace(kind, rows, distance)
        assert space.scales == (0.0,)
        assert torch.isfinite(space.points(torch.tensor([[5.0]]))).all()
        assert ReferenceSet(rows, kind=kind, k=3, nearest_in=space).nearest_indices(torch.zeros(1, 1)).tolist() == [
            [0, 1, 2]
        ]


def test_points_are_on_the_cpu_whatever_the_type() -> None:
    space = TableSpace(TableKind((Column("a"),)), torch.tensor([[0.0], [2.0]]))
    assert isinstance(space, Space)
    for dtype in (torch.float16, torch.float32, torch.float64, torch.int64):
        points = space.points(torch.tensor([[3]], dtype=dtype))
        assert (points.device.type, points.dtype) == ("cpu", torch.float64)
        assert points.tolist() == [[3.0]]
    if torch.cuda.is_available():
        rows = torch.tensor([[0.0], [2.0]], device="cuda")
        assert ReferenceSet(rows, kind=space.kind, k=1).nearest(rows + 0.1).tolist() == [[[0.0]], [[2.0]]]


def test_a_set_of_rows_is_pickled_with_its_space() -> None:
    references = ReferenceSet(draw(6, 0), kind=KIND, k=2)
    again = pickle.loads(pickle.dumps(references))
    x = draw(2, 1)
    assert torch.equal(again.nearest_indices(x), references.nearest_indices(x))


def test_wrong_rows_are_rejected_by_the_name_of_the_column() -> None:
    rows = draw(4, 0)
    for place, name in ((0, "age"), (2, "color"), (5, "size")):
        for value in (math.nan, math.inf):
            bad = rows.clone()
            bad[2, place] = value
            with pytest.raises(ValueError, match=f"row 2 has {value} in column '{name}'"):
                TableSpace(KIND, bad)
            with pytest.raises(ValueError, match=f"row 2 has {value} in column '{name}'"):
                TableSpace(KIND, rows).points(bad)
            with pytest.raises(ValueError, match=f"row 2 has {value} in column '{name}'"):
                ReferenceSet(bad, kind=KIND)
            with pytest.raises(ValueError, match=f"in column '{name}'"):
                ReferenceSet(rows, kind=KIND, k=1).nearest(bad)
    for code in (2.0, -1.0, 0.5):
        bad = rows.clone()
        bad[1, 5] = code
        with pytest.raises(ValueError, match=rf"column 'size' has the code {code:g}, and its 2 categories have 0 to 1"):
            TableSpace(KIND, rows).points(bad)
    with pytest.raises(ValueError, match="there are none"):
        TableSpace(KIND, rows[:0])
    with pytest.raises(ValueError, match="take 6 entries"):
        TableSpace(KIND, rows[:, :5])
    with pytest.raises(ValueError, match="distance='cosine' must be one of standardized, gower"):
        TableSpace(KIND, rows, "cosine")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got a SignalKind"):
        TableSpace(SignalKind(), rows)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a table is one input, got 2"):
        TableSpace(KIND, rows).points(rows, rows)
