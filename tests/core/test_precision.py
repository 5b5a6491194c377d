"""Half precision: what is too small for it is said."""

from __future__ import annotations

import warnings

import pytest
import torch

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.precision import coarsest, warn_unresolved

U = torch.tensor([10.0, 10.0, 10.0])
VALUES = torch.tensor([[10.0625, 9.9375], [9.0, 10.0], [10.0, 10.0]])


@pytest.mark.parametrize(("dtype", "lost"), [(torch.bfloat16, r"\[0, 2\]"), (torch.float16, r"\[2\]")])
def test_a_difference_below_the_resolution(dtype: torch.dtype, lost: str) -> None:
    """Of 10 in bfloat16 (eps 2**-7) a difference of 0.0625 is lost, for every reference; in float16 (2**-10) it shows."""
    with pytest.warns(
        AbsenceWarning, match=rf"samples {lost} is below the resolution of {str(dtype)[6:]}.*model\.float"
    ):
        warn_unresolved(U.to(dtype), VALUES.to(dtype), U, dtype, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_types_do_not_warn(dtype: torch.dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unresolved(U.to(dtype), VALUES.to(dtype), U, dtype, 1)


def test_a_difference_of_large_logits_counts_their_size() -> None:
    """z0 - z1 = 0.25 of logits of 30 is lost in bfloat16, though 0.25 itself is not small."""
    u, values = torch.tensor([0.25]), torch.tensor([[0.0]])
    with pytest.warns(AbsenceWarning, match=r"steps of up to 0\.5"):
        warn_unresolved(u, values, torch.tensor([60.0]), torch.bfloat16, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unresolved(u, values, u, torch.bfloat16, 1)


def test_the_coarsest_type() -> None:
    assert coarsest([torch.float64, torch.float16, torch.bfloat16]) == torch.bfloat16
    assert coarsest([torch.int64]) == torch.float32
