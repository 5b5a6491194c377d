"""The page of explained rows, texts, signals or volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absence_plugins.commands.kinds.finding import Finding
from absence_plugins.commands.provenance import provenance
from absence_plugins.report import Page, Row, write_page

HOW_TO_READ = (
    (
        "Relevance",
        "The explained output of the sample minus that of the reference, divided exactly among its parts. Positive (red) "
        "raises the output compared with the references, negative (blue) holds it down.",
    ),
    (
        "What is missing",
        "Parts in which the references have something that the sample lacks: a smaller number or another category, a token, "
        "an event. They are replaced by what the nearest reference has there, and the output is read again.",
    ),
    (
        "Borne out",
        "The output moves the claimed way, and further than when as many other parts are replaced (or the same content is put "
        "elsewhere): a p of at most 0.05.",
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
) -> Path:
    """Write the page; returns its path."""
    page = Page(
        title=title,
        lead="\n\n".join([*lead, *notes]),
        rows=tuple(Row(one.heading, "\n\n".join(one.paragraphs()), (), tuple(one.facts())) for one in findings),
        how_to_read=HOW_TO_READ,
        provenance=provenance(seed=seed, command=command),
    )
    return write_page(page, out)
