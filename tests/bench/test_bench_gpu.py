"""``bench gpu``: what it says without a GPU, and that the same works and checks run on the CPU."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins.bench import BenchResult
from absence_plugins.bench import gpu as gpu_bench
from absence_plugins.bench.gpu import NEEDED, GpuResult, build_gpu_works, run_gpu_bench, tensor_cores
from absence_plugins.bench.gpu_checks import Check, compare_with_cpu
from absence_plugins.cli import app

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_fails_nobody() -> None:
    done = CliRunner().invoke(app, ["bench", "gpu"])
    assert done.exit_code == 0
    assert NEEDED in done.output
    assert json.loads(json.dumps(run_gpu_bench(progress=False).to_dict())) == {
        "costs": {"note": NEEDED},
        "checks": [],
        "ok": True,
    }


@pytest.mark.slow
def test_the_checks_agree_with_float64() -> None:
    checks = compare_with_cpu(CPU)
    assert [one.name for one in checks if not one.ok] == []
    assert {one.name.split(",")[0] for one in checks} == {"relevance", "scan", "directions"}
    assert all(one.error > 0 for one in checks if one.name.startswith("relevance"))  # float32 next to float64


def test_a_wrong_number_is_told() -> None:
    wrong = GpuResult(BenchResult((), {}), (Check("relevance, epsilon", 0.1, 1e-3),))
    assert not wrong.ok
    assert "WRONG" in wrong.table()
    assert not Check("x", float("nan"), 1.0).ok


def test_both_sides_of_a_work_compute_the_same() -> None:
    for name, work in build_gpu_works("digits", True, CPU).items():
        ours, plain = work.ours(), work.plain()
        if "autocast" in name:  # a ReLU near 0 decides otherwise
            assert torch.cosine_similarity(ours.flatten(), plain.flatten(), dim=0) > 0.95
        else:
            assert float((ours - plain).abs().max()) <= 1e-4 * float(plain.abs().max()), name
        assert work.growth is not None
        ours, plain = (side() for side in work.growth.at(2))
        assert ours.shape == plain.shape


def test_tf32_is_put_back() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with tensor_cores():
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.slow
def test_the_whole_bench_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_bench, "compare_with_cpu", lambda device: (Check("scan", 0.0, 1.0),))
    found = run_gpu_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert found.costs is not None
    assert all(one.ok is None and one.growth is not None for one in found.costs.measurements)
    assert "exponents of growth" in found.table()
    assert found.to_dict()["costs"]["measurements"][0]["growth"]["sizes"] == [1, 2, 4]
