"""Images of a data set, checked as they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def image_at(dataset: Any, number: int) -> Tensor:
    """Image [C, H, W] number ``number``: of items ``image`` or ``(image, label, ...)``.

    Raises:
        ValueError: NaN or infinite pixels, with the image's number.
        TypeError: no tensor of that shape.
    """
    return checked(dataset[number], number)


def checked(item: Any, number: int) -> Tensor:
    """As :func:`image_at`, of an item that was read."""
    image = item[0] if isinstance(item, (tuple, list)) else item
    if not isinstance(image, Tensor) or image.dim() != 3 or not image.is_floating_point():
        found = f"shape {tuple(image.shape)}, {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(
            f"image {number} of the data set must be a float tensor [C, H, W], got {found}; give the data set a "
            "transform such as torchvision's ToTensor()"
        )
    if not bool(torch.isfinite(image).all()):
        raise ValueError(f"image {number} holds NaN or infinite pixels; leave it out")
    return image


def halves(dataset: Any, split_seed: int = 0) -> tuple[list[int], list[int]]:
    """Image numbers of two disjoint random halves, each in order: one to choose patches on, one to test on.

    >>> first, second = halves(range(6))
    >>> sorted(first + second), len(first)
    ([0, 1, 2, 3, 4, 5], 3)
    """
    count = len(dataset)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(split_seed)).tolist()
    return sorted(order[: count // 2]), sorted(order[count // 2 :])


def read(dataset: Any, numbers: list[list[int]], workers: int) -> Any:
    """Items of the data set, block by block, in order; draws nothing from the global random state.

    numbers: of each block's images; workers: processes that read ahead, 0 for none.
    """
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=numbers,
        collate_fn=list,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)
