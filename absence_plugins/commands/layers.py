"""Scan and test layers of a network, and show the units that encode an absence: what three commands have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from absence_plugins.commands.image_folder import FolderImages
from absence_plugins.commands.pace import estimating, say_expected, say_line
from absence_plugins.commands.provenance import provenance
from absence_plugins.commands.scan_estimate import ScanTime
from absence_plugins.core.checks import check_choice
from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.units import CHANNELS, REDUCES, Layer, LayerShape
from absence_plugins.methods.insertion import InsertionResult, insertion_test
from absence_plugins.methods.insertion.statistics import PROTOCOLS
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches, halves
from absence_plugins.methods.ranks import is_first, ranks
from absence_plugins.report import Page, Panel, Row, write_page
from absence_plugins.report.pages.patch_rows import HOW_TO_READ, unit_row
from absence_plugins.report.unit.neuron import Look, look_at


@dataclass(frozen=True)
class Subject:
    """A network with its images.

    Attributes:
        model: in eval mode.
        dataset: float images as the model takes them.
        show: from these to pictures in [0, 1].
        blank: an empty pixel as the model sees it.
        names: of the model, for headings.
        groups: [N], equal for images that are not independent; None: each is alone.
    """

    model: nn.Module
    dataset: Any
    show: Callable[[Tensor], Tensor]
    blank: Any
    name: str
    groups: Tensor | None = None


@dataclass(frozen=True)
class Scan:
    """How to scan and test: the arguments of ``find_extreme_patches`` and ``insertion_test`` that users set."""

    size: int = 64
    stride: int = 16
    k: int = 8
    mode: str = "crop"
    reduce: str = "mean"
    channels: str = "auto"
    units: Sequence[int] | None = None
    images_per_unit: int = 100
    protocol: str = "controlled"
    batch_size: int = 128
    workers: int = 0
    seed: int = 0
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        check_choice("protocol", self.protocol, PROTOCOLS)  # before hours of scanning


@dataclass(frozen=True)
class LayerResult:
    """One layer's patches and their test; ``look`` says whether its values look rectified."""

    patches: ExtremePatches
    tested: InsertionResult
    look: Look

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**self.tested.to_dict(), "patches": self.patches.to_dict()}


@dataclass(frozen=True)
class Texts:
    """What a page says besides its findings."""

    title: str
    lead: str
    command: str
    footer: str = ""
    notes: tuple[str, ...] = field(default=())


def scan_layer(
    subject: Subject,
    layer: str,
    scan: Scan,
    *,
    look: Look | None = None,
    shorter: Sequence[str] = (),
    is_estimated: bool = False,
    progress: bool,
) -> LayerResult:
    """Patches of one half of the data (of all, in the paper's protocol), tested on the other.

    look: what ``look_at`` found of it before. Says what was read and how long it will take, with the options that make
    it ``shorter`` (not where that ``is_estimated`` already), and warns where a layer's values look rectified.
    """
    at = named_layer(subject.model, layer, scan.reduce, scan.channels)
    if look is None:
        look = look_at(subject.model, at, subject.dataset)
    if look.shape is not None:
        say(look.shape)
    if progress and not is_estimated:
        _say_expected(subject, at, scan, len(scan.units) if scan.units else look.units, shorter)
    selection = None if scan.protocol == "paper" else halves(subject.dataset, scan.seed, subject.groups)[0]
    checkpoint = None if scan.checkpoint is None else scan.checkpoint / (layer or "output")
    patches = find_extreme_patches(
        subject.model,
        at,
        subject.dataset,
        k=scan.k,
        size=scan.size,
        stride=scan.stride,
        mode=scan.mode,
        units=scan.units,
        images=selection,
        batch_size=scan.batch_size,
        workers=scan.workers,
        seed=scan.seed,
        checkpoint=checkpoint,
        progress=progress,
    )
    tested = insertion_test(
        subject.model,
        at,
        subject.dataset,
        patches,
        images_per_unit=scan.images_per_unit,
        protocol=scan.protocol,
        blank=subject.blank,
        batch_size=scan.batch_size,
        workers=scan.workers,
        seed=scan.seed,
        groups=subject.groups,
        checkpoint=checkpoint,
        progress=progress,
    )
    return LayerResult(patches, tested, look)


def _say_expected(subject: Subject, at: Layer, scan: Scan, units: int, shorter: Sequence[str]) -> None:
    """How long :func:`scan_layer` takes for so many units, as the windows of the first image do."""
    with estimating():
        seconds = ScanTime.measure(subject.model, subject.dataset, at, scan, units).seconds / ranks()[1]
        say_expected(seconds, f"scanning and testing {units} units of {at.name or 'the output'}", shorter)


