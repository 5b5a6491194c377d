"""Sums over cells and regions: nothing is lost, and the strongest half is the half."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from absence_plugins.core.pooling import (
    choose_resolution,
    find_strongest,
    number_regions,
    spread_cells,
    sum_cells,
    sum_regions,
)


def random_map(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randint(-50, 50, (rows, columns), generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 19), st.integers(1, 19), st.integers(1, 23), st.integers(0, 10_000))
def test_cells_are_the_sums_that_slices_give(rows: int, columns: int, cell: int, seed: int) -> None:
    values = random_map(rows, columns, seed)
    summed = sum_cells(values, cell)
    slices = [
        [float(values[i : i + cell, j : j + cell].sum()) for j in range(0, columns, cell)] for i in range(0, rows, cell)
    ]
    assert summed.tolist() == slices
    assert summed.sum() == values.sum()
    spread = spread_cells(summed, cell, (rows, columns))
    assert spread.shape == values.shape
    assert all(float(spread[i, j]) == slices[i // cell][j // cell] for i in range(rows) for j in range(columns))


def test_outer_axes_are_kept() -> None:
    values = torch.ones(2, 3, 5, 4)
    assert sum_cells(values, 2).shape == (2, 3, 3, 2)
    assert sum_cells(values, 2)[1, 2].tolist() == [[4, 4], [4, 4], [2, 2]]
    assert spread_cells(sum_cells(values, 2), 2, (5, 4)).shape == values.shape


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
def test_regions_are_summed_label_by_label(rows: int, columns: int, seed: int) -> None:
    values = random_map(rows, columns, seed)
    labels = torch.randint(-3, 4, (rows, columns), generator=torch.Generator().manual_seed(seed + 1)) * 7
    sums, sizes = sum_regions(values, labels)
    for label in labels.unique():  # type: ignore[no-untyped-call]
        inside = labels == label
        assert bool((sums[inside] == values[inside].sum()).all())
        assert bool((sizes[inside] == inside.sum()).all())
    assert float((sums / sizes).sum()) == pytest.approx(float(values.sum()), abs=1e-9)
    assert len(number_regions(labels)[1]) == int(number_regions(labels)[0].max()) + 1


@pytest.mark.parametrize(
    ("size", "cell"),
    [((8, 8), 1), ((64, 64), 1), ((1, 64), 1), ((65, 65), 5), ((224, 224), 16), ((224, 300), 16), ((1080, 1920), 77), ((3, 500), 1)],
)  # fmt: skip
def test_photographs_have_about_fourteen_cells_along_the_shorter_side(size: tuple[int, int], cell: int) -> None:
    assert choose_resolution(*size) == cell
    assert choose_resolution(*size[::-1]) == cell


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_the_strongest_are_the_fewest_that_hold_the_share(values: list[int], share: float) -> None:
    magnitude = torch.tensor(values, dtype=torch.float64)
    where = find_strongest(magnitude, share)
    if not any(values):
        assert not where.any()
        return
    held = float(magnitude[where].sum())
    assert held >= share * sum(values) - 1e-9
    ranked = sorted(values, reverse=True)
    assert sum(ranked[: int(where.sum()) - 1]) < share * sum(values), "one place fewer does not hold it"
    assert sorted(magnitude[where].tolist(), reverse=True) == ranked[: int(where.sum())]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sum_cells(torch.ones(2, 2), 0), ValueError, "cell of 0 pixels"),
        (lambda: sum_cells(torch.ones(2, 2), 2.0), TypeError, "2.0 pixels is a float"),
        (lambda: spread_cells(torch.ones(2, 2), True, (2, 2)), TypeError, "True pixels is a bool"),
        (lambda: choose_resolution(0, 5), ValueError, "0 x 5 pixels"),
        (lambda: sum_regions(torch.ones(2, 2), torch.ones(2, 2)), TypeError, "float32; pass integer labels"),
        (lambda: sum_regions(torch.ones(2, 2), torch.ones(2, 3, dtype=torch.long)), ValueError, r"\(2, 3\), the map \(2, 2\)"),
        (lambda: find_strongest(torch.ones(2), 0.0), ValueError, "share=0.0"),
        (lambda: find_strongest(torch.tensor([1.0, -2.0])), ValueError, "negative value -2"),
    ],
)  # fmt: skip
def test_what_cannot_be_summed_is_rejected(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
