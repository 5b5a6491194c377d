"""The real image on which a unit is highest, changed as little as was found until the unit lies below all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.unit.plugins import NotAvailable, provider
from absence_plugins.report.unit.study import Study


@dataclass(frozen=True, eq=False)
class Switched:
    """What it adds to a section; nothing where no package can make it."""

    sentence: str = ""
    panels: tuple[Panel, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


def switch_off(study: Study, unit: int, image: int, values: Tensor) -> Switched:
    """The image before and after, and what changed; values: the unit's on all images [N].

    Sign of the change: red is brighter, blue darker. What was added suppresses the unit, what was taken away it needs.
    """
    try:
        change = provider("changes", "auto")
    except NotAvailable:
        return Switched()
    picture = study.picture(study.images([image])[0])
    found = change(study.neuron(unit), picture, study.prepare, values, study.settings.seed)
    low = float(values.min())
    where = "below every real image" if found.after < low else "not below every real image"
    sentence = (
        f" The real image on which the unit is highest, changed as little as was found, takes it from {found.before:.3g} to "
        f"{found.after:.3g}, {where}: a change of {found.distance:.3f} (root mean square, pixels in [0, 1])."
    )
    panels = (
        Panel("image", found.photograph, "Real, highest", f"real: {found.before:.3g}"),
        Panel("image", found.picture, "The same, switched off", f"changed: {found.after:.3g}"),
        Panel(
            "signed",
            (found.picture - found.photograph).sum(0, keepdim=True),
            "What changed",
            f"{found.distance:.3f} root mean square",
            positive="brighter",
            negative="darker",
        ),
    )
    facts = (("Switched off by a change of", f"{found.distance:.3f}"),)
    return Switched(sentence, panels, facts, {"switched_off": found.to_dict()})
