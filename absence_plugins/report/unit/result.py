"""The report of one unit: what was found, as data, as a page, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.units import Unit
from absence_plugins.report.pages.page import Page, Row, page_html
from absence_plugins.report.pages.patch_rows import HOW_TO_READ
from absence_plugins.report.plots.maps import row_figure
from absence_plugins.report.plots.placing import place_figure
from absence_plugins.report.unit.section import Section, plain
from absence_plugins.report.unit.truth import mean_score
from absence_plugins.report.unit.verdict import heading_of

PANELS = 6  # of a figure
SCHEMA = "absence_plugins.unit_report/1"
TERMS = (
    *HOW_TO_READ,
    ("Against blank", "The map compares the image with an empty one: only content that is there can raise (red) or hold down (blue) the unit."),
    ("Against references", "The map compares the image with real ones on which the unit is lower: what they have and the image lacks shows, too."),
    ("What is missing", "The part of that map where only the references have content: its absence raises the unit."),
    ("Are the maps true", "What the map names is blanked, or copied in from the reference, pixel by pixel; 1: the unit follows as in the best order that could be found, 0: as in a random one."),
    ("AUROC", "How well the unit tells the images on which its name holds from the others: 1 always, 0.5 not at all."),
    ("Not run", "This part of the report was not made; the sentence says how to make it."),
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class UnitReport(Result):
    """Everything about one unit; see :func:`~absence_plugins.report.explain_unit`.

    Attributes:
        layer, index: the unit.
        verdict: what was found, in a sentence.
        flagged: whether the insertion test confirms an encoded absence.
        q: of the insertion test; p where the unit was tested alone.
        effect: by how much more its lowest patches pull it down than random ones do, in the unit's own values.
        sections: what was found, in the order of the page; those that were not run say so.
        notes: what the reader must know, for example that the weights are random.
        terms: what words mean on this page alone.
        provenance: how to make it again.

    Sign: a positive effect: its lowest patches pull the unit down. In maps, R > 0 raises it and R < 0 holds it down.
    """

    layer: str
    index: int
    verdict: str
    flagged: bool
    q: float
    effect: float
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the unit is called."""
        return heading_of(Unit(self.layer, self.index))

    def section(self, key: str) -> Section:
        """One of "patches", "insertion", "maps_high", "maps_low", "reasons", "pictures", "name", "directions",
        "faithfulness".

        Raises:
            ValueError: another key.
        """
        for one in self.sections:
            if one.key == key:
                return one
        raise ValueError(f"section {key!r} does not exist; there are: {', '.join(one.key for one in self.sections)}")

    def __repr__(self) -> str:
        ran = [one.key for one in self.sections if one.ran]
        missing = [one.key for one in self.sections if not one.ran]
        return f"UnitReport({self.verdict}\n  ran: {', '.join(ran)}; not run: {', '.join(missing) or 'none'})"

    def _heading(self) -> str:
        return f"Report of {self.name}"

    def _grid(self) -> Grid:
        rows = [(one.heading, one.sentence) for one in self.sections]
        return Grid((("section", "what was found"), *rows), left=(0, 1), foot=(self.verdict, *self.notes))

    def figure(self, ax: Any = None) -> Figure:
        """The first panels of its sections side by side, under the verdict; the page has all. ax: axes to draw into.

        Raises:
            ValueError: no section has a picture.
        """
        panels = [panel for one in self.sections if not one.wide for panel in one.panels[:2]][:PANELS]
        if not panels:
            raise ValueError("no section of this report has a picture")
        return place_figure(row_figure(panels, title=self.verdict), ax)

    def rows(self) -> tuple[Row, ...]:
        """For a page of several units: the verdict, then one row per section, all under the unit's name."""
        first = Row(self.name, self.verdict, ())
        return (first, *(one.row(f"{self.name}: ") for one in self.sections))

    def page(self, links: tuple[tuple[str, str], ...] = ()) -> Page:
        """The page: verdict first, then one row per section. links: to the pages beside it."""
        return Page(
            title=self.name,
            lead="\n\n".join(self.notes),
            verdict=self.verdict,
            rows=tuple(one.row() for one in self.sections),
            how_to_read=(*TERMS, *self.terms),
            provenance=self.provenance,
            links=links,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        data = {one.key: one.to_dict() for one in self.sections}
        return {
            "schema": SCHEMA,
            "layer": self.layer,
            "unit": self.index,
            "name": self.name,
            "verdict": self.verdict,
            "flagged": self.flagged,
            "q": plain(self.q),
            "effect": plain(self.effect),
            "formula": data["name"]["formulas"][0]["formula"] if data["name"]["ran"] and data["name"]["sure"] else None,
            "faithfulness": mean_score(data["faithfulness"]) if data["faithfulness"]["ran"] else None,
            "sections": data,
            "notes": list(self.notes),
            "terms": dict(self.terms),
            "provenance": dict(self.provenance),
        }

    def write(self, folder: Path | str) -> Path:
        """Write ``index.html`` (self-contained) and ``unit.json`` into a folder, made where it is missing.

        Raises:
            ValueError: the folder is an existing file.
        """
        folder = require_folder(folder, make=True)
        html, data = page_html(self.page()), json_text(self.to_dict())
        write_whole(folder / "unit.json", data)
        write_whole(folder / "index.html", html)
        return folder / "index.html"


def json_text(data: Any) -> bytes:
    """As JSON that every reader takes: no NaN."""
    return (json.dumps(plain(data), ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode(
        errors="backslashreplace"
    )
