"""The page of ``absence-plugins label``: how many units are named, and what each name, and each NOT, is worth."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from absence_plugins.commands.label_samples import Samples
from absence_plugins.commands.provenance import provenance
from absence_plugins.core.units import LayerShape
from absence_plugins.methods.invert import Formula, Negation, UnitLabel, UnitLabels
from absence_plugins.report import Page, Panel, Row
from absence_plugins.report.plots.labels import label_panels

SHOWN = 12  # units with a NOT on the page
OTHERS = 4  # and others
Q = 0.05
FEW = 100  # independent held-out images below which chance alone moves an AUC by more than 0.058

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
    ("q", f"The share of false names to expect among all units named at this level or a lower one. Up to {Q} a unit counts as named; above, its formula is the best fit of the search and may be chance."),
    ("What a NOT is worth", f"By how much the AUC falls without it; of a name that is nothing but one NOT, by how much it is above 0.5, which is chance. Above 0 on held-out images, with a q of its own of at most {Q}, the unit goes with the absence on these images: a correlation, which networks with random weights show, too. Whether the absence causes it, only a changed image can tell."),
)  # fmt: skip
GROUPED = (
    "Groups",
    "A group of images counts once in p and q, which compare the groups' means; AUC counts every image. So a high AUC can go with a high q, and labels that differ within the groups leave little to tell them by.",
)  # fmt: skip


def is_shown(q: float | None) -> bool:
    """Whether a test on held-out images shows it: q is at most 0.05. False without a test."""
    return q is not None and q <= Q


def count_named(labels: UnitLabels) -> str:
    """How many units are named at q <= 0.05, and how many have a NOT that is worth something, in a sentence's part."""
    absent = len(labels.with_not(Q))
    if labels.heldout == 0:
        return f"none of {len(labels)} names tested, as nothing was held out; {absent} have a NOT that is worth something on the searched images"
    named = sum(is_shown(one.best.q) for one in labels)
    return f"{named} of {len(labels)} units named (q <= {Q}), {absent} of them with a NOT that is worth something"


def label_page(
    labels: UnitLabels,
    shape: LayerShape,
    samples: Samples,
    values: Tensor,
    notes: Sequence[str],
    seed: int,
    command: str,
) -> Page:
    """All that the page says: the count, units with a NOT, strongest first, and the best of the others."""
    absent = labels.with_not(Q)
    others = sorted((one for one in labels if one not in absent), key=_order)
    chosen = [*absent[:SHOWN], *others[:OTHERS]]
    return Page(
        title="What the units respond to, and what must be missing",
        verdict=f"{shape.layer or 'The output'}: {_call(count_named(labels), samples)}.",
        lead="\n\n".join((*_lead(labels, shape, samples, len(absent), len(others)), *notes)),
        rows=tuple(_row(one, samples, values[:, one.unit]) for one in chosen),
        how_to_read=tuple((term, _call(said, samples)) for term, said in (*HOW_TO_READ, *_how_it_was_chosen(labels))),
        provenance=provenance(seed=seed, command=command),
    )


def _call(text: str, samples: Samples) -> str:
    """A text about images, about what the samples are."""
    if samples.noun == "images":
        return text
    said = re.sub(r"\b(held-out|searched|the|these|[\d,]+) images\b", rf"\1 {samples.noun}", text)
    return said.replace("a changed image", "a changed input")


def _order(label: UnitLabel) -> tuple[bool, float, int]:
    """Named units first, then by the score that chose the names, on held-out images; last where it cannot be told."""
    best = label.best
    own = best.score if best.heldout_fraction is None else best.heldout_score
    return not is_shown(best.q), math.inf if own is None or math.isnan(own) else -own, label.unit


