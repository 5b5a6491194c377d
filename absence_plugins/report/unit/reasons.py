"""From the map to the reason: which units in front carry it, and the fewest regions that take it away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.feature_space import find_last_features
from absence_plugins.core.hooks import evaluating
from absence_plugins.core.units import Unit
from absence_plugins.methods.carriers import Carrier, find_carriers
from absence_plugins.methods.missing import MissingSet, Search, missing_set
from absence_plugins.relevance import RelevanceError
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.unit.references import compared
from absence_plugins.report.unit.section import Section
from absence_plugins.report.unit.study import Study

KEY, HEADING = "reasons", "Which units carry it, and the fewest regions that take it away"
CELLS = 4  # along the shorter side of an image, for the regions
NAMED = 5  # units
QUICK = Search(budget=0, proof=0)


def reasons_section(study: Study, unit: int) -> Section:
    """The image on which the unit is highest, against the nearest one on which it is low.

    Sign: R > 0 raises the unit.
    """
    values = study.values(unit)
    number = int(values.argmax())
    try:
        found = compared(study, unit, [number])
    except ValueError as reason:
        return Section.not_run(KEY, HEADING, f"{reason}; pass more images.")
    x, reference = found.images[:1], found.references[0, :1]
    try:
        with evaluating(study.model):
            units, layer = _carriers(study, unit, x, reference)
            smallest = _smallest(study, unit, x, reference, float(values.mean()))
    except (RelevanceError, ValueError) as reason:
        return Section.not_run(KEY, HEADING, f"{reason}")
    before, low = float(found.values[0]), float(found.reference_values[0, 0])
    return Section(
        KEY,
        HEADING,
        " ".join(filter(None, (_say_units(units, layer, before, low), _say_set(smallest)))),
        (
            Panel("image", study.picture(x[0]), study.name_of(number), f"the unit: {before:.3g}"),
            Panel("image", study.picture(reference[0]), "Nearest reference", f"the unit: {low:.3g}"),
            *([] if smallest is None else [_panel(study, smallest)]),
        ),
        tuple(
            (f"{layer}:{one.unit}" + (", silent here" if one.is_silent else ""), f"{one.relevance:+.3g}")
            for one in units
        ),
        {
            "image": number,
            "layer": layer,
            "units": [vars(one) for one in units],
            "smallest": None if smallest is None else smallest.to_dict(),
        },
    )


def _carriers(study: Study, unit: int, x: Tensor, reference: Tensor) -> tuple[list[Carrier], str]:
    """The strongest units in front of the unit's own layer; none where it is the first."""
    neuron = study.neuron(unit)
    layer = find_last_features(study.model, x, before=study.at.module(study.model))
    if not layer.name:
        return [], ""
    at = type(layer)(f"model.{layer.name}", side="input")
    own = find_carriers(neuron, x, reference, layers=at)
    return [replace(one, layer=layer.name) for one in own.strongest(at.name, NAMED)], layer.name


def _smallest(study: Study, unit: int, x: Tensor, reference: Tensor, mean: float) -> MissingSet | None:
    """The fewest cells of the reference that bring the unit to its mean; None where all of it does not."""
    at = study.neuron(unit).unit
    with torch.no_grad():
        before, after = (float(study.neuron(unit)(image)) for image in (x, reference))
    if not after < mean < before:
        return None
    cells = max(1, min(x.shape[-2:]) // CELLS)
    own: Any = Unit(study.at, unit) if not isinstance(at, Unit) else at
    return missing_set(
        study.model, x, reference, output=own, margin=before - mean, pieces=cells, paste="all", search=QUICK
    )


def _say_units(units: list[Carrier], layer: str, before: float, low: float) -> str:
    if not units:
        return ""
    best = units[0]
    silent = [one for one in units if one.is_silent]
    said = (
        f"The unit is {before - low:.3g} higher here than on the nearest reference. Of the units in front of {layer}, "
        f"{_say_one(best)}."
    )
    if silent and not best.is_silent:
        said += f" Silent here, and so an absence: {_say_one(silent[0])}."
    return said


def _say_one(one: Carrier) -> str:
    return one.words().replace("the output", "the unit").replace(f" of {one.layer}", "")


def _say_set(smallest: MissingSet | None) -> str:
    if smallest is None:
        return ""
    return (
        f"The fewest cells of the reference that bring it down to its mean: {len(smallest)} of {smallest.pieces}; with them it "
        f"is {smallest.after:.3g}, and none of them can be left out."
    )


def _panel(study: Study, smallest: MissingSet) -> Panel:
    caption = f"{len(smallest)} of {smallest.pieces} cells; the unit: {smallest.after:.3g}"
    return Panel("image", study.picture(smallest.image[0]), "With the fewest cells inserted", caption)
