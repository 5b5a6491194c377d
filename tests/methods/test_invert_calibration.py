"""Names that rest on enough: nulls are calibrated, NOTs are tested on samples that did not choose them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom

from absence_plugins.bench.naming import KINDS, measure_null
from absence_plugins.methods.invert import label_units


def test_a_unit_that_follows_one_concept_is_named_by_it_and_has_no_not() -> None:
    generator = torch.Generator().manual_seed(1)
    c = torch.rand(300, 12, generator=generator) < 0.4
    a = c[:, :1].float() + 0.8 * torch.randn(300, 40, generator=generator)
    names = [f"c{i}" for i in range(12)]
    short = label_units(a, c, names, min_fraction=0.1, max_fraction=0.9, top=1, progress=False)
    assert sum(str(one.best.formula) == "c0" for one in short) >= 38  # a longer one earns its place by chance in a few
    long = label_units(a, c, names, min_fraction=0.1, max_fraction=0.9, prefer="auc", progress=False)
    assert sum(one.best.formula.length == 3 for one in long) > 20  # the highest AUC is that of a longer one
    assert len(long.with_not()) <= 1  # and its NOTs are found out


def test_a_global_null_is_calibrated_at_100_samples() -> None:
    for kind in KINDS:
        null = measure_null(100, kind, runs=6)
        assert null.asked == 48
        assert max(null.named, null.nots) <= binom.ppf(0.9999, null.asked, 0.05), kind


def test_a_not_is_chosen_on_the_searched_half_and_tested_on_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    c = torch.rand(800, 6, generator=generator) < 0.4
    unit = (c[:, 0] & ~c[:, 1]).float() + 0.5 * torch.randn(800, generator=generator)
    found = label_units(unit, c, list("abcdef"), progress=False)[0]
    assert str(found.best.formula) == "a AND NOT b"
    (one,) = found.best.negations
    assert found.absence == one
    assert 0 < one.p < 1e-3
    assert one.q == one.p  # of one unit
    # where a holds, is the unit higher without b? The same by scipy, on the held-out half
    from scipy.stats import mannwhitneyu

    from absence_plugins.methods.invert.bits import merge_rows
    from absence_plugins.methods.invert.groups import split

    held = torch.from_numpy(split(*merge_rows(c.numpy()), 0.5, 0))
    among = held & c[:, 0]
    test = mannwhitneyu(unit[among & ~c[:, 1]], unit[among & c[:, 1]], alternative="greater")
    assert one.p >= test.pvalue * 0.9  # the larger one of this and DeLong's


def test_delongs_components_are_those_of_all_pairs() -> None:
    from absence_plugins.methods.invert.groups import center_ranks
    from absence_plugins.methods.invert.inputs import Truth
    from absence_plugins.methods.invert.judging import HeldOut

    rng = np.random.default_rng(0)
    values = np.sort(rng.integers(0, 8, 40)).astype(float)
    true, known = rng.random(40) < 0.4, rng.random(40) < 0.8
    truth = Truth(true & known, ~true & known)
    held = HeldOut(None, np.arange(40), center_ranks(values), None, {})  # type: ignore[arg-type]
    one, two = values[truth.true][:, None], values[truth.false][None]
    wins = (one > two) + 0.5 * (one == two)
    influence = held.influence(truth)
    np.testing.assert_allclose(influence[truth.true], (wins.mean(1) - wins.mean()) / wins.shape[0], atol=1e-12)
    np.testing.assert_allclose(influence[truth.false], (wins.mean(0) - wins.mean()) / wins.shape[1], atol=1e-12)
    assert not influence[~known].any()
    assert held.auc(truth)[0] == pytest.approx(wins.mean())
