"""``bench relevance``: what is measured and judged, at sizes that say nothing about the costs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins import bench
from absence_plugins.bench.relevance import MEMORY_LIMIT, RelevanceResult, _medians, run_relevance_bench
from absence_plugins.bench.relevance_works import AGAINST, FAMILIES, RULES, SumError, build_relevance_works
from absence_plugins.bench.result import BenchResult, Measurement
from absence_plugins.bench.run import Run
from absence_plugins.cli import app

COST = Measurement("resnet18 epsilon: time", "what", 15.0, 10.0, "ms", 1.5, None, None, (1.5,))


@pytest.fixture(scope="module")
def result() -> RelevanceResult:
    return run_relevance_bench(rounds=1, quick=True, device="cpu", progress=False)


@pytest.mark.slow
def test_every_rule_and_integrated_gradients_are_measured_on_every_network(result: RelevanceResult) -> None:
    names = [one.name for one in result.costs.measurements]
    for network in ("digits", "resnet18", "median"):
        assert {f"{network} {what}: time" for what in (*RULES, AGAINST)} <= set(names)
    assert names[-1] == "digits epsilon: memory"
    assert all(one.ratio > 0 for one in result.costs.measurements)
    assert all(one.ok is None for one in result.costs.measurements)
    assert {one.limit for one in result.costs.measurements if one.name == f"median {AGAINST}: time"} == {1 / 20}
    assert result.ok


@pytest.mark.slow
def test_the_sum_of_relevance_is_right_where_that_of_integrated_gradients_is_not(result: RelevanceResult) -> None:
    assert [one.network for one in result.errors] == ["digits", "resnet18"]
    for one in result.errors:
        assert one.relevance < 1e-4
        assert one.gradients > 10 * one.relevance


@pytest.mark.slow
def test_the_table_and_json(result: RelevanceResult) -> None:
    text = result.table()
    assert "error of the sum" in text
    assert "forward and backward of the batch [x, r]" in text
    assert f"torch {torch.__version__}" in text
    assert text in repr(result)
    assert json.loads(json.dumps(result.to_dict()))["errors"][0]["network"] == "digits"


@pytest.mark.parametrize(("ratios", "ok"), [((1.0, 1.9, 9.0), True), ((1.0, 2.1, 2.2), False)])
def test_the_median_over_the_families_is_judged(ratios: tuple[float, ...], ok: bool) -> None:
    families = ("a", "b", "c")
    own = [
        replace(COST, name=f"{name} epsilon: time", ratio=ratio) for name, ratio in zip(families, ratios, strict=True)
    ]
    digits = replace(COST, name="digits epsilon: time", ratio=50.0)
    run = Run(1, False, torch.device("cpu"), False)
    (median,) = _medians(run, [digits, *own], families)
    assert (median.ratio, median.limit, median.ok) == (sorted(ratios)[1], 2.0, ok)
    assert RelevanceResult(BenchResult((median,), {}), ()).ok is ok
    assert MEMORY_LIMIT == 2.5


def test_gamma_is_that_of_the_convolutions() -> None:
    works = build_relevance_works("resnet18", True, torch.device("cpu"))
    epsilon, gamma, lower = (works[name].ours() for name in RULES)
    assert not torch.allclose(epsilon, gamma)
    assert not torch.allclose(lower, gamma)
    assert torch.allclose(epsilon.sum(), gamma.sum(), rtol=1e-3)
    assert len(FAMILIES) >= 6


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_exit_code_says_whether_the_limits_are_kept(is_kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    answer = RelevanceResult(BenchResult((replace(COST, ok=is_kept),), {}), (SumError("resnet18", 1e-6, 0.2),))
    monkeypatch.setitem(bench.BENCHES, "relevance", lambda **options: asked.append(options) or answer)
    done = CliRunner().invoke(app, ["bench", "relevance", "--quick"])
    assert done.exit_code == (0 if is_kept else 1)
    assert asked == [{"rounds": 5, "quick": True, "device": "auto"}]
    assert answer.table() in done.output
