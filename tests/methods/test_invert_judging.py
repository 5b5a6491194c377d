"""Judging on the held-out samples next to the plain definitions: ranks made anew, DeLong's components by levels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from absence_plugins.methods.invert.bits import Array, Bits, merge_rows
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.groups import average, center_ranks, collapse, strata_of
from absence_plugins.methods.invert.inputs import Truth
from absence_plugins.methods.invert.judging import HeldOut, judge
from absence_plugins.methods.invert.parts import Part
from absence_plugins.methods.invert.significance import Distinct, permutation_p, ranks_p
from absence_plugins.methods.invert.ties import Ties

NAMES = ("a", "b", "c", "d")
KINDS = ("distinct", "few tied", "rectified", "three values", "constant")
FORMULAS = [
    Formula.parse(text)
    for text in (
        "a",
        "NOT b",
        "a AND NOT b",
        "a OR NOT b",
        "NOT a AND NOT b",
        "(a OR c) AND NOT b",
        "(a AND NOT b) OR c",
        "a AND NOT d",
    )
]


def draw(kind: str, size: int, rng: np.random.Generator) -> Array:
    """Activations [size]."""
    values = rng.standard_normal(size)
    if kind == "few tied":
        values[: size // 20] = np.round(values[: size // 20], 1)
    if kind == "rectified":
        return np.maximum(values, 0)
    if kind == "three values":
        return np.clip(np.round(values), -1, 1)
    return values * (kind != "constant")


def hold_out(kind: str, size: int, *, unknown: bool = False, grouped: bool = False, seed: int = 0) -> HeldOut:
    """A unit and labels of four concepts; d holds nowhere but where a does not."""
    rng = np.random.default_rng(seed)
    labels = rng.random((size, 4)) < (0.3, 0.4, 0.2, 0.3)
    labels[:, 3] &= ~labels[:, 0]
    values = draw(kind, size, rng) + (0 if kind == "constant" else 1) * (labels[:, 0] & ~labels[:, 1])
    rows, row_of = merge_rows(labels)
    if unknown:
        missing = rng.random((size, 4)) < 0.1
        rows = Bits(Bits.of(labels & ~missing).true, Bits.of(~labels & ~missing).true, size)
        row_of = np.arange(size)
    groups = rng.integers(0, max(1, size // 3), size) if grouped else None
    part = Part.of(torch.device("cpu"), row_of, np.ones(size, bool), len(rows), groups)
    return HeldOut.of(part, torch.from_numpy(values), rows, {name: k for k, name in enumerate(NAMES)})


def plain_truth(held: HeldOut, formula: Formula) -> Truth:
    """Folded on the label rows, then given to every sample."""
    rows = held.rows.fold(formula, held.place)
    return Truth(rows.true[held.row_of], rows.false[held.row_of])


def plain_p(held: HeldOut, truth: Truth, among: Array | None = None) -> float:
    """Every chosen sample ranked again by sorting."""
    chosen = truth.known if among is None else truth.known & among
    if not chosen.any():
        return 1.0
    if chosen.all():
        groups = held.groups
        return permutation_p(collapse(held.ranks, groups), average(truth.true, groups), strata_of(groups))
    groups = None if held.groups is None else np.unique(held.groups[chosen], return_inverse=True)[1]
    ranks = center_ranks(average(held.ranks[chosen], groups))
    return permutation_p(ranks, average(truth.true[chosen], groups), strata_of(groups))


def plain_influence(held: HeldOut, truth: Truth) -> Array:
    """By counts at every distinct rank number."""
    known = truth.known
    _, level = np.unique(held.ranks[known], return_inverse=True)
    holds = truth.true[known]
    counts, of_true = np.bincount(level), np.bincount(level, weights=holds)
    above = of_true.cumsum() - of_true / 2
    n1, n0 = of_true.sum(), counts.sum() - of_true.sum()
    beaten, below = (counts.cumsum() - counts / 2 - above) / n0, 1 - above / n1
    part = np.where(holds, (beaten / n1)[level], (below / n0)[level])
    score = float(part @ holds)
    moved = np.zeros(len(known))
    moved[known] = part - np.where(holds, score / n1, score / n0)
    return moved


def plain_auc(held: HeldOut, truth: Truth) -> tuple[float | None, float]:
    """From the ranks of the known samples."""
    n1, n0 = int(truth.true.sum()), int(truth.false.sum())
    if not n1 or not n0:
        return None, n1 / max(1, n1 + n0)
    ranks = center_ranks(held.ranks[truth.known])
    return (float(ranks @ truth.true[truth.known]) + n1 * n0) / (2 * n1 * n0), n1 / (n1 + n0)


def plain_not_p(held: HeldOut, formula: Formula, index: int) -> float:
    """The larger one of both tests."""
    truth, rest, context = plain_truth(held, formula), formula.without(index), formula.context(index)
    if rest is None:
        return plain_p(held, truth)
    assert context is not None
    p = plain_p(held, plain_truth(held, Formula(*formula.literals[index])), plain_truth(held, context).true)
    without = plain_truth(held, rest)
    one, two = plain_auc(held, truth)[0], plain_auc(held, without)[0]
    if one is None or two is None:
        return 1.0
    moved = plain_influence(held, truth) - plain_influence(held, without)
    moved = moved if held.groups is None else np.bincount(held.groups, weights=moved)
    deviation = float(np.sqrt((moved**2).sum()))
    if deviation == 0:
        return p if one > two else 1.0
    return max(p, float(norm.sf((one - two) / deviation)))


@pytest.mark.parametrize("size", [12, 300, 9000])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_judged_is_what_the_definitions_say(kind: str, unknown: bool, grouped: bool, size: int) -> None:
    held = hold_out(kind, size, unknown=unknown, grouped=grouped)
    for formula in FORMULAS:
        truth, plain = held.truth(formula), plain_truth(held, formula)
        assert np.array_equal(truth.true, plain.true)
        assert np.array_equal(truth.false, plain.false)
        assert truth.complete is not unknown
        assert repr(held.auc_of(formula)) == repr(plain_auc(held, plain))  # plain numbers, as they are kept as JSON
        assert held.p_of(truth) == plain_p(held, plain)
        if truth.true.any() and truth.false.any():
            assert np.array_equal(held.influence(truth), plain_influence(held, plain))
        for index, (_, negated) in enumerate(formula.literals):
            if negated:
                assert held.not_p(formula, index) == pytest.approx(plain_not_p(held, formula, index), rel=0, abs=1e-11)


def test_a_concept_is_looked_up_once_for_all_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold_out("few tied", 900)
    asked: list[str] = []
    look_up = HeldOut._look_up
    monkeypatch.setattr(HeldOut, "_look_up", lambda self, name: asked.append(name) or look_up(self, name))
    found = judge(FORMULAS, lambda formulas: [(0.5, 0.5) for _ in formulas], held)
    assert sorted(asked) == ["a", "b", "c", "d"]
    assert [one.formula for one in found] == FORMULAS


@pytest.mark.parametrize("kind", KINDS)
def test_places_among_some_are_those_of_a_sort(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = np.sort(draw(kind, 500, rng))
    ties = Ties.of(values)
    levels, counts = np.unique(values, return_counts=True)
    assert np.array_equal(values[ties.starts], levels)
    assert np.array_equal(ties.counts, counts)
    for share in (0.0, 0.1, 0.6, 1.0):
        chosen = rng.random(500) < share
        placed = ties.place(chosen)
        expected = [2 * (values[chosen] < one).sum() + (values[chosen] == one).sum() for one in values]
        assert placed.below.tolist() == expected
        assert np.array_equal(placed.below[chosen] - chosen.sum(), center_ranks(values[chosen]))
        tied = levels[counts > 1]
        assert placed.tied.tolist() == [(values[chosen] == one).sum() for one in tied]
        assert placed.level.tolist() == [expected[np.searchsorted(values, one)] for one in tied]
        assert placed.sum(chosen) == sum(expected[i] for i in np.flatnonzero(chosen))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.001, 0.2, 0.9, 0.9999])
def test_p_from_the_ties_alone_is_that_of_all_rank_numbers(kind: str, share: float) -> None:
    rng = np.random.default_rng(2)
    ranks = center_ranks(np.sort(draw(kind, 12_000, rng)))
    known = Distinct.of(ranks)
    for toward in (-0.02, 0.0, 0.02):
        holds = rng.random(12_000) < share + toward * (ranks > 0) * share
        drawn = int(holds.sum())
        p = ranks_p(12_000, known.levels, known.counts, drawn, float(ranks @ holds))
        is_many = min(drawn, 12_000 - drawn, 12_000 - known.counts.max()) >= 1000 and len(known.counts) > 2
        assert (p is not None) == is_many
        assert p is None or math.isclose(p, permutation_p(ranks, holds), rel_tol=1e-11, abs_tol=1e-14)


def test_two_values_of_many_samples_stay_exact() -> None:
    held = hold_out("constant", 9000)
    values = torch.from_numpy(np.random.default_rng(5).random(9000) < 0.4).double()
    two = HeldOut.of(held.part, values, held.rows, held.place)
    for formula in FORMULAS[2:6]:
        index = next(i for i, (_, negated) in enumerate(formula.literals) if negated)
        literal, context = Formula(*formula.literals[index]), formula.context(index)
        assert context is not None
        among = two.truth(context).true
        assert two.p_of(two.truth(literal), among) == plain_p(two, plain_truth(two, literal), among)
