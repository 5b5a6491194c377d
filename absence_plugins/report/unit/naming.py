"""The unit's name: the formula of concepts, NOT included, that its value detects best."""

from __future__ import annotations

import torch

from absence_plugins.methods.invert import UnitLabel
from absence_plugins.report.plots.labels import label_panels
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.unit.section import Section
from absence_plugins.report.unit.study import Study

KEY, HEADING = "name", "Its name"
Q = 0.05


def name_section(study: Study, unit: int) -> Section:
    """The best name of images on which the unit is high, what each NOT is worth, images at both ends; the best name of
    those on which it is low.
    """
    if study.concepts is None:
        return Section.not_run(
            KEY,
            HEADING,
            "no concepts were given; pass concepts=(labels [N, K], names), on the command line class folders or "
            "--attributes, and no --skip name.",
        )
    label, low, values = study.label(unit), study.label(unit, "negative"), study.values(unit)
    best = label.best
    truth = best.formula.truth(study.concepts, study.names)
    top = int(torch.where(truth.true.cpu(), values, -torch.inf).argmax())
    bottom = int(torch.where(truth.false.cpu(), values, torch.inf).argmin())
    panels = [
        *label_panels(label, values, study.concepts, study.names),
        *(
            Panel("image", study.picture(study.images([number])[0]), title, f"the unit: {float(values[number]):.3g}")
            for number, title in ((top, "Highest where the name holds"), (bottom, "Lowest where it does not"))
        ),
    ]
    worths = [f"NOT {one.concept} is worth {one.evidence:+.3f} of AUROC" for one in best.negations]
    sure = "" if is_sure(label) else " This may be chance: the name is no result."
    where = "" if best.heldout_auc is None else " on held-out images"
    facts = [("AUROC", f"{auroc(label):.3f}"), ("Holds on", f"{best.fraction:.0%}")]
    facts += [] if best.q is None else [("q", f"{best.q:.2g}")]
    facts += [(f"NOT {one.concept}", f"{one.evidence:+.3f}") for one in best.negations]
    return Section(
        KEY,
        HEADING,
        f"It is high on images with: {best.formula} (AUROC {auroc(label):.2f}{where}). "
        f"{'; '.join(worths) or 'No NOT'}.{sure} It is low on images with: {low.best.formula} (AUROC "
        f"{auroc(low):.2f}{where}){'' if is_sure(low) else ', which may be chance'}.",
        tuple(panels),
        tuple(facts),
        {
            **label.to_dict(), "sure": is_sure(label), "corrected_over": len(study.units),
            "low": {**low.to_dict(), "sure": is_sure(low)},
        },
    )  # fmt: skip


def naming_labels(study: Study, unit: int) -> list[UnitLabel]:
    """The names for the verdict: what it is high on, and low on if that says more than the opposite of the first."""
    if study.concepts is None:
        return []
    high, low = study.label(unit), study.label(unit, "negative")
    one, other = (label.best.formula.truth(study.concepts, study.names) for label in (high, low))
    is_opposite = torch.equal(one.true, other.false) and torch.equal(one.false, other.true)
    return [high] if is_opposite else [high, low]


def auroc(label: UnitLabel) -> float:
    """Of the best name: on held-out images, where there are any."""
    return label.best.auc if label.best.heldout_auc is None else label.best.heldout_auc


def is_sure(label: UnitLabel) -> bool:
    """Whether the name is more than chance: q on held-out images, where there are any."""
    return label.best.q is None or label.best.q <= Q
