"""What goes in: activations without NaN, labels of 0 and 1, distinct names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def as_activations(activations: Any) -> Tensor:
    """[N] or [N, U], any real dtype, as a detached tensor that can be sorted.

    Raises:
        TypeError: not real numbers. ValueError: another shape, no samples, NaN.

    >>> as_activations([[1, 2], [3, 4]]).shape
    torch.Size([2, 2])
    """
    values = _as_tensor(activations, "activations").detach()
    if values.dim() not in (1, 2) or values.numel() == 0:
        raise ValueError(
            f"activations have shape {tuple(values.shape)}; pass [N] or [N, U], one number per sample and unit "
            "(average or maximize a convolution's channels over space first)"
        )
    if values.is_floating_point():
        if bool(values.isnan().any()):
            place = values.isnan().nonzero()[0].tolist()
            raise ValueError(
                f"activations hold NaN, first at {place} ([sample, unit]), which has no rank; leave out that sample or "
                "unit"
            )
        return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return values.to(torch.uint8) if values.dtype == torch.bool else values


def as_labels(concepts: Any) -> Tensor:
    """[N, K] of 0 and 1 in any dtype -> the same as bool.

    Raises:
        ValueError: another shape, a value that is neither 0 nor 1.

    >>> as_labels([[0, 1.0]])
    tensor([[False,  True]])
    """
    labels = _as_tensor(concepts, "concepts").detach()
    if labels.dim() != 2 or labels.numel() == 0:
        raise ValueError(f"concepts have shape {tuple(labels.shape)}; pass [N, K], one row per sample")
    if labels.dtype == torch.bool:
        return labels
    truth = labels != 0
    wrong = truth & (labels != 1)
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"concepts[{row}, {column}] is {labels[row, column].item()}; labels must be 0 or 1 "
            "(threshold scores, for example scores > 0.5; leave out samples of unknown label)"
        )
    return truth


def check_names(names: Sequence[str], count: int) -> list[str]:
    """The names as a list. Raises TypeError or ValueError if they are not ``count`` distinct strings.

    >>> check_names(("dog", "leash"), 2)
    ['dog', 'leash']
    """
    if isinstance(names, str):
        raise TypeError(f"names={names!r} is one string; pass one name per concept")
    listed = list(names)
    for name in listed:
        if not isinstance(name, str):
            raise TypeError(f"the name {name!r} is no string; pass str(name)")
    if len(listed) != count:
        raise ValueError(f"{len(listed)} names for {count} concepts; pass one name per column")
    if len(set(listed)) < count:
        twice = next(name for k, name in enumerate(listed) if name in listed[:k])
        raise ValueError(f"the name {twice!r} stands for two concepts; names must be distinct")
    return listed


def refuse_constant(count: Tensor, samples: int, names: Sequence[str] | None = None) -> None:
    """Raise ValueError for a concept that holds on no sample, or on all: count [K] of the samples that have it."""
    constant = (count == 0) | (count == samples)
    if bool(constant.any()):
        k = int(constant.nonzero()[0])
        which = f"concept {k}" if names is None else f"concept {names[k]!r} (column {k})"
        extent = "no sample" if int(count[k]) == 0 else "every sample"
        more = int(constant.sum()) - 1
        others = f" ({more} more {'is' if more == 1 else 'are'} constant)" if more else ""
        raise ValueError(f"{which} holds on {extent}{others}: there is nothing to tell apart; leave it out")


def _as_tensor(values: Any, what: str) -> Tensor:
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what} must be a tensor or array of numbers, got {type(values).__name__} ({error})") from None
    if tensor.is_complex():
        raise TypeError(f"{what} are {tensor.dtype}; pass real numbers")
    return tensor
