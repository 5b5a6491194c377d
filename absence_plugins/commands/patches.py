"""``absence-plugins patches``: the extreme patches of a user's own model on their own images, tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absence_plugins.commands.image_folder import FolderImages, group_images
from absence_plugins.commands.layers import DIGITS_SCAN, Scan, Subject, Texts, layers_of, layers_page, shorten
from absence_plugins.commands.models import LoadedModel
from absence_plugins.data import load_digits
from absence_plugins.report.pages.patch_rows import normalized_to_picture


def patches_page(
    loaded: LoadedModel,
    folder: Path | None,
    layer: str | None,
    scan: Scan,
    out: Path,
    *,
    groups: str | Path | None = None,
    shown: int = 12,
    command: str = "",
    progress: bool = True,
) -> Path:
    """One layer of a model on a folder of images; without a folder, the bundled digits.

    groups: what ``--groups`` says of images that are not independent.

    Raises:
        ValueError: no layer where the model is not the bundled one; what does not exist.
    """
    preprocessing = loaded.preprocessing
    if folder is None:
        if groups is not None:
            raise ValueError("--groups describes the files of a folder of images; name that folder too")
        digits = load_digits()
        images = digits.images
        if tuple(images.shape[1:]) != (preprocessing.channels, preprocessing.size, preprocessing.size):
            raise ValueError("name a folder of images; the bundled digits are for --model digits")
    known = layers_of(loaded.model)
    if layer is None:
        raise ValueError(f"--layer is missing; layers whose output is a pre-activation are: {', '.join(known[:-1])}")
    dataset: Any = (
        images if folder is None else FolderImages(folder, preprocessing, known=scan.checkpoint, progress=progress)
    )
    grouped = None if folder is None else group_images(dataset.found, groups, progress)
    subject = Subject(
        loaded.model,
        dataset,
        normalized_to_picture(preprocessing.mean, preprocessing.std),
        0.0,  # the mean color of normalized images, black of others
        layer,
        None if grouped is None else grouped.tensor(),
    )
    texts = Texts(
        f"What the units of {layer} like, and what holds them down",
        f"Extreme patches of {scan.size}x{scan.size} pixels among {len(dataset):,} images, and the insertion test.",
        command,
        notes=(*loaded.notes, *((grouped.note,) if grouped is not None and grouped.note else ())),
    )
    return layers_page(subject, [layer], scan, out, texts, shown=shown, shorter=shorten(scan), progress=progress)


def default_scan(is_digits: bool) -> Scan:
    """Patch size and mode where the user names none: those of the digits experiment for the bundled network."""
    return DIGITS_SCAN if is_digits else Scan()
