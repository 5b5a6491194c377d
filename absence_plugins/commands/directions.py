"""``absence-plugins directions``: direction pairs of a layer of a user's model, on a folder of the user's images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.directions_page import CHECKED, Texts, directions_page
from absence_plugins.commands.image_folder import Readable, group_images, readable
from absence_plugins.commands.layers import say
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.pace import Pace, Passes, estimating, say_expected
from absence_plugins.commands.provenance import provenance
from absence_plugins.commands.reading import collect, read_batches
from absence_plugins.core.checks import check_integer
from absence_plugins.core.devices import device_of
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.units import Layer
from absence_plugins.data.folders import find_images
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions import DirectionPairs, head_of, layer_features
from absence_plugins.methods.directions.few import MOST
from absence_plugins.methods.directions.saving import share_pairs
from absence_plugins.methods.identity import NOTHING, Identity, digest_of, identify_data, identify_model
from absence_plugins.methods.kept_rows import KeptRows
from absence_plugins.methods.ranks import from_first, is_first, ranks

LEAD = """{count} directions of layer {layer}, found in {images} images without labels{head}. Each is a concept that the layer
writes; an output that a concept holds down encodes its absence. Read: {read}.

Whether that is so was checked on the images: the patch on which the direction fires was painted over (with black), and the
output measured again; and so was a patch elsewhere in the same image. Only where the output rises more often than
elsewhere does the image confirm the absence. Painting takes away whatever else is in the patch, so small effects cannot
be checked in this way; large ones come first."""
PAPER_BATCH = 8  # images per step that go through the head, with its gradient
PAPER_STEPS = 20_000  # of a stage, as published
READ = 16  # images that a rank reads at a time


@dataclass(frozen=True)
class Fit:
    """Which directions are looked for, and in what.

    Attributes:
        count: number of directions.
        most: images that are read at most, drawn by ``seed``.
        background: as in :class:`~absence_plugins.methods.directions.DirectionPairs`.
        recipe: likewise.
        use_head: align with the network behind the layer.
        seed: of the drawing and the fit.
        batch_size: images per forward.
        groups: what ``--groups`` says of images that are not independent.
        options: further ones of ``DirectionPairs``.
    """

    count: int = 16
    most: int = 2000
    background: Any = "none"
    recipe: Any = "robust"
    use_head: bool = True
    seed: int = 0
    batch_size: int = 64
    groups: str | Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_integer("--batch-size", self.batch_size)

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of ``DirectionPairs``."""
        own = {"background": self.background, "recipe": self.recipe, "seed": self.seed}
        deep = {"head_batch": PAPER_BATCH} if self.recipe == "paper" else {}
        few = {"starts": 12} if self.recipe == "robust" and self.count <= MOST else {}
        return {**own, **deep, **few, **self.options}


def model_directions(
    folder: Path,
    loaded: LoadedModel,
    layer: str | Layer,
    out: Path | str,
    fit: Fit = Fit(),
    *,
    checkpoint: Path | None = None,
    command: str = "absence-plugins directions",
    progress: bool = True,
) -> Path:
    """Fit, measure and write the page; returns its path. Under ``torchrun`` the ranks share out reading, features and
    effects; rank 0 fits, and writes the page.

    Args:
        folder: of images, read recursively.
        loaded: the model with its preprocessing.
        layer: a name as in ``model.named_modules()``, or a :class:`~absence_plugins.Layer`. What was read of it is said
            in a line on stderr and on the page.
        out: folder for the page, ``gallery.png``, ``results.json`` and the pairs.
        fit: which directions.
        checkpoint: a folder for the layer's features, the pairs that were found and their effects; run again, none of
            it is computed anew.
        command: for the foot of the page.
        progress: show progress bars.

    Raises:
        ValueError: no such folder or layer, no images that can be read, a checkpoint of other directions, and what the
            fit rejects.
    """
    at = Layer.of(layer)
    at.module(loaded.model)
    with own_folder(checkpoint):
        return _write_directions(folder, loaded, at, Path(out), fit, checkpoint, command, progress=progress)


def _write_directions(
    folder: Path,
    loaded: LoadedModel,
    at: Layer,
    out: Path,
    fit: Fit,
    checkpoint: Path | None,
    command: str,
    *,
    progress: bool,
) -> Path:
    found = _read_images(folder, loaded, fit, checkpoint, progress=progress)
    inputs, pictures = _read_pictures(found, loaded, progress=progress)
    grouped = group_images(found, fit.groups, progress)
    read = replace(at.shape(loaded.model, inputs[:1]), reduce="each a sample")
    say(read)
    data = NOTHING if checkpoint is None else identify_data(found, pixels=inputs)
    pairs, features, keeper = _fit_pairs(loaded.model, at, inputs, data, fit, checkpoint, progress=progress)
    head = ", and with what the network behind the layer uses"
    head = head if fit.use_head else "; not aligned with the network behind it"
    lead = LEAD.format(count=fit.count, layer=at, images=len(pictures), head=head, read=read)
    path = directions_page(
        pairs,
        loaded.model,
        at,
        inputs,
        pictures,
        out,
        Texts(
            f"Directions of {at}",
            "\n\n".join([lead, *loaded.notes, *found.notes, *filter(None, [grouped.note])]),
            loaded.name,
        ),
        features=features,
        empty=loaded.preprocessing.empty,
        groups=grouped.tensor(),
        seed=fit.seed,
        provenance=provenance(seed=fit.seed, command=command),
        checkpoint=keeper,
        progress=progress,
    )
    if is_first():
        found.write(out)
    return path


