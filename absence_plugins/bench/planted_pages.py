"""What ``bench planted`` found, for people: tables in Markdown pages, small and whole, and a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from absence_plugins.bench.pages import replaced
from absence_plugins.bench.planted_questions import QUESTIONS, describe_counts, format_questions, summarize_methods
from absence_plugins.methods.faithfulness import PlantedTable
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
    ("one side only", "the key's sign is right, but other content lacks the other sign in half of the samples or more"),
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
            "Cells: on how many of the questions the answer is right; the greener, the more of them. Rows: who shows most first. "
            f"{describe_counts(table).replace('`', '')}",
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
    """Sentences and a row per method of ``FEW`` that the table holds. Per view: on how many networks most images have
    the wrong sign, or no evidence, at the key; mean share in the true place and mean faithfulness where that is known.
    """
    counts = {name: [_count(table, name, view) for view in TITLES] for name in FEW if name in table.methods}
    rows = [f"| {FEW[name]} | {' | '.join([*first, *second])} |" for name, (first, second) in counts.items()]
    said = {"IntegratedGradients": "Captum's default points the wrong way on {}", "AbsenceIntegratedGradients": "the changed import on {}"}  # fmt: skip
    parts = [words.format(counts[name][0][0]) for name, words in said.items() if name in counts]
    sentence = [f"**{', '.join(parts)} planted networks.**"] if parts else []
    means = [_describe_means(table, list(counts)), ""] if counts else []
    return "\n".join([*sentence, *means, HEAD, "| --- |" + " ---: |" * 6, *rows])


def _describe_means(table: PlantedTable, methods: Sequence[str]) -> str:
    """Over how many networks the small table's means are, per view."""

    def count(view: View, measure: str) -> str:
        counts = {len(_values(table, name, view, measure)) for name in methods} - {0} or {0}
        return " to ".join(str(number) for number in sorted({min(counts), max(counts)}))

    places, orders = (" and ".join(count(view, of) for view in TITLES) for of in ("share", "faithfulness"))
    return f"Means over networks: true place {places}, faithful {orders} (of known region; orders not all equal)."


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
    means = [_values(table, method, view, measure) for measure in ("share", "faithfulness")]
    return [f"{wrong} of {len(answers)}", *(number(mean(values) if values else None) for values in means)]


def _values(table: PlantedTable, method: str, view: View, measure: str) -> list[float]:
    """One value per network whose true region is known, where there is one."""
    own = [one for one in table.scores if (one.method, one.view) == (method, view) and one.is_exact]
    return [value for one in own if (value := getattr(one, measure)) is not None]
