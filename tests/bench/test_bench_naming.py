"""How often names are right: the kept result of ``bench invert``, that the docs show it, and two of its rows again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binom

from absence_plugins.bench.naming import (
    EFFECTS,
    KINDS,
    PLANTED,
    SAMPLES,
    Naming,
    Null,
    Recovery,
    measure_null,
    measure_recovery,
)

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def kept() -> Naming:
    """Of ``bench invert``."""
    data = json.loads((DOCS / "_static" / "invert-names.json").read_text(encoding="utf-8"))
    return Naming(tuple(Recovery(**one) for one in data["recoveries"]), tuple(Null(**one) for one in data["nulls"]))


def test_the_docs_show_the_kept_rates(kept: Naming) -> None:
    text = (DOCS / "invert.md").read_text(encoding="utf-8")
    assert len(kept.recoveries) == len(SAMPLES) * len(EFFECTS) * len(PLANTED)
    for line in kept.rows():
        assert line in text
    for one in kept.nulls:
        assert f"| {one.samples:,} | {one.kind} | {one.named} of {one.asked} | {one.nots} of {one.asked} |" in text


def test_kept_nulls_are_calibrated(kept: Naming) -> None:
    assert [(one.samples, one.kind) for one in kept.nulls] == [(n, kind) for n in SAMPLES for kind in KINDS]
    for one in kept.nulls:
        assert max(one.named, one.nots) <= binom.ppf(0.995, one.asked, 0.05), one
        if one.kind == "dense":  # the others have p-values of few levels, which are on the safe side
            assert one.named >= binom.ppf(0.005, one.asked, 0.05)


def test_a_strong_effect_brings_the_planted_name_back(kept: Naming) -> None:
    again = measure_recovery(400, 2.0, "a AND NOT b", units=10)
    assert again.rate >= 0.9
    assert all(one.rate == 1 for one in kept.recoveries if one.effect == 4)


@pytest.mark.slow
def test_two_rows_measured_again_are_as_kept(kept: Naming) -> None:
    (one,) = [each for each in kept.recoveries if (each.samples, each.effect, each.planted) == (100, 2.0, PLANTED[2])]
    again = measure_recovery(100, 2.0, PLANTED[2])
    assert abs(again.rate - one.rate) <= 0.1  # of 20 units two, as machines round
    null = measure_null(100, "dense")
    (one,) = [each for each in kept.nulls if (each.samples, each.kind) == (100, "dense")]
    assert null.asked == one.asked
    assert abs(null.named - one.named) <= 3
