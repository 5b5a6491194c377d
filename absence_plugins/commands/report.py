"""``absence-plugins report``: the units of a layer that encode an absence, each with everything about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins import __version__
from absence_plugins.commands.image_folder import FolderImages, group_images
from absence_plugins.commands.layers import Scan, Subject, layers_of, named_layer, scan_layer, shorten
from absence_plugins.commands.maps.unit import default_maps, default_pictures
from absence_plugins.commands.models import LoadedModel, Preprocessing
from absence_plugins.commands.provenance import provenance
from absence_plugins.commands.report_estimate import say_estimate
from absence_plugins.core.checks import check_integer
from absence_plugins.core.files import require_folder
from absence_plugins.core.names import spell_name
from absence_plugins.core.ownership import own_folder
from absence_plugins.data import load_digits
from absence_plugins.data.digit_strokes import stroke_concepts
from absence_plugins.data.folders import find_images
from absence_plugins.methods.identity import identify_data, identify_model
from absence_plugins.methods.insertion import InsertionResult
from absence_plugins.methods.invert.concepts import concepts_of
from absence_plugins.methods.patches.images import image_at
from absence_plugins.methods.ranks import is_first
from absence_plugins.report.pages.patch_rows import normalized_to_picture
from absence_plugins.report.unit import study_of
from absence_plugins.report.unit.many import Texts, count_finished, write_reports
from absence_plugins.report.unit.neuron import Look

TOP = 5
DIGITS_LAYER = "conv3"
RANDOM = "With random weights the verdicts are those of chance features, and uncertain: they say nothing of a trained network."
SCANNED = (
    "size", "stride", "mode", "reduce", "channels", "k", "images_per_unit", "protocol", "batch_size", "workers", "seed"
)  # fmt: skip
SKIPPED = ("maps", "pictures", "name", "faithfulness")
LEAD = (
    "{asked}: do a unit's lowest patches, pasted into images on which it is high, pull it down more than any other "
    "patch does? {flagged} of {tested} units encode an absence by this test (q <= {alpha}). {chosen} {values}{source}."
)


@dataclass(frozen=True, eq=False)
class Samples:
    """Images with what is known of them.

    Attributes:
        dataset: model inputs.
        labels: [N] class; None.
        concepts: a table [N, K] and K names; None.
        source: in words.
        notes: what was left out, and which images are not independent.
        groups: [N], equal for images that are not independent; None: each is alone.
    """

    dataset: Any
    labels: Tensor | None
    concepts: tuple[Tensor, tuple[str, ...]] | None
    source: str
    notes: tuple[str, ...] = ()
    groups: Tensor | None = None


@dataclass(frozen=True)
class Wanted:
    """Which units, and what of each.

    Attributes:
        units: their numbers; None: the ``top`` ones with the strongest encoded absence.
        top: see above.
        directions: how many to fit; 0: none.
        directions_layer: where; None: the layer in front (digits), or the units' own.
        skip: parts that are left out.
        scored: images on which the maps are scored, on either side.
    """

    units: Sequence[int] | None = None
    top: int = TOP
    directions: int = 0
    directions_layer: str | None = None
    skip: tuple[str, ...] = ()
    scored: int = 8

    def __post_init__(self) -> None:
        check_integer("--top", self.top)
        for name in self.skip:
            if name not in SKIPPED:
                raise ValueError(f"--skip {name!r} is not known; there are: {', '.join(SKIPPED)}")
        if self.directions < 0 or self.directions == 1:
            raise ValueError(f"--directions {self.directions} must be 0 (none), or 2 or more")
        if self.directions_layer is not None and not self.directions:
            raise ValueError("--directions-layer says where directions are fitted; pass --directions N, too")
        check_integer("--scored", self.scored, least=0)


def run_report(
    loaded: LoadedModel,
    layer: str | None,
    scan: Scan,
    wanted: Wanted,
    out: Path,
    *,
    folder: Path | None = None,
    attributes: Path | None = None,
    groups: str | Path | None = None,
    is_digits: bool = False,
    command: str = "absence-plugins report",
    progress: bool = True,
) -> Path:
    """Scan and test the layer (kept in ``out/state``), then write the reports; returns the path of ``index.html``.
    Under ``torchrun`` the ranks share out the images, and then the units.

    Raises:
        ValueError: no layer or folder where the model is not the bundled one, and what does not exist.
    """
    if layer is None:
        if not is_digits:
            raise ValueError(
                "--layer is missing; layers whose output is a pre-activation are: "
                f"{', '.join(layers_of(loaded.model)[:-1])}"
            )
        layer = DIGITS_LAYER
    with own_folder(require_folder(out)):
        return _write_report(
            loaded,
            layer,
            scan,
            wanted,
            out,
            folder,
            (attributes, groups),
            is_digits,
            command=command,
            progress=progress,
        )


def _write_report(
    loaded: LoadedModel,
    layer: str,
    scan: Scan,
    wanted: Wanted,
    out: Path,
    folder: Path | None,
    tables: tuple[Path | None, str | Path | None],
    is_digits: bool,
    *,
    command: str,
    progress: bool,
) -> Path:
    samples = _samples(loaded, folder, tables, is_digits, known=out / "state", progress=progress)
    mark = _fingerprint(loaded, samples, layer, scan, wanted)
    named_layer(loaded.model, layer, scan.reduce, scan.channels)  # rejects a wrong layer or unit before the scan
    options = {**_study_options(loaded, samples, scan, wanted), "progress": progress}
    if wanted.directions_layer is None and is_digits:
        options["directions_layer"] = _in_front(loaded, layer)
    first = list(wanted.units) if wanted.units else [0]
    before = study_of(loaded.model, layer, first, samples.dataset, **options)
    look = before.look
    subject = Subject(loaded.model, samples.dataset, options["show"], 0.0, "", samples.groups)
    kept = out / "state" / mark["test"]  # beside it there may be that of other settings
    asked = replace(scan, units=wanted.units, checkpoint=kept)
    uncertain = (RANDOM,) if any("are random" in note for note in loaded.notes) else ()
    notes = (*loaded.notes, *uncertain, *samples.notes)
    if progress:
        tests = len(wanted.units) if wanted.units else look.units
        pages = len(wanted.units) if wanted.units else min(wanted.top, tests)
        made = partial(count_finished, wanted.units, out, notes, mark["report"]) if wanted.units else None
        say_estimate(before, asked, tests, pages, out, [*_shorten(wanted), *shorten(asked)], made)
    tested = scan_layer(subject, layer, asked, look=look, is_estimated=True, progress=progress).tested
    units = list(wanted.units) if wanted.units else strongest(tested, wanted.top)
    study = study_of(loaded.model, layer, units, samples.dataset, tested=tested, look=look, **options)
    texts = Texts(
        f"What the units of {layer or 'the output'} encode as absent",
        _lead(layer, wanted, units, tested, look, samples.source),
        notes,
        provenance(seed=scan.seed, command=command),
    )
    if isinstance(samples.dataset, FolderImages) and is_first():
        samples.dataset.found.write(require_folder(out, make=True))
    return write_reports(study, units, out, texts, fingerprint=mark["report"])


def _shorten(wanted: Wanted) -> list[str]:
    """Options that shorten the pages, the most useful first."""
    scored = [f"fewer --scored (now {wanted.scored}; 0 for none)"] if wanted.scored else []
    parts = [name for name in ("pictures", "faithfulness") if name not in wanted.skip]
    return [*scored, *([f"--skip {','.join(parts)} (any of them)"] if parts else [])]


def _study_options(loaded: LoadedModel, samples: Samples, scan: Scan, wanted: Wanted) -> dict[str, Any]:
    """What the commands' settings are to ``study_of``."""
    prepared = loaded.preprocessing
    return {
        "concepts": None if "name" in wanted.skip else samples.concepts,
        "labels": samples.labels,
        "groups": samples.groups,
        "directions": wanted.directions or None,
        "directions_layer": wanted.directions_layer,
        "maps": None if "maps" in wanted.skip else default_maps,
        "pictures": None if "pictures" in wanted.skip else default_pictures,
        "show": normalized_to_picture(prepared.mean, prepared.std),
        "prepare": prepared.normalize,
        "empty": prepared.empty,
        "scored": 0 if "faithfulness" in wanted.skip else wanted.scored,
        **{name: getattr(scan, name) for name in SCANNED},
    }


