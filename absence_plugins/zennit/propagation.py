"""Where rules enter autograd: functions whose backward is a rule, and which pass plain gradients while it is inactive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.zennit.pairing import Trace, name_of


class Propagate(torch.autograd.Function):
    """A module's output whose gradient is a rule; the module's own gradient while the hook is inactive."""

    @staticmethod
    def forward(ctx: Any, hook: Any, module: nn.Module, trace: Trace, value: Tensor, output: Tensor) -> Tensor:
        """The output itself, as a tensor of its own: what follows may work in place."""
        if value.shape[0] % 2 or output.shape[0] % 2:
            raise ValueError(
                f"{name_of(module, None)} sees a batch of {value.shape[0]}, which is not inputs and as many references: "
                "the batch axis must stay the first one"
            )
        ctx.set_materialize_grads(False)
        ctx.hook, ctx.module, ctx.trace, ctx.is_rule = hook, module, trace, True
        ctx.save_for_backward(value, output)
        return output.clone()  # what follows may work in place

    @staticmethod
    def backward(ctx: Any, relevance: Tensor | None) -> Any:
        """By the rule to the input; while the hook is inactive, the plain gradient to the output."""
        if relevance is None or not ctx.hook.active:
            return None, None, None, None, relevance
        value, output = ctx.saved_tensors
        own = relevance.chunk(2)[0]
        u, v = output.chunk(2)
        ctx.trace.note_leaks(ctx.module, own, u - v)
        if hasattr(ctx.hook, "through_module"):
            return None, None, None, None, ctx.hook.through_module(output, own)
        given = ctx.hook.relevance(ctx.module, ctx.trace, value, output, own)
        return None, None, None, torch.cat([given, torch.zeros_like(given)]), None


class Meet(torch.autograd.Function):
    """The input itself; what comes back for x's half and for r's half is one relevance, that of their difference."""

    @staticmethod
    def forward(ctx: Any, hook: Any, value: Tensor) -> Tensor:
        """The input itself."""
        ctx.hook = hook
        ctx.set_materialize_grads(False)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> Any:
        """Both halves on x's half."""
        if gradient is None or not ctx.hook.active:
            return None, gradient
        of_x, of_r = gradient.chunk(2)
        return None, torch.cat([of_x + of_r, torch.zeros_like(of_x)])
