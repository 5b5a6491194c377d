"""Tables of ``bench planted`` in Markdown pages: a small one for people who decide, and every method for those who check."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from absence_plugins.bench.pages import replaced
from absence_plugins.methods.faithfulness import PlantedScore, PlantedTable
from absence_plugins.methods.faithfulness.result import View
from absence_plugins.methods.faithfulness.table import number

MARK, MARK_ALL = "bench planted", "bench planted all"
FEW = {  # the rows of the small table, and what they are
    "IntegratedGradients": "Captum, as one calls it: `IntegratedGradients`",
    "IntegratedGradients (unit)": "the same, asked about the unit by its index",
    "AbsenceIntegratedGradients": "the first call, import changed: `AbsenceIntegratedGradients`",
    "EpsilonPlus logit": "Zennit: `EpsilonPlus`, seeded with the logit",
    "AbsenceEpsilonGamma": "the composite changed: `AbsenceEpsilonGamma`",
    "relevance lower_gamma": "no host: `relevance(..., rule=\"lower_gamma\")`",
}  # fmt: skip
TITLES: dict[View, str] = {
    "nontarget": "**Non-target view**: what holds the unit down?",
    "reference": "**Reference view**: what is missing?",
}
HEAD = "| method | suppressor: wrong sign | true place | faithful | missing: wrong sign | true place | faithful |"


def insert_tables(page: str, table: PlantedTable) -> str:
    r"""The page with the tables between its markers: the small one, and that of every method.

    >>> insert_tables("<!-- bench planted all: begin -->\nold\n<!-- bench planted all: end -->", PlantedTable((), {}))
    '<!-- bench planted all: begin -->\n\n\n\n<!-- bench planted all: end -->'
    """
    page = replaced(page, MARK, lambda: format_few(table))
    return replaced(page, MARK_ALL, lambda: format_views(table, table.methods))


def format_few(table: PlantedTable) -> str:
    """A sentence and a row per method of ``FEW`` that the table holds. Per view: on how many networks the evidence has
    the wrong sign, or none, in most images; mean share in the true place and mean faithfulness where that is known.
    """
    counts = {name: [_count(table, name, view) for view in TITLES] for name in FEW if name in table.methods}
    rows = [f"| {FEW[name]} | {' | '.join([*first, *second])} |" for name, (first, second) in counts.items()]
    said = {"IntegratedGradients": "Captum's default points the wrong way on {}", "AbsenceIntegratedGradients": "the changed import on {}"}  # fmt: skip
    parts = [words.format(counts[name][0][0]) for name, words in said.items() if name in counts]
    sentence = [f"**{', '.join(parts)} planted networks.**", ""] if parts else []
    return "\n".join([*sentence, HEAD, "| --- |" + " ---: |" * 6, *rows])


def format_views(table: PlantedTable, methods: Sequence[str]) -> str:
    """Both views, network by network, for those of these methods that have an answer in the view."""
    blocks = []
    for view in table.views:
        answered = {one.method for one in table.scores if one.view == view and not one.note}
        shown = [name for name in methods if name in answered]
        blocks.append(f"{TITLES[view]}\n\n{table.markdown(view, shown)}")
    return "\n\n".join(blocks)


def _count(table: PlantedTable, method: str, view: View) -> list[str]:
    """Wrong signs "of" answers, mean share, mean faithfulness; a "-" each where there is no answer."""
    answers = [one for one in table.scores if (one.method, one.view) == (method, view) and not one.note]
    if not answers:
        return ["-"] * 3
    wrong = sum(one.key_sign is not None and one.key_sign < 0.5 for one in answers)
    known = [one for one in answers if one.is_exact]
    return [f"{wrong} of {len(answers)}", *(_mean(known, measure) for measure in ("share", "faithfulness"))]


def _mean(scores: Sequence[PlantedScore], measure: str) -> str:
    values = [value for one in scores if (value := getattr(one, measure)) is not None]
    return number(mean(values) if values else None)