def _lead(labels: UnitLabels, shape: LayerShape, samples: Samples, absent: int, others: int) -> list[str]:
    """The paragraphs: what was searched, how it was read, what is below, and how sure the search is."""
    where = "low" if labels.settings["mode"] == "negative" else "high"
    judged = f", judged on {labels.heldout:,} others" if labels.heldout else ""
    first = f"For every unit the formula of concepts was searched that its value detects best (INVERT), on {labels.searched:,} images{judged}."  # fmt: skip
    if labels.heldout:
        first += f" A unit is named if q is at most {Q}; other formulas below are the best fit of the search, and are marked as not shown to be real."
    if absent:
        first += f" Units whose name has a NOT that is worth something are {where} where something is missing."
    own = "" if labels.heldout == 0 else f" with q at most {Q}"
    shown = [f"{min(absent, SHOWN)} units with a NOT that is worth something{own}, strongest first"] * (absent > 0)
    title = labels[0].score_title + (" on held-out images" if labels.heldout else "")
    shown += [f"{min(others, OTHERS)} {'other ' * (absent > 0)}units, named ones first, then by {title}"] * (others > 0)
    read = f"Values are those before the nonlinearity{f'; a channel counts with its {shape.reduce} over positions' if shape.positions else ''}."
    read = read if samples.picture is not None else "Values are those of the file."
    second = f"{samples.source}. Read: {shape}. {read} Below: {_call(', and '.join(shown), samples)}; all are in labels.csv and labels.json."  # fmt: skip
    rest = [f"{labels.certainty[0].upper()}{labels.certainty[1:]}.", *_few(labels)]
    return [_call(first, samples), second, *(_call(said, samples) for said in rest)]


def _few(labels: UnitLabels) -> list[str]:
    """What is said of few held-out images, or groups of them: the standard error of chance."""
    count, groups, kind = labels.heldout, labels.settings["groups"], "images"
    if groups is not None:
        count, kind = round(groups * count / (labels.searched + count)), "groups of images"
    if not 0 < count < FEW:
        return []
    error = math.sqrt((count + 1) / (3 * count**2))
    return [f"{count} {kind} to judge by are few: by chance alone an AUC is {error:.2f} off 0.5 (one standard error) where a name holds on half of them, and further where it holds on fewer or on more."]  # fmt: skip


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
    ]
    if samples.picture is not None:
        panels += [
            Panel("image", samples.picture(top), f"{word.capitalize()} where the name holds", f"value {float(values[top]):.3g}"),
            Panel("image", samples.picture(bottom), f"{opposite.capitalize()} where {missing}", f"value {float(values[bottom]):.3g}"),
        ]  # fmt: skip
    is_open = best.q is not None and not is_shown(best.q)
    called = f" ({samples.unit_names[label.unit]})" if samples.unit_names else ""
    heading = f"Unit {label.unit}{called}{', not named: the best fit is ' if is_open else ': '}{best.formula}"
    return Row(heading, _call(_sentence(label), samples), tuple(panels), tuple(_facts(label)))


def _sentence(label: UnitLabel) -> str:
    """Whether the name is shown, how well it fits, what its NOTs are worth; then all names in full."""
    best = label.best
    if best.q is None:
        verdict = "Not tested: nothing was held out."
    elif is_shown(best.q):
        verdict = f"Named: q {best.q:.2g}."
    else:
        verdict = f"Not shown to be real: q {spell_q(best.q)}, above {Q}."
    heldout = "" if best.heldout_auc is None else f", {best.heldout_auc:.3f} on held-out images"
    fit = f"It holds on {best.fraction:.0%} of the images; AUC {best.auc:.3f}{heldout}."
    first = f"{verdict} {fit} {f'{say_worths(label)}.' if best.negations else 'No NOT.'}"
    if len(label.formulas) == 1:
        return first
    return f"{first}\n\nAll its formulas: " + "; ".join(f"{n}. {one.formula}" for n, one in enumerate(label.formulas, 1)) + "."  # fmt: skip


