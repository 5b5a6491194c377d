"""The bench of the insertion test: the same values as the script, both networks, the command."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins import bench
from absence_plugins.bench import BenchResult, run_insertion_bench
from absence_plugins.bench.insertion import SCRIPT_LIMIT, build_insertion_works
from absence_plugins.cli import app


@pytest.fixture(scope="module")
def result() -> BenchResult:
    before = torch.get_num_threads(), torch.get_rng_state()
    made = run_insertion_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    return made


def test_all_comparisons_are_there_and_nothing_is_judged(result: BenchResult) -> None:
    assert [one.name for one in result.measurements] == [
        "resnet18 script: time", "resnet18 forwards: time", "digits script: time"
    ]  # fmt: skip
    assert [one.limit for one in result.measurements] == [SCRIPT_LIMIT, None, None]
    grown = [one.growth for one in result.measurements]
    assert [one and one.sizes for one in grown] == [(3, 4, 5), None, None]
    assert all(one.ok is None for one in result.measurements)
    assert result.table().splitlines()[0].split()[:2] == ["alternative", "test"]


@pytest.mark.parametrize("network", ["resnet18", "digits"])
def test_test_and_script_find_the_same_values(network: str) -> None:
    work = build_insertion_works(network, True, torch.device("cpu"))["script"]
    assert work.is_same
    ours, plain = work.ours(), work.plain()
    assert ours.shape == plain.shape == (2, 3, 6)
    assert float((ours - plain).abs().max()) < 1e-5 * float(plain.abs().max())
    if work.growth is None:
        return
    ours, plain = (side() for side in work.growth.at(4))
    assert float((ours - plain).abs().max()) < 1e-5 * float(plain.abs().max())


def test_the_command(monkeypatch: pytest.MonkeyPatch, result: BenchResult) -> None:
    with pytest.raises(ValueError, match="rounds=0"):
        run_insertion_bench(rounds=0)
    slow = replace(result, measurements=(replace(result.measurements[0], ok=False),))
    for answer, code in ((result, 0), (slow, 1)):
        monkeypatch.setitem(bench.BENCHES, "insertion", lambda answer=answer, **options: answer)
        done = CliRunner().invoke(app, ["bench", "insertion"])
        assert done.exit_code == code
        assert answer.table() in done.output
