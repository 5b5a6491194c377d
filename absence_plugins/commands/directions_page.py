"""The directions of a model's layer on a page: patches, effects, and whether the absences hold on real images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.files import whole_file, write_whole
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions import (
    DirectionPairs,
    EncodedAbsence,
    Influence,
    RemovalCheck,
    influence,
    layer_features,
    removal_check,
)
from absence_plugins.report import Page, Row, write_page
from absence_plugins.report.plots.directions import GalleryEntry, gallery_figure, gallery_panels

PATCHES = 8
EFFECTS = 40  # most outputs drawn in the effects' strip
HOW_TO_READ = (
    (
        "A direction",
        "A concept that the layer writes: a direction in which its features move when the concept is there, found "
        "without labels, and a detector that reads it. Its patches are those at whose center the detector is "
        "strongest, one per image.",
    ),
    (
        "Effect",
        "Mean change of an output when the features of one position move along the direction, from a typical position "
        "without the concept to one with it. Red: the concept raises the output. Blue: it holds it down, so the output "
        "encodes its absence.",
    ),
    (
        "Painted over",
        "The check on real images: the patch on which the detector fires is painted over in the image itself. If the "
        "output that the concept holds down then rises, the absence is real.",
    ),
)


def strongest_patches(
    pairs: DirectionPairs, features: Tensor, pictures: Tensor, direction: int, *, most: int = PATCHES
) -> tuple[Tensor, Tensor, Tensor]:
    """Patches [n, C, h, w] on which a direction is strongest, at most one per image, with image numbers and corners.

    features: [N, H, W, D]; pictures: [N, C, h', w'] in [0, 1]. A patch is three positions wide (the picture, if the
    layer has fewer). Returns patches, image numbers [n] and upper left corners [n, 2].
    """
    n, h, w, _ = features.shape
    values = pairs.logits(features)[..., direction].reshape(n, -1)
    strongest = values.amax(1)
    order = strongest.argsort(descending=True)[:most]
    order = order[: max(1, int((strongest[order] > 0).sum()))]
    place = values[order].argmax(1)
    size = torch.tensor(pictures.shape[-2:])
    side = (3 * size.double() / torch.tensor([h, w])).round().long().clamp(min=1).minimum(size)
    center = torch.stack([(place // w + 0.5) * size[0] / h, (place % w + 0.5) * size[1] / w], 1)
    corner = (center - side / 2).round().long().clamp(min=0).minimum(size - side)
    patches = torch.stack(
        [
            pictures[i, :, r : r + side[0], c : c + side[1]]
            for i, (r, c) in zip(order.tolist(), corner.tolist(), strict=True)
        ]
    )
    return patches, order, corner


def painted_over(
    inputs: Tensor, numbers: Tensor, corners: Tensor, side: Sequence[int], empty: Tensor | float
) -> Tensor:
    """The images of ``numbers`` with a patch of ``side`` at each corner set to ``empty``."""
    made = inputs[numbers].clone()
    for image, (row, column) in zip(made, corners.tolist(), strict=True):
        image[:, row : row + side[0], column : column + side[1]] = empty
    return made


@dataclass(frozen=True)
class Texts:
    """A page's words: its title, the text below it, and names for outputs and directions by number."""

    title: str
    lead: str
    name_output: Callable[[int], str]
    name_direction: Callable[[int], str] = "direction {}".format