def _lead(layer: str, wanted: Wanted, units: Sequence[int], tested: InsertionResult, look: Look, source: str) -> str:
    """What was asked of which units, for the top of the page."""
    chosen = "Below: the units that were asked for."
    if not wanted.units:
        chosen = f"Below: the {len(units)} units with the strongest encoded absence, flagged ones first."
    named = layer or "the output"
    asked = f"Every unit of {named} was put to the insertion test"
    if len(tested) < look.units:
        many, one = len(tested), len(tested) == 1
        corrected = "q is p" if one else f"q is corrected over these {many}"
        asked = f"{many} of {look.units} units of {named} {'was' if one else 'were'} tested; {corrected}. The insertion test asks"
    read = "" if look.shape is None else f" ({look.shape})"
    values = "" if look.note else f"Values are those before the nonlinearity{read}. "
    return LEAD.format(
        asked=asked, values=values, flagged=len(tested.flagged), tested=len(tested), alpha=tested.alpha, chosen=chosen,
        source=source,
    )  # fmt: skip


def strongest(tested: InsertionResult, count: int) -> list[int]:
    """The units with the strongest encoded absence: flagged ones first, then by effect."""
    ordered = sorted(tested, key=lambda one: (not one.flagged, -one.effect, one.unit))
    return [one.unit for one in ordered[:count]]


