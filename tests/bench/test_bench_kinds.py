"""``bench kinds``: its scores by second writing, its files, and the promise that absences of every kind are found."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins.bench.kind_methods import JUDGED, METHODS
from absence_plugins.bench.kind_questions import KindQuestion
from absence_plugins.bench.kinds import WORDS, KindScore, KindsResult, measure_problem, read_result
from absence_plugins.captum import AbsenceIntegratedGradients
from absence_plugins.cli import app
from absence_plugins.core.kinds import TextKind
from absence_plugins.data.planted import NATURAL
from absence_plugins.methods.regions import measure_things, strongest_things
from absence_plugins.relevance import relevance

TABLE = Path(__file__).resolve().parents[2] / "docs" / "_static" / "kinds.json"
LONG = ("volume_missing", "segmentation_missing")  # train for longer
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in NATURAL]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_found_where_the_standard_map_shows_nothing(name: str) -> None:
    """All held-out inputs without the key, against two references each: column, token, sample, voxel or pixel."""
    question = KindQuestion.of(name, "reference", samples=50)
    for method in JUDGED:
        signed = METHODS[method][0](question)
        if signed is None:
            assert name == "negation_missing"
            continue
        right, sign = question.locate(signed)
        assert len(right) == 100
        assert float(right.double().mean()) >= 0.99
        assert float(sign.double().mean()) >= 0.99
    standard = METHODS["IntegratedGradients"][0](question)
    assert standard is not None
    right, sign = question.locate(standard)
    if name == "negation_missing":  # a word stands where the other is missing, and blank is another word
        assert float(right.double().mean()) < 0.7
        return
    assert not right.any()
    assert not sign.any()
    things = question.things(standard)[:, None].expand(question.key.shape)
    assert not things[question.key].any()  # exactly 0: input and blank are the same there


@pytest.mark.parametrize("name", NAMES)
def test_what_holds_the_unit_down_has_the_right_sign(name: str) -> None:
    question = KindQuestion.of(name, "nontarget", samples=50)
    signed = METHODS["AbsenceIntegratedGradients"][0](question)
    assert signed is not None
    assert float(question.locate(signed)[1].double().mean()) >= 0.99
    standard = METHODS["IntegratedGradients"][0](question)
    assert standard is not None
    assert float(question.locate(standard)[1].double().mean()) <= 0.01  # the map of the other class


@pytest.mark.parametrize("name", NAMES)
def test_the_evidence_is_complete(name: str) -> None:
    """In float64 relevance sums to u(x) - u(r) for every kind, of a text at its embedding."""
    question = KindQuestion.of(name, "reference", samples=6, k=1)
    model = copy.deepcopy(question.model).double()
    x, r = question.x, question.drawn[:, 0]
    if isinstance(question.form.kind, TextKind):
        embedding = model.get_submodule("embedding")
        x, r = embedding(x).detach(), embedding(r).detach()
        model = torch.nn.Sequential(*list(model.children())[1:]).eval()
    x, r = x.double(), r.double()
    with torch.no_grad():
        difference = (model(x) - model(r))[:, question.unit]
    for rule in ("epsilon", "lower_gamma"):
        found = relevance(model, x, r, question.unit, rule=rule)  # type: ignore[arg-type]
        torch.testing.assert_close(found.attribution.flatten(1).sum(1), difference, rtol=1e-9, atol=1e-9)
    if not isinstance(question.form.kind, TextKind):
        explained = AbsenceIntegratedGradients(question.model, reference=question.references).explain(
            question.x, target=question.unit, n_steps=200
        )
        assert explained.kind is question.form.kind
        assert explained.completeness_error is not None
        assert float(explained.completeness_error.abs().max()) < 0.05 * float(difference.abs().max())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("column_missing", "Undecided: only "),
        ("negation_missing", "Undecided: no other token differs"),
        ("signal_missing", ("The network bears the map out.", "Undecided: only ")),
        pytest.param("volume_missing", "The network bears the map out.", marks=pytest.mark.slow),
    ],
)
def test_the_strongest_thing_is_tested_on_the_network(name: str, words: str | tuple[str, ...]) -> None:
    question = KindQuestion.of(name, "reference", samples=6, k=1)
    signed = METHODS["relevance lower_gamma"][0](question)
    assert signed is not None
    kind, reference = question.form.kind, question.drawn[:, 0]
    assert kind is not None
    evidence = question.things(signed[:, 0]) * kind.things(
        kind.lacks(question.x, reference, question.form.empty).float()
    )
    said = []
    for number, x in enumerate(question.x):
        ids = reference[number] if isinstance(kind, TextKind) else None
        named = strongest_things(kind, evidence[number], 1, ids=ids)
        assert bool((named[0] & question.key[number, 0]).any())
        key = question.key[number, :1]
        if name == "signal_missing":  # a part of the event is no stronger than its other half
            named = key
        found = measure_things(question.form.output, x, reference[number], kind, named, seed=number)
        assert found.tests[0].moved
        said.append(found.verdict().startswith(words))
    assert sum(said) >= 5


def test_scores_by_second_writing() -> None:
    """On rows: the strongest column and its sign, and areas under curves, by loops."""
    question = KindQuestion.of("column_missing", "nontarget", samples=4, steps=8)
    noise = METHODS["Random map"][0](question)
    assert noise is not None
    right, sign = question.locate(noise)
    key = int(question.key[0].nonzero())
    for row in range(4):
        evidence = -noise[row]
        assert bool(right[row]) == (int(evidence.argmax()) == key)
        assert bool(sign[row]) == (float(evidence[key]) > 0)
        changeable = question.x[row].nonzero().flatten().tolist()
        order = sorted(changeable, key=lambda column: float(noise[row, column]))
        count, steps = int(question.curves.counts[row]), question.curves.steps
        points = [0.0]
        for step in range(1, steps + 1):
            changed = question.x[row].clone()
            changed[order[: -(-step * count // steps)]] = 0
            with torch.no_grad():
                points.append(
                    float((question.form.output(changed[None]) - question.form.output(question.x[row][None]))[0])
                )
        by_hand = sum((a + b) / 2 for a, b in pairwise(points)) / steps
        assert float(question.measure_gains(noise)[row]) == pytest.approx(by_hand, abs=1e-4)


def test_a_row_of_the_stored_table_is_measured_again() -> None:
    stored = read_result(TABLE)
    methods = ["IntegratedGradients", "AbsenceIntegratedGradients", "Random map"]
    for view in ("reference", "nontarget"):
        found = measure_problem("column_missing", view, stored.settings, methods)  # type: ignore[arg-type]
        kept = {one.method: one for one in stored.scores if (one.problem, one.view) == ("column_missing", view)}
        for one in found:
            assert (one.right, one.sign, one.samples) == (
                kept[one.method].right,
                kept[one.method].sign,
                kept[one.method].samples,
            )
            assert one.control == kept[one.method].control
            assert one.faithful is None if kept[one.method].faithful is None else True


def test_the_table_of_the_docs_is_that_of_the_stored_run() -> None:
    stored = read_result(TABLE)
    assert stored.markdown() in (TABLE.parents[1] / "kinds-benchmark.md").read_text(encoding="utf-8")
    assert {one.problem for one in stored.scores} == set(NATURAL) == set(WORDS)
    assert not stored.failing
    assert stored.ok


def test_files_are_written_and_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench kinds: begin -->\nfrom before\n<!-- bench kinds: end -->\n")
    done = CliRunner().invoke(app, ["bench", "kinds", "--quick", "--out", str(tmp_path / "out"), "--into", str(page)])
    assert done.exit_code == 0, done.output
    assert "What is missing?" in done.output
    assert "from before" not in page.read_text()
    stored = json.loads((tmp_path / "out" / "kinds.json").read_text())
    assert {one["problem"] for one in stored["scores"]} == {"column_missing", "negation_missing"}
    text = (tmp_path / "out" / "kinds.md").read_text()
    again = CliRunner().invoke(
        app, ["bench", "kinds", "--from", str(tmp_path / "out" / "kinds.json"), "--out", str(tmp_path / "second")]
    )
    assert again.exit_code == 0, again.output
    assert (tmp_path / "second" / "kinds.md").read_text() == text


def test_a_method_that_does_not_find_it_fails_the_bench() -> None:
    wrong = KindScore("column_missing", "reference", JUDGED[0], 0.98, 1.0, None, 24, "difference")
    result = KindsResult((wrong,), {}, {}, judged=True)
    assert not result.ok
    assert "AbsenceIntegratedGradients on column_missing: .98/1.0/?" in result.table()
    assert KindsResult((wrong,), {}, {}, judged=False).ok


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "kinds.json").write_text("[]")
    with pytest.raises(ValueError, match=r"is no kinds.json of bench kinds"):
        read_result(tmp_path / "kinds.json")
