"""Constants of the two passes must be equal: what differs depends on the input in a way that no secant sees."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def are_equal(x: Any, r: Any) -> bool:
    """Whether what an operation takes beside its varying operands is the same in both passes.

    Tensors are compared by memory first, then by value (NaN equals NaN).

    >>> are_equal((1, torch.ones(2), [0.5]), (1, torch.ones(2), [0.5])), are_equal(torch.ones(2), torch.zeros(2))
    (True, False)
    """
    if x is r:
        return True
    if isinstance(x, Tensor):
        return isinstance(r, Tensor) and _same_tensor(x, r)
    if isinstance(x, (tuple, list)):
        if not isinstance(r, (tuple, list)) or len(x) != len(r):
            return False
        return all([a is b or are_equal(a, b) for a, b in zip(x, r, strict=True)])  # most are the same object
    if isinstance(x, dict):
        return isinstance(r, dict) and x.keys() == r.keys() and all(are_equal(x[name], r[name]) for name in x)
    if isinstance(x, slice):
        return isinstance(r, slice) and are_equal((x.start, x.stop, x.step), (r.start, r.stop, r.step))
    if isinstance(x, float) and isinstance(r, float) and math.isnan(x) and math.isnan(r):
        return True
    if isinstance(x, torch.Generator):
        return isinstance(r, torch.Generator)
    return bool(x == r)


def _same_tensor(x: Tensor, r: Tensor) -> bool:
    if x.shape != r.shape or x.dtype != r.dtype or x.device != r.device:
        return False
    if x.data_ptr() == r.data_ptr() and x.stride() == r.stride() and x.layout == r.layout:
        return True
    if torch.equal(x, r):
        return True
    return (
        x.is_floating_point()
        and bool(torch.equal(x.isnan(), r.isnan()))
        and torch.equal(x.nan_to_num(), r.nan_to_num())
    )
