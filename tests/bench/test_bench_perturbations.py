"""The bench of ablation maps: the same numbers on both sides, rows and growth, the command's name."""

from __future__ import annotations

import pytest
import torch

from absence_plugins import bench
from absence_plugins.bench import BenchResult, run_perturbations_bench
from absence_plugins.bench.perturbations import LOOP_LIMIT, build_perturbation_works


@pytest.fixture(scope="module")
def result() -> BenchResult:
    before = torch.get_num_threads(), torch.get_rng_state()
    made = run_perturbations_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    return made


def test_every_network_has_its_rows_and_nothing_is_judged(result: BenchResult) -> None:
    pytest.importorskip("torchvision")
    drawn = ["permutation", "Shapley sampling", "Shapley values", "layer"]
    names = [f"{network} {row}: time" for network in ("digits", "resnet18") for row in ("loop", "16 at once", *drawn)]
    table = [f"table {row}: time" for row in ("loop", "16 at once", "one row", "references", *drawn)]
    assert [one.name for one in result.measurements] == [*names, *table]
    limits = {one.name: one.limit for one in result.measurements}
    assert limits["digits loop: time"] == limits["table references: time"] == LOOP_LIMIT == 1 / 3
    assert limits["digits 16 at once: time"] is None
    assert all(one.ok is None for one in result.measurements)
    grown = {one.name: one.growth for one in result.measurements}
    windows = grown["resnet18 loop: time"]
    assert windows is not None
    assert (windows.counted, windows.sizes) == ("windows", (4, 9, 25))


@pytest.mark.parametrize("network", ["digits", "table"])
def test_both_sides_give_the_same_maps(network: str) -> None:
    works = build_perturbation_works(network, True, torch.device("cpu"))
    for work in works.values():
        ours, plain = work.ours(), work.plain()
        assert work.is_same
        assert float(plain.abs().max()) > 0
        assert torch.allclose(ours, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    growth = works["loop"].growth
    assert growth is not None
    ours, plain = growth.at(growth.sizes[-1])
    assert torch.allclose(ours(), plain(), rtol=0, atol=1e-5 * float(plain().abs().max()))


def test_it_is_a_bench_of_costs() -> None:
    assert bench.COSTS["perturbations"] is run_perturbations_bench
