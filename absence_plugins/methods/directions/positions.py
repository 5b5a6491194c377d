"""Which positions of a transformer's tokens are places in the input: class tokens, registers and padding are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.checks import check_integer
from absence_plugins.core.reading import plain_model
from absence_plugins.core.units import Layer
from absence_plugins.methods.directions.features import Features, FeatureStore, as_features
from absence_plugins.methods.directions.heads import layer_features
from absence_plugins.methods.directions.inputs import MASK, Inputs, batches_of, take_rows

# Parameters with which vision transformers begin their tokens, in timm, torchvision and transformers.
TOKENS = ("cls_token", "class_token", "class_embedding", "dist_token", "distillation_token")
REGISTERS = ("reg_token", "register_tokens", "register_token")


def find_prefix(model: nn.Module, layer: Layer, example: Inputs, positions: int) -> int:
    """How many tokens of a layer in front of those of the patches: class tokens and registers; 0 where there are none.

    They are known by their parameters' names, and believed where the layer has so many tokens more than the patch
    embedding makes patches. ``positions``: tokens of the layer.
    """
    for part, name in _around(plain_model(model), layer.name):
        prefix = _count_tokens(part)
        if not prefix:
            continue
        counts = _count_patches(model, part, name, example)
        if counts:
            return prefix if positions - prefix in counts else 0
        return prefix if math.isqrt(max(positions - prefix, 0)) ** 2 == positions - prefix > 0 else 0
    return 0


def choose_prefix(given: int | None, model: nn.Module, layer: Layer, example: Inputs, sizes: tuple[int, ...]) -> int:
    """The number of tokens kept apart: as given, else found out; ``sizes``: of the layer's axes of positions.

    Raises:
        ValueError: tokens kept apart where the layer has none, or all of them.
    """
    tokens = sizes[0] if len(sizes) == 1 else 0
    if given is None:
        return find_prefix(model, layer, example, tokens) if tokens else 0
    check_integer("prefix_tokens", given, least=0)
    if given and given >= tokens:
        has = f"{tokens} tokens" if tokens else "no axis of tokens"
        raise ValueError(f"prefix_tokens={given} leaves nothing of layer {layer.name!r}, which has {has}; pass fewer")
    return given


def keep_positions(inputs: Inputs, features: Tensor, prefix: int) -> Tensor:
    """Features of the positions that count: [n, H, W, D] without the prefix; behind a mask all in a row [P, 1, 1, D]."""
    if not isinstance(inputs, Tensor) and MASK in inputs:
        counted = count_positions(inputs, features, prefix)
        return features.flatten(0, 2)[counted.flatten()][:, None, None]
    return features[:, :, prefix:] if prefix else features


def note_positions(inputs: Inputs, prefix: int) -> tuple[str, ...]:
    """What the reader of a fit must know of the positions that it has left out."""
    notes = []
    if prefix:
        tokens = "the first token" if prefix == 1 else f"the first {prefix} tokens"
        notes.append(
            f"{tokens} of every sample (class token, registers) is kept apart: directions are fitted on the others; "
            "the network behind the layer, which also reads what is kept apart, was not asked for this fit"
        )
    if not isinstance(inputs, Tensor) and MASK in inputs:
        notes.append("tokens that the attention mask leaves out are no positions")
    return tuple(notes)


def count_positions(inputs: Inputs, features: Tensor, prefix: int) -> Tensor:
    """Which positions count, bool [n, H * W]: no token of the prefix, and none that an attention mask leaves out.

    >>> count_positions({"attention_mask": torch.tensor([[1, 1, 1, 0]])}, torch.zeros(1, 1, 4, 2), 1)
    tensor([[False,  True,  True, False]])
    """
    n, h, w, _ = features.shape
    counted = torch.ones(n, h * w, dtype=torch.bool, device=features.device)
    mask = None if isinstance(inputs, Tensor) else inputs.get(MASK)
    if mask is not None and mask.shape == counted.shape:
        counted &= (mask != 0).to(counted.device)
    counted[:, :prefix] = False
    return counted


def collect_features(
    model: nn.Module, at: Layer, dataset: Any, batch_size: int, prefix_tokens: int | None, store: str | Path | None
) -> tuple[Features, Inputs, int]:
    """Features of the positions that count, in memory or in a folder, with the first sample and the tokens kept apart.

    Raises:
        ValueError: no images.
    """
    first: list[Inputs] = []
    prefix, device = 0, torch.device("cpu")

    def collected() -> Iterator[Tensor]:
        nonlocal prefix, device
        for inputs in batches_of(dataset, batch_size, model):
            if not first:
                first.append(take_rows(inputs, slice(1)))
                prefix = choose_prefix(prefix_tokens, model, at, first[0], at.shape(model, first[0]).positions)
            found = layer_features(model, at, inputs)
            device = found.device
            yield keep_positions(inputs, found, prefix)

    if store is not None:
        kept = FeatureStore.write(store, collected())
        kept.device = device
        return kept, first[0], prefix
    parts = list(collected())
    if not parts:
        raise ValueError("dataset is empty; pass images")
    return as_features(torch.cat(parts)), first[0], prefix


def _around(model: nn.Module, name: str) -> Iterator[tuple[nn.Module, str]]:
    """The modules around a layer with their names, from the inside out."""
    parts = name.split(".") if name else []
    modules = dict(model.named_modules(remove_duplicate=False))
    for kept in range(len(parts), -1, -1):
        around = ".".join(parts[:kept])
        if around in modules:
            yield modules[around], around


def _count_tokens(part: nn.Module) -> int:
    total = 0
    for name, parameter in part.named_parameters():
        if name.rpartition(".")[2] in (*TOKENS, *REGISTERS):
            total += parameter.shape[-2] if parameter.dim() > 1 else 1
    return total


def _count_patches(model: nn.Module, part: nn.Module, name: str, example: Inputs) -> set[int]:
    """How many patches the embeddings of a part make: its convolutions whose stride is their kernel."""
    found = set()
    for inner, module in part.named_modules():
        if isinstance(module, nn.Conv2d) and module.stride == module.kernel_size and max(module.kernel_size) > 1:
            at = Layer(f"{name}.{inner}" if name and inner else name or inner, "first", "output")
            given = (example,)
            found.add(math.prod(at.shape(model, *given).positions))
    return found
