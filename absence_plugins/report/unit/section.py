"""One section of a unit's report: what was found, or why it was not looked for and how to do so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from absence_plugins.report.pages.page import Row
from absence_plugins.report.plots.panel import Panel


@dataclass(frozen=True, eq=False, repr=False)
class Section:
    """One section.

    Attributes:
        key: its name in the JSON.
        heading: on the page.
        sentence: what was found; "Not run: ..." where nothing was done.
        panels, facts: as in :class:`~absence_plugins.report.Row`.
        data: the numbers, ready for JSON.
        ran: whether anything was done.
        wide: as in ``Row``: its panels are diagrams.

    >>> Section.not_run("name", "Name", "no concepts were given; pass concepts=...")
    Section('name', Not run: no concepts were given; pass concepts=...)
    """

    key: str
    heading: str
    sentence: str
    panels: tuple[Panel, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    ran: bool = True
    wide: bool = False

    @classmethod
    def not_run(cls, key: str, heading: str, why: str) -> Section:
        """A section that says why it is empty and how to fill it."""
        return cls(key, heading, f"Not run: {why}", facts=(("Status", "not run"),), ran=False)

    def __repr__(self) -> str:
        return f"Section({self.key!r}, {self.sentence})"

    def row(self, before: str = "") -> Row:
        """As a row of a page; ``before`` stands in front of the heading."""
        return Row(before + self.heading, self.sentence, self.panels, self.facts, self.wide)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"ran": self.ran, "sentence": self.sentence, **plain(self.data)}


def plain(value: Any) -> Any:
    """Ready for JSON: numbers that are not finite become text, keys text, tuples lists.

    >>> plain({1: (0.5, float("inf"))})
    {'1': [0.5, 'inf']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
