"""The bench of the patch search: the same scores as the script, both tables, the command."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins import bench
from absence_plugins.bench import BenchResult, run_patches_bench
from absence_plugins.bench.patches import FORWARD_LIMIT, SCRIPT_LIMIT, build_patch_works
from absence_plugins.cli import app


@pytest.fixture(scope="module")
def result() -> BenchResult:
    before = torch.get_num_threads(), torch.get_rng_state()
    made = run_patches_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    return made


def test_both_comparisons_are_there_and_nothing_is_judged(result: BenchResult) -> None:
    assert [one.name for one in result.measurements] == ["resnet18 forward only: time", "resnet18 script: time"]
    assert [one.limit for one in result.measurements] == [FORWARD_LIMIT, pytest.approx(1 / 3)] == [1.06, SCRIPT_LIMIT]
    grown = [one.growth for one in result.measurements]
    assert [one and one.sizes for one in grown] == [(1, 2, 3), None]
    assert all(one.ok is None for one in result.measurements)
    assert result.table().splitlines()[0].split()[:2] == ["alternative", "search"]


def test_search_and_script_find_the_same_scores() -> None:
    works = build_patch_works("resnet18", True, torch.device("cpu"))
    assert works["script"].is_same
    assert works["script"].limit == SCRIPT_LIMIT
    assert torch.allclose(works["script"].ours(), works["script"].plain(), atol=1e-5)
    assert works["forward only"].plain().shape == (2 * 4, 512)
    growth = works["forward only"].growth
    assert growth is not None
    ours, plain = growth.at(1)
    assert torch.allclose(ours(), plain().topk(4, 0).values.T, atol=1e-5)  # there are 4 windows, all among the 8 best


def test_the_command(monkeypatch: pytest.MonkeyPatch, result: BenchResult) -> None:
    with pytest.raises(ValueError, match="rounds=0"):
        run_patches_bench(rounds=0)
    slow = replace(result, measurements=(replace(result.measurements[0], ok=False),))
    for answer, code in ((result, 0), (slow, 1)):
        monkeypatch.setitem(bench.BENCHES, "patches", lambda answer=answer, **options: answer)
        done = CliRunner().invoke(app, ["bench", "patches"])
        assert done.exit_code == code
        assert answer.table() in done.output
