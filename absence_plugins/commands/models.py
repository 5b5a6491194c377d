"""From what a user names on the command line to a model, its preprocessing, images and references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from absence_plugins import ReferenceSet
from absence_plugins.commands.preprocessing import Overrides, Preprocessing, UnreadableImage, decoded
from absence_plugins.commands.sources import (
    DIGITS,
    LITE,
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
    "UnreadableImage",
    "decoded",
    "folder_classes",
    "image_files",
    "load_model",
    "load_references",
    "reference_notes",
]

IMAGE_FILES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
BUNDLED = {DIGITS: load_digits_cnn, LITE: load_lite}
NAMED = {"torchvision": load_torchvision, "timm": load_timm, "hf": load_hugging_face}


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
        raise ValueError(
            f"--model {spec!r} must be torchvision:NAME, timm:NAME, hf:FOLDER, module:factory, or {' or '.join(BUNDLED)}"
        )
    return NAMED[source](name, wanted) if source in NAMED else load_module(source, name, wanted)


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, in order. A folder of such a name is none; what lies in it counts."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_FILES and not path.is_dir())


def load_references(
    folder: Path,
    loaded: LoadedModel,
    *,
    k: int = 8,
    contrast: int | None = None,
    max_samples: int = 2000,
    seed: int = 0,
) -> ReferenceSet:
    """References from a folder of images; its subfolders, if any, are classes.

    A subfolder's class is its name if that is a number, its place among the model's categories if it is
    one of them, else its place in alphabetical order (as torchvision's ImageFolder counts).

    Raises:
        ValueError: no such folder, no images.
    """
    if not folder.is_dir():
        raise ValueError(f"references folder {folder} does not exist")
    files = image_files(folder)
    if not files:
        raise ValueError(f"references folder {folder} holds no images")
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))[:max_samples].sort().values
    files = [files[int(index)] for index in chosen]
    index_of = folder_classes(folder, loaded.categories)
    if index_of and any(file.parent == folder for file in files):
        raise ValueError(f"references folder {folder} holds images beside its class folders; move them into one")
    labels = [index_of[file.relative_to(folder).parts[0]] for file in files] if index_of else None
    images = torch.stack([loaded.preprocessing.normalize(loaded.preprocessing.picture(file)) for file in files])
    return ReferenceSet(images, labels, empty=loaded.preprocessing.empty, k=k, contrast=contrast, seed=seed)


def reference_notes(folder: Path, loaded: LoadedModel) -> list[str]:
    """How the folders were read as classes, where their names do not say it."""
    classes = folder_classes(folder, loaded.categories)
    if not classes or all(
        name == str(index) or loaded.name(index).endswith(f"({name})") for name, index in classes.items()
    ):
        return []
    read = ", ".join(f"{name} as {loaded.name(index)}" for name, index in classes.items())
    return [
        f"The reference folders were read in alphabetical order: {read}. If the model counts otherwise, name the "
        "folders by class index."
    ]


def folder_classes(folder: Path, categories: Sequence[str]) -> dict[str, int]:
    """Class index of every subfolder; {} if there are none."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and image_files(path))
    if all(name.isdigit() for name in names):
        return {name: int(name) for name in names}
    if categories and all(name in categories for name in names):
        return {name: list(categories).index(name) for name in names}
    return {name: index for index, name in enumerate(names)}