def _facts(label: UnitLabel) -> list[tuple[str, str]]:
    """The numbers; the key fact is a NOT only if its own q and the name's are at most 0.05."""
    best = label.best
    title, own = ("AUC", best.auc) if best.heldout_auc is None else ("AUC, held out", best.heldout_auc)
    auc = [*_score_facts(label), (title, f"{own:.3f}")]
    rest = [("Holds on", f"{best.fraction:.1%}"), _certainty(label)]
    nots = sorted(best.negations, key=lambda one: -one.evidence)
    if best.q is None:
        return [(auc[0][0], f"{auc[0][1]} (not tested)"), *auc[1:], *map(_not_fact, nots), *rest]
    if not is_shown(best.q):
        return [("Not named: q", f"{spell_q(best.q)}, above {Q}"), *auc, *map(_not_fact, nots), *rest]
    real = [_not_fact(one) for one in nots if _is_real(one)]
    open_ = [_not_fact(one) for one in nots if not _is_real(one)]
    q = ("q", f"{best.q:.2g}")
    if real:
        return [*real, q, *auc, *open_, *rest]
    return [(auc[0][0], f"{auc[0][1]} (q {best.q:.2g})"), *auc[1:], q, *open_, *rest]


def _is_real(one: Negation) -> bool:
    return one.evidence > 0 and is_shown(one.q)


def _not_fact(one: Negation) -> tuple[str, str]:
    tested = "not tested" if one.q is None else f"q {spell_q(one.q)}"
    doubt = "" if one.q is None or _is_real(one) else ", not shown to be real"
    return f"NOT {one.concept}", f"{one.evidence:+.3f} ({tested}{doubt})"


def _score_facts(label: UnitLabel) -> list[tuple[str, str]]:
    """The score that chose the name, where that is not AUC, and from where on the unit fires."""
    best, facts = label.best, []
    if label.score != "auc" and best.score is not None:
        own = best.score if best.heldout_score is None else best.heldout_score
        facts.append((label.score_title + ", held out" * (best.heldout_score is not None), f"{own:.3f}"))
    if label.threshold is not None:
        facts.append((f"Fires at {'most' if label.mode == 'negative' else 'least'}", f"{label.threshold:.3g}"))
    return facts


def _how_it_was_chosen(labels: UnitLabels) -> tuple[tuple[str, str], ...]:
    """What the page says of groups, of the score and of the proof."""
    score, is_short = labels[0].score, labels.settings["prefer"] == "short"
    fires = " A unit fires from a threshold on, chosen on the searched images." * (labels[0].threshold is not None)
    chosen = (
        () if score == "auc" else ((labels[0].score_title, f"What the names were chosen by: {SCORES[score]}.{fires}"),)
    )
    best = f"The highest of all formulas of up to {labels.settings['length']} concepts on the searched images: proven to be that; or no formula is above a bound; or not certified, as a part of the formulas was searched. It says how good the search was, not how good the name is: for that see held out, and q."  # fmt: skip
    short = " A name may be below it: every concept in it must earn its place." * is_short
    grouped = (GROUPED,) if labels.settings["groups"] is not None else ()
    return (*grouped, *chosen, (f"Best {labels[0].score_title} searched", best + short))


def _certainty(label: UnitLabel) -> tuple[str, str]:
    """How sure the highest score is, as a fact."""
    title, highest = f"Best {label.score_title} searched", max(s for s in (one.score for one in label.formulas) if s is not None)  # fmt: skip
    if label.bound is None:
        return title, f"{highest:.3f}, not certified"
    if label.certified:
        return title, f"{highest:.3f}, proven that no formula has more"
    said = "not certified: the bound is 1" if label.is_bound_empty else f"none above {label.bound:.3f}"
    return title, f"{highest:.3f}, {said}"


def spell_q(q: float) -> str:
    """A q value; with more digits where two would round it down to 0.05."""
    return f"{q:.2g}" if (float(f"{q:.2g}") <= Q) == (q <= Q) else f"{q:.4g}"


def say_worths(label: UnitLabel) -> str:
    """What each NOT of the name is worth, and whether that is shown."""
    return "; ".join(_worth(one) for one in label.best.negations)


def _worth(one: Negation) -> str:
    if one.heldout_worth is None:
        return f"NOT {one.concept} is worth {one.worth:+.3f} of AUC on the searched images"
    q = "" if one.q is None else f"q {spell_q(one.q)}{'' if _is_real(one) else ', not shown to be real'}; "
    return f"NOT {one.concept} is worth {one.heldout_worth:+.3f} of AUC on held-out images ({q}{one.worth:+.3f} on the searched ones)"
