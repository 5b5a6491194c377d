"""``explain_unit``: everything about one unit of a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.groups import as_groups
from absence_plugins.core.hooks import counting
from absence_plugins.core.labels import check_classes
from absence_plugins.core.units import Layer
from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.methods.insertion import InsertionResult
from absence_plugins.report.unit.extremes import insertion_section, patches_section
from absence_plugins.report.unit.maps import high_section, low_section
from absence_plugins.report.unit.naming import name_section, naming_labels
from absence_plugins.report.unit.neuron import Look
from absence_plugins.report.unit.pushes import directions_section
from absence_plugins.report.unit.reasons import reasons_section
from absence_plugins.report.unit.result import UnitReport
from absence_plugins.report.unit.section import Section
from absence_plugins.report.unit.sketches import pictures_section
from absence_plugins.report.unit.study import Settings, Study
from absence_plugins.report.unit.truth import faithfulness_section
from absence_plugins.report.unit.verdict import verdict_sentence

REDRAW = 0.1  # seconds, at least
SECTIONS = (
    patches_section, insertion_section, high_section, low_section, reasons_section, pictures_section, name_section,
    directions_section, faithfulness_section,
)  # fmt: skip


def explain_unit(
    model: nn.Module,
    layer: str | Layer,
    index: int,
    dataset: Any,
    *,
    concepts: Any = None,
    labels: Any = None,
    tested: InsertionResult | None = None,
    directions: DirectionPairs | int | None = None,
    directions_layer: str | None = None,
    maps: Any = "auto",
    pictures: Any = "auto",
    show: Callable[[Tensor], Tensor] | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    empty: Any = 0.0,
    groups: Any = None,
    notes: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
    progress: bool = True,
    **settings: Any,
) -> UnitReport:
    """Everything about one unit: a verdict, and what stands behind it, as a page and as JSON.

    The verdict is the insertion test's: the unit encodes an absence if patches like its lowest ones pull it down more
    than every control does. Beside it: its highest and lowest patches; maps of images on which it is high (against
    blank and against real images on which it is low) and on which it is low; pictures made to drive it up and down; its
    name in concepts, with NOT; directions of a layer that hold it down; and whether the maps are true. What was not run
    says so, and how to run it.

    Source: the methods' own modules; Hesse et al., ICML 2026; Bykov et al., NeurIPS 2023; Doumanoglou et al., TMLR
    2026.

    Args:
        model: runs in evaluation mode; is as before afterwards.
        layer: a name as in ``model.named_modules()``, or a :class:`~absence_plugins.Layer`; "" is the output. A layer
            that ends in a nonlinearity is read in front of it.
        index: number of the unit on the layer.
        dataset: items are float images [C, H, W] as the model takes them, or tuples that begin with one.
        concepts: what is in each image: something with ``concepts`` [N, K] of 0 and 1 and ``names``, such as
            ``concepts_from_folder`` makes it, or a pair of these two. Concepts that do not vary are left out.
        labels: [N] class of every image; references are then of the class on which the unit is lowest.
        tested: an insertion test of this layer that holds the unit; its q counts the units of that test. Without it the
            unit is tested alone, so that q is p.
        directions: fitted :class:`~absence_plugins.methods.directions.DirectionPairs`, or how many to fit.
        directions_layer: the pairs' layer, the unit's own or one in front of it; default: that of the unit.
        maps: ``maps(unit, inputs, baselines)``: signed maps [B, C, H, W] of a module ``unit`` (inputs [B, C, H, W] to
            [B])
            on inputs against one baseline each, R > 0 raises the unit. "auto": Captum's DeepLift or integrated
            gradients, where installed. None: no maps. A pair (maps, name of the method) is taken, too; the page names
            the method.
        pictures: ``pictures(unit, shape, prepare, seed)``: two pictures [C, H, W] in [0, 1] of a shape that drive the
            unit up and down; ``prepare`` turns [n, C, H, W] into model inputs. "auto": Lucent's, where installed. None:
            none.
        show: from model inputs [n, C, H, W] to pictures in [0, 1]; default: they are pictures.
        prepare: the other way round.
        empty: an empty pixel as the model sees it: a number, one per channel, or a torchvision ``Normalize``.
        groups: [N] integers or strings, equal for images that are not independent (copies, crops, frames), which
            no split divides.
        notes: sentences for the reader, under the verdict.
        provenance: pairs for the foot of the page.
        progress: show progress bars.
        **settings: of :class:`~absence_plugins.report.unit.study.Settings`: the patches' ``size``, ``stride``,
            ``mode``, ``k``; ``reduce``, ``channels`` and ``side`` of the layer; ``images_per_unit`` and ``protocol`` of
            the test; ``examples``, ``references``, ``nearest_in``, ``scored``, ``batch_size``, ``workers``, ``seed``.

    Returns:
        A :class:`UnitReport`: ``verdict``, ``page()``, ``to_dict()``, ``write(folder)``.

    Sign: ``effect`` > 0: its lowest patches pull the unit down. In maps R > 0 raises it, R < 0 holds it down.

    Raises:
        ValueError: no such layer or unit, lengths that differ, a setting out of its range.
        TypeError: a setting that does not exist, maps or pictures that are no callable.

    >>> generator = torch.Generator().manual_seed(0)
    >>> images = (torch.rand(40, 1, 8, 8, generator=generator) > 0.97).float()  # few bright dots
    >>> hates_dots = nn.Conv2d(1, 1, 1)
    >>> hates_dots.weight.data, hates_dots.bias.data = torch.full((1, 1, 1, 1), -1.0), torch.ones(1)
    >>> found = explain_unit(hates_dots, "", 0, images, size=3, stride=1, k=4, maps=None, pictures=None, progress=False)
    >>> found.verdict
    'Output 0 encodes an absence: patches like its lowest ones pull it down by 0.032 more than random ones (q = ...
    >>> [section.key for section in found.sections if section.ran]
    ['patches', 'insertion', 'reasons']
    """
    study = study_of(
        model, layer, [index], dataset, concepts=concepts, labels=labels, tested=tested, directions=directions,
        directions_layer=directions_layer, maps=maps, pictures=pictures, show=show, prepare=prepare, empty=empty,
        groups=groups, progress=progress, **settings,
    )  # fmt: skip
    return report_of(study, index, notes=notes, provenance=provenance)


def study_of(
    model: nn.Module,
    layer: str | Layer,
    units: Sequence[int],
    dataset: Any,
    *,
    concepts: Any = None,
    labels: Any = None,
    directions: DirectionPairs | int | None = None,
    directions_layer: str | None = None,
    show: Callable[[Tensor], Tensor] | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    tested: InsertionResult | None = None,
    maps: Any = "auto",
    pictures: Any = "auto",
    empty: Any = 0.0,
    groups: Any = None,
    progress: bool = True,
    look: Look | None = None,
    **settings: Any,
) -> Study:
    """A :class:`Study` for the reports of several units; arguments as in :func:`explain_unit`.

    look: what ``look_at`` found of the layer before.
    """
    known = [one.name for one in fields(Settings)]
    for name in settings:
        if name not in known:
            raise TypeError(
                f"explain_unit() got an unexpected keyword argument {name!r}; settings are: {', '.join(known)}"
            )
    table, names = concept_table(concepts)
    at = layer if isinstance(layer, Layer) else None if tested is None else tested.patches.at
    if at is not None:  # a Layer, or the one that was tested, says how it is read
        settings = {"reduce": at.reduce, "channels": at.channels, "side": at.side, **settings}
    return Study(
        model, Layer.of(layer).name, dataset, tuple(units), Settings(**settings),
        labels=None if labels is None else check_classes(labels), concepts=table, names=names,
        pairs=directions, pairs_layer=directions_layer, maps=maps, pictures=pictures,
        show=show or (lambda images: images), prepare=prepare or (lambda images: images), empty=empty,
        given=tested, progress=progress, looked=look,
        groups=as_groups(groups, len(dataset)),
    )  # fmt: skip


def report_of(
    study: Study, unit: int, *, notes: Sequence[str] = (), provenance: Mapping[str, str] | None = None
) -> UnitReport:
    """One unit's report."""
    one = study.tested.of(unit)
    labels = naming_labels(study, unit)
    silent = bool((study.peaks(unit) <= 0).all())
    has_places = not torch.equal(study.peaks(unit), study.values(unit))
    return UnitReport(
        layer=study.layer,
        index=unit,
        verdict=verdict_sentence(
            study.layer,
            one,
            study.tested.protocol,
            labels,
            alpha=study.tested.alpha,
            silent=silent,
            has_places=has_places,
        ),
        flagged=one.flagged,
        q=one.q,
        effect=one.effect,
        sections=_sections(study, unit),
        notes=tuple(dict.fromkeys((*notes, *study.notes))),
        terms=study_terms(study),
        provenance=dict(provenance or {}),
    )


