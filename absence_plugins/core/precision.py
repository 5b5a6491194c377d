"""Half precision: which type of numbers a model computes in, and differences too small for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning

COARSE = 1e-4  # eps of a type from which ordinary differences of outputs can be lost: float16, bfloat16, not float32


def coarsest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The least exact of these types; float32 if none holds fractions.

    >>> coarsest([torch.float32, torch.bfloat16, torch.int64])
    torch.bfloat16
    """
    found = {dtype for dtype in dtypes if dtype.is_floating_point or dtype.is_complex}
    if len(found) == 1:
        return found.pop()
    return max(found, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def is_coarse(dtype: torch.dtype) -> bool:
    """Whether a type is float16, bfloat16 or less exact.

    >>> is_coarse(torch.float16), is_coarse(torch.float32)
    (True, False)
    """
    return torch.finfo(dtype).eps > COARSE


def warn_unresolved(output: Tensor, values: Tensor, size: Tensor, dtype: torch.dtype, level: int) -> None:
    """Say so where u(x) - u(r) is below the resolution of a coarse type, for every reference of a sample.

    output: u(x) [B]; values: u(r) [B, k]; size: of the outputs that u is computed from [B] (of a difference of logits
    theirs); dtype: the least exact one; ``level``: frames up to the user's call.
    """
    if not is_coarse(dtype) or not values.numel():
        return
    u, others, size = (value.detach().float() for value in (output, values, size))
    step = torch.finfo(dtype).eps * torch.maximum(size, others.abs().amax(1))
    lost = ((u[:, None] - others).abs() <= step[:, None]).all(1)
    if bool(lost.any()):
        sample = int(lost.nonzero()[0])
        warnings.warn(
            f"u(x) - u(r) of samples {lost.nonzero().flatten()[:8].tolist()} is below the resolution of "
            f"{str(dtype).removeprefix('torch.')} (of sample {sample}: outputs of this size are rounded in steps of up to "
            f"{float(step[sample]):.1g}), so the sum of their maps says nothing, and the signs can be those of rounding; compute in float32: "
            "model.float(), input.float()",
            AbsenceWarning,
            stacklevel=level,
        )
