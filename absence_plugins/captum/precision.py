"""Models in half precision behind the methods that draw noise themselves: Captum draws it in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from absence_plugins.captum.plan import Plan
from absence_plugins.core.maps import tree_map
from absence_plugins.core.precision import coarsest, is_coarse


class InOwnTypes(nn.Module):
    """A model whose first inputs are converted to the types that it takes."""

    def __init__(self, forward_func: Callable[..., Any], dtypes: list[torch.dtype]) -> None:
        super().__init__()
        self.explained, self.dtypes = forward_func, dtypes
        self.training = bool(getattr(forward_func, "training", False))
        if hasattr(forward_func, "device_ids"):
            self.device_ids = forward_func.device_ids

    def forward(self, *args: Any) -> Any:
        """What the model returns."""
        count = len(self.dtypes)
        own = (value.to(dtype) for value, dtype in zip(args, self.dtypes, strict=False))
        return self.explained(*own, *args[count:])


def settle_precision(plan: Plan, outputs: Any) -> None:
    """Note the least exact type of a call; let a half-precision model take a method's own noise (GradientShap's).

    ``outputs``: of the model for the real samples, among which the explained output is chosen.
    """
    explained = plan.output if plan.choice is None else outputs
    plan.dtype = coarsest([value.dtype for value in (*plan.real, explained, *plan.parameters)])
    if not is_coarse(plan.dtype):
        return
    plan.size = plan.output.abs() if plan.choice is None else plan.choice.sizes(outputs)
    if "stdevs" in plan.arguments and any(part.is_floating_point() and is_coarse(part.dtype) for part in plan.real):
        plan.model = InOwnTypes(plan.model, [part.dtype for part in plan.real])


def in_own_type(plan: Plan, signed: Any) -> Any:
    """A map, detached, of a model that took noise in half precision in the type of its first input."""
    dtype = plan.real[0].dtype if isinstance(plan.model, InOwnTypes) else None
    return tree_map(lambda part: part.detach() if dtype is None else part.detach().to(dtype), signed)
