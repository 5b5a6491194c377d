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


def halves(dataset: Any, split_seed: int = 0, groups: Any = None) -> tuple[list[int], list[int]]:
    """Image numbers of two disjoint random halves, each in order: one to choose patches on, one to test on.

    groups: [N] integers, equal for images of one group (copies, crops, frames), which lie in one half; each half has
    half of the groups.

    >>> first, second = halves(range(6))
    >>> sorted(first + second), len(first)
    ([0, 1, 2, 3, 4, 5], 3)
    >>> halves(range(6), groups=[0, 0, 0, 0, 1, 1])
    ([0, 1, 2, 3], [4, 5])
    """
    numbers = as_groups(groups, len(dataset))
    count = len(torch.unique(numbers))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(split_seed))
    is_first = torch.zeros(count, dtype=torch.bool)
    is_first[order[: count // 2]] = True
    chosen = is_first[numbers]
    return chosen.nonzero()[:, 0].tolist(), (~chosen).nonzero()[:, 0].tolist()


def as_groups(groups: Any, count: int) -> Tensor:
    """The group of each of ``count`` images as numbers from 0 [N]; None: every image is alone.

    Raises:
        TypeError: no integers. ValueError: not one per image.

    >>> as_groups([7, 3, 7], 3), as_groups(None, 2)
    (tensor([1, 0, 1]), tensor([0, 1]))
    """
    if groups is None:
        return torch.arange(count)
    numbers = torch.as_tensor(groups).detach().cpu()
    if numbers.is_floating_point() or numbers.is_complex():
        raise TypeError(f"groups are {numbers.dtype}; pass one integer per image, equal for images of one group")
    if numbers.shape != (count,):
        raise ValueError(f"groups have shape {tuple(numbers.shape)}; pass one per image, [{count}]")
    found: Tensor = torch.unique(numbers, return_inverse=True)[1]
    return found


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
