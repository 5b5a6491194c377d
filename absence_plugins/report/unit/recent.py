"""Images that were read before: the sections of a page, and pages after one another, show many of the same ones."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor

from absence_plugins.methods.patches.images import image_at

KEPT = 2**29  # bytes: 891 color images of 224 pixels in float32


class RecentImages:
    """The images of a data set by number; those that were asked for last are not read again.

    Args:
        dataset: see :func:`~absence_plugins.methods.patches.images.image_at`.
        most: bytes that are kept.

    >>> import torch
    >>> images = RecentImages(torch.zeros(9, 1, 2, 2), most=32)
    >>> [images[number].shape[0] for number in (0, 1, 2, 2)], images.read, list(images.kept)
    ([1, 1, 1, 1], 3, [1, 2])
    """

    def __init__(self, dataset: Any, most: int = KEPT) -> None:
        self.dataset, self.most = dataset, most
        self.kept: OrderedDict[int, Tensor] = OrderedDict()
        self.bytes = self.read = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Tensor:
        if number in self.kept:
            self.kept.move_to_end(number)
            return self.kept[number]
        image = image_at(self.dataset, number)
        self.read += 1
        self.kept[number] = image
        self.bytes += image.numel() * image.element_size()
        while self.bytes > self.most:
            _, old = self.kept.popitem(last=False)
            self.bytes -= old.numel() * old.element_size()
        return image