def _read_images(folder: Path, loaded: LoadedModel, fit: Fit, checkpoint: Path | None, *, progress: bool) -> Readable:
    """At most ``fit.most`` images of a folder, those that can be read."""
    found = find_images(folder)
    chosen = torch.randperm(len(found), generator=torch.Generator().manual_seed(fit.seed))[: fit.most].sort().values
    return readable(found.take(chosen.tolist()), loaded.preprocessing.channels, known=checkpoint, progress=progress)


def _read_pictures(found: Readable, loaded: LoadedModel, *, progress: bool) -> tuple[Tensor, Tensor]:
    """What the model takes [N, C, H, W], and the same as seen, as bytes."""
    prepared = loaded.preprocessing

    def read(wanted: Sequence[range]) -> Iterator[Tensor]:
        return read_batches(prepared.picture, found.files, wanted)

    with KeptRows(count=len(found)) as kept:  # each rank reads its share
        kept.fill(Batches(len(found), READ, read), lambda pictures: pictures, what="reading images", progress=progress)
        pictures = kept.joined()
    seen = collect(((one * 255).round().to(torch.uint8) for one in pictures), len(found))
    return collect(map(prepared.normalize, pictures), len(found)), seen


def _fit_pairs(
    model: nn.Module, layer: Layer, inputs: Tensor, data: Identity, fit: Fit, checkpoint: Path | None, *, progress: bool
) -> tuple[DirectionPairs, Tensor, Checkpoint | None]:
    """Pairs fitted to a layer's features of the inputs, or those that a checkpoint holds; the features; and what keeps
    their effects.
    """
    pairs = DirectionPairs(fit.count, progress=progress, **fit.settings)
    kept = keeper = None
    if checkpoint is not None:
        work = {"layer": layer.name, "channels": layer.channels, "side": layer.side, "batch_size": fit.batch_size}
        belongs = data | identify_model(model, inputs[:1], layer)
        kept = Checkpoint(checkpoint, work, "run", belongs=belongs)
        named = {name: str(value) for name, value in fit.settings.items()}
        fitting = {**work, "count": fit.count, "use_head": fit.use_head, **named}
        keeper = Checkpoint(checkpoint, fitting, "fit", belongs=belongs)
    files = [] if keeper is None else [keeper.folder / "pairs" / name for name in ("pairs.safetensors", "pairs.json")]
    is_fitted = from_first(lambda: keeper is not None and keeper.has_files("pairs", files))
    if progress and is_first():
        _say_expected(model, layer, inputs, fit, None if is_fitted else pairs)
    features = compute_features(model, layer, inputs, kept, batch_size=fit.batch_size, progress=progress)

    def made() -> DirectionPairs:
        if keeper is not None and is_fitted:
            return DirectionPairs.load(keeper.folder / "pairs")
        head = head_of(model, layer, inputs[:1].to(features.device)) if fit.use_head else None
        pairs.fit(features, head, checkpoint=None if keeper is None else keeper.folder / "fit")
        if keeper is not None:
            pairs.save(keeper.folder / "pairs")
            keeper.save_files("pairs", files)
        return pairs

    pairs = share_pairs(DirectionPairs, made)
    if keeper is None:
        return pairs, features, None
    effects = {**fitting, "pairs": digest_of(pairs.decoding, pairs.encoding, pairs.step)}
    return pairs, features, Checkpoint(keeper.folder, effects, "influence", belongs=belongs)


def _say_expected(model: nn.Module, layer: Layer, inputs: Tensor, fit: Fit, pairs: DirectionPairs | None) -> None:
    """How long the network takes in all stages, as the first image does; ``pairs``: to be fitted, None if they are
    kept. The fit says itself how long its own computations take.
    """
    with estimating():
        first = inputs[:1].to(device_of(model, inputs))
        features = layer_features(model, layer, first)
        whole = Pace.measure_forward(lambda x: layer_features(model, layer, x), first)
        behind = Pace.measure(head_of(model, layer, first), features)
        seconds = whole.seconds(Passes(3, 0), len(inputs))  # for the fit and the effects (twice)
        seconds += behind.seconds(Passes(1 + 2 * fit.count, 0), len(inputs))
        seconds /= ranks()[1]  # which share out the images, and nothing else
        seconds += whole.seconds(Passes(3, 0), fit.count * min(CHECKED, len(inputs)))  # painted over, and elsewhere
        what, shorter = f"effects of {fit.count} directions on {len(inputs):,} images", ["a smaller --most"]
        if pairs is not None:
            what = f"fit and {what}"
            images = min(pairs.options.head_batch, len(inputs))
            if fit.use_head and pairs.recipe == "paper":  # the head's gradient at every step of three stages
                steps = pairs.options.steps if pairs.options.steps > 0 else PAPER_STEPS
                seconds += behind.seconds(Passes(0, 3 * images), steps)
                shorter = [f"fewer --steps (now {steps})", "--no-head", *shorter]
            elif fit.use_head:  # a step along each direction
                seconds += behind.seconds(Passes(1 + fit.count, 0), images)
        say_expected(seconds, what, [*shorter, f"a smaller --count (now {fit.count})", "a smaller --size"])


def compute_features(
    model: nn.Module, layer: Layer, inputs: Tensor, checkpoint: Checkpoint | None, *, batch_size: int, progress: bool
) -> Tensor:
    """Features [N, H, W, D] of all inputs; what the checkpoint has is not computed again. Of several ranks the first
    gets them.
    """
    device = device_of(model, inputs)
    with KeptRows(checkpoint, len(inputs)) as kept:
        kept.fill(
            Batches.of(inputs, batch_size),
            lambda part: layer_features(model, layer, part.to(device)),
            what=f"running {layer}",
            progress=progress,
        )
        return kept.joined(first_only=True).to(device)
