"""What a figure of a kind of data is given, checked: one sample's map, its input and its references."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def take_entries(value: Any, name: str) -> Tensor:
    """One sample's numbers on the CPU in float64.

    Raises:
        TypeError: no real tensor.
        ValueError: no entries, NaN or infinity.

    >>> take_entries(torch.tensor([1, 2]), "x")
    tensor([1., 2.], dtype=torch.float64)
    """
    if not isinstance(value, Tensor) or value.is_complex():
        given = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} is {given}; pass a real torch.Tensor")
    if value.numel() == 0:
        raise ValueError(f"{name} of shape {tuple(value.shape)} is empty; pass one sample's entries")
    found = value.detach().cpu().double()
    if not bool(torch.isfinite(found).all()):
        count = int((~torch.isfinite(found)).sum())
        raise ValueError(f"{name} has {count} values that are NaN or infinite; fix what produced them")
    return found


def take_references(reference: Any, x: Tensor) -> Tensor | None:
    """References [k, ...] of one input [...]: of one [...], or of several [k, ...]; None stays.

    Raises:
        TypeError: no real tensor.
        ValueError: another shape than the input's.

    >>> take_references(torch.zeros(2), torch.ones(2)).shape, take_references(torch.zeros(5, 2), torch.ones(2)).shape
    (torch.Size([1, 2]), torch.Size([5, 2]))
    """
    if reference is None:
        return None
    found = take_entries(reference, "reference")
    found = found[None] if found.dim() == x.dim() else found
    if found.shape[1:] != x.shape:
        raise ValueError(
            f"reference has shape {tuple(reference.shape)}, x {tuple(x.shape)}; pass one of "
            "x's shape, or several [k, ...]"
        )
    return found


def check_same_shape(signed: Tensor, x: Tensor) -> None:
    """Raises ValueError for a map of another shape than the input's."""
    if signed.shape != x.shape:
        raise ValueError(
            f"the map has shape {tuple(signed.shape)}, x {tuple(x.shape)}; pass one sample of each, of the same shape"
        )


def say_number(value: float) -> str:
    """A number with its sign, three digits.

    >>> say_number(0.12345), say_number(-2.0), say_number(0.0), say_number(1234.5)
    ('+0.123', '−2', '0', '+1,234')
    """
    if value == 0:
        return "0"
    return (f"{value:+,.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:+.3g}").replace("-", "−")
