"""The bench of the composites: both tables, its judgment, and the command that prints them."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("zennit")

from absence_plugins import bench
from absence_plugins.bench import BenchResult, Measurement, ZennitResult, run_zennit_bench
from absence_plugins.bench import zennit as zennit_bench
from absence_plugins.bench.scores import Score, combinations, pooled
from absence_plugins.bench.zennit import is_promised
from absence_plugins.bench.zennit_works import NAMES, PAIR_LIMIT
from absence_plugins.cli import app
from absence_plugins.data.planted import ATTENTION, PROBLEMS, shape_missing
from absence_plugins.methods.faithfulness.located import Located, located

SCORE = Score("shape_missing", "AbsenceEpsilonGamma", "", "nontarget", 0.9, 1.0, 100, is_exact=True, judged=True)
CHOSEN = ("shape_missing", "stroke_missing")
COST = Measurement("digits EpsilonPlus: time", "x", 20.0, 10.0, "ms", 2.0, PAIR_LIMIT, True, (2.0, 2.0))
KEPT = ZennitResult((SCORE,), BenchResult((COST,), {"torch": "2"}, "Zennit"))


def surroundings() -> tuple[Any, ...]:
    return torch.get_num_threads(), gc.isenabled(), torch.get_rng_state().tolist()


@pytest.fixture(scope="module")
def result() -> Iterator[ZennitResult]:
    """A quick run over two of the problems."""
    before = surroundings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zennit_bench, "PROBLEMS", {name: PROBLEMS[name] for name in CHOSEN})
        yield run_zennit_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert surroundings() == before


@pytest.mark.slow
def test_every_composite_is_scored_in_every_view_and_nothing_is_judged_when_quick(result: ZennitResult) -> None:
    wanted = {(name, seed, view) for name, _, seed, view in combinations()}
    assert len(wanted) == 9 * 2 + 8 * 2
    for problem in ("shape_missing", "stroke_missing"):
        assert {(one.composite, one.seed, one.view) for one in result.scores if one.problem == problem} == wanted
    for one in result.scores:
        assert 0 <= one.share <= 1
        assert 0 <= one.sign <= 1
        assert not one.judged
    assert all(one.ok is None for one in result.costs.measurements)
    assert result.ok


@pytest.mark.slow
def test_the_local_composite_promises_nothing_on_attention(result: ZennitResult) -> None:
    assert {one.problem for one in result.scores} == set(CHOSEN)
    for name in ATTENTION:
        assert not zennit_bench.is_promised(name, "AbsenceGuidedBackprop", "nontarget")
        assert zennit_bench.is_promised(name, "AbsenceEpsilonGamma", "nontarget")


@pytest.mark.slow
def test_the_costs_are_those_of_four_composites(result: ZennitResult) -> None:
    names = {one.name for one in result.costs.measurements}
    assert names >= {f"digits {name}: time" for name in NAMES}
    assert all(one.ratio > 0 and one.limit == PAIR_LIMIT == 2.2 for one in result.costs.measurements)


@pytest.mark.slow
def test_the_table_marks_what_fails_and_says_what_the_names_mean(result: ZennitResult) -> None:
    lines = result.table().splitlines()
    assert "FAIL" in next(line for line in lines if line.strip().startswith("EpsilonPlus +1"))
    assert not [line for line in lines if line.strip().startswith("AbsenceEpsilonGamma ") and "FAIL" in line]
    assert "shape: Is the plus missing? " in result.table()
    assert "Zennit" in next(line for line in lines if "ratio" in line)
    assert f"torch {torch.__version__}" in result.table()
    assert "quick" in result.table()
    assert result.table() in repr(result)


@pytest.mark.slow
def test_the_result_goes_to_json(result: ZennitResult) -> None:
    again = json.loads(json.dumps(result.to_dict()))
    assert len(again["scores"]) == len(result.scores)
    assert {"share", "sign", "fails"} <= set(again["scores"][0])
    assert again["costs"]["environment"]["zennit"]


def test_a_score_fails_below_either_limit_and_only_where_the_region_is_known() -> None:
    assert not SCORE.fails
    assert not replace(SCORE, share=0.8, sign=0.99).fails
    assert replace(SCORE, share=0.79).fails
    assert replace(SCORE, sign=0.98).fails
    assert not replace(SCORE, share=0.0, is_exact=False).fails


def test_a_failing_composite_or_a_broken_limit_is_told() -> None:
    assert KEPT.ok
    assert not replace(KEPT, scores=(replace(SCORE, share=0.1),)).ok
    assert replace(KEPT, scores=(replace(SCORE, share=0.1, judged=False),)).ok
    slow = replace(COST, ratio=2.3, ok=False)
    assert not replace(KEPT, costs=replace(KEPT.costs, measurements=(slow,))).ok


def test_the_local_composite_is_promised_only_where_the_unit_lives() -> None:
    assert is_promised("shape_missing", "AbsenceGuidedBackprop", "nontarget")
    assert not is_promised("shape_missing_dead", "AbsenceGuidedBackprop", "nontarget")
    assert not is_promised("shape_missing", "AbsenceGuidedBackprop", "reference")
    assert is_promised("shape_missing_dead", "AbsenceEpsilonPlus", "reference")


@pytest.mark.parametrize("problem", ["column_missing", "volume_missing"])
def test_flat_is_not_promised_where_the_first_layer_sees_it_all(problem: str) -> None:
    assert not is_promised(problem, "AbsenceEpsilonPlusFlat", "nontarget")
    assert is_promised(problem, "AbsenceEpsilonPlus", "nontarget")
    assert is_promised("signal_missing", "AbsenceEpsilonPlusFlat", "nontarget")


def test_share_and_sign_by_hand() -> None:
    """Three samples: 3 of 4 in the region and right, wrong sign, nothing found."""
    region = torch.tensor([[[[True, False]]]]).expand(3, -1, -1, -1)
    signed = torch.tensor([[3.0, 1.0], [-2.0, 1.0], [0.0, 0.0]])[:, None, None]
    found = located(signed, signed, region)
    assert found.share.tolist() == [0.75, 0.0, 0.0]
    assert found.is_right.tolist() == [True, False, False]
    both = pooled(
        "p",
        "C",
        "",
        "nontarget",
        [found, Located(torch.ones(1), *[torch.tensor([True])] * 2)],
        is_exact=True,
        judged=True,
    )
    assert both.samples == 4
    assert both.share == 1.75 / 4
    assert both.sign == 0.5


@pytest.mark.slow
def test_scoring_leaves_the_network_as_it_was(result: ZennitResult) -> None:
    model = shape_missing(0).model
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    assert not any(hooks)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rounds": 0}, "rounds=0 must be at least 1"), ({"device": "abacus"}, "device='abacus' cannot be used")],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_zennit_bench(progress=False, **options)


def test_an_unknown_host_is_one_clear_line() -> None:
    done = CliRunner().invoke(app, ["bench", "abacus"])
    assert done.exit_code == 2
    assert "error: bench 'abacus' does not exist; there are: " in done.output


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_command_prints_the_tables_and_its_exit_code_says_whether_all_is_kept(
    is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    answer = KEPT if is_kept else replace(KEPT, scores=(replace(SCORE, share=0.1),))
    monkeypatch.setitem(bench.BENCHES, "zennit", lambda **options: asked.append(options) or answer)
    done = CliRunner().invoke(app, ["bench", "zennit", "--quick", "--rounds", "2"])
    assert done.exit_code == (0 if is_kept else 1)
    assert asked == [{"rounds": 2, "quick": True, "device": "auto"}]
    assert answer.table() in done.output
    assert ("FAIL" in done.output.splitlines()[4]) is not is_kept


def test_without_a_host_the_command_is_that_of_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setitem(bench.BENCHES, "captum", lambda **options: asked.append(options) or BenchResult((COST,), {}))
    assert CliRunner().invoke(app, ["bench"]).exit_code == 0
    assert asked == [{"rounds": 5, "quick": False, "device": "auto"}]
