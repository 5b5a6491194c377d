"""Growth with the size, ``bench start`` and ``bench all``, and the numbers on disk."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins import bench
from absence_plugins.bench import BenchResult, Measurement
from absence_plugins.bench import growth as bench_growth
from absence_plugins.bench.growth import Grown, measure_growth, slope
from absence_plugins.bench.memory import MIB
from absence_plugins.bench.run import Run
from absence_plugins.bench.start import COMMANDS, build_start_works
from absence_plugins.bench.works import Growth, Work
from absence_plugins.cli import app

CPU = torch.device("cpu")
COST = Measurement("a: time", "x", 10.0, 10.0, "ms", 1.0, 1.05, True, (1.0, 1.0))


def test_the_exponent_is_that_of_a_power() -> None:
    assert slope([1, 10, 100], [7.0, 70.0, 700.0]) == pytest.approx(1)
    assert slope([3, 6, 12], [5.0, 5.0, 5.0]) == pytest.approx(0)
    assert slope([2, 4, 8], [2 * 2**1.5, 2 * 4**1.5, 2 * 8**1.5]) == pytest.approx(1.5)
    assert math.isnan(slope([1, 2, 4], [0.0, 1.0, 2.0]))


def test_both_sides_are_called_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, int]] = []
    monkeypatch.setattr(bench_growth, "seconds", lambda call, device: call())

    def sides(size: int) -> tuple[Any, Any]:
        return (lambda: called.append(("ours", size)) or size**2, lambda: called.append(("plain", size)) or 3 * size)

    grown = measure_growth(Growth("images", (1, 2, 4), sides), CPU, address=None)
    assert {(side, size) for side in ("ours", "plain") for size in (1, 2, 4)} == set(called)
    assert grown.exponent == pytest.approx(2)
    assert grown.plain_exponent == pytest.approx(1)
    assert grown.too_fast == ("time",)
    assert grown.memory_exponent is None


@pytest.mark.parametrize(
    ("exponent", "plain", "memory", "wanted"),
    [(1.1, 1.0, 0.2, ()), (2.0, 1.9, 1.0, ()), (1.4, 1.0, 1.0, ("time",)), (1.0, 1.0, 1.3, ("memory",))],
)
def test_what_grows_faster_than_its_work_is_named(
    exponent: float, plain: float, memory: float, wanted: tuple[str, ...]
) -> None:
    sizes = (1.0, 2.0, 4.0)
    grown = Grown("images", (1, 2, 4), sizes, sizes, exponent, plain, sizes, sizes, memory, 1.0)
    assert grown.too_fast == wanted
    table = BenchResult((replace(COST, growth=grown),), {}).table()
    assert ("faster than the work" in table) is bool(wanted)
    assert "1, 2, 4 images" in table
    assert BenchResult((replace(COST, growth=grown),), {}).to_dict()["measurements"][0]["growth"]["too_fast"] == list(
        wanted
    )


def build_tensors(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """A work whose memory is known."""

    def sides(size: int) -> tuple[Any, Any]:
        return (lambda: torch.ones(size * 2**18)), (lambda: torch.ones(2**20))

    return {"tensors": Work("x", None, *sides(1), growth=Growth("MiB", (8, 16, 32), sides))}


@pytest.mark.slow
def test_memory_is_weighed_in_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    growth = build_tensors("", False, CPU)["tensors"].growth
    assert growth is not None
    grown = measure_growth(growth, CPU, address=("test_bench_growth:build_tensors", "", "tensors"))
    for size, peak in zip(growth.sizes, grown.ours_memory, strict=True):
        assert peak == pytest.approx(size * 2**18 * 4 / MIB, abs=1)  # float32: 1 MiB per size
    assert grown.memory_exponent == pytest.approx(1, abs=0.1)
    assert grown.plain_memory_exponent == pytest.approx(0, abs=0.1)


@pytest.mark.slow
def test_the_command_line_answers() -> None:
    works = build_start_works("command line", False, CPU)
    assert set(works) == {*COMMANDS, "import"}
    for work in works.values():
        work.ours()  # raises where the command does not say what was asked for
        assert work.is_same is False
    start = time.perf_counter()
    works["help"].plain()
    assert time.perf_counter() - start >= 0.5


def test_numbers_are_written_and_all_benches_of_costs_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(**options: Any) -> BenchResult:
        raise ImportError("Lucent is missing")

    def measured(**options: Any) -> BenchResult:
        return BenchResult((COST,), {"rounds": options["rounds"]})

    costs = {"captum": measured, "lucent": missing}
    monkeypatch.setitem(bench.BENCHES, "captum", measured)
    monkeypatch.setitem(bench.BENCHES, "all", lambda **options: bench.run_all_benches(costs, **options))
    done = CliRunner().invoke(app, ["bench", "captum", "--out", str(tmp_path / "new"), "--rounds", "2"])
    assert done.exit_code == 0
    assert json.loads((tmp_path / "new" / "captum.json").read_text())["environment"]["rounds"] == 2
    monkeypatch.setitem(bench.BENCHES, "captum", lambda **options: pytest.fail("all runs its own"))
    done = CliRunner().invoke(app, ["bench", "all", "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert "== lucent: not run: Lucent is missing" in done.output
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["missing"] == {"lucent": "Lucent is missing"}
    assert written["results"]["captum"]["measurements"][0]["ratio"] == 1.0
    assert json.loads((tmp_path / "captum.json").read_text()) == written["results"]["captum"]


def test_what_is_measured_is_said_and_kept_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C in the second of three benches loses that one only."""

    def measured(**options: Any) -> BenchResult:
        return BenchResult((Run(1, True, torch.device("cpu"), True).say(COST),), {})

    def stopped(**options: Any) -> BenchResult:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run_all_benches({"a": measured, "b": stopped, "c": measured}, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "a: time: 10.0 ms next to 10.0 ms, ratio 1.000, limit 1.05 ok"


def test_one_broken_limit_is_told_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = BenchResult((replace(COST, ok=False),), {})
    result = bench.run_all_benches({"a": lambda **_: broken, "b": lambda **_: BenchResult((COST,), {})})
    assert not result.ok
    assert "== a: NOT KEPT" in result.table()
    assert "== b: ok" in result.table()
