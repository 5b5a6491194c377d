"""Labels as data sets have them: read as class indices where they can be nothing else, otherwise rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

SHOWN = 4  # keys or values in a message


def read_label(value: Any, sample: str = "sample 0") -> int | Tensor:
    """One sample's label: a class index, or the 0 and 1 of several labels [K].

    Whole numbers of any type are class indices (2.0, ``numpy.int64(2)``, True, a tensor of one element). Rows may be
    tensors, arrays or lists; whether they hold 0 and 1 shows when all are known (:func:`check_labels`).

    Args:
        value: as the data set has it.
        sample: which one, for messages.

    Raises:
        ValueError: a fraction, a negative number, text, a dictionary, or anything else that is no class index.

    >>> read_label(2.0), read_label(torch.tensor([0, 1, 1]))
    (2, tensor([0, 1, 1]))
    >>> read_label(0.7, "sample 3")
    Traceback (most recent call last):
    ...
    ValueError: labels must be class indices, got 0.7 for sample 3; for quantities pass the images without labels
    """
    if isinstance(value, (str, bytes)):
        raise ValueError(
            f"labels must be class indices, got the text {value!r} for {sample}; number the classes in the order of the "
            "model's outputs, for example names.index(label)"
        )
    if isinstance(value, Mapping):
        raise ValueError(
            f"labels must be class indices, got a dictionary with the keys {_show(list(value))} for {sample}; return the "
            "class index alone"
        )
    number = _to_tensor(value, sample)
    if not number.numel():
        raise ValueError(f"labels must be class indices, got an empty {type(value).__name__} for {sample}")
    if number.numel() != 1:
        return number
    wrong = find_fault(number.reshape(1))
    if wrong is not None:
        raise ValueError(f"labels must be class indices, got {number.item():.6g} for {sample}; {wrong[1]}")
    return int(number.item())


def stack_labels(labels: Sequence[Any], samples: Sequence[str]) -> Tensor | None:
    """Class indices [N], or 0 and 1 for several labels [N, K]; None where no sample has a label.

    Raises:
        ValueError: as :func:`read_label`; samples with different numbers of labels; labels of some samples only.
    """
    without = [place for place, label in enumerate(labels) if label is None]
    if len(without) == len(labels):
        return None
    if without:
        raise ValueError(f"{samples[without[0]]} has no label and others have one; give all of them a label, or none")
    tensors = [torch.as_tensor(read_label(label, sample)) for label, sample in zip(labels, samples, strict=True)]
    shapes = sorted({tuple(one.shape) for one in tensors})
    if len(shapes) > 1:
        raise ValueError(
            f"labels have the shapes {shapes[0]} and {shapes[1]}; give every sample one class index, or 0 or 1 for each "
            "of K labels"
        )
    return torch.stack(tensors)


def check_labels(labels: Any, samples: int, what: str = "reference image") -> Tensor:
    """Class indices [N], or 0 and 1 for several labels [N, K]; rows with exactly one 1 each are class indices.

    Raises:
        ValueError: another number of rows, or a value that is not a class index.

    >>> check_labels([[0, 1], [1, 0]], 2), check_labels([[1, 1], [1, 0]], 2)
    (tensor([1, 0]), tensor([[1, 1],
            [1, 0]]))
    """
    rows = _read_rows(labels)
    if rows.dim() not in (1, 2) or len(rows) != samples or (rows.dim() == 2 and rows.shape[1] < 2):
        raise ValueError(
            f"{samples} {what}s but labels of shape {tuple(rows.shape)}; pass one class index per image, or "
            "0 or 1 for each of K labels [N, K]"
        )
    if rows.dim() == 1:
        wrong = find_fault(rows)
        if wrong is not None:
            place, remedy = wrong
            raise ValueError(f"labels must be class indices, got {rows[place].item():.6g} for sample {place}; {remedy}")
        return rows.long()
    others = ((rows != 0) & (rows != 1)).nonzero()
    if len(others):
        row, column = others[0].tolist()
        raise ValueError(
            f"labels [N, K] must be 0 or 1, got {rows[row, column].item()} for label {column} of {what} {row}; "
            "of shares or probabilities pass the index of the highest, labels.argmax(1)"
        )
    return rows.long().argmax(1) if bool((rows.sum(1) == 1).all()) else rows.long()


def check_classes(labels: Any) -> Tensor:
    """Class indices [N], one per sample.

    Raises:
        ValueError: several labels per sample; a value that is not a class index.

    >>> check_classes([2.0, 0.0])
    tensor([2, 0])
    """
    rows = check_labels(labels, len(labels), "image")
    if rows.dim() > 1:
        raise ValueError(
            f"labels must be one class index per image, got {rows.shape[1]} labels for each, several of which may hold"
        )
    return rows


def find_fault(labels: Tensor) -> tuple[int, str] | None:
    """The first of labels [N] that is no class index, and what to do about it; None where all are.

    >>> find_fault(torch.tensor([1.0, -1.0]))
    (1, 'classes count from 0, so renumber them, or leave samples without a class out')
    """
    fractional = (
        ~torch.isfinite(labels) | (labels != labels.trunc()) if labels.is_floating_point() else labels != labels
    )
    if bool(fractional.any()):
        return int(fractional.nonzero()[0]), "for quantities pass the images without labels"
    if labels.dtype != torch.bool and bool((labels < 0).any()):
        remedy = "classes count from 0, so renumber them, or leave samples without a class out"
        return int((labels < 0).nonzero()[0]), remedy
    return None


def _read_rows(labels: Any) -> Tensor:
    if isinstance(labels, Tensor):
        return labels.detach().cpu()
    if isinstance(labels, (str, bytes, Mapping)):
        raise ValueError(f"labels must be one class index per image, got {type(labels).__name__}")
    try:
        rows = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError):  # of text, of dictionaries, of rows of different lengths
        rows = None
    if rows is not None and rows.numel() and not rows.is_complex():
        return rows
    found = stack_labels(list(labels), [f"sample {place}" for place in range(len(labels))])
    if found is None:
        raise ValueError("labels are all None; leave them out")
    return found


def _to_tensor(value: Any, sample: str) -> Tensor:
    if hasattr(value, "tolist") and not isinstance(value, Tensor) and getattr(value, "ndim", None) == 0:
        value = value.tolist()  # numpy.bool_ as an index is deprecated in NumPy 1
    try:
        number = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None or number.is_complex():
        shown = f": {_show(value)}" if isinstance(value, (list, tuple)) else ""
        raise ValueError(f"labels must be class indices, got a {type(value).__name__}{shown} for {sample}")
    return number


def _show(values: Sequence[Any]) -> str:
    more = ", ..." if len(values) > SHOWN else ""
    return ", ".join(map(repr, values[:SHOWN])) + more
