"""Single items out of a torch Dataset, or of what a DataLoader yields: images, labels, and their normalization."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor


def image_and_label(item: Any) -> tuple[tuple[Tensor, ...], Any]:
    """The inputs of one item, and its label: a class index, 0 and 1 for several labels, or None."""
    if not isinstance(item, (tuple, list)):
        return (_image(item),), None
    inputs, label = item[0], (item[1] if len(item) > 1 else None)
    parts = tuple(map(_image, inputs)) if isinstance(inputs, (tuple, list)) else (_image(inputs),)
    return parts, None if label is None else _label(label)


def _label(value: Any) -> Any:
    """A class index, or the 0 and 1 of several labels."""
    several = torch.as_tensor(value) if isinstance(value, (Tensor, list, tuple)) else None
    return int(value) if several is None or several.numel() == 1 else several


def stack_labels(labels: Sequence[Any]) -> Tensor:
    """Class indices [N], or 0 and 1 for several labels [N, K].

    Raises:
        ValueError: samples with different numbers of labels.
    """
    tensors = [torch.as_tensor(label) for label in labels]
    shapes = sorted({tuple(one.shape) for one in tensors})
    if len(shapes) > 1:
        raise ValueError(
            f"labels have the shapes {shapes[0]} and {shapes[1]}; give every sample one class index, or 0 or 1 for each "
            "of K labels"
        )
    return torch.stack(tensors)


def _image(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"a reference must be a tensor, got {type(value).__name__}; add ToTensor() to the dataset's transform"
        )
    return value


def single_samples(loader: Iterable[Any]) -> Iterator[Any]:
    """Single items out of a loader's batches."""
    for batch in loader:
        if not isinstance(batch, (tuple, list)):
            yield from batch
            continue
        inputs, labels = batch[0], (batch[1] if len(batch) > 1 else None)
        if isinstance(labels, int) or (isinstance(labels, Tensor) and labels.dim() == 0):
            yield batch  # DataLoader(batch_size=None) hands out single samples
            continue
        rows = zip(*inputs, strict=True) if isinstance(inputs, (tuple, list)) else iter(inputs)
        for row, item in enumerate(rows):
            yield (item,) if labels is None else (item, labels[row])


def reservoir(stream: Iterator[Any], size: int, generator: torch.Generator) -> list[Any]:
    """A uniform sample of a stream of unknown length (Vitter's algorithm R); copies, as rows keep their batch alive."""
    kept = [_copy(item) for item in islice(stream, size)]
    for seen, item in enumerate(stream, start=size + 1):
        slot = int(torch.randint(seen, (1,), generator=generator))
        if slot < size:
            kept[slot] = _copy(item)
    return kept


def _copy(item: Any) -> Any:
    if isinstance(item, (tuple, list)):
        return type(item)(_copy(part) for part in item)
    return item.clone() if isinstance(item, Tensor) else item


def find_normalization(dataset: Any) -> Any:
    """The dataset's torchvision ``Normalize``, if its transform has one."""
    if hasattr(dataset, "datasets"):  # ConcatDataset
        found = [find_normalization(part) for part in dataset.datasets]
        return found[0] if found else None
    step = _find_normalize(getattr(dataset, "transform", None))
    return find_normalization(dataset.dataset) if step is None and hasattr(dataset, "dataset") else step  # Subset


def _find_normalize(transform: Any) -> Any:
    if hasattr(transform, "mean") and hasattr(transform, "std"):
        return transform
    return next(filter(None, map(_find_normalize, getattr(transform, "transforms", ()))), None)
