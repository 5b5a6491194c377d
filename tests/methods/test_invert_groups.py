"""Samples that are not independent: groups and copies stay on one side and count once."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.groups import as_groups
from absence_plugins.methods.invert import Formula, label_units
from absence_plugins.methods.invert.bits import merge_rows
from absence_plugins.methods.invert.groups import find_copies, split
from absence_plugins.methods.invert.inputs import Truth
from absence_plugins.methods.invert.significance import permutation_p

NAMES = list("abcd")


def noise(images: int = 20, units: int = 20, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, units, generator=generator), torch.rand(images, 4, generator=generator) < 0.5


def test_twenty_copies_of_noise_are_no_evidence() -> None:
    a, c = noise()
    alone = label_units(a, c, NAMES, progress=False)
    groups = torch.arange(20).repeat(20)
    told = label_units(a.repeat(20, 1), c.repeat(20, 1), NAMES, groups=groups, progress=False)
    with pytest.warns(AbsenceWarning, match="380 of 400 samples are exact copies of others.*20 independent samples"):
        found = label_units(a.repeat(20, 1), c.repeat(20, 1), NAMES, progress=False)
    assert found.to_dict() == told.to_dict()
    for one, many in zip(alone, found, strict=True):
        assert many.best.q > 0.05
        assert many.best.formula == one.best.formula
        assert (many.best.p, many.best.heldout_auc) == pytest.approx((one.best.p, one.best.heldout_auc))


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_on_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 60, 500)
    labels = rng.random((500, 6)) < 0.1
    rows, row_of = merge_rows(labels)
    numbers = as_groups(groups, 500)
    assert numbers is not None
    held = split(rows, row_of, 0.5, seed, numbers.numpy())
    for g in np.unique(groups):
        assert len(set(held[groups == g])) == 1
    assert abs(len(np.unique(groups[held])) - 30) <= 1
    alone = split(rows, row_of, 0.5, seed, np.arange(500))
    assert np.array_equal(alone, split(rows, row_of, 0.5, seed))


def test_groups_by_name_are_those_by_number() -> None:
    a, c = noise(60, units=4)
    numbers = torch.arange(60) // 3
    found = label_units(a, c, NAMES, groups=numbers, progress=False)
    named = label_units(a, c, NAMES, groups=[f"video {int(g)}" for g in numbers], progress=False)
    assert [one.best.formula for one in found] == [one.best.formula for one in named] or len(found) == len(named)


def test_within_a_group_labels_may_differ_and_the_group_counts_once() -> None:
    values, share = np.array([3.0, 1.0, -1.0, -3.0]), np.array([1.0, 0.5, 0.5, 0.0])
    # 24 orderings of four groups; the largest sum is reached by the two that leave 3 and -3 in place
    assert permutation_p(values, share) == pytest.approx(2 / 24)


def test_copies_are_told_from_ties() -> None:
    rng = np.random.default_rng(0)
    sparse = torch.from_numpy(np.maximum(rng.normal(size=(300, 8)) - 1.5, 0))  # most rows are all zero
    assert find_copies(sparse) is None
    assert find_copies(torch.from_numpy(rng.integers(0, 3, (300, 8)))) is None
    dense = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert find_copies(dense) is None
    groups = find_copies(torch.cat([dense, dense[:10], dense[:10]]))
    assert groups is not None
    assert int(groups.max()) + 1 == 50
    assert groups[50:60].tolist() == groups[60:].tolist() == groups[:10].tolist()
    assert find_copies(torch.cat([dense, dense])[:, :2]) is None  # two units tell nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label_units(
            torch.cat([dense, dense]), (torch.arange(100)[:, None] % 2) == 0, ["even"], holdout=0, progress=False
        )


def supported(labels: np.ndarray, held: np.ndarray, groups: np.ndarray, least: int) -> list[Truth]:
    """All formulas of up to three concepts that hold, and fail, on some sample of ``least`` groups in both parts, and
    from which no literal can go on the searched samples.
    """
    names = list("abcd")
    truth_of = {name: Truth(labels[:, k] == 1, labels[:, k] == 0) for k, name in enumerate(names)}
    levels = [[side for name in names for side in (Formula(name), ~Formula(name))]]
    for _ in range(2):
        pairs = itertools.product(levels[-1], levels[0])
        levels.append(list({f for x, y in pairs if not set(x.names) & set(y.names) for f in (x & y, x | y)}))
    found = []
    for formula in itertools.chain(*levels):
        truth = formula.fold(truth_of.get)
        rests = [formula.without(i).fold(truth_of.get) for i in range(formula.length) if formula.length > 1]
        differs = [((truth.true != one.true) | (truth.false != one.false))[~held].any() for one in rests]
        sides = [side & part for side in (truth.true, truth.false) for part in (held, ~held) if part.any()]
        if all(differs) and all(len(set(groups[one])) >= least for one in sides):
            found.append(truth)
    return found


@pytest.mark.parametrize("score", ["auc", "iou", "unknown"])
def test_the_search_counts_groups_and_its_proof_is_that_of_brute_force(score: str) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(16), rng.integers(1, 8, 16))
        labels = (rng.random((16, 4)) < [0.5, 0.4, 0.1, 0.1])[groups]
        labels[:2], labels[-2:] = True, False
        if seed == 1:
            labels ^= rng.random(labels.shape) < 0.1  # labels that differ within a group
        labels = labels.astype(float)
        if score == "unknown":
            labels[rng.random(labels.shape) < 0.1] = np.nan
        values = rng.normal(size=16)[groups] + 0.01 * rng.normal(size=len(groups))
        for holdout in (0, 0.5):
            held = np.zeros(len(groups), bool)
            if holdout:
                held = split(*merge_rows(labels == 1), holdout, 0, groups)
            found = label_units(
                values, labels, list("abcd"), groups=groups, score="iou" if score == "iou" else "auc", search="certified",
                prefer="score", min_support=3, holdout=holdout, progress=False,
            )[0]  # fmt: skip
            best = 0.0
            for truth in supported(labels, held, groups, 3):
                true, false = truth.true & ~held, truth.false & ~held
                if score == "iou":
                    fires = (values >= found.threshold) & ~held
                    best = max(best, (fires & true).sum() / (fires | true).sum())
                else:
                    best = max(best, float((values[true][:, None] > values[false]).mean()))
            assert found.certified
            assert max(one.score for one in found.formulas) == pytest.approx(best, abs=1e-12), (seed, holdout)
            for one in found.formulas:
                truth = one.formula.truth(labels, list("abcd"))
                for side in (truth.true.numpy(), truth.false.numpy()):
                    assert all(len(set(groups[side & part])) >= 3 for part in (held, ~held) if part.any())


def test_no_name_rests_on_fewer_groups_than_asked_for() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    per = np.hstack([rng.random((60, 3)) < 0.4, rng.random((60, 6)) < 0.05])
    per[:2] = [[True], [False]]
    values = rng.normal(size=(60, 3))[groups] + 0.05 * rng.normal(size=(240, 3))
    names = [f"c{k}" for k in range(9)]
    for options in ({}, {"prefer": "auc"}, {"search": "beam", "length": 4}):
        for unit in label_units(values, per[groups], names, groups=groups, min_support=5, progress=False, **options):
            for one in unit.formulas:
                truth = one.formula.evaluate(per[groups], names).numpy()
                assert min(len(set(groups[truth])), len(set(groups[~truth]))) >= 10
    with pytest.raises(
        ValueError, match=r"holds and fails on at least 20 groups of either part.*or lower min_support=20"
    ):
        label_units(values, per[groups], names, groups=groups, min_support=20, progress=False)
    with pytest.raises(
        ValueError, match=r"no formula can hold on so many groups.*of the 30 that are searched; at most 30"
    ):
        label_units(values, per[groups], names, groups=groups, min_support=31, progress=False)
    with pytest.raises(ValueError) as told:  # 0.01 and 0.99 of the samples are not what is too narrow
        label_units(values, per[groups], names, groups=groups, min_support=20, max_fraction=0.99, progress=False)
    assert "widen" not in str(told.value)


def test_without_groups_support_is_that_of_both_halves() -> None:
    rng = np.random.default_rng(6)
    labels = rng.random((120, 30)) < rng.choice([0.03, 0.06, 0.4], 30)
    labels[:2] = [[True], [False]]
    found = label_units(rng.normal(size=(120, 6)), labels, [f"c{k}" for k in range(30)], prefer="auc", progress=False)
    for one in (one for unit in found for one in unit.formulas):
        held = one.heldout_fraction * found.heldout
        assert 5 - 1e-6 <= held <= found.heldout - 5 + 1e-6


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([0.5] * 20, TypeError, "groups are float; pass one integer or string per sample"),
        ([1, 2], ValueError, r"groups have shape \(2,\); pass one per sample, \[20\]"),
        (["x"] * 20, ValueError, "all 20 samples are of one group, 'x'"),
        ([0] * 19 + [1], ValueError, "both need two"),
    ],
)
def test_bad_groups_are_named(groups: list[object], error: type[Exception], message: str) -> None:
    a, c = noise()
    with pytest.raises(error, match=message):
        label_units(a, c, NAMES, groups=groups, progress=False)
