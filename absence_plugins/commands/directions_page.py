"""The directions of a model's layer on a page: patches, effects, and whether the absences hold on real images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.devices import device_of
from absence_plugins.core.files import whole_file, write_whole
from absence_plugins.core.hooks import evaluating
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions import (
    DirectionPairs,
    EncodedAbsence,
    Influence,
    RemovalCheck,
    influence,
    layer_features,
)
from absence_plugins.methods.directions.heads import as_explained
from absence_plugins.methods.directions.patches import DirectionPatches, find_patches
from absence_plugins.methods.directions.positions import choose_prefix
from absence_plugins.methods.ranks import is_first
from absence_plugins.report import Page, Row, Table, write_page
from absence_plugins.report.pages.page import row_id
from absence_plugins.report.pages.pictures import thumbnail
from absence_plugins.report.plots.directions import GalleryEntry, gallery_figure, gallery_panels

PATCHES, BARS = 8, 4  # of a direction: patches, and outputs of each sign
CHECKED = 24  # images in which its patch is painted over
STATUS = {
    "unresolved": "Unresolved: these images do not settle this direction; do not trust it.",
    "split": "Split: it reads a part of what other directions read.",
}
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
        "output that the concept holds down then rises, and more often than elsewhere, the absence is real.",
    ),
    (
        "Elsewhere",
        "The same on a patch of that size at a random place of the same image where the detector is silent. A rise there, "
        "too, comes from painting and not from this concept.",
    ),
)


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
    features: Tensor | None = None,
    empty: Tensor | float = 0.0,
    groups: Tensor | None = None,
    seed: int = 0,
    provenance: dict[str, str] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
) -> Path:
    """Write page, ``gallery.png``, ``results.json`` and the pairs themselves into a folder; returns the page's path. Of
    several ranks, which share out the effects, the first writes.

    inputs: what the model takes, [N, ...]; pictures: the same as seen, in [0, 1], or bytes; features: of the inputs, if
    they were read already; empty: what patches are painted over with; groups: of images that are not independent;
    checkpoint: keeps the images' effects and the checks.
    """
    at = Layer.of(layer)
    if features is None:
        parts = tqdm(torch.split(inputs, 64), desc="reading the layer", disable=not progress)
        features = torch.cat([layer_features(model, at, part) for part in parts])
    found = influence(pairs, model, at, inputs, groups=groups, seed=seed, progress=progress, checkpoint=checkpoint)
    if not is_first():
        return Path(out) / "index.html"
    one = inputs[:1].to(device_of(model, inputs))
    prefix = choose_prefix(None, model, at, one, at.shape(model, one).positions)
    shown: list[_Shown] = []
    order = found.effect.amin(1).argsort().tolist()
    active = [i for i in order if pairs.report_.status[i] != "inactive"]
    for i in tqdm(active, desc="checking directions", disable=not progress):  # what lowers an output most comes first
        values = torch.cat([pairs.logits_of(part, i).cpu() for part in torch.split(features, 256)])
        patches = find_patches(values, pictures.shape[-2:], most=CHECKED, prefix=prefix, seed=seed)
        own = tuple((found.outputs.index(one.output), one) for one in found.encoded_absences if one.direction == i)
        checks = _checks(model, inputs, patches, own[0][0], empty, checkpoint, i) if own else ()
        effects = [(texts.name_output(k), float(found.effect[i, k])) for k in _strongest(found.effect[i])]
        share = f"fires at {100 * pairs.report_.active_share[i]:.1f} % of the positions"
        seen = patches.cut(pictures[patches.images])[:PATCHES]
        seen = seen if seen.is_floating_point() else seen / 255
        entry = GalleryEntry(texts.name_direction(i), seen, tuple(effects), share)
        shown.append(_Shown(i, entry, own, checks, pairs.report_.status[i]))
    page = Page(
        texts.title,
        texts.lead,
        tuple(_row(one, texts) for one in shown),
        how_to_read=HOW_TO_READ,
        footer=_footer(pairs, found),
        provenance=provenance or {},
        table=_table(shown, texts),
    )
    return _written(page, Path(out), pairs, found, shown)


@dataclass(frozen=True, eq=False)
class _Shown:
    """A direction with its entry, the outputs (number and effect) that encode its absence, strongest first, and the
    checks of the first of them: painted over where it fires, and elsewhere.
    """

    direction: int
    entry: GalleryEntry
    own: tuple[tuple[int, EncodedAbsence], ...]
    checks: tuple[RemovalCheck, ...] = ()
    status: str = "active"

    @property
    def name(self) -> str:
        """The direction's name, with its status where that is a reservation."""
        return f"{self.entry.name} ({self.status})" if self.status in STATUS else self.entry.name


def _strongest(effect: Tensor) -> list[int]:
    """The outputs with the strongest effects of both signs, the lowest first."""
    order = effect.argsort().tolist()
    return order if len(order) <= 2 * BARS else [*order[:BARS], *order[-BARS:]]


