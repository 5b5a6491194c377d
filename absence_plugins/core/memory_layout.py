"""In which way a model runs fastest without gradients: how images lie in memory, and whose convolutions are used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absence_plugins.core.direct_convolutions import direct_convolutions

SAME = 1e-4  # of the largest output: rounding of another order of the same sums; what is further apart is no rounding
Read = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Way:
    """How a model runs on images without gradients.

    Attributes:
        layout: of the images in memory.
        is_direct: whether 1 x 1 convolutions are oneDNN's.

    >>> Way().read(torch.neg, torch.ones(1, 1, 1, 1)).item()
    -1.0
    """

    layout: torch.memory_format = torch.contiguous_format
    is_direct: bool = False

    def read(self, read: Read, images: Tensor) -> Tensor:
        """``read(images)``, with images [B, C, H, W] in the layout."""
        with torch.no_grad(), direct_convolutions() if self.is_direct else nullcontext():
            return read(images.contiguous(memory_format=self.layout))


PLAIN = Way()


def find_way(model: nn.Module, x: Tensor, outputs: Tensor, read: Read) -> Way:
    """Channels last and oneDNN for convolutional networks on the CPU, if the model gives the same outputs so; else
    :data:`PLAIN`.

    Convolutions in channels last take half to nine tenths of the time; values differ by rounding. A model may look at
    strides (``view``) and fail, or give something else: so it is asked, with one forward.

    Args:
        model: its modules say whether there are convolutions.
        x: images [B, C, H, W] in the plain layout.
        outputs: the model's for them [B, K, ...].
        read: images -> outputs.

    >>> net, x = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    >>> find_way(net, x, net(x), net).layout
    torch.channels_last
    >>> find_way(nn.Flatten(), x, x.flatten(1), nn.Flatten()).layout
    torch.contiguous_format
    """
    if x.dim() != 4 or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return PLAIN
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return PLAIN
    fast = Way(torch.channels_last, is_direct=True)
    try:
        again = fast.read(read, x)
    except Exception:  # whatever a model raises on strides that it does not expect
        return PLAIN
    is_same = again.shape == outputs.shape and bool(((again - outputs).abs() <= SAME * outputs.abs().max()).all())
    return fast if is_same else PLAIN
