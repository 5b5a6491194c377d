"""The bench of ``label_units``: both searches end at the same AUC, promises are judged, the command."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sklearn.metrics  # noqa: F401 (its import draws from Python's random)
import torch
from typer.testing import CliRunner

from absence_plugins import bench
from absence_plugins.bench import InvertResult, run_invert_bench
from absence_plugins.bench import invert as module
from absence_plugins.bench.invert import PROBLEMS, Problem, draw, plain_beam
from absence_plugins.cli import app
from absence_plugins.methods.invert import label_units


def states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_num_threads()


@pytest.fixture(scope="module")
def result() -> InvertResult:
    before = states()
    made = run_invert_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert states() == before
    return made


def test_what_is_promised_is_what_the_issue_asks_for() -> None:
    asked = [(p.samples, p.concepts, p.length, p.beam, p.faster, p.sorts) for p in PROBLEMS]
    assert asked == [(5_000, 200, 3, 3, 500, None), (20_000, 200, 3, 3, 800, None), (50_000, 1_000, 3, 3, None, 4)]
    assert [p.hierarchical for p in PROBLEMS] == [False, False, True]


def test_the_table_says_what_was_compared_and_quick_judges_nothing(result: InvertResult) -> None:
    table = result.table()
    assert result.ok
    assert all(one.ok is None and one.sorts > 0 for one in result.speeds)
    assert result.speeds[0].faster > 0
    assert result.speeds[1].faster is None
    assert "extrapolated from that of" in table
    assert "scikit-learn" in table
    assert "quick: sizes too small to judge by" in table
    assert table in repr(result)
    assert result.proof.gap == 0.0
    assert 0.5 < result.proof.best <= 1
    assert result.proof.ok is None
    assert "certified, N=300 K=12 L=3, one unit: 14,080 formulas in" in table
    assert [(one.gap, one.ok) for one in result.longer] == [(0.0, None)]
    assert "| 100 | 4 | 100 % |" in table
    assert "8 dense" in table
    assert result.to_dict()["naming"]["nulls"][0]["asked"] == 8
    assert "certified, N=300 K=8 L=4, one unit: 61,824 formulas in" in table
    assert [(one.named, one.ok) for one in result.large] == [(12, None)] * 4
    assert all(one.sorts > 0 and 0 < one.gigabytes < 4 for one in result.large)
    assert "N=2,000 K=40 U=12 read in blocks of 0.0 GB, a half held out, p and q: " in table
    assert [one.counted for one in result.growth] == ["samples", "concepts"]
    assert "exponents of growth" in table
    wide = replace(result, large=(replace(result.large[0], ok=False),))
    assert not wide.ok
    assert "promised <= 4 sorts and < 8 GB: TOO MUCH" in wide.table()
    slow = replace(result, proof=replace(result.proof, ok=False))
    assert not slow.ok
    assert "promised <= 20 s: TOO SLOW" in slow.table()
    assert result.to_dict()["speeds"][0]["problem"]["samples"] == 300


@pytest.mark.parametrize("hierarchical", [False, True])
def test_both_searches_find_the_same_and_timing_a_part_changes_nothing(hierarchical: bool) -> None:
    problem = Problem(300, 200 if hierarchical else 12, hierarchical)
    activations, labels, names = draw(problem)
    assert activations.shape == (300, 16)
    assert labels.shape == (300, problem.concepts)
    for u in range(3):
        unit = activations[:, u].numpy()
        best, _, asked, timed = plain_beam(unit, labels.numpy(), length=3, beam=3, part=10)
        assert (asked, timed) == (2 * problem.concepts * (1 + 2 * 3 * 2), 30)
        found = label_units(
            unit, labels, names, beam=3, exact_pairs=False, holdout=0, min_support=1, prefer="auc", progress=False
        )[0]
        assert found.best.auc == pytest.approx(best, abs=1e-15)
    if not hierarchical:
        full = plain_beam(unit, labels.numpy(), length=3, beam=3)
        assert (full[0], full[2], full[3]) == (best, asked, asked)


def test_searches_that_differ_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "plain_beam", lambda *_, **__: (0.5, 1.0, 1, 1))
    with pytest.raises(RuntimeError, match="their times cannot be compared"):
        run_invert_bench(rounds=1, quick=True, device="cpu", progress=False)


def test_bad_options_and_the_command(monkeypatch: pytest.MonkeyPatch, result: InvertResult) -> None:
    with pytest.raises(ValueError, match="rounds=0 must be at least 1"):
        run_invert_bench(rounds=0)
    slow = replace(result, speeds=(replace(result.speeds[0], ok=False),))
    assert "TOO SLOW" in slow.table()
    for answer, code in ((result, 0), (slow, 1)):
        monkeypatch.setitem(bench.BENCHES, "invert", lambda answer=answer, **options: answer)
        done = CliRunner().invoke(app, ["bench", "invert"])
        assert done.exit_code == code
        assert answer.table() in done.output