def _checks(
    model: nn.Module,
    inputs: Tensor,
    patches: DirectionPatches,
    output: int,
    empty: Tensor | float,
    checkpoint: Checkpoint | None,
    direction: int,
) -> tuple[RemovalCheck, ...]:
    """What painting over does to an output, where the detector fires and, where there is room, elsewhere; kept."""
    name = f"check-{direction:03d}-{output:05d}"
    if checkpoint is not None and (kept := checkpoint.load(name)):
        return tuple(RemovalCheck(int(n), *numbers) for n, *numbers in kept["checks"].tolist())
    device = device_of(model, inputs)
    images, to = inputs[patches.images].to(device), empty.to(device) if isinstance(empty, Tensor) else empty
    made = [images, patches.paint_over(images, to)]
    if patches.elsewhere is not None:
        made.append(patches.paint_over(images, to, elsewhere=True))
    explained = as_explained(output).of(model)
    with torch.no_grad(), evaluating(model):
        before, *after = (torch.cat([explained(part) for part in torch.split(one, 32)]) for one in made)
    checks = tuple(RemovalCheck.of_rises(one - before) for one in after)
    if checkpoint is not None:
        numbers = [list(check.to_dict().values()) for check in checks]
        checkpoint.save(name, {"checks": torch.tensor(numbers, dtype=torch.float64)})
    return checks


def _table(shown: Sequence[_Shown], texts: Texts) -> Table:
    """All directions, one line each."""
    rows, pictures = [], []
    for one in shown:
        cells = ["nothing significantly", "", "", ""]
        if one.own:
            number, effect = one.own[0]
            more = f" and {len(one.own) - 1} more" if len(one.own) > 1 else ""
            cells = [f"{texts.name_output(number)}{more}", f"{effect.effect:+.2g}"]
            cells += [f"{100 * check.raised_share:.0f} %, {check.mean_rise:+.2g}" for check in one.checks]
            cells += ["no room"] * (4 - len(cells))
        rows.append((one.name, *cells))
        pictures.append(thumbnail([gallery_panels(one.entry)[0]]))
    columns = ("direction", "holds down", "effect", "rises, painted over", "elsewhere")
    links = tuple(f"#{row_id(place + 1)}" for place in range(len(shown)))
    return Table("Directions", columns, tuple(rows), links, tuple(pictures), "Patches that activate it")


def _written(page: Page, out: Path, pairs: DirectionPairs, found: Influence, shown: Sequence[_Shown]) -> Path:
    path = write_page(page, out)
    if shown:
        with whole_file(out / "gallery.png") as file:
            gallery_figure([one.entry for one in shown], title=page.title).savefig(file, format="png")
    checks = [
        {
            "direction": one.direction,
            "name": one.entry.name,
            "check": one.checks[0].to_dict() if one.checks else None,
            "elsewhere": one.checks[1].to_dict() if len(one.checks) > 1 else None,
        }
        for one in shown
    ]
    results = {
        "influence": found.to_dict(), "report": pairs.report_.to_dict(), "checks": checks, "notes": list(pairs.notes_),
    }  # fmt: skip
    write_whole(out / "results.json", json.dumps(results, indent=1))
    pairs.save(out / "pairs")
    return path


def _row(one: _Shown, texts: Texts) -> Row:
    """A direction's row."""
    facts: list[tuple[str, str]] = []
    if one.own:
        number, effect = one.own[0]
        strongest = texts.name_output(number)
        facts.append(("its absence is encoded by", ", ".join(texts.name_output(k) for k, _ in one.own[:4])))
        sentence = f"Holds down {strongest} most: {effect.effect:+.2f}, q {effect.q:.2g}."
        for where, check in zip(("painted over", "the same elsewhere"), one.checks, strict=False):
            said = f"in {100 * check.raised_share:.0f} % of {check.n} images, by {check.mean_rise:.2f}"
            facts.append((f"{where}, {strongest} rises", said))
    else:
        sentence = "Holds no output down significantly."
    if one.entry.pushed_up:
        facts.append(("raises most", f"{one.entry.pushed_up[0][0]} ({one.entry.pushed_up[0][1]:+.2f})"))
    sentence = f"{STATUS[one.status]} {sentence}" if one.status in STATUS else sentence
    heading = one.entry.name[0].upper() + one.entry.name[1:]
    return Row(heading, sentence, tuple(gallery_panels(one.entry)), facts=tuple(facts))


def _footer(pairs: DirectionPairs, found: Influence) -> str:
    notes = "; ".join(pairs.notes_)
    text = (
        f"{found.sdc} of {pairs.n_directions} directions have a significant effect, on {found.scdp} pairs of direction "
        "and output; "
        f"{len(found.encoded_absences)} of them are encoded absences."
    )
    if out := pairs.report_.status.count("inactive"):
        text += (
            f" Left out above: {out} of {pairs.n_directions} directions, which are inactive: they fire hardly anywhere."
        )
    return f"{text} {notes[0].upper() + notes[1:]}." if notes else text
