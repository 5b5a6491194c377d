"""``absence-plugins explain --method lucent:LAYER:UNIT``: the two sides of a unit, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from absence_plugins import ReferenceSet
from absence_plugins.commands.maps.lucent import SMALL, STEPS, UnitName, unit_row
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.provenance import provenance
from absence_plugins.commands.rows import add_warnings, denormalize
from absence_plugins.core.checks import check_integer
from absence_plugins.core.files import require_folder
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
) -> Path:
    """The page of ``lucent:LAYER:UNIT``."""
    unit = UnitName.parse(method)
    steps = STEPS if steps is None else check_integer("--steps", steps)
    require_folder(out)
    pictures = torch.stack([loaded.preprocessing.picture(Path(path)) for path in images])
    if references is not None:
        pictures = torch.cat([pictures, denormalize(references.images[0], loaded)])
    row = add_warnings(
        partial(unit_row, steps=steps, seed=seed, progress=progress),
        loaded.model,
        unit,
        pictures,
        loaded.preprocessing.normalize,
    )
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
    return write_page(page, Path(out))
