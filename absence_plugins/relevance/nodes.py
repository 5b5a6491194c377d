"""The nodes of the autograd graph that carry secants, and those that only carry dependence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from absence_plugins.relevance.operation import RelevanceError
from absence_plugins.relevance.records import Record


class Call:
    """One call of a torch function, to be run inside a node."""

    __slots__ = ("args", "function", "in_place", "kwargs", "output")

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any, in_place: bool) -> None:
        self.function, self.args, self.kwargs, self.in_place = function, args, kwargs, in_place
        self.output: Any = None

    def run(self, ctx: Any, operands: tuple[Tensor, ...]) -> Any:
        """Run the kernel as the model does; the result for autograd."""
        output = self.output = self.function(*self.args, **self.kwargs)
        ctx.set_materialize_grads(False)
        if self.in_place:
            ctx.mark_dirty(operands[0])
            return operands[0]
        if isinstance(output, Tensor):
            return output
        ctx.mark_non_differentiable(*(o for o in output if isinstance(o, Tensor) and not _has_gradient(o)))
        return tuple(output)


class SecantNode(torch.autograd.Function):
    """An operation of x's pass: the model's kernel forward, the secant of x and r backward."""

    @staticmethod
    def forward(ctx: Any, record: Record, call: Call, *operands: Tensor) -> Any:
        """Run the call; the record keeps the output."""
        ctx.record = record
        ctx.shapes = [operand.shape for operand in operands]
        result = call.run(ctx, operands)
        if not record.is_linear:
            # detached, as the output itself gets this node: a circle that no garbage collector sees
            output = call.output
            record.output = output.detach() if isinstance(output, Tensor) else tuple(o.detach() for o in output)
        return result

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor | None) -> Any:
        """From the multipliers of the outputs to those of the operands."""
        record: Record = ctx.record
        if torch.is_grad_enabled() and not record.is_linear_in_m:
            raise RelevanceError(
                "relevance cannot be derived once more: its multipliers do not know what they depend on"
            )
        if all(m is None for m in multipliers):
            return (None, None, *([None] * len(ctx.shapes)))
        if record.pull is None:
            raise RuntimeError("a pull before any reference was compared")
        pulled = record.pull(multipliers[0] if len(multipliers) == 1 else multipliers)  # type: ignore[arg-type]
        return (None, None, *pulled)


class DependenceNode(torch.autograd.Function):
    """An operation of r's pass: keeps nothing and says only that its output depends on the input."""

    @staticmethod
    def forward(ctx: Any, call: Call, *operands: Tensor) -> Any:
        """Run the call."""
        return call.run(ctx, operands)

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor | None) -> Any:
        """Never reached: nothing is pulled through r's pass."""
        raise RuntimeError("r's pass has no backward")


def _has_gradient(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
