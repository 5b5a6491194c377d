"""Convolutions with 1 x 1 kernels by oneDNN on the CPU, also in one thread, where torch takes a slower way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")  # of conv2d
PLAIN = (Tensor, torch.nn.Parameter)  # no subclasses, which decide themselves what a convolution is


class direct_convolutions(TorchFunctionMode):
    """In this block, without gradients, 1 x 1 convolutions of float32 on the CPU are oneDNN's.

    In one thread torch copies the values and calls a matrix product for them, up to 15 images; oneDNN, which it takes
    in several threads, needs half of the time where the matrix product does not use AVX-512 (processors of AMD). Sums are rounded in another order; nothing else is
    different. All other calls run as they are.

    >>> net, x = torch.nn.Conv2d(8, 4, 1), torch.rand(2, 8, 5, 5)
    >>> with torch.no_grad(), direct_convolutions():
    ...     found = net(x)
    >>> torch.allclose(found, net(x), atol=1e-6)
    True
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        if func is torch.conv2d and not torch.is_grad_enabled():
            given = {"bias": None} | dict(zip(ARGUMENTS, args, strict=False)) | kwargs
            if _is_pointwise(**given):
                x, weight, bias = given["input"], given["weight"], given["bias"]
                return torch.mkldnn_convolution(x, weight, bias, (0, 0), (1, 1), (1, 1), 1)
        return func(*args, **kwargs)


def _is_pointwise(
    input: Any = None,
    weight: Any = None,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution is a matrix product of the channels at every position, of numbers that oneDNN takes."""
    if not (_is_usual(input) and _is_usual(weight) and (bias is None or _is_usual(bias))) or groups != 1:
        return False
    is_product = tuple(weight.shape[2:]) == (1, 1) and _all(stride, 1) and _all(padding, 0) and _all(dilation, 1)
    fits = input.dim() == 4 and input.numel() > 0 and weight.shape[1] == input.shape[1]
    return is_product and fits and not torch.is_autocast_enabled("cpu") and _has_library()


def _has_library() -> bool:
    library: Any = torch.backends.mkldnn
    return bool(library.is_available() and library.enabled)


def _is_usual(value: Any) -> bool:
    return (
        type(value) in PLAIN
        and value.dtype == torch.float32
        and value.device.type == "cpu"
        and value.layout == torch.strided
    )


def _all(value: Any, expected: int) -> bool:
    return all(one == expected for one in (value if isinstance(value, (tuple, list)) else (value,)))
