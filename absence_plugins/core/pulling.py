"""Vector-Jacobian products without what torch imports for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pull_back(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Sequence[Tensor], *, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """The gradients of sum_i <seed_i, output_i> with respect to the inputs; None for those that no output depends on.

    As ``torch.autograd.grad(outputs, inputs, seeds, allow_unused=True)``, with the same bits. That imports sympy to
    compare the shapes, which takes as long as ten forwards of a small network; here they are compared directly.

    Raises:
        ValueError: a seed of another shape than its output.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> pull_back([x * x], [x], [torch.tensor([1.0, 10.0])])
    (tensor([ 2., 40.]),)
    """
    for output, seed in zip(outputs, seeds, strict=True):
        if output.shape != seed.shape:
            raise ValueError(f"a seed of shape {tuple(seed.shape)} for an output of shape {tuple(output.shape)}")
    with torch.enable_grad(), torch._C.DisableTorchFunction():
        ends = [_Seeded.apply(output, seed) for output, seed in zip(outputs, seeds, strict=True)]
        return torch.autograd.grad(ends, inputs, retain_graph=retain_graph, allow_unused=True)


class _Seeded(torch.autograd.Function):
    """A number whose gradient with respect to the output is the seed."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, seed: Tensor) -> Tensor:
        ctx.seed = seed
        return torch.zeros((), device=output.device)

    @staticmethod
    def backward(ctx: Any, *_gradients: Any) -> tuple[Tensor, None]:
        return ctx.seed, None
