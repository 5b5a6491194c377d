"""Is the absence evidence of the maps true? Scores of both views on several images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import evaluating
from absence_plugins.methods.faithfulness import AbsenceScores, absence_scores
from absence_plugins.report.plots.labels import pixels_of
from absence_plugins.report.plots.palette import MUTED, ORDERS
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.unit.maps import drawn
from absence_plugins.report.unit.plugins import NotAvailable, provider
from absence_plugins.report.unit.references import compared
from absence_plugins.report.unit.section import Section
from absence_plugins.report.unit.study import Study

KEY, HEADING = "faithfulness", "Are the maps true?"
CELLS = 14  # along a side: what is changed at once; the cost goes with their number
NAMES = {"nontarget": "What holds it down", "reference": "What is missing"}
DEEDS = {
    "nontarget": "Blank what the map says holds the unit down, the strongest first, and the unit rises",
    "reference": "Copy in what the map says is missing, the strongest first, and the unit falls",
}
ACROSS = {"nontarget": "blanked, up to the best peak", "reference": "copied in, up to the best peak"}
UP = {"nontarget": "rise of the unit", "reference": "fall of the unit"}
WORDS = {"best": "best found", "random": "random", "standard": "against blank", "map": "this map"}


def faithfulness_section(study: Study, unit: int) -> Section:
    """The scores of the non-target view on the lowest images, and of the reference view on the highest."""
    count = min(study.settings.scored, len(study.dataset))
    if count == 0:
        return Section.not_run(
            KEY,
            HEADING,
            "switched off; on the command line leave out --skip faithfulness and --scored 0, in Python pass scored=8.",
        )
    try:
        maps = provider("maps", study.maps)
    except NotAvailable as reason:
        return Section.not_run(KEY, HEADING, f"there are no maps to score: {reason}.")
    order = study.values(unit).argsort(stable=True)
    neuron = study.neuron(unit)
    low = study.images(order[:count].tolist())
    options: dict[str, Any] = {
        "seed": study.settings.seed, "progress": study.progress, "empty": study.blank(low[:1])[0], "cell": cell_of(low),
    }  # fmt: skip
    found: dict[str, AbsenceScores] = {}
    rejected: dict[str, str] = {}

    def against_blank(images: Tensor) -> Tensor:
        return drawn(study, unit, maps, images, study.blank(images))

    with evaluating(study.model), warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsenceWarning)  # a map that claims nothing scores nothing
        try:
            found["nontarget"] = absence_scores(
                study.model, low, neuron, against_blank(low), view="nontarget", **options
            )
        except ValueError as reason:
            rejected["nontarget"] = str(reason)
        try:
            high = compared(study, unit, order.flip(0)[:count].tolist())
            nearest = high.references[:, 0]
            found["reference"] = absence_scores(
                study.model, high.images, neuron, drawn(study, unit, maps, high.images, nearest),
                view="reference", reference=nearest, standard=against_blank(high.images), **options,
            )  # fmt: skip
        except ValueError as reason:
            rejected["reference"] = str(reason)
    return scores_section(found, rejected)


def cell_of(images: Tensor) -> int:
    """The side in pixels of what is changed at once, for images [N, C, H, W]."""
    return -(-max(images.shape[-2:]) // CELLS)


def scores_section(found: Mapping[str, AbsenceScores], rejected: Mapping[str, str]) -> Section:
    """From scores, and reasons why there are none, by view."""
    panels, facts, sentences = [], [], []
    for view, scores in found.items():
        low, high = scores.interval
        spread = f"{low:.2f} to {high:.2f}" if math.isfinite(low) and math.isfinite(high) else "none, too few images"
        said = "no score" if math.isnan(scores.score) else f"{scores.score:.2f}"
        caption = "" if math.isnan(scores.score) else f"95 % interval: {spread}; {scores.samples} images."
        panels.append(Panel("image", pixels_of(curves_figure(scores)), f"{NAMES[view]}: {said}", caption))
        facts.append((NAMES[view], said if math.isnan(scores.score) else f"{said} ({spread})"))
        if scores.standard_score is not None and not math.isnan(scores.standard_score):
            facts.append((f"{NAMES[view]}, map against blank", f"{scores.standard_score:.2f}"))
        if scores.placebo_score is not None and not math.isnan(scores.placebo_score):
            facts.append((f"{NAMES[view]}, where it says nothing", f"{scores.placebo_score:.2f}"))
        if scores.control_score is not None:
            facts.append((f"{NAMES[view]}, best map that never saw the network", f"{scores.control_score:.2f}"))
        sentences.append(_sentence(scores))
    sentences += [f"{NAMES[view]}: not scored, as {reason}." for view, reason in rejected.items()]
    return Section(
        KEY,
        HEADING,
        " ".join(sentences),
        tuple(panels),
        tuple(facts) or (("Status", "no score"),),
        {**{view: scores.to_dict() for view, scores in found.items()}, "not_scored": dict(rejected)},
        wide=True,
    )


def _sentence(scores: AbsenceScores) -> str:
    if math.isnan(scores.score):
        return scores.sentence()
    standard = scores.standard_score
    beside = "" if standard is None or math.isnan(standard) else f", that of the map against blank {standard:.2f}"
    placebo = scores.placebo_score
    if placebo is not None and not math.isnan(placebo):
        beside += f", that of the map where it says nothing (shifted, or another image's) {placebo:.2f}"
    if scores.control_score is not None:
        beside += f", that of the best map that never saw the network ({scores.control}) {scores.control_score:.2f}"
    gain = {name: float(scores.areas[name].mean()) for name in ("map", "random")}
    return (
        f"{DEEDS[scores.view]} by {gain['map']:.2g} on average along the way, in a random order by "
        f"{gain['random']:.2g}: "
        f"score {scores.score:.2f}{beside} (1: the best order that was found, 0: a random one)."
    )


def curves_figure(scores: AbsenceScores) -> Figure:
    """How far the unit moves while what the map names is changed, beside the best and a random order; as small as a
    panel.
    """
    figure = Figure(figsize=(1.76, 1.25), dpi=240, facecolor="white")
    figure.subplots_adjust(left=0.2, right=0.93, bottom=0.23, top=0.97)
    axes = figure.subplots()
    for name, label in WORDS.items():
        if name in scores.curves:
            _, color, style, _ = ORDERS[name]
            curve = scores.curves[name].cpu().numpy()
            width = 1.4 if name == "map" else 0.9
            axes.plot(np.linspace(0, 1, len(curve)), curve, style, color=color, linewidth=width, label=label)
    axes.axhline(0, color=MUTED, linewidth=0.4)
    axes.set_xlabel(ACROSS[scores.view], fontsize=5, color=MUTED, labelpad=1)
    axes.set_ylabel(UP[scores.view], fontsize=5, color=MUTED, labelpad=1)
    axes.tick_params(labelsize=4.5, length=1.5, width=0.4, colors=MUTED, pad=1)
    axes.locator_params(nbins=4)
    axes.set_xlim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=4.5, borderaxespad=0.1, handlelength=1.4, labelspacing=0.2)
    return figure


def both_scores(data: Mapping[str, Any]) -> str:
    """Both views' scores for the index, "–" for one that is missing.

    >>> both_scores({"ran": True, "nontarget": {"score": 0.84}, "reference": {"score": 0.888}}), both_scores({"ran": False})
    ('0.84 / 0.89', '–')
    """
    found = [data.get(view, {}).get("score") for view in NAMES]
    said = ["–" if not isinstance(one, (int, float)) else f"{one:.2f}" for one in found]
    return "–" if set(said) == {"–"} else " / ".join(said)


def mean_score(data: Mapping[str, Any]) -> float | None:
    """The mean score over the views of a section's data, for the index; None where nothing was scored.

    >>> mean_score({"ran": True, "nontarget": {"score": 0.5}, "reference": {"score": 1.0}})
    0.75
    """
    found = [one["score"] for one in data.values() if isinstance(one, Mapping) and one.get("score") is not None]
    return sum(found) / len(found) if found else None
