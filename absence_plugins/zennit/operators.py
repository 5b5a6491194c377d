"""Linear modules as functions of input and weight, without bias."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from zennit.types import Convolution, ConvolutionTranspose

from absence_plugins.zennit.shares import Operator

TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def weight_of(module: Any) -> Tensor | None:
    """A linear module's weight as a plain tensor; None for poolings and sums."""
    return module.weight.detach() if isinstance(module, (nn.Linear, Convolution)) else None


def operator_of(module: Any) -> Operator:
    """A linear module as a function of input and weight, without bias.

    Raises:
        TypeError: the module is not linear.
    """
    if isinstance(module, nn.Linear):
        return lambda value, weight: F.linear(value, weight)  # type: ignore[arg-type]
    if isinstance(module, ConvolutionTranspose):
        transposed = TRANSPOSED[len(module.kernel_size)]
        rest = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
        return lambda value, weight: transposed(value, weight, None, *rest)
    if isinstance(module, Convolution):
        return lambda value, weight: module._conv_forward(value, weight, None)
    return lambda value, _: module.forward(value)
