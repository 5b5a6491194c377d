"""Rows of a page about images: their warnings, and model inputs as pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from absence_plugins.commands.models import LoadedModel
from absence_plugins.core import AbsenceWarning
from absence_plugins.report import Row


def add_warnings(row: Callable[..., Row], *arguments: Any) -> Row:
    """A row whose sentence ends with what the adapters warned of: the page is read without its console."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AbsenceWarning)
        made = row(*arguments)
    said = list(dict.fromkeys(str(warning.message) for warning in caught))
    return replace(made, sentence=" ".join([made.sentence, *(f"Note: {text}." for text in said)]))


def denormalize(x: Tensor, loaded: LoadedModel) -> Tensor:
    """A model input back as a picture in [0, 1]."""
    p = loaded.preprocessing
    return (x * torch.tensor(p.std).reshape(-1, 1, 1) + torch.tensor(p.mean).reshape(-1, 1, 1)).clamp(0, 1)


def is_of_the_system(error: BaseException) -> bool:
    """Whether an error is no fault of one image: a full disk, exhausted memory.

    >>> is_of_the_system(RuntimeError("can't allocate memory: 9 bytes")), is_of_the_system(ValueError("NaN"))
    (True, False)
    """
    if isinstance(error, OSError):
        return error.errno is not None
    return isinstance(error, RuntimeError) and any(part in str(error) for part in ("memory", "No space left"))
