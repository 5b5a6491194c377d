"""``absence-plugins label``: names for all units of a layer, and which of them have a NOT."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.label_samples import LabelFile, Samples, digit_samples, file_samples, folder_samples
from absence_plugins.commands.layers import named_layer, say
from absence_plugins.commands.models import LoadedModel
from absence_plugins.commands.pace import estimating, say_expected, time_forward
from absence_plugins.commands.provenance import provenance
from absence_plugins.core.checks import check_integer
from absence_plugins.core.devices import device_of
from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.table import write_csv
from absence_plugins.core.units import Layer, LayerShape
from absence_plugins.data.folders import list_names
from absence_plugins.methods.checkpoint import Checkpoint, KeptRows
from absence_plugins.methods.identity import Identity, digest_of, identify_model
from absence_plugins.methods.invert import ConceptScores, Formula, Negation, UnitLabel, UnitLabels, label_units
from absence_plugins.methods.invert.measures import TITLES
from absence_plugins.methods.layer_values import layer_values
from absence_plugins.report import Page, Panel, Row, write_page
from absence_plugins.report.plots.labels import label_panels

SHOWN = 12  # units with a NOT on the page
OTHERS = 4  # and others
Q = 0.05

SCORES = {
    "auc": "AUC, that of the activation",
    "auprc": "Average precision above chance: what it has above the share of the images on which the name holds, of what it can have",
    "f1": "F1 of the images on which the unit fires and those on which the name holds",
    "iou": "Intersection over union of the images on which the unit fires and those on which the name holds",
    "correlation": "Pearson's correlation of the activation and the name's truth",
}
HOW_TO_READ = (
    ("AUC", "How well the unit tells the samples on which its name holds from the others: 1 always, 0.5 not at all. Only the order of its values counts."),
    ("Held out", "The names were searched on one part of the images and are judged on the other one, which took no part in the search."),
    ("q", f"The share of false names to expect among all units named at this level or a lower one. Below {Q} counts as named."),
    ("What a NOT is worth", f"By how much the AUC falls without it. Above 0 on held-out images, with a q of its own below {Q}, it is evidence that the unit encodes an absence."),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LayerLabels:
    """What the command found: the labels, the units with a NOT, strongest first, how the layer was read, and where it
    was written.
    """

    labels: UnitLabels
    absent: tuple[UnitLabel, ...]
    read: LayerShape
    page: Path

    def summary(self, most: int | None = None) -> str:
        """How many units are named, and those with a NOT, strongest first, with what it is worth: at most ``most``."""
        named = sum(one.best.q is None or one.best.q <= Q for one in self.labels)
        head = f"{self.read.layer or 'output'}: {named} of {len(self.labels)} units named{'' if self.labels.heldout == 0 else f' (q <= {Q})'}, {len(self.absent)} of them with a NOT that is worth something"
        lines = [f"  unit {one.unit}: {one.best.formula}   {_worths(one)}" for one in self.absent[:most]]
        others = len(self.absent) - len(lines)
        return "\n".join([head, *lines, *([f"  and {others} more: see labels.txt and the page"] if others else [])])


def label_layer(
    loaded: LoadedModel,
    layer: str | Layer,
    samples: Samples,
    out: Path,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    command: str = "",
    progress: bool = True,
    **options: Any,
) -> LayerLabels:
    """Name every unit of a layer; write ``index.html``, ``labels.csv``, ``labels.json`` and ``labels.txt`` to ``out``.

    A channel counts with its mean (or another ``reduce`` of the :class:`~absence_plugins.Layer`) over positions, before
    the nonlinearity. ``options`` are those of ``label_units``. Model and random state are as before. ``checkpoint``: a
    folder for the values, which are computed once.

    Raises:
        ValueError: a layer that does not exist or does not run, a reduction that is not known, values that are NaN,
            and whatever ``label_units`` rejects.
    """
    out = require_folder(out)
    at = Layer.of(layer)
    device = device_of(loaded.model)
    shape = at.shape(loaded.model, next(samples.batches())[:1].to(device))
    say(shape)
    values = read_layer(loaded.model, at, samples, checkpoint=checkpoint, progress=progress)
    groups = None if samples.groups is None else samples.groups.tensor()
    labels = label_units(
        values, samples.concepts, samples.names, seed=seed, groups=groups, progress=progress, **options
    )
    if isinstance(samples.concepts, ConceptScores):
        thresholds = labels.settings["thresholds"]
        said = list_names([f"{name} {value:.3g}" for name, value in thresholds.items()], SHOWN)
        source = f"{samples.source}. Present above, as chosen on the searched images: {said}"
        samples = replace(samples, concepts=samples.concepts.apply(list(thresholds.values())), source=source)
    absent = tuple(labels.with_not(Q))
    left_out = () if samples.left_out is None else samples.left_out.notes
    grouped = (samples.groups.note,) if samples.groups is not None and samples.groups.note else ()
    notes = (*loaded.notes, *left_out, *grouped)
    page = write_page(_page(labels, absent, shape, samples, values, notes, seed, command), out)
    if samples.left_out is not None:
        samples.left_out.write(out)
    if samples.meanings:
        meant = [(name, one.key, one.gloss) for name, one in samples.meanings.items()]
        write_whole(out / "concepts.csv", write_csv([("concept", "synset", "gloss"), *meant]))
    labels.to_csv(out / "labels.csv")
    labels.to_json(out / "labels.json")
    found = LayerLabels(labels, absent, shape, page)
    write_whole(out / "labels.txt", f"{labels.table()}\n\n{found.summary()}\n")
    return found


def read_layer(
    model: nn.Module,
    layer: str | Layer,
    samples: Samples,
    *,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> Tensor:
    """Every unit of a layer on every sample: [N, U] on the CPU.

    checkpoint: a folder in which they are kept, every minute and at the end; what is there is not computed again.
    Raises ValueError for the values of another model, layer, way of reading it, or other images.
    """
    at = Layer.of(layer)
    kept = KeptRows()
    with own_folder(checkpoint):
        if checkpoint is not None:
            first = next(samples.batches())
            how = {"reduce": at.reduce, "channels": at.channels, "side": at.side}
            settings = {"layer": at.name, **how, "images": len(samples)}
            belongs = samples.data | Identity({"pixels": digest_of(first)}) | identify_model(model, first[:1], at)
            kept = KeptRows(Checkpoint(checkpoint, settings, "labelling", belongs=belongs))
        if progress and len(kept) < len(samples):
            _say_expected(model, at, samples, len(samples) - len(kept))
        batches = samples.batches(len(kept)) if len(kept) else samples.batches()
        return layer_values(model, at, batches, total=len(samples), kept=kept, progress=progress)


def _say_expected(model: nn.Module, layer: Layer, samples: Samples, count: int) -> None:
    """How long ``count`` images take, as the first batch does."""
    with estimating(), layer.reading(model) as run:
        start = time.perf_counter()
        batch = next(samples.batches())
        seconds = (time.perf_counter() - start) / len(batch) + time_forward(run, batch.to(device_of(model)))
        shorter = ["fewer images", "a smaller --size"]
        say_expected(count * seconds, f"running {layer} on {count:,} images", shorter)


def _page(
    labels: UnitLabels,
    absent: Sequence[UnitLabel],
    shape: LayerShape,
    samples: Samples,
    values: Tensor,
    notes: Sequence[str],
    seed: int,
    command: str,
) -> Page:
    others = sorted(
        (one for one in labels if one not in absent), key=lambda one: -(one.best.heldout_auc or one.best.auc)
    )
    chosen = [*absent[:SHOWN], *others[:OTHERS]]
    mode = labels.settings["mode"]
    lead = (
        f"Every unit of {shape.layer or 'the output'} is named by the formula of concepts that its value detects best "
        f"(INVERT); {len(absent)} of {len(labels)} names have a NOT that is worth something: these units are "
        f"{'low' if mode == 'negative' else 'high'} where something is missing. Searched on {labels.searched:,} "
        f"images, judged on {labels.heldout:,} others.\n\n{samples.source}. Read: {shape}. Values are those before the "
        f"nonlinearity{f'; a channel counts with its {shape.reduce} over positions' if shape.positions else ''}. "
        f"Below: {min(len(absent), SHOWN)} units with a NOT, strongest first, and {min(len(others), OTHERS)} others; "
        f"all are in labels.csv and labels.json.\n\n{labels.certainty[0].upper()}{labels.certainty[1:]}."
    )
    return Page(
        title="What the units respond to, and what must be missing",
        lead=lead + "".join(f"\n\n{note}" for note in notes),
        rows=tuple(_row(one, samples, values[:, one.unit]) for one in chosen),
        how_to_read=(*HOW_TO_READ, *_how_it_was_chosen(labels)),
        provenance=provenance(seed=seed, command=command),
    )


def _row(label: UnitLabel, samples: Samples, values: Tensor) -> Row:
    best, absent = label.best, label.absence
    truth = best.formula.truth(samples.concepts, samples.names)
    towards = values if label.mode == "positive" else -values
    word, opposite = ("highest", "lowest") if label.mode == "positive" else ("lowest", "highest")
    top = int(torch.where(truth.true, towards, -torch.inf).argmax())
    there = truth if absent is None else ~Formula(absent.concept).truth(samples.concepts, samples.names)
    rest = there.false & truth.false
    bottom = int(torch.where(rest, towards, torch.inf).argmin())
    missing = "it does not hold" if absent is None else f"{absent.concept} is there"
    panels = [
        *label_panels(label, values, samples.concepts, samples.names),
        Panel("image", samples.picture(top), f"{word.capitalize()} where the name holds", f"value {float(values[top]):.3g}"),
        Panel("image", samples.picture(bottom), f"{opposite.capitalize()} where {missing}", f"value {float(values[bottom]):.3g}"),
    ]  # fmt: skip
    heldout = "" if best.heldout_auc is None else f", {best.heldout_auc:.3f} on held-out images"
    sentence = f"It holds on {best.fraction:.0%} of the images; AUC {best.auc:.3f}{heldout}. " + (
        f"{_worths(label)}." if best.negations else "No NOT."
    )
    facts = [
        ("AUC, held out" if heldout else "AUC", f"{best.heldout_auc if best.heldout_auc is not None else best.auc:.3f}")
    ]
    nots = [(f"NOT {one.concept}", f"{one.evidence:+.3f}") for one in sorted(best.negations, key=lambda one: -one.evidence)]  # fmt: skip
    facts = [*nots, *_score_facts(label), *facts]
    facts += [("Holds on", f"{best.fraction:.1%}")] + ([] if best.q is None else [("q", f"{best.q:.2g}")])
    facts.append(_certainty(label))
    return Row(f"Unit {label.unit}: {best.formula}", sentence, tuple(panels), tuple(facts))


def _score_facts(label: UnitLabel) -> list[tuple[str, str]]:
    """The score that chose the name, where that is not AUC, and from where on the unit fires."""
    best, facts = label.best, []
    if label.score != "auc" and best.score is not None:
        own = best.score if best.heldout_score is None else best.heldout_score
        facts.append((TITLES[label.score] + ", held out" * (best.heldout_score is not None), f"{own:.3f}"))
    if label.threshold is not None:
        facts.append((f"Fires at {'most' if label.mode == 'negative' else 'least'}", f"{label.threshold:.3g}"))
    return facts


def _how_it_was_chosen(labels: UnitLabels) -> tuple[tuple[str, str], ...]:
    """What the page says of the score and of the proof."""
    score, is_short = labels[0].score, labels.settings["prefer"] == "short"
    fires = " A unit fires from a threshold on, chosen on the searched images." * (labels[0].threshold is not None)
    chosen = () if score == "auc" else ((TITLES[score], f"What the names were chosen by: {SCORES[score]}.{fires}"),)
    best = f"The highest of all formulas of up to {labels.settings['length']} concepts on the searched images: proven; or no formula is above a bound; or not certified, as a part of the formulas was searched."  # fmt: skip
    short = " A name may be below it: every concept in it must earn its place." * is_short
    return (*chosen, (f"Best {TITLES[score]}", best + short))


def _certainty(label: UnitLabel) -> tuple[str, str]:
    """How sure the highest score is, as a fact."""
    highest = max(one.score for one in label.formulas if one.score is not None)
    if label.bound is None:
        return f"Best {TITLES[label.score]}", f"{highest:.3f}, not certified"
    return f"Best {TITLES[label.score]}", f"{highest:.3f}, " + (
        "proven" if label.certified else f"none above {label.bound:.3f}"
    )


def _worths(label: UnitLabel) -> str:
    return "; ".join(_worth(one) for one in label.best.negations)


def _worth(one: Negation) -> str:
    if one.heldout_worth is None:
        return f"NOT {one.concept} is worth {one.worth:+.3f} of AUC on the searched images"
    q = "" if one.q is None else f"q {one.q:.2g}, "
    return f"NOT {one.concept} is worth {one.heldout_worth:+.3f} of AUC on held-out images ({q}{one.worth:+.3f} on the searched ones)"


def run_label(
    loaded: LoadedModel,
    layer: str,
    out: Path,
    *,
    images: Path | None = None,
    attributes: Path | None = None,
    labels: LabelFile | None = None,
    hypernyms: Path | str | None = None,
    groups: str | Path | None = None,
    is_digits: bool = False,
    reduce: str = "mean",
    channels: str = "auto",
    batch_size: int | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
    **options: Any,
) -> LayerLabels:
    """The command: samples from a folder, or the bundled digits where the model is that of the digits and no folder is
    named.

    Raises:
        ValueError: no folder for another model, tables without a folder, and what :func:`label_layer` rejects.
    """
    given = {} if batch_size is None else {"batch_size": check_integer("--batch-size", batch_size)}
    at = named_layer(loaded.model, layer, reduce, channels)
    if images is None:
        if attributes is not None or hypernyms is not None or labels is not None:
            raise ValueError("--labels, --attributes and --hypernyms describe --images; name that folder too")
        if groups is not None:
            raise ValueError("--groups describes the files of a folder of images; name that folder too")
        if not is_digits:
            raise ValueError(
                "--images must name a folder with one subfolder of images per class (only --model digits brings its "
                "own)"
            )
        samples = digit_samples(loaded, **given)
    else:
        reading: dict[str, Any] = {"groups": groups, "checkpoint": checkpoint, "progress": progress, **given}
        if labels is not None:
            samples = file_samples(Path(images), loaded, labels, hypernyms, **reading)
        else:
            samples = folder_samples(Path(images), loaded, attributes, hypernyms, **reading)
    found = label_layer(loaded, at, samples, out, checkpoint=checkpoint, progress=progress, **options)
    return replace(found, page=found.page.resolve())
