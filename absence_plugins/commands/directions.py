"""``absence-plugins directions``: direction pairs of a layer of a user's model, on a folder of the user's images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.commands.directions_page import directions_page
from absence_plugins.commands.image_folder import readable
from absence_plugins.commands.models import LoadedModel, image_files
from absence_plugins.commands.provenance import provenance
from absence_plugins.methods.checkpoint import Checkpoint, KeptRows, fingerprint, keeping
from absence_plugins.methods.directions import DirectionPairs, head_of, layer_features

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
    batch_size: int = 64,
    checkpoint: Path | None = None,
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
        batch_size: images per forward.
        checkpoint: a folder for the layer's features and the pairs that were found; run again, neither is computed anew.
        command: for the foot of the page.
        progress: show progress bars.
        **options: further ones of ``DirectionPairs``.

    Raises:
        ValueError: no such folder, no images that can be read, a checkpoint of other directions, and what the fit refuses.
    """
    if not folder.is_dir():
        raise ValueError(f"folder {folder} does not exist; name a folder of images")
    files = image_files(folder)
    if not files:
        raise ValueError(f"folder {folder} holds no images")
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))[:most].sort().values
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size} must be at least 1")
    drawn = [files[int(i)] for i in chosen]
    found = readable(drawn, folder, loaded.preprocessing.channels, known=checkpoint, progress=progress)
    pictures = torch.stack([loaded.preprocessing.picture(file) for file in found.files])
    inputs = loaded.preprocessing.normalize(pictures)
    settings = {"background": background, "recipe": recipe, "seed": seed, "head_batch": DEEP_BATCH, "starts": 12}
    settings |= options
    pairs = DirectionPairs(count, progress=progress, **settings)
    if checkpoint is None:
        pairs.fit_model(loaded.model, layer, inputs, batch_size=batch_size, use_head=use_head)
    else:
        work = {"layer": layer, "batch_size": batch_size, "files": found.identity} | fingerprint(
            loaded.model, inputs[0]
        )
        features = kept_features(loaded.model, layer, inputs, Checkpoint(checkpoint, work, "run"), progress=progress)
        fit = {**work, "count": count, "use_head": use_head, **{name: str(value) for name, value in settings.items()}}
        keeper = Checkpoint(checkpoint, fit, "fit")
        if (keeper.folder / "pairs" / "pairs.json").is_file():
            pairs = DirectionPairs.load(keeper.folder / "pairs")
        else:
            pairs.fit(features, head_of(loaded.model, layer, inputs[:1].to(features.device)) if use_head else None)
            pairs.save(keeper.folder / "pairs")
    head = (
        ", and with what the network behind the layer uses" if use_head else "; not aligned with the network behind it"
    )
    path = directions_page(
        pairs,
        loaded.model,
        layer,
        inputs,
        pictures,
        out,
        title=f"Directions of {layer}",
        lead="\n\n".join(
            [LEAD.format(count=count, layer=layer, images=len(pictures), head=head), *loaded.notes, *found.notes]
        ),
        name_output=loaded.name,
        empty=loaded.preprocessing.empty,
        seed=seed,
        provenance=provenance(seed=seed, command=command),
    )
    found.write(Path(out))
    return path


def kept_features(
    model: nn.Module, layer: str, inputs: Tensor, checkpoint: Checkpoint, *, save_every: float = 60.0, progress: bool
) -> Tensor:
    """Features [N, H, W, D] of all inputs; what the checkpoint has is not computed again."""
    kept = KeptRows(checkpoint)
    pending: list[Tensor] = []
    parts = torch.split(inputs[len(kept) :], int(checkpoint.settings["batch_size"]))
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    bar = tqdm(parts, desc=f"running {layer}", disable=not progress)
    with bar, keeping(kept, pending, save_every) as save:
        for part in bar if len(kept) < len(inputs) else ():
            pending.append(layer_features(model, layer, part.to(device)))
            save()
    return torch.cat(kept.rows).to(device)
