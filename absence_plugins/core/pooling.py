"""Max pooling of two inputs side by side: which of them a change of the maximum belongs to."""

from __future__ import annotations

from typing import Any

import torch  # noqa: F401  (examples)
from torch import Tensor, nn
from torch.nn import functional as F

_WINDOWED: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_ADAPTIVE: dict[int, Any] = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
ADAPTIVE_MAX_POOLS = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)


def to_winners(module: Any, value: Tensor, amounts: Tensor) -> Tensor:
    """Put amounts that belong to the maxima of [x, r] where x and r have them: [2B, C, out] -> [B, C, in].

    The rise max(o_x, o_r) - o_r of a maximum is due to x's winner, the fall o_x - max(o_x, o_r) to r's (the
    rule of DeepLIFT: Shrikumar et al., ICML 2017). Where windows overlap, an input collects from all of them.

    >>> pool = nn.MaxPool1d(2)
    >>> to_winners(pool, torch.tensor([[[0.0, 3.0]], [[5.0, 0.0]]]), torch.tensor([[[0.0]], [[-2.0]]]))
    tensor([[[-2.,  0.]]])
    """
    axes = value.dim() - 2
    if isinstance(module, ADAPTIVE_MAX_POOLS):
        _, indices = _ADAPTIVE[axes](value, module.output_size, return_indices=True)
    else:
        _, indices = _WINDOWED[axes](
            value,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.ceil_mode,
            return_indices=True,
        )
    return scattered(indices.flatten(2), value.flatten(2), amounts.flatten(2)).view_as(value.chunk(2)[0])


def scattered(indices: Tensor, value: Tensor, amounts: Tensor) -> Tensor:
    """Amounts at their winners' places, x's and r's added up: three of [2B, C, N] -> [B, C, N]."""
    of_x, of_r = value.new_zeros(value.shape).scatter_add(2, indices, amounts).chunk(2)
    return of_x + of_r
