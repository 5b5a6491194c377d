"""``absence-plugins explain --method lucent:LAYER:UNIT``: the two sides of a unit, as one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins import ReferenceSet
from absence_plugins.commands.maps.lucent import SMALL, STEPS, UnitName, unit_row
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.provenance import provenance
from absence_plugins.commands.rows import add_warnings, denormalize
from absence_plugins.core.checks import check_integer
from absence_plugins.core.files import require_folder
from absence_plugins.core.names import spell_name
from absence_plugins.data.pictures import UnreadableImage
from absence_plugins.report import Page, write_page

HOW_TO_READ_UNIT = (
    (
        "Drives it up, drives it down",
        "Two pictures that begin as the same noise and are changed step by step; one raises the unit's value, the "
        "other lowers it. "
        "Feature visualization usually shows only the first.",
    ),
    ("Real", "The images on which the value is highest and lowest; at most half of the images on each side."),
    (
        "What the second picture says",
        "It shows what the unit is held down by: what it encodes as absent, where the unit is otherwise active. It is "
        "no proof: "
        "a picture far outside the real values may show what no real image has.",
    ),
)


def write_unit_page(
    images: Sequence[Path],
    loaded: LoadedModel,
    out: Path,
    references: ReferenceSet | None,
    method: str,
    steps: int | None,
    seed: int,
    command: str,
    notes: Sequence[str],
    *,
    progress: bool,
) -> tuple[Path, tuple[tuple[Path, str], ...]]:
    """The page of ``lucent:LAYER:UNIT``, and the images that cannot be read, with the reason: they are left out.

    Raises ValueError if none can be read.
    """
    unit = UnitName.parse(method)
    steps = STEPS if steps is None else check_integer("--steps", steps)
    require_folder(out)
    pictures, failed = _read_pictures(images, loaded)
    if references is not None:
        pictures = torch.cat([pictures, denormalize(references.images[0], loaded)])
    row = add_warnings(
        partial(unit_row, steps=steps, seed=seed, progress=progress),
        loaded.model,
        unit,
        pictures,
        loaded.preprocessing.normalize,
    )
    if failed:
        notes = (*notes, f"Left out: {'; '.join(f'{spell_name(path.name)}: {why}' for path, why in failed)}.")
    lead = (
        f"{unit.shown[0].upper()}{unit.shown[1:]}: what raises it and what lowers it, as pictures optimized with "
        "Lucent, each beside the real images on which it is highest and lowest. Values are those before the "
        "nonlinearity; a convolution's channel counts with its mean over the image."
    )
    if loaded.preprocessing.size < SMALL:
        lead += f" Images below {SMALL} pixels a side are optimized without random shifts and rotations."
    if references is None:
        lead += "\n\nThe real images are only those named on the command line; --references FOLDER adds more."
    page = Page(
        title="What raises a unit, and what suppresses it",
        lead=lead + "".join(f"\n\n{note}" for note in notes),
        rows=(row,),
        how_to_read=HOW_TO_READ_UNIT,
        provenance=provenance(seed=seed, command=command),
    )
    return write_page(page, Path(out)), failed


def _read_pictures(images: Sequence[Path], loaded: LoadedModel) -> tuple[Tensor, tuple[tuple[Path, str], ...]]:
    pictures: list[Tensor] = []
    failed: list[tuple[Path, str]] = []
    for path in images:
        try:
            pictures.append(loaded.preprocessing.picture(path))
        except UnreadableImage as error:
            failed.append((path, error.why))
            if len(images) == 1:
                raise
    if not pictures:
        named = "; ".join(f"{spell_name(path)}: {why}" for path, why in failed)
        raise ValueError(f"none of the {len(images)} images can be read: {named}")
    for path, why in failed:
        tqdm.write(f"skipped {spell_name(path.name)}: {why}", file=sys.stderr)
    return torch.stack(pictures), tuple(failed)
