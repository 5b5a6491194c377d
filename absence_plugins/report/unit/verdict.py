"""What was found about a unit, in a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence

from absence_plugins.core.units import Unit
from absence_plugins.methods.insertion import UnitInsertion
from absence_plugins.methods.invert import UnitLabel
from absence_plugins.report.pages.patch_rows import reason
from absence_plugins.report.unit.naming import auroc, is_sure


def heading_of(unit: Unit) -> str:
    """The unit in words, at the beginning of a sentence.

    >>> heading_of(Unit("conv3", 12)), heading_of(Unit("", 3))
    ('Unit 12 of conv3', 'Output 3')
    """
    words = unit.describe()
    return words[0].upper() + words[1:]


def verdict_sentence(
    layer: str,
    one: UnitInsertion,
    protocol: str = "controlled",
    labels: Sequence[UnitLabel] = (),
    *,
    alpha: float = 0.05,
    silent: bool = False,
    has_places: bool = True,
) -> str:
    """The verdict: the insertion test decides, the name is added where it is more than chance.

    layer: of the unit; one: its result; protocol: of the test; labels: its names, by what it is high on and low on;
    alpha: of the test; silent: it is nowhere above 0; has_places: it has
    several positions per image.

    >>> parts = {"random": 0.001, "median": 0.001, "blank": 0.001, "patches": 0.001}
    >>> found = UnitInsertion(3, {"lowest": -2.0, "random": 0.1}, 2.1, 0.9, 0.001, 0.001, parts, 0.2, 0.01, 30, 5, True)
    >>> verdict_sentence("conv3", found)
    'Unit 3 of conv3 encodes an absence: patches like its lowest ones pull it down by 2.1 more than random ones (q = 0.001).'
    """
    name = heading_of(Unit(layer, one.unit))
    level = "p" if protocol == "paper" else "q"
    number = f"{level} = {one.p if protocol == 'paper' else one.q:.2g}"
    named = " and ".join(_named(label) for label in labels if is_sure(label))
    if one.flagged:
        said = (
            f"{name} encodes an absence: patches like its lowest ones pull it down by {one.effect:.2g} more than "
            f"random ones ({number})"
        )
        said += f"; it is {named}." if named else "."
    else:
        said = f"{name}: no encoded absence was confirmed, because {reason(one, protocol, alpha)} ({number})."
        said += f" It is {named}." if named else ""
    if silent:
        where = "at no position of any image" if has_places else "on no image"
        said += f" It is above 0 {where}: if a ReLU follows, the network never sees it."
    return said


def _named(label: UnitLabel) -> str:
    word = "low" if label.mode == "negative" else "high"
    return f"{word} on images with: {label.best.formula} (AUROC {auroc(label):.2f})"
