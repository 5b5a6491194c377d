"""``bench ranks``: both sides compute the same values, the ranks end with the bench."""

from __future__ import annotations

import pytest
import torch

from absence_plugins.bench import ranks as bench
from absence_plugins.bench.ranks import Team, compute_values, count_idle_cores, run_ranks_bench

CPU = torch.device("cpu")


@pytest.mark.slow
def test_ranks_and_one_process_compute_the_same_bits() -> None:
    team = Team("digits", CPU)
    try:
        assert torch.equal(team.values(20), compute_values(team.model, "digits", 20))
        assert [len(values) for values, _ in team.ask(20)] == [20, 0]
        (work,) = team.build("digits", True, CPU).values()
        assert torch.equal(work.ours(), work.plain())
    finally:
        team.end()
    with pytest.raises(RuntimeError, match="a rank of the bench has ended"):
        team.ask(20)


@pytest.mark.slow
def test_a_quick_run_judges_nothing() -> None:
    result = run_ranks_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert [one.name for one in result.measurements] == ["digits values: time", "digits values: CPU"]
    assert all(one.ok is None for one in result.measurements)
    assert result.measurements[0].growth is not None


def test_cores_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LOOK", 0.0)
    ticks = iter([(100, 200), (150, 300)])
    monkeypatch.setattr(bench, "_read_ticks", lambda: next(ticks))
    monkeypatch.setattr(bench.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(bench.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert count_idle_cores() == 2.0


def test_two_ranks_need_two_gpus() -> None:
    if torch.cuda.device_count() < 2:
        with pytest.raises(ValueError, match="cuda"):
            run_ranks_bench(device="cuda", quick=True, progress=False)
