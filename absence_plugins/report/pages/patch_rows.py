"""A unit's extreme patches and its insertion test as a row of a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from absence_plugins.methods.insertion import InsertionResult, UnitInsertion
from absence_plugins.methods.patches import ExtremePatches, Extremes
from absence_plugins.report.pages.page import Row
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.sides import tiled

SHOWN = 8  # patches per side, in four columns
HOW_TO_READ = (
    (
        "Highest, lowest",
        "The patches of the data set on which the unit's value is highest and lowest, the most extreme first.",
    ),
    (
        "Insertion test",
        "Patches are pasted into images on which the unit is high, all at the same place: one of its lowest, one of "
        "its highest, a random one, one of its median ones, a blank one. An encoded absence is flagged where the "
        "lowest patches pull the unit further down than every control does, over images and over patches; patches "
        "and images come from different halves of the data.",
    ),
    ("q", "The share of false flags to be expected among all units with at most this value (Benjamini-Hochberg)."),
    ("Mirror test", "How much more the unit rises where its lowest patch is painted over than where another place is."),
)


def patch_panels(
    patches: ExtremePatches, unit: int, dataset: Any, show: Callable[[Tensor], Tensor]
) -> tuple[Panel, Panel]:
    """Highest and lowest patches of a unit; ``show``: from [N, C, H, W] as the model takes them to [0, 1]."""
    row = patches.row(unit)

    def panel(side: Extremes, title: str) -> Panel:
        pixels = show(side.cut(dataset, [row])[0][:SHOWN]).float().clamp(0, 1)
        values = ", ".join(f"{float(value):.3g}" for value in side.scores[row, :SHOWN])
        return Panel("image", tiled(pixels, 4), title, values)

    return panel(patches.highest, "Highest patches"), panel(patches.lowest, "Lowest patches")


def unit_row(
    patches: ExtremePatches,
    unit: int,
    dataset: Any,
    show: Callable[[Tensor], Tensor],
    *,
    tested: InsertionResult | None = None,
    name: str = "",
) -> Row:
    """The row; with ``tested`` its sentence says what the insertion test found."""
    heading = name or f"{patches.layer or 'output'}, unit {unit}"
    panels = patch_panels(patches, unit, dataset, show)
    if tested is None:
        return Row(
            heading, "Not tested: the lowest patches may hold the unit down, or merely lack what it likes.", panels
        )
    one = tested.of(unit)
    facts = [("q", f"{one.q:.2g}"), ("Fall below random", f"{one.effect:.3g} (d {one.d:.2g})")]
    facts += [(f"Mean, {arm}", f"{value:.3g}") for arm, value in one.means.items()]
    if one.mirror is not None:
        facts.append(("Mirror test", f"{one.mirror:+.2g} (p {one.mirror_p:.1g})"))
    said = verdict(one, tested.protocol, tested.alpha) + describe_correction(len(tested))
    return Row(heading, said, panels, tuple(facts))


def describe_correction(units: int) -> str:
    """Over how many units a q value is, as a sentence behind a verdict.

    >>> describe_correction(16), describe_correction(1)
    (' q is corrected over 16 units.', ' Tested alone, so q is p.')
    """
    return " Tested alone, so q is p." if units == 1 else f" q is corrected over {units} units."


def verdict(one: UnitInsertion, protocol: str = "controlled", alpha: float = 0.05) -> str:
    """What the test says of a unit, in a sentence.

    >>> parts = {"random": 0.5, "median": 0.001, "blank": 0.001, "patches": 0.001}
    >>> verdict(UnitInsertion(3, {}, 0.1, 0.1, 0.5, 0.5, parts, 0.2, 0.01, 30, 5, False))
    'Not flagged: the lowest patches do not pull the unit down further than random patches do.'
    """
    if one.flagged:
        return (
            f"An encoded absence: pasted into {one.images} images on which the unit is high, its lowest patches pull "
            f"it down to {one.means['lowest']:.3g} on average, random patches to {one.means['random']:.3g}."
        )
    return f"Not flagged: {reason(one, protocol, alpha)}."


def reason(one: UnitInsertion, protocol: str = "controlled", alpha: float = 0.05) -> str:
    """Why a unit is not flagged at this level, as a clause."""
    if protocol == "paper":
        return "random and lowest patches do not differ"
    words = {
        "random": "the lowest patches do not pull the unit down further than random patches do",
        "median": "the lowest patches do not pull the unit down further than its median patches do",
        "blank": "a blank patch pulls the unit down as far: the lowest patches merely lack what it likes",
        "patches": "patches differ so much among each other that these few may be lower by chance",
    }
    worst = max(one.parts, key=lambda name: one.parts[name])
    if one.q <= alpha:
        return "painting the lowest patches over in their own images does not raise the unit more than elsewhere"
    return words[worst]


def normalized_to_picture(mean: Any, std: Any) -> Callable[[Tensor], Tensor]:
    """From model inputs back to pictures in [0, 1].

    >>> normalized_to_picture([0.5], [0.5])(torch.zeros(1, 1, 1, 1)).item()
    0.5
    """
    center, spread = (torch.tensor(list(values)).reshape(-1, 1, 1) for values in (mean, std))
    return lambda images: images * spread + center
