"""What the report of one unit asks of the model and shows, counted before any of it is made."""

from __future__ import annotations

from dataclasses import dataclass

from absence_plugins.methods.faithfulness.cells import Cells
from absence_plugins.methods.faithfulness.cost import count_forwards
from absence_plugins.report.unit.plugins import NotAvailable, provider
from absence_plugins.report.unit.reasons import CELLS as PASTED
from absence_plugins.report.unit.references import POOL
from absence_plugins.report.unit.study import Study
from absence_plugins.report.unit.truth import cell_of

CUT = 24  # images read beside the references: those shown, and those that patches are cut from
LOOKS = 12  # forwards of the reasons that go into no search, about
SHOWN = 14  # pictures beside the examples' maps, at most


@dataclass(frozen=True)
class UnitCost:
    """Of one unit.

    Attributes:
        scores: images that go through the model where the maps are scored.
        others: likewise, in all other sections, without those of maps and pictures; about.
        maps: of one image against one baseline each.
        pictures: whether pictures are made of it.
        reads: images, at most.
        shown: maps and pictures on its page.
    """

    scores: int
    others: int
    maps: int
    pictures: bool
    reads: int
    shown: tuple[int, int]

    @classmethod
    def of(cls, study: Study) -> UnitCost:
        """Of any unit of a study."""
        one, count = study.settings, len(study.dataset)
        has_maps, has_pictures = (_is_there(kind, getattr(study, kind)) for kind in ("maps", "pictures"))
        examples, scored = min(one.examples, count), min(one.scored, count)
        scores, maps, reasons = 0, 1, LOOKS + 2 * PASTED**2  # the reasons find a smallest set with a map of their own
        if has_maps:
            maps += examples * (2 + one.references) + 3 * scored
        if has_maps and scored:
            x = study.images([0])
            cells = Cells.of(x, cell_of(x)).count
            scores = count_forwards(scored, cells, "nontarget")
            scores += count_forwards(scored, cells, "reference", has_standard=True)
        pool = min(POOL, count // 4 if study.labels is None else count)
        shown = (4 * examples if has_maps else 0, 3 * examples + SHOWN)
        return cls(scores, reasons, maps, has_pictures, pool + CUT, shown)


def _is_there(kind: str, given: object) -> bool:
    try:
        provider(kind, given)
    except NotAvailable:
        return False
    return True
