"""Images of a data set, checked as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.groups import as_groups
from absence_plugins.data.reading_ahead import read_ahead


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

    groups: [N] integers or strings, equal for images of one group (copies, crops, frames, patients), which lie in one
    half; each half has half of the groups.

    Raises:
        TypeError, ValueError: groups as :func:`~absence_plugins.core.groups.as_groups` rejects them.

    >>> first, second = halves(range(6))
    >>> sorted(first + second), len(first)
    ([0, 1, 2, 3, 4, 5], 3)
    >>> halves(range(6), groups=[0, 0, 0, 0, 1, 1])
    ([0, 1, 2, 3], [4, 5])
    """
    given = as_groups(groups, len(dataset))
    numbers = torch.arange(len(dataset)) if given is None else given
    count = len(torch.unique(numbers))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(split_seed))
    is_first = torch.zeros(count, dtype=torch.bool)
    is_first[order[: count // 2]] = True
    chosen = is_first[numbers]
    return chosen.nonzero()[:, 0].tolist(), (~chosen).nonzero()[:, 0].tolist()


def read(dataset: Any, numbers: list[list[int]], workers: int) -> Iterator[Any]:
    """Items of the data set, block by block, in order; draws nothing from the global random state.

    A constant number of blocks is held, however many there are. Workers send what can be stacked as one tensor, without
    what stands beside the images.

    numbers: of each block's images; workers: processes that read ahead, 0 for none: then a thread does, if the data set
    says by ``reads_in_threads`` that its items may be read there.
    """
    if not workers and getattr(dataset, "reads_in_threads", False):
        return read_ahead(lambda block: [dataset[number] for number in block], numbers, threads=1)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=numbers,
        collate_fn=_stack if workers else list,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)


def _stack(items: list[Any]) -> Any:
    """Images of one shape as one tensor, which a worker sends at once; others as they are."""
    images = [item[0] if isinstance(item, (tuple, list)) and item else item for item in items]
    if not all(type(image) is Tensor for image in images):
        return items
    if len({(image.shape, image.dtype, image.layout, image.device, image.requires_grad) for image in images}) > 1:
        return images
    return images if images[0].requires_grad else torch.utils.data.default_collate(images)


def stack_images(block: Any) -> Tensor:
    """A block of :func:`read` as one tensor [B, C, H, W]: without a copy where it came as one."""
    return block if isinstance(block, Tensor) else torch.stack(list(block))
