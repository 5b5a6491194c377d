"""The page of explained rows, texts, signals or volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absence_plugins.commands.kinds.finding import Finding
from absence_plugins.commands.provenance import provenance
from absence_plugins.report.pages.kinds import KindRow, write_kind_page

HOW_TO_READ = (
    (
        "What is missing",
        "Parts in which the references have something that the sample lacks: a smaller number or another category, a "
        "token, an event or a region (values further from 0). Those that raise the output most (of a "
        "non-target those that hold it down) are replaced by what the nearest reference has there (of a "
        "row three at once, else one by one), and the output is read again.",
    ),
    (
        "What is there",
        "The same of parts that the sample has and the references lack, or have less of.",
    ),
    (
        "Test",
        "The network bears the map out if the output moves the claimed way, and further than in the control (p of at "
        "most 0.05): as many other columns are replaced, other words stand in the place of the missing ones, the same "
        "content is put at other times or places. Undecided: there are too few of these.",
    ),
)


def write_findings(
    findings: Sequence[Finding],
    out: Path,
    title: str,
    lead: Sequence[str],
    notes: Sequence[str],
    seed: int,
    command: str,
    verdict: str = "",
) -> Path:
    """Write the page; returns its path."""
    return write_kind_page(
        [make_row(one) for one in findings],
        out,
        title=title,
        lead="\n\n".join([*lead, *notes]),
        notes=HOW_TO_READ,
        verdict=verdict,
        provenance=provenance(seed=seed, command=command),
    )


def make_row(found: Finding) -> KindRow:
    """One sample of the page."""
    positive, negative = found.legend
    return KindRow(
        found.heading,
        found.kind,
        found.signed,
        found.x,
        found.references,
        sentences=tuple(found.sentences()),
        verdict=" ".join(found.verdicts()),
        facts=tuple(found.facts()),
        positive=positive,
        negative=negative,
        text=found.text,
    )