def directions_page(
    pairs: DirectionPairs,
    model: nn.Module,
    layer: str | Layer,
    inputs: Tensor,
    pictures: Tensor,
    out: Path | str,
    texts: Texts,
    *,
    empty: Tensor | float = 0.0,
    seed: int = 0,
    provenance: dict[str, str] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
) -> Path:
    """Write page, ``gallery.png``, ``results.json`` and the pairs themselves into a folder; returns the page's path.

    inputs: what the model takes, [N, ...]; pictures: the same as seen, in [0, 1]; empty: what patches are painted over
    with; checkpoint: keeps the images' effects.
    """
    parts = tqdm(torch.split(inputs, 64), desc="reading the layer", disable=not progress)
    features = torch.cat([layer_features(model, layer, part) for part in parts])
    found = influence(pairs, model, layer, inputs, seed=seed, progress=progress, checkpoint=checkpoint)
    kept = found.effect.abs().amax(0).topk(min(EFFECTS, found.effect.shape[1])).indices.sort().values
    outputs = [texts.name_output(int(k)) for k in kept]
    rows, entries, checks = [], [], []
    order = found.effect.amin(1).argsort().tolist()
    for i in tqdm(order, desc="checking directions", disable=not progress):  # what lowers an output most comes first
        if pairs.report_.status[i] == "inactive":
            continue
        patches, _numbers, _corners = strongest_patches(pairs, features, pictures, i)
        effects = tuple(zip(outputs, found.effect[i, kept].tolist(), strict=True))
        share = f"fires at {100 * pairs.report_.active_share[i]:.1f} % of the positions"
        entry = GalleryEntry(texts.name_direction(i), patches, effects, share)
        own = [(found.outputs.index(one.output), one) for one in found.encoded_absences if one.direction == i]
        check = None
        if own:
            everywhere = strongest_patches(pairs, features, pictures, i, most=50)
            made = painted_over(inputs, *everywhere[1:], list(patches.shape[-2:]), empty)
            check = removal_check(model, inputs[everywhere[1]], made, own[0][0])
        entries.append(entry)
        checks.append({"direction": i, "name": entry.name, "check": None if check is None else check.to_dict()})
        rows.append(_row(entry, own, check, texts))
    page = Page(
        texts.title,
        texts.lead,
        tuple(rows),
        how_to_read=HOW_TO_READ,
        footer=_footer(pairs, found),
        provenance=provenance or {},
    )
    return _written(page, Path(out), pairs, found, entries, checks)


def _written(
    page: Page,
    out: Path,
    pairs: DirectionPairs,
    found: Influence,
    entries: list[GalleryEntry],
    checks: list[dict[str, Any]],
) -> Path:
    path = write_page(page, out)
    with whole_file(out / "gallery.png") as file:
        gallery_figure(entries, title=page.title).savefig(file, format="png")
    results = {
        "influence": found.to_dict(),
        "report": pairs.report_.to_dict(),
        "checks": checks,
        "notes": list(pairs.notes_),
    }
    write_whole(out / "results.json", json.dumps(results, indent=1))
    pairs.save(out / "pairs")
    return path


def _row(entry: GalleryEntry, own: list[tuple[int, EncodedAbsence]], check: RemovalCheck | None, texts: Texts) -> Row:
    """A direction's row; ``own``: the outputs (number and effect) that encode its absence, strongest first."""
    facts: list[tuple[str, str]] = []
    if own:
        (number, effect) = own[0]
        strongest = texts.name_output(number)
        facts.append(("its absence is encoded by", ", ".join(texts.name_output(k) for k, _ in own[:4])))
        sentence = f"Holds down {strongest} most: {effect.effect:+.2f}, q {effect.q:.2g}."
        if check is not None:
            facts.append(
                (
                    f"painted over, {strongest} rises",
                    f"in {100 * check.raised_share:.0f} % of {check.n} images, by {check.mean_rise:.2f}",
                )
            )
    else:
        sentence = "Holds no output down significantly."
    if entry.pushed_up:
        facts.append(("raises most", f"{entry.pushed_up[0][0]} ({entry.pushed_up[0][1]:+.2f})"))
    return Row(entry.name[0].upper() + entry.name[1:], sentence, tuple(gallery_panels(entry)), facts=tuple(facts))


def _footer(pairs: DirectionPairs, found: Influence) -> str:
    notes = "; ".join(pairs.notes_)
    text = (
        f"{found.sdc} of {pairs.n_directions} directions have a significant effect, on {found.scdp} pairs of direction "
        "and output; "
        f"{len(found.encoded_absences)} of them are encoded absences."
    )
    return f"{text} {notes[0].upper() + notes[1:]}." if notes else text