def _samples(
    loaded: LoadedModel,
    folder: Path | None,
    tables: tuple[Path | None, str | Path | None],
    is_digits: bool,
    *,
    known: Path,
    progress: bool,
) -> Samples:
    """tables: attributes and groups."""
    prepared, (attributes, groups) = loaded.preprocessing, tables
    if folder is not None:
        return folder_samples(folder, prepared, attributes, groups=groups, known=known, progress=progress)
    if groups is not None:
        raise ValueError("--groups describes the files of a folder of images; name that folder too")
    if attributes is not None:
        raise ValueError("--attributes describe the classes of a folder of images; name that folder too")
    if not is_digits:
        raise ValueError("name a folder of images; only --model digits brings its own")
    digits = load_digits()
    images = digits.images
    if tuple(images.shape[1:]) != (prepared.channels, prepared.size, prepared.size):
        raise ValueError("name a folder of images; the bundled digits are 32x32 and gray")
    labels = digits.labels
    table, names = stroke_concepts(labels)
    source = f"{len(images):,} handwritten digits (scikit-learn); concepts are the ten classes and the strokes most people write them with"
    return Samples(prepared.normalize(images), labels, (table, tuple(names)), source)


def folder_samples(
    folder: Path,
    prepared: Preprocessing,
    attributes: Path | None = None,
    *,
    groups: str | Path | None = None,
    known: Path | None = None,
    progress: bool = False,
) -> Samples:
    """Images below a folder; where they lie in subfolders these are classes and concepts, with the attributes of a
    table.

    groups: what ``--groups`` says of images that are not independent; known: a folder that remembers which files were
    decoded.

    Raises:
        ValueError: no such folder, no images, attributes without class folders, what ``concepts_from_folder`` rejects.
    """
    walked, named = find_images(folder), spell_name(folder)
    if not walked.classes:
        if attributes is not None:
            raise ValueError(f"--attributes describe classes, but {named} has no subfolders; every class needs its own")
        dataset = FolderImages(walked, prepared, known=known, progress=progress)
        grouped = group_images(dataset.found, groups, progress)
        notes = (*dataset.found.notes, *((grouped.note,) if grouped.note else ()))
        return Samples(dataset, None, None, f"{len(dataset):,} images of {named}", notes, grouped.tensor())
    concepts_of(walked, attributes)  # rejects a bad table before anything is decoded
    dataset = FolderImages(walked.with_class(), prepared, known=known, progress=progress)
    labels = torch.tensor([label for label in dataset.found.found.labels if label is not None])
    varying = concepts_of(dataset.found.found, attributes).varying()
    classes = len(set(labels.tolist()))
    grouped = group_images(dataset.found, groups, progress)
    return Samples(
        dataset,
        labels if classes > 1 else None,
        (varying.concepts, varying.names) if varying.names else None,
        f"{len(dataset):,} images of {named} in {classes} class folders, {len(varying.names)} concepts",
        (*dataset.found.notes, *((grouped.note,) if grouped.note else ())),
        grouped.tensor(),
    )


def _in_front(loaded: LoadedModel, layer: str) -> str | None:
    """The layer in front of one, whose directions say more than its own; None for the first."""
    known = layers_of(loaded.model)
    place = known.index(layer) if layer in known else 0
    return known[place - 1] if place else None


def _fingerprint(loaded: LoadedModel, samples: Samples, layer: str, scan: Scan, wanted: Wanted) -> dict[str, str]:
    """Of the test, and of the reports: model, images, settings. What the model computes is compared by the scan."""
    first = image_at(samples.dataset, 0)
    known = identify_model(loaded.model, first[None], layer) | identify_data(samples.dataset, pixels=first)
    seen = {name: value for name, value in vars(scan).items() if name not in ("checkpoint", "workers", "units")}
    units = None if wanted.units is None else list(wanted.units)
    test = {
        **{name: value for name, value in known.settings.items() if name != "outputs"}, "version": __version__,
        "layer": layer, "scan": seen, "units": units, "preprocessing": repr(loaded.preprocessing),
        "groups": None if samples.groups is None else samples.groups.tolist(),
    }  # fmt: skip
    concepts = None
    if samples.concepts is not None:
        concepts = [samples.concepts[1], hashlib.sha256(samples.concepts[0].numpy().tobytes()).hexdigest()]
    report = {"test": test, "wanted": asdict(wanted) | {"units": units, "top": 0}, "concepts": concepts}
    return {name: _digest(value) for name, value in (("test", test), ("report", report))}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