def _sections(study: Study, unit: int) -> tuple[Section, ...]:
    """All of them; the bar shows which one is made, and moves with every forward of the model."""
    found: list[Section] = []
    passes, shown = 0, time.monotonic()
    with tqdm(total=len(SECTIONS), desc=f"unit {unit}", unit="section", leave=False, disable=not study.progress) as bar:

        def tick(samples: int) -> None:
            nonlocal passes, shown
            passes += samples
            if time.monotonic() - shown > REDRAW:
                shown = time.monotonic()
                bar.set_postfix_str(f"{passes:,} passes")

        with counting(study.model, tick) if study.progress else nullcontext():
            for section in SECTIONS:
                name = section.__name__.removesuffix("_section").replace("_", " ")
                bar.set_description(f"unit {unit}: {name}")
                found.append(section(study, unit))
                bar.update()
    return tuple(found)


def study_terms(study: Study) -> tuple[tuple[str, str], ...]:
    """What "blank" is in this study, for "How to read"."""
    if study.given is None:
        return (("Blank", f"In maps, their scores and the insertion test a blank pixel is {study.blank_words}."),)
    return (
        (
            "Blank",
            f"In maps and their scores a blank pixel is {study.blank_words}; in the insertion test, if it was not "
            "told otherwise, 0 as the model sees it: the mean color of normalized images, black of others.",
        ),
    )


