"""A column per question and a sentence per method: rules on scores, as text, Markdown and page."""

from __future__ import annotations

from typing import Any

import pytest

from absence_plugins.bench.planted_pages import format_page, insert_tables
from absence_plugins.bench.planted_questions import QUESTIONS, format_questions, summarize_methods
from absence_plugins.methods.faithfulness import PlantedScore, PlantedTable
from absence_plugins.methods.faithfulness.table import NO_ANSWER, NOT_MEASURED
from absence_plugins.report.pages.page import Page, Table, page_html


def score(method: str, problem: str, view: Any = "nontarget", **more: Any) -> PlantedScore:
    """Right in all, unless told otherwise."""
    values = {"share": 0.9, "sign": 0.9, "key_sign": 1.0, "pointing": 1.0, "faithfulness": 0.4, "samples": 8}
    return PlantedScore(
        **{"method": method, "problem": problem, "view": view, "is_exact": True, "note": "", **values, **more}
    )


def silent(method: str, problem: str, view: Any, note: str) -> PlantedScore:
    nothing = dict.fromkeys(("share", "sign", "key_sign", "pointing", "faithfulness"))
    return score(method, problem, view, note=note, **nothing)


SCORES = (
    score("good", "shape_missing"),
    score("good", "column_missing", "reference", faithfulness=None),  # one cell can change: every order is the same
    score("good", "shape_missing_dead", sign=None),  # nothing else moves the dead unit
    silent("good", "hidden_unit", "nontarget", NOT_MEASURED),
    score("one sign", "shape_missing", sign=0.5),
    score("one sign", "negation_missing", share=0.1, sign=0.5, faithfulness=-0.2),
    silent("one sign", "shape_missing", "reference", NO_ANSWER),
    score("broken", "stroke_missing", is_exact=False),
    silent("broken", "column_missing", "nontarget", "ValueError: no layer with positions"),
)


def sentence(*scores: PlantedScore) -> str:
    return summarize_methods(PlantedTable(scores, {}))[0].sentence


def test_a_map_of_one_sign_is_not_said_to_have_the_wrong_one() -> None:
    assert "mostly one side only" in sentence(score("m", "shape_missing", sign=0.6))
    wrong = sentence(score("m", "shape_missing", sign=0.2, key_sign=0.1))
    assert "mostly a wrong sign, or none, at the key" in wrong
    assert "one side" not in wrong


def test_blind_takes_two_answered_questions() -> None:
    """One question is told as such, and a method that only fails is not blind."""
    views = ("nontarget", "reference")
    failing = [silent("m", "column_missing", view, "ValueError: no layer") for view in views]
    wrong = [score("m", "signal_missing", view, share=0.1) for view in views]
    text = sentence(*failing, *wrong, score("m", "volume_missing", share=0.1))
    assert "Blind on signals. Wrong on the only question on volumes. Fails on 2 of 5 questions" in text
    assert "tables" not in text


@pytest.fixture(scope="module")
def table() -> PlantedTable:
    return PlantedTable(SCORES, {})


def test_each_question_counts_what_it_asks(table: PlantedTable) -> None:
    good, one_sign, broken = summarize_methods(table)
    assert [good.method, one_sign.method, broken.method] == ["good", "one sign", "broken"]
    texts = {name: tally.text() for name, tally in good.tallies.items()}
    assert texts["non-target: sign"] == texts["non-target: place"] == "2 of 2"  # not measured: not counted
    assert texts["above the image alone"] == "2 of 2"  # no score where every order is the same
    assert texts["tables"] == texts["dead units"] == "1 of 1"
    assert texts["units inside a network"] == texts["text"] == "-"
    assert one_sign.tallies["non-target: sign"].text() == "0 of 2"  # a constant sign is no right sign
    assert one_sign.tallies["non-target: place"].text() == "1 of 2"
    assert one_sign.tallies["reference: sign"].text() == "-"
    assert broken.tallies["non-target: sign"].text() == "0 of 1"  # a guessed region does not count, a failure does


def test_sentences_follow_from_the_scores(table: PlantedTable) -> None:
    good, one_sign, broken = (one.sentence for one in summarize_methods(table))
    assert good == "Shows what holds the unit down on 2 of 2 networks, shows what is missing on 1 of 1 networks."
    assert one_sign == (
        "Shows what holds the unit down on 0 of 2 networks (elsewhere mostly one side only: other content lacks the other "
        "sign), has no answer to what is missing. Wrong on the only question each on attention and text. Its maps have one sign: what raises the unit and what holds it down look alike."
    )
    assert broken.endswith("Fails on 1 of 2 questions, as in: ValueError: no layer with positions.")
    only = PlantedTable((silent("new", "shape_missing", "nontarget", NOT_MEASURED),), {})
    assert summarize_methods(only)[0].sentence == "Not measured."


def test_the_summary_is_a_markdown_table_and_a_page(table: PlantedTable) -> None:
    lines = format_questions(table).splitlines()
    assert lines[0] == (
        'Sign, place and "shows" count on 5 of the 6 networks, as the true region of `stroke_missing` is a guess; on fewer '
        "where a method has no answer or was not measured."
    )
    assert lines[2].startswith("| method | non-target: sign |")
    assert {line.count("|") for line in lines[2:]} == {len(QUESTIONS) + 3}
    page = "<!-- bench planted questions: begin -->\n<!-- bench planted questions: end -->"
    assert "| good | 2 of 2 |" in insert_tables(page, table)
    html = format_page(table)
    assert "Filter methods" in html
    shares = [tally.share for one in summarize_methods(table) for tally in one.tallies.values()]
    assert html.count("background: #5a9a5a; color") == shares.count(1.0) == 7
    assert html.count("background: #ffffff; color") == shares.count(0.0) > 0


def test_what_a_table_does_not_hold_is_not_measured(table: PlantedTable) -> None:
    assert table.of("broken", "negation_missing", "reference").note == NOT_MEASURED
    assert not table.of("broken", "stroke_missing", "reference").is_exact
    assert table.markdown("reference", ["good"]).splitlines()[-1] == "| good |   | .90/? |   |   |   |   |"
    with pytest.raises(ValueError, match="no score of 'other'"):
        table.of("other", "shape_missing", "nontarget")


def test_a_table_of_a_page_has_a_shade_for_every_cell() -> None:
    plain = Table("Units", ("unit",), (("3",),), ("",))
    assert "background: #" not in page_html(Page("Mine", "", (), table=plain)).split("<body")[1]
    with pytest.raises(ValueError, match="one shade, or None, per cell"):
        Table("Units", ("unit", "q"), (("3", "1"),), ("",), shades=((0.5,),))
