"""Inputs as users pass them (a tensor, a tuple, a dictionary), and references for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.scales import check_scales, measure_scale


@dataclass(frozen=True)
class Structure:
    """How a flat list of values becomes the call of a model, and a result of the same structure."""

    names: tuple[str, ...] | None  # of keyword inputs
    is_single: bool

    def call(self, model: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        """Call the model."""
        if self.names is not None:
            return model(**dict(zip(self.names, values, strict=True)))
        return model(*values)

    def build(self, values: list[Any]) -> Any:
        """Values in the structure of the inputs."""
        if self.names is not None:
            return dict(zip(self.names, values, strict=True))
        return values[0] if self.is_single else tuple(values)


def flatten(inputs: Any) -> tuple[list[Any], Structure]:
    """The values of the inputs, and their structure.

    Raises:
        TypeError: neither a tensor, a tuple or list, nor a mapping, or without any tensor.
        ValueError: a tensor without values, or with NaN.
    """
    if isinstance(inputs, Tensor):
        check_numbers("the input", [inputs])
        return [inputs], Structure(None, True)
    if isinstance(inputs, Mapping):
        values, structure = list(inputs.values()), Structure(tuple(inputs), False)
    elif isinstance(inputs, (tuple, list)):
        values, structure = list(inputs), Structure(None, False)
    else:
        raise TypeError(f"the input must be a tensor, a tuple or a dictionary of tensors, got {type(inputs).__name__}")
    if not any(isinstance(value, Tensor) for value in values):
        raise TypeError(f"the input holds no tensor: {[type(value).__name__ for value in values]}")
    check_numbers("the input", values)
    return values, structure


def check_numbers(name: str, values: list[Any]) -> None:
    """Raise ValueError for a tensor without values, or with NaN. Infinities pass: an attention mask holds them."""
    for number, value in enumerate(values):
        if isinstance(value, Tensor):
            which = name if len(values) == 1 else f"{name} {number}"
            if value.numel() == 0:
                raise ValueError(f"{which} is empty: its shape is {tuple(value.shape)}")
            if bool(value.isnan().any()):
                place = tuple(value.isnan().nonzero()[0].tolist())
                raise ValueError(f"{which} holds NaN, first at {place}")


def list_references(reference: Any, inputs: list[Any], structure: Structure) -> list[list[Any]]:
    """One flat list of values per reference, each shaped like the inputs.

    Raises:
        TypeError, ValueError: the reference has another structure or shape than the input, is empty or holds NaN.
    """
    if isinstance(reference, list) and not (
        structure.names is None and not structure.is_single and _fits(reference, inputs)
    ):
        if not reference:
            raise ValueError("the list of references is empty; pass at least one")
        return [one for entry in reference for one in list_references(entry, inputs, structure)]
    values = _matched(reference, inputs, structure)
    check_numbers("the reference", values)
    counted = [_expand(value, x) for value, x in zip(values, inputs, strict=True)]
    counts = {len(entry) for entry in counted if entry is not None and len(entry) > 1} or {1}
    if len(counts) > 1:
        raise ValueError(f"the inputs have different numbers of references: {sorted(counts)}")
    count = counts.pop()
    return [
        [x if entry is None else entry[min(index, len(entry) - 1)] for entry, x in zip(counted, inputs, strict=True)]
        for index in range(count)
    ]


def _fits(reference: list[Any], inputs: list[Any]) -> bool:
    """Whether a list is one reference for inputs given as a tuple or list, rather than a list of references."""
    return len(reference) == len(inputs) and all(
        isinstance(value, Tensor) == isinstance(x, Tensor) for value, x in zip(reference, inputs, strict=True)
    )


def _matched(reference: Any, inputs: list[Any], structure: Structure) -> list[Any]:
    if isinstance(reference, (int, float)):
        return [reference if isinstance(x, Tensor) else x for x in inputs]
    if structure.names is not None:
        if not isinstance(reference, Mapping):
            raise TypeError(f"the input is a dictionary, so the reference must be one, got {type(reference).__name__}")
        unknown = [name for name in reference if name not in structure.names]
        if unknown:
            raise ValueError(f"the reference has {unknown}, which the input has not: {list(structure.names)}")
        return [reference.get(name, x) for name, x in zip(structure.names, inputs, strict=True)]
    values = [reference] if structure.is_single else list(reference)
    if len(values) != len(inputs):
        raise ValueError(f"{len(inputs)} inputs need as many references, got {len(values)}")
    return values


def _expand(value: Any, x: Any) -> list[Any] | None:
    """The references for one input as a list; None where it is no tensor."""
    if not isinstance(x, Tensor):
        return None
    if isinstance(value, (int, float)):
        return [torch.full_like(x, value)]
    if not isinstance(value, Tensor):
        raise TypeError(f"a reference must be a tensor like its input, got {type(value).__name__}")
    if value.shape[value.dim() - x.dim() + 1 :] == x.shape[1:]:
        check_scales([x], [measure_scale(value.reshape(-1, *x.shape[1:]))])
    value = value.to(x)
    if value.shape == x.shape:
        return [value]
    if value.shape[1:] == x.shape:
        return list(value)
    if value.dim() == x.dim() and value.shape[1:] == x.shape[1:]:
        if x.shape[0] == 1:
            return list(value.unsqueeze(1))
        if value.shape[0] == 1:
            return [value.expand_as(x)]
    if value.shape == x.shape[1:]:
        return [value.expand_as(x)]
    raise ValueError(
        f"a reference of shape {tuple(value.shape)} does not fit an input of shape {tuple(x.shape)}; pass the same "
        "shape, or one more leading axis for several references"
    )
