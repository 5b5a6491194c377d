"""Signed maps: the parts are what the formulas say and sum to the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_plugins.core.maps import (
    absence_part,
    split_by_content,
    split_by_sign,
    sum_channels,
    symmetric_range,
    tree_map,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.floats(-2, 2))
def test_the_parts_sum_to_the_map_and_follow_the_content(seed: int, empty: float) -> None:
    signed, x, reference = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed)).double()
    presence, absence = split_by_content(signed, x, reference, empty)
    assert torch.equal(presence + absence, signed)
    for p, a, r, one, other in zip(
        *(t.flatten().tolist() for t in (presence, absence, signed, x, reference)), strict=True
    ):
        missing = abs(one - empty) < abs(other - empty)
        assert (p, a) == ((0, r) if missing else (r, 0))
    up, down = split_by_sign(signed)
    assert torch.equal(up - down, signed)
    assert float(up.min()) >= 0
    assert float(down.min()) >= 0


def test_black_is_blank_on_normalized_inputs() -> None:
    """Raw magnitudes would call the black x and the gray reference the wrong way round."""
    x, reference = torch.tensor([-1.0, 0.1]), torch.tensor([0.1, -1.0])
    assert absence_part(x, reference, -1.0).tolist() == [True, False]
    assert absence_part(x, reference, 0.0).tolist() == [False, True]


def test_equal_content_is_not_absence() -> None:
    assert not absence_part(torch.tensor([1.0, -1.0]), torch.tensor([-1.0, -1.0])).any()


def test_per_channel_blank() -> None:
    x, reference = torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), 1.0)
    assert absence_part(x, reference, torch.tensor([0.0, 1.0]).reshape(2, 1, 1)).flatten().tolist() == [True, False]


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"reference has shape \(3,\), the input \(2,\)"):
        absence_part(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"empty of shape \(3,\).*\[C, 1, 1\]"):
        absence_part(torch.zeros(2), torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="at least three axes"):
        sum_channels(torch.zeros(2, 2))


def test_channels_cancel_with_their_signs() -> None:
    maps = torch.tensor([1.0, -3.0, 0.5]).reshape(1, 3, 1, 1).expand(2, 3, 1, 2)
    assert sum_channels(maps).tolist() == [[[-1.5, -1.5]]] * 2


def test_the_range_is_symmetric_and_never_empty() -> None:
    assert symmetric_range(torch.tensor([0.5, -2.0])) == 2.0
    assert symmetric_range(torch.zeros(3)) == 1.0
    assert symmetric_range(torch.zeros(0)) == 1.0
    assert symmetric_range(torch.arange(-100.0, 1.0), 0.5) == 50.0
    for bad in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"quantile={bad}"):
            symmetric_range(torch.ones(1), bad)


def test_tree_map_keeps_nesting_and_refuses_unequal_trees() -> None:
    tree = (torch.ones(1), [torch.ones(1), (torch.ones(1),)])
    doubled = tree_map(torch.add, tree, tree)
    assert type(doubled) is tuple
    assert type(doubled[1]) is list
    assert doubled[1][1][0].item() == 2
    with pytest.raises(ValueError):
        tree_map(torch.add, (torch.ones(1),), (torch.ones(1), torch.ones(1)))
