"""The certified search: every formula of three literals by brute force, and bounds that are never below the best."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from absence_plugins.methods.invert import Formula, label_units
from absence_plugins.methods.invert import certified as module

NAMES = [f"c{k}" for k in range(10)]


def case(seed: int, samples: int = 60, concepts: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random((samples, concepts)) < rng.uniform(0.1, 0.9, concepts)
    if seed % 3 == 0:
        labels[:, 1], labels[:, 2] = labels[:, 0], ~labels[:, 3]  # a repeated concept, and a complement
    if seed % 3 == 1:
        labels[:, 0] |= labels[:, 1] | labels[:, 2]  # a hierarchy
    labels[0], labels[1] = True, False
    truth = (labels[:, 4] & ~labels[:, 5]) | labels[:, 3]
    return np.round(truth * rng.uniform(0, 2) + rng.normal(size=samples), seed % 2), labels


def auc(values: np.ndarray, truth: np.ndarray) -> float:
    one, two = values[truth][:, None], values[~truth][None]
    return float(((one > two) + 0.5 * (one == two)).mean())


def brute(values: np.ndarray, labels: np.ndarray, low: float, high: float) -> float:
    """The best AUC of all formulas of up to three literals: ((l op l) op l) over all literals."""
    literals = [side for column in labels.T for side in (column, ~column)]
    operators = (np.logical_and, np.logical_or)
    pairs = {op(one, two).tobytes() for one, two in itertools.combinations(literals, 2) for op in operators}
    pairs |= {one.tobytes() for one in literals}
    seen = set()
    for pair, literal, op in itertools.product(pairs, literals, operators):
        seen.add(op(np.frombuffer(pair, bool), literal).tobytes())
    best = 0.0
    for truth in (np.frombuffer(one, bool) for one in seen | pairs):
        if 0 < truth.sum() < len(truth) and low * len(truth) - 1e-9 <= truth.sum() <= high * len(truth) + 1e-9:
            best = max(best, auc(values, truth))
    return best


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_three_literals_equal_brute_force(mode: str) -> None:
    for seed in range(14):
        values, labels = case(seed, concepts=6 if seed % 4 else 8)
        low, high = [(0.0, 1.0), (0.1, 1.0), (0.2, 0.6)][seed % 3]
        label = label_units(
            values, labels, NAMES[: labels.shape[1]], search="certified", min_fraction=low, max_fraction=high, mode=mode,
            min_support=1, prefer="auc", holdout=0, progress=False,
        )[0]  # fmt: skip
        signed = values if mode == "positive" else -values
        assert label.gap == 0.0
        assert label.best.auc == pytest.approx(brute(signed, labels, low, high), abs=1e-12), seed
        for one in label.formulas:
            truth = one.formula.evaluate(labels, NAMES[: labels.shape[1]]).numpy()
            assert one.auc == auc(signed, truth)
            assert one.fraction == truth.mean()


def test_many_units_and_small_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((150, 9)) < 0.4
    values = np.round(labels @ rng.normal(size=(9, 7)) + rng.normal(size=(150, 7)), 1)
    options = {"search": "certified", "prefer": "auc", "holdout": 0, "progress": False}
    whole = label_units(values, labels, NAMES[:9], **options)
    beam = label_units(values, labels, NAMES[:9], **options | {"search": "beam"})
    assert all(one.best.auc >= other.best.auc for one, other in zip(whole, beam, strict=True))
    assert all(one.gap is None for one in beam)
    monkeypatch.setattr(module, "TOGETHER", 40)
    monkeypatch.setattr(module, "TABLES", 100)
    assert label_units(values, labels, NAMES[:9], **options).to_dict()["units"] == whole.to_dict()["units"]
    single = [label_units(values[:, u], labels, NAMES[:9], **options)[0] for u in range(7)]
    assert [one.best.auc for one in single] == [one.best.auc for one in whole]


def test_a_budget_that_ends_leaves_a_bound_that_holds() -> None:
    below = 0
    for seed in range(6):
        values, labels = case(seed, samples=200, concepts=9)
        options = {"prefer": "auc", "holdout": 0, "progress": False, "min_fraction": 0.3, "max_fraction": 0.7}
        proven = label_units(values, labels, NAMES[:9], search="certified", **options)[0]
        for budget in (1, 64 * 30, 64 * 60):
            cut = label_units(values, labels, NAMES[:9], search="certified", budget=budget, **options)[0]
            highest = max(one.auc for one in cut.formulas)
            assert cut.gap is not None
            assert highest + cut.gap >= proven.best.auc - 1e-9
            below += highest + cut.gap < 1.0 - 1e-9
    assert below > 1  # it says something


def test_whatever_the_budget_no_formula_exceeds_the_bound() -> None:
    tight = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        labels = rng.random((100, 6)) < np.array([0.68, 0.5, 0.5, 0.5, 0.5, 0.5])
        values = (labels[:, 0] & (labels[:, 1] | labels[:, 2])) + 0.05 * rng.normal(size=100)
        best = brute(values, labels, 0.45, 0.56)
        for budget in (1, *(64 * triples for triples in (9, 10, 15, 16, 18, 19, 20))):  # a column's end, and before it
            cut = label_units(
                values, labels, NAMES[:6], search="certified", prefer="auc", holdout=0, min_fraction=0.45, max_fraction=0.56,
                budget=budget, beam=1, top=1, progress=False,
            )[0]  # fmt: skip
            assert cut.best.auc <= best + 1e-12
            assert cut.best.auc + cut.gap >= best - 1e-12, (seed, budget)
            tight += cut.certified and budget < 64 * 20
    assert tight  # some are proven before everything is scored


def test_the_certificate_finds_what_the_beam_misses() -> None:
    rng = np.random.default_rng([2000, 400, 3])
    labels = rng.random((1000, 10)) < np.r_[[0.4] * 3, rng.uniform(0.02, 0.5, 7)]
    truth = (labels[:, 0] | labels[:, 2]) & ~labels[:, 1]
    values = torch.from_numpy(4.0 * truth[:, None] + rng.normal(size=(1000, 10)))
    planted = Formula.parse("(c0 OR c2) AND NOT c1")
    found = label_units(values, labels, NAMES, search="certified", progress=False)
    assert all(one.best.formula == planted for one in found)
    assert all(one.gap == 0.0 for one in found)
    assert label_units(values[:, 0], labels, NAMES, length=2, progress=False)[0].gap == 0.0  # all pairs are searched


def test_what_cannot_be_certified_is_refused() -> None:
    values, labels = case(0)
    for options in ({"length": 5}, {"exact_pairs": False}):
        with pytest.raises(ValueError, match="proves formulas of up to four literals"):
            label_units(values, labels, NAMES[:6], search="certified", progress=False, **options)
    with pytest.raises(ValueError, match="search='best' must be one of auto, certified, beam"):
        label_units(values, labels, NAMES[:6], search="best", progress=False)
    with pytest.raises(ValueError, match="budget=0 must be"):
        label_units(values, labels, NAMES[:6], budget=0, progress=False)
