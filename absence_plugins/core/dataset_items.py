"""Single items out of a torch Dataset, or of what a DataLoader yields: the images and the label of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

# Keys of dictionaries, as the data sets of Hugging Face, MONAI and others have them; the first that is there counts.
IMAGE_KEYS = ("pixel_values", "image", "images", "img", "imgs", "inputs", "input", "x", "data")
LABEL_KEYS = ("label", "labels", "target", "targets", "y", "class")
LABEL_WORDS = ("label", "class", "target")


def image_and_label(item: Any, sample: str = "sample 0") -> tuple[tuple[Tensor, ...], Any]:
    """The inputs of one item, and its label as it is, or None.

    An item is an image, a tuple (image, label), or a dictionary with an image and, where it has one, a label.

    Raises:
        TypeError: no tensor; a dictionary of which it is not clear what is the image, and what the label.

    >>> image_and_label({"img": torch.zeros(1, 2, 2), "fine_label": 3})[1]
    3
    """
    inputs, label = _split_mapping(item, sample) if isinstance(item, Mapping) else _split_row(item)
    parts = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    return tuple(_image(part) for part in parts), label


def has_several_inputs(item: Any) -> bool:
    """Whether an item is ((image, image), label)."""
    return not isinstance(item, Mapping) and isinstance(_split_row(item)[0], (tuple, list))


def _split_row(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)):
        return item, None
    return item[0], (item[1] if len(item) > 1 else None)


def _split_mapping(item: Mapping[Any, Any], sample: str = "sample 0") -> tuple[Any, Any]:
    image, label = _find_keys(item, sample)
    return item[image], None if label is None else item[label]


def _find_keys(item: Mapping[Any, Any], sample: str) -> tuple[Any, Any]:
    """The keys of the image and of the label (None: none)."""
    keys = list(item)
    label = next((key for key in LABEL_KEYS if key in item), None)
    if label is None:
        likely = [key for key in keys if isinstance(key, str) and any(word in key.lower() for word in LABEL_WORDS)]
        if len(likely) > 1:
            raise TypeError(
                f"{sample} is a dictionary in which {' and '.join(map(repr, likely))} may be the label; return "
                "(image, label)"
            )
        label = likely[0] if likely else None
    image = next((key for key in IMAGE_KEYS if key in item), None)
    axes = {key: item[key].dim() for key in keys if key != label and isinstance(item[key], Tensor)}
    largest = [key for key, count in axes.items() if count and count == max(axes.values())]
    if image is None and len(largest) == 1:
        image = largest[0]
    if image is None:
        raise TypeError(
            f"{sample} is a dictionary with the keys {', '.join(map(repr, keys))}, of which none is known to be the "
            "image; return (image, label)"
        )
    return image, label


def _image(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"a reference must be a tensor, got {type(value).__name__}; add ToTensor() to the dataset's transform"
        )
    return value


def single_samples(loader: Iterable[Any]) -> Iterator[Any]:
    """Single items out of a loader's batches."""
    for batch in loader:
        if isinstance(batch, Mapping):
            yield from _rows_of_mapping(batch)
            continue
        if not isinstance(batch, (tuple, list)):
            yield from batch
            continue
        inputs, labels = _split_row(batch)
        if _is_scalar(labels):
            yield batch  # DataLoader(batch_size=None) hands out single samples
            continue
        rows = list(zip(*inputs, strict=True)) if isinstance(inputs, (tuple, list)) else inputs
        labels = _uncollate(labels, len(rows))
        for row, item in enumerate(rows):
            yield (item,) if labels is None else (item, labels[row])


def _rows_of_mapping(batch: Mapping[Any, Any]) -> Iterator[Any]:
    image, label = _find_keys(batch, "a batch")
    if label is not None and _is_scalar(batch[label]):
        yield batch
        return
    labels = None if label is None else _uncollate(batch[label], len(batch[image]))
    for row, item in enumerate(batch[image]):
        yield (item,) if labels is None else (item, labels[row])


def _uncollate(labels: Any, samples: int) -> Any:
    """Labels by sample: torch's default collate makes of lists of K numbers K tensors of all samples."""
    if not isinstance(labels, (list, tuple)) or not labels:
        return labels
    is_transposed = all(isinstance(one, Tensor) and one.shape == (samples,) for one in labels)
    return torch.stack(tuple(labels), 1) if is_transposed else labels


def _is_scalar(label: Any) -> bool:
    return isinstance(label, (int, float)) or (isinstance(label, Tensor) and label.dim() == 0)


def reservoir(stream: Iterable[Any], size: int, generator: torch.Generator) -> list[tuple[int, Any]]:
    """A uniform sample of a stream of unknown length (Vitter's algorithm R), with the places in the stream; copies, as
    rows keep their batch alive.
    """
    numbered = enumerate(stream)
    kept = [(place, _copy(item)) for place, item in islice(numbered, size)]
    for place, item in numbered:
        slot = int(torch.randint(place + 1, (1,), generator=generator))
        if slot < size:
            kept[slot] = place, _copy(item)
    return kept


def _copy(item: Any) -> Any:
    if isinstance(item, (tuple, list)):
        return type(item)(_copy(part) for part in item)
    if isinstance(item, Mapping):
        return {key: _copy(value) for key, value in item.items()}
    return item.clone() if isinstance(item, Tensor) else item