def shorten(scan: Scan) -> list[str]:
    """Options that shorten a scan with its test, the most useful first."""
    stride, images = f"a larger --stride (now {scan.stride})", f"fewer --images-per-unit (now {scan.images_per_unit})"
    return [stride, images, "fewer --units"]


def layers_page(
    subject: Subject,
    layers: Sequence[str],
    scan: Scan,
    out: Path,
    texts: Texts,
    *,
    shown: int = 4,
    shorter: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Scan and test every layer; write the page and ``results.json``. Returns the page's path. Of several ranks the
    first writes them.

    With a checkpoint in ``scan``, what was done of each layer is kept there, and done once.

    shown: units per layer on the page, the encoded absences first. shorter: options that shorten the work.

    Raises:
        ValueError: ``out`` is a file; no such layer.
    """
    out = require_folder(out)
    with own_folder(scan.checkpoint):
        results = {layer: scan_layer(subject, layer, scan, shorter=shorter, progress=progress) for layer in layers}
    if not is_first():
        return out / "index.html"
    rows: list[Row] = []
    for layer, result in results.items():
        rows.append(_summary(layer, result))
        ordered = sorted(result.tested, key=lambda one: (not one.flagged, one.q, -one.d))
        rows += [
            unit_row(result.patches, one.unit, subject.dataset, subject.show, tested=result.tested)
            for one in ordered[:shown]
        ]
    counts = "; ".join(
        f"{layer or 'output'}: {len(result.tested.flagged)} of {len(result.tested)}"
        for layer, result in results.items()
    )
    left_out = subject.dataset.found.notes if isinstance(subject.dataset, FolderImages) else ()
    rectified = (result.look.note for result in results.values() if result.look.note)
    notes = (*texts.notes, *rectified, *left_out)
    page = Page(
        title=texts.title,
        lead=f"{texts.lead}\n\nUnits that encode an absence, by layer: {counts}."
        + "".join(f"\n\n{note}" for note in notes),
        rows=tuple(rows),
        how_to_read=HOW_TO_READ,
        footer=texts.footer,
        provenance=provenance(seed=scan.seed, command=texts.command),
    )
    path = write_page(page, out)
    if isinstance(subject.dataset, FolderImages):
        subject.dataset.found.write(out)
    content = {layer: result.to_dict() for layer, result in results.items()}
    write_whole(out / "results.json", json.dumps(content) + "\n")
    return path


def _summary(layer: str, result: LayerResult) -> Row:
    """All units of a layer: how many are flagged, and the mean of every arm."""
    total = result.tested.overall
    level = "p" if total["protocol"] == "paper" else "q"
    facts = (
        ("Encoded absences", f"{total['flagged']} of {total['units']} units"),
        *((f"Mean, {arm}", f"{value:.3g}") for arm, value in total["means"].items()),
    )
    panels: tuple[Panel, ...] = ()
    read = "" if result.look.shape is None else f"Read: {result.look.shape}. "
    sentence = (
        f"{read}{total['flagged']} of {total['units']} units are flagged at {level} <= {total['alpha']}. "
        f"Averaged over units, the lowest patches pull them to {total['means']['lowest']:.3g}, random ones to "
        f"{total['means']['random']:.3g}."
    )
    return Row(f"Layer {layer or 'output'}", sentence, panels, facts)


def named_layer(model: nn.Module, name: str, reduce: str, channels: str) -> Layer:
    """The layer that a command names. Raises ValueError in the words of its options, with the nearest names of
    layers.
    """
    for option, value, known in (("--reduce", reduce, REDUCES), ("--channels", channels, CHANNELS)):
        if value not in known:
            raise ValueError(f"{option} {value!r} must be one of {', '.join(known)}")
    layer = Layer(name, reduce=reduce, channels=channels)  # type: ignore[arg-type]
    layer.module(model)
    return layer


def say(shape: LayerShape) -> None:
    """One line on stderr, also with ``--quiet``: which channels and positions are read."""
    say_line(f"reading {shape}")


DIGITS_SCAN = Scan(
    size=12, stride=4, mode="mask", images_per_unit=60, batch_size=256
)  # the bundled network on the bundled digits


def layers_of(model: nn.Module) -> list[str]:
    """Layers without a nonlinearity at their end: every convolution and dense layer; "" is the last one's, the
    logits.
    """
    found = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    return [*found[:-1], ""]
