"""The model of rows, texts, signals or volumes, and what a factory returns beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins import Column, TableKind
from absence_plugins.commands.early_checks import BUNDLED, SOURCES
from absence_plugins.commands.factories import build_parts
from absence_plugins.commands.predictions import read_outputs
from absence_plugins.commands.preprocessing import input_dtype
from absence_plugins.commands.published import read_categories
from absence_plugins.commands.sources import Wanted, load_text_classifier
from absence_plugins.core.devices import device_of

BATCH = 64  # samples in a forward


@dataclass(frozen=True, eq=False)
class KindModel:
    """A model in evaluation mode, and what belongs to it.

    Attributes:
        model: of rows, texts, signals or volumes.
        categories: the classes' names, () where they are not known.
        preprocessing: of rows: Columns, a TableKind or a fitted scaler; else None.
        tokenizer: of texts; else None.
        notes: sentences for the page.
    """

    model: nn.Module
    categories: tuple[str, ...] = ()
    preprocessing: Any = None
    tokenizer: Any = None
    notes: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        """``class 3`` or ``class 3 (magpie)``."""
        known = index < len(self.categories) and self.categories[index] != str(index)
        return f"class {index} ({self.categories[index]})" if known else f"class {index}"

    def fit(self, inputs: Tensor) -> Tensor:
        """Inputs in the model's number format and on its device; integers stay integers."""
        kept = inputs if not inputs.is_floating_point() else inputs.to(input_dtype(self.model))
        return kept.to(device_of(self.model))

    def read(self, inputs: Tensor) -> Tensor:
        """Outputs [N, K] of many inputs, a batch at a time, on the CPU."""
        with torch.no_grad():
            return torch.cat([read_outputs(self.model, self.fit(part)).cpu() for part in torch.split(inputs, BATCH)])


def load_kind_model(spec: str, weights: str, kind: str, classes: Sequence[str] = ()) -> KindModel:
    """The model that ``--model`` names.

    ``module:factory`` is a model, or returns one, or a tuple of it and what belongs to it, in any order: of a table its
    columns (a sequence of :class:`~absence_plugins.Column`, a :class:`~absence_plugins.TableKind`) or a fitted scaler,
    of texts the tokenizer, and the classes' names (a sequence of strings). ``hf:FOLDER`` is a classifier of texts.

    Args:
        spec: as typed.
        weights: "none", or a file.
        kind: "table", "text", "signal" or "volume".
        classes: names in place of those that the model has.

    Raises:
        ValueError: a source of images only, something in the tuple that is not understood.
        ImportError: transformers is missing.
    """
    source, _, name = spec.partition(":")
    wanted = Wanted(weights)
    if source == "hf" and kind == "text":
        model, tokenizer, notes = load_text_classifier(name, wanted)
        found = KindModel(model.eval(), read_categories(model.config), None, tokenizer, notes)
    elif spec in BUNDLED or source in SOURCES:
        other = "hf:FOLDER or module:factory" if kind == "text" else "module:factory"
        raise ValueError(f"--model {spec} is a model of images; --{kind} needs {other}")
    else:
        found = _from_module(source, name, wanted, kind)
    return replace(found, categories=tuple(classes)) if classes else found


def _from_module(module: str, name: str, wanted: Wanted, kind: str) -> KindModel:
    built = build_parts(module, name)
    parts = list(built) if isinstance(built, (tuple, list)) and not isinstance(built, nn.Module) else [built]
    models = [part for part in parts if isinstance(part, nn.Module)]
    if len(models) != 1:
        got = (
            type(built).__name__
            if len(parts) == 1
            else f"a tuple of {', '.join(type(part).__name__ for part in parts)}"
        )
        raise ValueError(
            f"{module}:{name} must return one torch.nn.Module, alone or in a tuple with what belongs to it, got {got}"
        )
    notes = wanted.load(models[0], f"The weights are as {module}:{name} builds it.")
    found = KindModel(models[0].eval(), read_categories(getattr(models[0], "config", None)), notes=notes)
    for part in parts:
        if part is not models[0] and part is not None:
            found = _with_part(found, part, kind, f"{module}:{name}")
    if kind == "text" and found.tokenizer is None:
        raise ValueError(
            f"--text needs a tokenizer: {module}:{name} must return (model, tokenizer), the latter of transformers, "
            "or a "
            "vocabulary {word: id}"
        )
    return found


def _with_part(found: KindModel, part: Any, kind: str, said: str) -> KindModel:
    is_list = isinstance(part, Sequence) and not isinstance(part, str) and len(part) > 0
    if is_list and all(isinstance(one, str) for one in part):
        return replace(found, categories=tuple(part))
    is_columns = isinstance(part, TableKind) or (is_list and all(isinstance(one, Column) for one in part))
    if kind == "table" and (is_columns or hasattr(part, "scale_")):
        return replace(found, preprocessing=part)
    if kind == "text" and (callable(part) or isinstance(part, Mapping)):
        return replace(found, tokenizer=part)
    takes = {"table": "Columns, a fitted scaler and", "text": "a tokenizer and"}.get(kind, "only")
    raise ValueError(
        f"{said} returns a {type(part).__name__} beside the model, which --{kind} cannot use; it takes {takes} the "
        "classes' "
        "names"
    )
