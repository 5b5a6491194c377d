"""What ``bench planted`` found, for people: tables in Markdown pages, small and whole, and a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from absence_plugins.bench.pages import replaced
from absence_plugins.bench.planted_questions import QUESTIONS, format_questions, summarize_methods
from absence_plugins.methods.faithfulness import PlantedScore, PlantedTable
from absence_plugins.methods.faithfulness.result import View
from absence_plugins.methods.faithfulness.table import number

MARK, MARK_ALL, MARK_QUESTIONS = "bench planted", "bench planted all", "bench planted questions"
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
HOW_TO_READ = (
    (
        "sign",
        "right at the key in 99 % of the samples, and other content, where it moves the unit the other way, has the other sign",
    ),
    ("place", "80 % of the evidence lie at the key"),
    (
        "above the image alone",
        "the order of the map moves the unit further than that of every map that never saw the network",
    ),
    ("shows, and all other columns", "sign, place and order are right, each where it can be asked"),
    ("-", "the question was not asked"),
)
HEAD = "| method | suppressor: wrong sign | true place | faithful | missing: wrong sign | true place | faithful |"


def insert_tables(page: str, table: PlantedTable) -> str:
    r"""The page with the tables between its markers: the small one, and that of every method.

    >>> insert_tables("<!-- bench planted all: begin -->\nold\n<!-- bench planted all: end -->", PlantedTable((), {}))
    '<!-- bench planted all: begin -->\n\n\n\n<!-- bench planted all: end -->'
    """
    page = replaced(page, MARK, lambda: format_few(table))
    page = replaced(page, MARK_QUESTIONS, lambda: format_questions(table))
    return replaced(page, MARK_ALL, lambda: format_views(table, table.methods))


def format_page(table: PlantedTable) -> str:
    """One HTML page: a row per method, a colored cell per question, a sentence; needs the extra ``report``."""
    from absence_plugins.report.pages.page import Page, Table, page_html

    found = summarize_methods(table)
    return page_html(
        Page(
            "Which method finds an encoded absence?",
            f"{len(table.methods)} methods were asked about {len(table.problems)} networks whose absences are known by construction: "
            "what holds a unit down (non-target view), and what is missing (reference view)?\n\n"
            "Cells: on how many of the questions the answer is right; the greener, the more of them. Rows: who shows most first.",
            rows=(),
            how_to_read=HOW_TO_READ,
            table=Table(
                "Methods",
                ("method", *QUESTIONS, "in a sentence"),
                tuple((one.method, *(tally.text() for tally in one.tallies.values()), one.sentence) for one in found),
                ("",) * len(found),
                shades=tuple((None, *(tally.share for tally in one.tallies.values()), None) for one in found),
            ),
        )
    )


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
