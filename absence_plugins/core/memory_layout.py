"""Which memory layout of images a model is faster in: channels last on the CPU, where that gives the same outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SAME = 1e-4  # of the largest output: rounding of another order of the same sums; what is further apart is no rounding
PLAIN, LAST = torch.contiguous_format, torch.channels_last


def find_layout(model: nn.Module, x: Tensor, outputs: Tensor, read: Callable[[Tensor], Tensor]) -> torch.memory_format:
    """Channels last for convolutional networks on the CPU, if the model gives the same outputs for it; else the plain
    layout.

    Convolutions in channels last take half to nine tenths of the time; values differ by rounding. A model may look at
    strides (``view``) and fail, or give something else: so it is asked, with one forward.

    Args:
        model: its modules say whether there are convolutions.
        x: images [B, C, H, W] in the plain layout.
        outputs: the model's for them [B, K, ...].
        read: images -> outputs.

    >>> net, x = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    >>> find_layout(net, x, net(x), net)
    torch.channels_last
    >>> find_layout(nn.Flatten(), x, x.flatten(1), nn.Flatten())
    torch.contiguous_format
    """
    if x.dim() != 4 or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return PLAIN
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return PLAIN
    try:
        with torch.no_grad():
            again = read(x.contiguous(memory_format=LAST))
    except Exception:  # whatever a model raises on strides that it does not expect
        return PLAIN
    is_same = again.shape == outputs.shape and bool(((again - outputs).abs() <= SAME * outputs.abs().max()).all())
    return LAST if is_same else PLAIN
