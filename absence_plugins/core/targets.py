"""The user's target, in whatever form it came: one class, and in maps one place, per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.outputs import as_columns

Target = int | tuple[int, ...] | Tensor | Sequence[int] | Sequence[tuple[int, ...]] | None


def count_index(index: int, size: int) -> int | None:
    """An index among ``size``; negative ones count from the end, as Captum's do. None: it does not exist.

    >>> count_index(-1, 10), count_index(9, 10), count_index(10, 10)
    (9, 9, None)
    """
    return index % size if -size <= index < size else None


def class_indices(target: Target, outputs: Tensor) -> tuple[Tensor, list[tuple[int, ...]] | None]:
    """Captum's ``target`` as class indices [B] and, for outputs of more than two axes, the rest of each tuple.

    As :func:`list_classes`, with a tensor of its own beside the outputs.
    """
    entries, rest = list_classes(target, outputs)
    return as_indices(target, entries, outputs), rest


def list_classes(target: Target, outputs: Tensor) -> tuple[list[int], list[tuple[int, ...]] | None]:
    """The class of every sample and, for outputs of more than two axes, the rest of each tuple.

    Negative indices count from the end, as Captum's do.

    Raises:
        ValueError: no target where there are several outputs, another number of targets than samples,
            a class that does not exist, a tuple of the wrong length.
    """
    outputs = as_columns(outputs)
    samples = outputs.shape[0]
    if target is None:
        if outputs[0].numel() != 1:
            raise ValueError(
                f"the model has outputs of shape {tuple(outputs.shape[1:])}; say which one: target=<class index>"
            )
        target = 0 if outputs.dim() == 2 else (0,) * (outputs.dim() - 1)
    entries = list_entries(target, samples)
    is_plain = outputs.dim() == 2 and not any([isinstance(entry, tuple) for entry in entries])
    if is_plain and min(entries) >= 0 and max(entries) < outputs.shape[1]:
        return entries, None
    tuples = [entry if isinstance(entry, tuple) else (entry,) for entry in entries]
    for row, entry in enumerate(tuples):
        if len(entry) != outputs.dim() - 1:
            raise ValueError(
                f"target {entry} of sample {row} has {len(entry)} indices, but the outputs have {outputs.dim() - 1} "
                f"axes behind the batch: {tuple(outputs.shape[1:])}"
            )
        for index, size in zip(entry, outputs.shape[1:], strict=True):
            if count_index(index, size) is None:
                raise ValueError(
                    f"target {entry if len(entry) > 1 else index} of sample {row} does not exist: indices go from 0 to "
                    f"{size - 1}, or from -1 to -{size} counted from the end"
                )
        tuples[row] = tuple(count_index(index, size) or 0 for index, size in zip(entry, outputs.shape[1:], strict=True))
    return [entry[0] for entry in tuples], ([entry[1:] for entry in tuples] if outputs.dim() > 2 else None)


def as_indices(target: Any, entries: list[int], outputs: Tensor) -> Tensor:
    """A target or non-target as a tensor [B] of its own beside the outputs, of its ``entries``."""
    is_one = type(target) is Tensor and target.dtype == torch.long and target.shape == (len(entries),)
    if is_one and target.device == outputs.device and (min(entries) >= 0):
        own: Tensor = target.clone()  # faster
        return own
    return torch.tensor(entries, dtype=torch.long, device=outputs.device)


def means_sum(target: Target, outputs: Tensor) -> bool:
    """Whether a target names a class of outputs [B, K, H, W] (or of volumes) without a place in the image.

    >>> means_sum(3, torch.zeros(2, 5, 4, 4)), means_sum((3, 0, 0), torch.zeros(2, 5, 4, 4))
    (True, False)
    """
    if target is None or outputs.dim() < 4:
        return False
    return all(not isinstance(entry, tuple) or len(entry) == 1 for entry in list_entries(target, len(outputs)))


def list_entries(target: Any, samples: int) -> list[Any]:
    """One entry (int or tuple) per sample, whatever form the target came in."""
    if isinstance(target, Tensor) and target.dtype == torch.long and target.shape == (samples,):
        return target.tolist()
    if isinstance(target, Tensor) or (not isinstance(target, (int, tuple, list)) and hasattr(target, "tolist")):
        target = target.tolist()
    if isinstance(target, list):
        if len(target) == 1 and samples != 1:
            target = target * samples
        if len(target) != samples:
            raise ValueError(f"{len(target)} targets for {samples} samples: pass one target per sample, or one for all")
        entries = [tuple(entry) if isinstance(entry, (tuple, list)) else entry for entry in target]
    else:
        entries = [target] * samples
    for entry in entries:
        for index in entry if isinstance(entry, tuple) else (entry,):
            if isinstance(index, bool) or not isinstance(index, int):
                raise TypeError(f"a target must be an integer or a tuple of integers, got {index!r}")
    return entries