def concept_table(concepts: Any) -> tuple[Tensor | None, tuple[str, ...]]:
    """Concepts [N, K] that vary, and their names.

    Raises:
        TypeError: neither a pair nor something with ``concepts`` and ``names``.
        ValueError: none varies.

    >>> concept_table(([[1, 1], [0, 1]], ["loop", "ink"]))
    (tensor([[1],
            [0]]), ('loop',))
    """
    if concepts is None:
        return None, ()
    if hasattr(concepts, "concepts") and hasattr(concepts, "names"):
        given, names = concepts.concepts, concepts.names
    elif isinstance(concepts, (tuple, list)) and len(concepts) == 2:
        given, names = concepts
    else:
        raise TypeError(
            f"concepts is a {type(concepts).__name__}; pass a pair (labels [N, K], names), or what "
            "concepts_from_folder returns"
        )
    table = torch.as_tensor(given)
    if table.dim() != 2 or table.shape[1] != len(names):
        raise ValueError(f"concepts have shape {tuple(table.shape)} for {len(names)} names; pass [N, K] and K names")
    kept = [k for k in range(len(names)) if bool((table[:, k] != table[0, k]).any())]
    if not kept:
        raise ValueError("every concept is the same for all images; pass concepts that vary, or None")
    return table[:, kept], tuple(str(names[k]) for k in kept)
