"""The bench compares equal work and says what it promises; how fast this machine is belongs to no test."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("captum")

from absence_plugins.bench import BenchResult, Measurement, run_bench
from absence_plugins.bench import run as bench_run
from absence_plugins.bench.swap_works import METHODS, QUESTIONS, SWAP_LIMIT
from absence_plugins.bench.timing import timed
from absence_plugins.bench.works import NONTARGET_LIMIT, REFERENCES_LIMIT, Work, build_works

SWAPS = {f"swap {method} {question}" for method in METHODS for question in QUESTIONS}
NAMES = {"nontarget", "references", "absence part", "neutral", *SWAPS}


def surroundings() -> tuple[Any, ...]:
    return torch.get_num_threads(), gc.isenabled(), torch.get_rng_state().tolist()


@pytest.fixture(scope="module")
def result() -> Iterator[BenchResult]:
    before = surroundings()
    yield run_bench(rounds=2, quick=True, device="cpu", progress=False)
    assert surroundings() == before


@pytest.mark.slow
def test_every_ratio_is_finite_and_none_is_judged_when_quick(result: BenchResult) -> None:
    names = {one.name for one in result.measurements}
    assert names >= {f"digits {name}: time" for name in NAMES} | {"digits nontarget: memory"}
    for one in result.measurements:
        assert math.isfinite(one.ratio), one
        assert min(one.ours, one.plain, one.ratio) > 0
        assert one.ok is None
        assert len(one.rounds) == (2 if one.unit == "ms" else 1)
    assert result.ok


@pytest.mark.slow
def test_the_table_names_limits_and_surroundings(result: BenchResult) -> None:
    lines = {line.split(":")[0]: line for line in reversed(result.table().splitlines())}
    assert NONTARGET_LIMIT == REFERENCES_LIMIT == 1.05
    assert " 1.05" in lines["digits nontarget"]
    assert " 1.02" in lines["digits neutral"]
    assert " 1.10" in next(line for line in result.table().splitlines() if line.startswith("digits nontarget: memory"))
    assert f"torch {torch.__version__}" in result.table()
    assert "quick" in result.environment["note"]
    assert result.table() in repr(result)


@pytest.mark.slow
def test_the_result_goes_to_json(result: BenchResult) -> None:
    again = json.loads(json.dumps(result.to_dict()))
    assert len(again["measurements"]) == len(result.measurements)
    assert again["environment"]["threads"] == 1


@pytest.mark.parametrize("network", ["digits", "resnet18"])
def test_both_sides_compute_the_same_numbers(network: str) -> None:
    if network == "resnet18":
        pytest.importorskip("torchvision")
    works = {name: work for name, work in build_works(network, True, torch.device("cpu")).items() if work.is_same}
    assert works.keys() >= {"nontarget", "references"}
    assert all(work.limit == SWAP_LIMIT for name, work in works.items() if name.startswith("swap"))
    for name, work in works.items():
        torch.testing.assert_close(work.ours(), (work.same or work.plain)(), msg=name)


def test_other_numbers_are_not_compared() -> None:
    work = Work("unequal", 1.05, lambda: torch.ones(2), lambda: torch.tensor([1.0, 1.1]))
    with pytest.raises(RuntimeError, match=r"case: adapter and host differ by 0\.1"):
        timed("case", work, 1, torch.device("cpu"), judged=True)


def test_other_work_is_timed_without_comparing_its_numbers() -> None:
    called: list[str] = []

    def side(name: str, size: int) -> torch.Tensor:
        called.append(name)
        return torch.ones(size)

    work = Work("unlike", 2.0, lambda: side("ours", 2), lambda: side("plain", 3), is_same=False)
    measured = timed("case", work, 2, torch.device("cpu"), judged=False)
    assert called == ["ours", "plain", *("ours", "plain", "plain", "ours"), *("plain", "ours", "ours", "plain")]
    assert measured.ok is None
    assert len(measured.rounds) == 2


def test_a_broken_limit_is_told() -> None:
    kept = Measurement("a: time", "x", 10.0, 10.0, "ms", 1.0, 1.05, True, (1.0, 1.0))
    broken = Measurement("b: time", "x", 12.0, 10.0, "ms", 1.2, 1.05, False, (1.2,))
    assert BenchResult((kept,), {}).ok
    both = BenchResult((kept, broken), {})
    assert not both.ok
    assert "TOO HIGH" in both.table()
    assert both.to_dict()["ok"] is False


def test_without_torchvision_the_digits_are_measured_and_the_rest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    fake = Measurement("digits nontarget: memory", "x", 1.0, 1.0, "MiB", 1.0, 1.1, None, (1.0,))
    monkeypatch.setattr(bench_run, "weigh_ratio", lambda *_, **__: fake)
    result = run_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert not [one for one in result.measurements if "resnet" in one.name]
    assert "torchvision is missing" in result.table()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds=0 must be at least 1"),
        ({"device": "meta"}, "device='meta' is not measured"),
        ({"device": "abacus"}, "device='abacus' cannot be used"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_bench(progress=False, **options)


def test_importing_the_bench_loads_no_host() -> None:
    program = (
        "import sys, absence_plugins.bench; "
        "sys.exit(any(n in sys.modules for n in ('captum', 'zennit', 'torchvision', 'sklearn', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
