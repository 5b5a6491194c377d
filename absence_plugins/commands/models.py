"""From what a user names on the command line to a model, its preprocessing, images and references."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import torch

from absence_plugins.commands.early_checks import DIGITS, LITE, check_model_words
from absence_plugins.commands.preprocessing import Overrides, Preprocessing
from absence_plugins.commands.sources import (
    LoadedModel,
    Wanted,
    load_digits_cnn,
    load_hugging_face,
    load_lite,
    load_module,
    load_timm,
    load_torchvision,
)

__all__ = [
    "LoadedModel",
    "Preprocessing",
    "load_model",
    "to_own_gpu",
]

BUNDLED = {DIGITS: load_digits_cnn, LITE: load_lite}
NAMED = {"torchvision": load_torchvision, "timm": load_timm, "hf": load_hugging_face}


def to_own_gpu(loaded: LoadedModel) -> LoadedModel:
    """The model on this process's own GPU, if ``torchrun`` started it on a host with GPUs; else as it is.

    Raises:
        ValueError: torchrun started more processes than the host has GPUs.
    """
    number = int(os.environ.get("LOCAL_RANK", "-1"))
    if number < 0 or not torch.cuda.is_available():
        return loaded
    if number >= (count := torch.cuda.device_count()):
        raise ValueError(
            f"this host has {count} GPUs and torchrun started a process for GPU {number}; start --nproc_per_node="
            f"{count}, or with CUDA_VISIBLE_DEVICES= in front all on the CPU"
        )
    torch.cuda.set_device(number)
    return replace(loaded, model=loaded.model.to(torch.device("cuda", number)))


def load_model(
    spec: str,
    weights: str = "none",
    *,
    size: int | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedModel:
    """A model by name, with the preprocessing and the class names that it publishes.

    Args:
        spec: ``torchvision:NAME``, ``timm:NAME``, ``hf:FOLDER`` (of ``save_pretrained``), ``module:factory`` (called
            without arguments), or a bundled one: ``digits``, ``efficientnet-lite0`` (of the extra ``photos``).
        weights: "none" (the factory's, the folder's or the bundled ones; random for torchvision and timm), "DEFAULT"
            (torchvision's or timm's, which are downloaded unless they are in the cache), or a file: safetensors, or
            what loads with ``weights_only=True``; no code is ever unpickled.
        size: side of the input in place of the model's own; the share that its crop leaves stays.
        channels: of the images; 1 for gray.
        mean: in place of the model's own, one per channel, of pixels in [0, 1].
        std: likewise.

    Raises:
        ValueError: what does not exist, does not fit, or would execute code.
        ImportError: timm, transformers or the extra ``photos`` is missing.

    >>> loaded = load_model("digits")
    >>> loaded.name(3), loaded.notes
    ('class 3', ('Images: shorter side to 32 pixels (bilinear), the middle 32 x 32, values in [0, 1], as the bundled digits are.',))
    """
    wanted = Wanted(
        weights, Overrides(size, channels, None if mean is None else tuple(mean), None if std is None else tuple(std))
    )
    if spec in BUNDLED:
        return BUNDLED[spec](wanted)
    source, separator, name = spec.partition(":")
    if not separator or not name:
        check_model_words(spec)
    return NAMED[source](name, wanted) if source in NAMED else load_module(source, name, wanted)
