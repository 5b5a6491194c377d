"""``absence-plugins directions``: direction pairs of a layer of a user's model, on a folder of the user's images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from absence_plugins.experiments.directions_gallery import directions_page
from absence_plugins.experiments.loading import LoadedModel, image_files
from absence_plugins.experiments.provenance import provenance
from absence_plugins.methods.directions import DirectionPairs

LEAD = """{count} directions of layer {layer}, found in {images} images without labels{head}. Each is a concept that the layer
writes; an output that a concept holds down encodes its absence.

Whether that is so was checked on the images: the patch on which the direction fires was painted over (with black), and
the output measured again. Painting takes away whatever else is in the patch, too, so this is a fair check only of large
effects, which come first."""
DEEP_BATCH = 8  # images per step and start that go through the head


def model_directions(
    folder: Path,
    loaded: LoadedModel,
    layer: str,
    out: Path | str,
    *,
    count: int = 16,
    most: int = 2000,
    background: Any = "none",
    recipe: Any = "robust",
    use_head: bool = True,
    seed: int = 0,
    command: str = "absence-plugins directions",
    progress: bool = True,
    **options: Any,
) -> Path:
    """Fit, measure and write the page; returns its path.

    Args:
        folder: of images, read recursively.
        loaded: the model with its preprocessing.
        layer: as in ``model.named_modules()``.
        out: folder for the page, ``gallery.png``, ``results.json`` and the pairs.
        count: number of directions.
        most: images that are read at most, drawn by ``seed``.
        background: as in :class:`~absence_plugins.methods.directions.DirectionPairs`.
        recipe: likewise.
        use_head: align with the network behind the layer.
        seed: of the drawing and the fit.
        command: for the foot of the page.
        progress: show progress bars.
        **options: further ones of ``DirectionPairs``.

    Raises:
        ValueError: no such folder, no images, and what the fit refuses.
    """
    if not folder.is_dir():
        raise ValueError(f"folder {folder} does not exist; name a folder of images")
    files = image_files(folder)
    if not files:
        raise ValueError(f"folder {folder} holds no images")
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))[:most].sort().values
    pictures = torch.stack([loaded.preprocessing.picture(files[int(i)]) for i in chosen])
    inputs = loaded.preprocessing.normalize(pictures)
    pairs = DirectionPairs(
        count,
        background=background,
        recipe=recipe,
        seed=seed,
        progress=progress,
        **({"head_batch": DEEP_BATCH, "starts": 12} | options),
    )
    pairs.fit_model(loaded.model, layer, inputs, use_head=use_head)
    head = (
        ", and with what the network behind the layer uses" if use_head else "; not aligned with the network behind it"
    )
    return directions_page(
        pairs,
        loaded.model,
        layer,
        inputs,
        pictures,
        out,
        title=f"Directions of {layer}",
        lead="\n\n".join([LEAD.format(count=count, layer=layer, images=len(pictures), head=head), *loaded.notes]),
        name_output=loaded.name,
        empty=loaded.preprocessing.empty,
        seed=seed,
        provenance=provenance(seed=seed, command=command),
    )
