"""A gradient for images from which the unit cannot be reached: rectifiers that let through what would wake them.

Behind a ReLU that is inactive everywhere the gradient is 0, and an optimization that starts there never moves. Lucid's
remedy is to let the gradient of a rectifier pass, where it would raise the inactive unit's input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.hooks import keep_to_thread

RECTIFIERS = (nn.ReLU, nn.ReLU6)


def dead_images(gradients: list[Tensor], per_image: list[bool], images: int) -> Tensor:
    """Which images of the batch get no gradient at all [B]; parameters that are not per image count for all."""
    dead = torch.ones(images, dtype=torch.bool, device=gradients[0].device)
    for gradient, is_per_image in zip(gradients, per_image, strict=True):
        if is_per_image:
            dead &= (gradient.reshape(images, -1) == 0).all(1)
        else:
            dead &= (gradient == 0).all()
    return dead


@contextmanager
def redirected(model: nn.Module) -> Iterator[None]:
    """Let every rectifier module pass gradients that would raise an inactive input; no hook is left."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, RECTIFIERS):
                kept: list[Tensor] = []

                def before(_module: nn.Module, inputs: Any, kept: list[Tensor] = kept) -> Any:
                    kept.append(inputs[0])
                    return (
                        inputs[0].clone(),
                        *inputs[1:],
                    )  # the rectifier may work in place

                def after(
                    _module: nn.Module,
                    inputs: Any,
                    output: Any,
                    kept: list[Tensor] = kept,
                ) -> Any:
                    return _Redirect.apply(kept.pop(), output.detach())

                stack.callback(module.register_forward_pre_hook(keep_to_thread(before)).remove)
                stack.callback(module.register_forward_hook(keep_to_thread(after), prepend=True).remove)
        yield


class _Redirect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (value,) = ctx.saved_tensors
        # a loss falls against its gradient: a negative one would raise the input
        return gradient.masked_fill((value <= 0) & (gradient > 0), 0.0), None
