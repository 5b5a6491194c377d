"""The search against a second writing: every formula of two literals, a plain beam for three, all by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from absence_plugins.methods.invert import Formula, auroc
from absence_plugins.methods.invert import bits as bits_module
from absence_plugins.methods.invert import label_units as label_units_as_they_are_named
from absence_plugins.methods.invert import pairs as pairs_module
from absence_plugins.methods.invert import ranking as ranking_module
from absence_plugins.methods.invert import search as search_module
from absence_plugins.methods.invert import table as table_module
from absence_plugins.methods.invert.bits import merge_rows, unpack

Truth = tuple[bool, ...]
label_units = partial(label_units_as_they_are_named, prefer="auc", min_support=1)  # the search itself, by AUC alone


@dataclass(frozen=True)
class Case:
    """Random activations with ties, and labels with repeated, complementary and nested concepts."""

    activations: np.ndarray
    labels: np.ndarray

    @property
    def names(self) -> list[str]:
        return [f"c{k}" for k in range(self.labels.shape[1])]


def case(seed: int, samples: int = 40, concepts: int = 6) -> Case:
    rng = np.random.default_rng(seed)
    labels = rng.random((samples, concepts)) < rng.uniform(0.1, 0.9, concepts)
    if seed % 3 == 0:
        labels[:, 1] = labels[:, 0]  # a repeated concept
        labels[:, 2] = ~labels[:, 3]  # a complement
    if seed % 3 == 1:
        labels[:, 0] |= labels[:, 1] | labels[:, 2]  # a hierarchy
    labels[0], labels[1] = True, False  # none is constant
    signal = labels[:, 4] & ~labels[:, 5] if seed % 2 else labels[:, 0] | (labels[:, 4] & ~labels[:, 3])
    return Case(np.round(signal * rng.uniform(0, 2) + rng.normal(size=samples), seed % 2), labels)


def auc(activations: np.ndarray, truth: np.ndarray) -> float:
    """By counting all pairs."""
    a, b = activations[truth][:, None], activations[~truth][None]
    return (2 * (a > b).sum() + (a == b).sum()) / (2 * a.size * b.size)


def literals(labels: np.ndarray) -> list[tuple[Formula, np.ndarray]]:
    positive = [(Formula(f"c{k}"), labels[:, k]) for k in range(labels.shape[1])]
    return positive + [(~formula, ~truth) for formula, truth in positive]


def is_allowed(truth: np.ndarray, low: float, high: float) -> bool:
    count = int(truth.sum())
    return 0 < count < len(truth) and low * len(truth) - 1e-9 <= count <= high * len(truth) + 1e-9


def all_formulas(labels: np.ndarray) -> list[tuple[Formula, np.ndarray]]:
    single = literals(labels)
    pairs = list(itertools.combinations(single, 2))
    return [*single, *((f & g, s & t) for (f, s), (g, t) in pairs), *((f | g, s | t) for (f, s), (g, t) in pairs)]


def shortest(formulas: list[tuple[Formula, np.ndarray]]) -> dict[Truth, tuple[int, int, tuple[int, ...]]]:
    """Truth vector -> (length, NOTs, concepts) of its best spelling."""
    best: dict[Truth, tuple[int, int, tuple[int, ...]]] = {}
    for formula, truth in formulas:
        places = tuple(sorted(int(name[1:]) for name, _ in formula.literals))
        key = (formula.length, formula.negations, places)
        best[tuple(truth)] = min(best.get(tuple(truth), key), key)
    return best


def spelled(formula: Formula) -> tuple[int, int, tuple[int, ...]]:
    return formula.length, formula.negations, tuple(sorted(int(name[1:]) for name, _ in formula.literals))


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_up_to_two_literals_the_search_equals_brute_force(length: int, mode: str) -> None:
    for seed in range(40):
        c = case(seed)
        low, high = [(0.0, 1.0), (0.1, 1.0), (0.2, 0.6)][seed % 3]
        signed = c.activations if mode == "positive" else -c.activations
        options = {"length": length, "mode": mode, "min_fraction": low, "max_fraction": high, "top": 12}
        label = label_units(c.activations, c.labels, c.names, holdout=0, progress=False, **options)[0]
        candidates = [
            (f, t) for f, t in all_formulas(c.labels) if f.length <= length and is_allowed(t, low, high)
        ]  # fmt: skip
        best = shortest(candidates)
        expected = sorted(((-auc(signed, np.array(truth)), key) for truth, key in best.items()))[:12]
        assert [one.auc for one in label.formulas] == pytest.approx([-value for value, _ in expected], abs=1e-15)
        for one in label.formulas:
            truth = one.formula.evaluate(c.labels, c.names).numpy()
            assert one.auc == auc(signed, truth)
            assert one.fraction == truth.mean()
            assert spelled(one.formula) == best[tuple(truth)], (seed, one)
        assert [spelled(one.formula) for one in label.formulas] == [key for _, key in expected], seed


def plain_beam(c: Case, width: int, length: int, *, keep: bool) -> float:
    """The best AUC of a beam, one formula per truth vector; keep: whether shorter ones stay in the beam."""
    single = literals(c.labels)
    beam: dict[Truth, float] = {}
    pool = {tuple(t): auc(c.activations, t) for _, t in single if is_allowed(t, 0, 1)}
    best = max(pool.values())
    for _ in range(length - 1):
        beam = dict(sorted(pool.items(), key=lambda item: -item[1])[:width])
        pool = dict(beam) if keep else {}
        for truth, (_, literal) in itertools.product(beam, single):
            for grown in (np.array(truth) & literal, np.array(truth) | literal):
                if is_allowed(grown, 0, 1):
                    pool[tuple(grown)] = auc(c.activations, grown)
        best = max(best, *pool.values())
    return best


@pytest.mark.parametrize("keep", [True, False])
def test_three_literals_are_never_below_a_plain_beam_of_the_same_width(keep: bool) -> None:
    better = 0
    for seed in range(30):
        c = case(seed)
        beam = 1 + seed % 3
        options = {"length": 3, "beam": beam, "min_fraction": 0.0, "holdout": 0, "progress": False}
        plain = plain_beam(c, beam, 3, keep=keep)
        seeded = label_units(c.activations, c.labels, c.names, **options)[0].best.auc
        greedy = label_units(c.activations, c.labels, c.names, exact_pairs=False, **options)[0].best.auc
        assert seeded >= plain
        assert seeded >= greedy >= plain - 1e-15
        better += seeded > plain
    assert better > 3  # what the pairs are for


def test_four_literals_are_never_below_three() -> None:
    for seed in range(12):
        c = case(seed)
        found = [
            label_units(c.activations, c.labels, c.names, length=n, min_fraction=0, holdout=0, progress=False)[0].best.auc
            for n in (1, 2, 3, 4)
        ]  # fmt: skip
        assert found == sorted(found)


@pytest.mark.parametrize("exact_pairs", [True, False])
def test_no_two_formulas_have_the_same_truth_and_none_has_a_literal_too_many(exact_pairs: bool) -> None:
    for seed in range(30):
        c = case(seed)
        label = label_units(
            c.activations, c.labels, c.names, top=15, exact_pairs=exact_pairs, holdout=0, progress=False
        )[0]
        truths = [tuple(one.formula.evaluate(c.labels, c.names).tolist()) for one in label.formulas]
        assert len(set(truths)) == len(truths) == 15
        best = shortest(all_formulas(c.labels))
        for one, truth in zip(label.formulas, truths, strict=True):
            assert one.auc == auc(c.activations, np.array(truth))
            if exact_pairs and truth in best:
                assert spelled(one.formula) == best[truth]
            for i in range(one.formula.length if one.formula.length > 1 else 0):
                rest = one.formula.without(i)
                assert rest is not None
                assert tuple(rest.evaluate(c.labels, c.names).tolist()) != truth
        scores = [one.auc for one in label.formulas]
        assert scores == sorted(scores, reverse=True)


def test_blocks_of_units_concepts_and_candidates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((120, 14)) < 0.4
    names = [f"c{k}" for k in range(14)]
    activations = np.round(labels @ rng.normal(size=(14, 9)) + rng.normal(size=(120, 9)), 1)
    whole = label_units(activations, labels, names, progress=False)
    monkeypatch.setattr(search_module, "CHUNK", 150)
    monkeypatch.setattr("absence_plugins.methods.invert.labels.CHUNK", 250)
    monkeypatch.setattr("absence_plugins.methods.invert.labels.TOGETHER", 2)
    for name, value in (("HELD", 10), ("ACROSS", 16), ("TOGETHER", 5)):
        monkeypatch.setattr(table_module, name, value)
    monkeypatch.setattr(pairs_module, "CHUNK", 150)
    monkeypatch.setattr(search_module, "WIDE", 1)
    monkeypatch.setattr(ranking_module, "FIRST", 2)
    monkeypatch.setattr(ranking_module, "TOGETHER", 3)
    assert label_units(activations, labels, names, progress=False).to_dict() == whole.to_dict()
    single = [label_units(activations[:, u], labels, names, progress=False)[0] for u in range(9)]
    assert [one.best.formula for one in single] == [one.best.formula for one in whole]


def test_many_concepts_of_the_same_truth_do_not_crowd_out_others() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random((60, 4)) < 0.4
    many = np.concatenate([np.repeat(labels[:, :1], 150, 1), labels[:, 1:]], 1)
    activations = labels[:, 0] + 0.5 * labels[:, 1] + rng.normal(size=60)
    few = label_units(activations, labels, [f"c{k}" for k in range(4)], top=20, holdout=0, progress=False)[0]
    names = [f"c{k}" for k in (0, *range(1001, 1150), 1, 2, 3)]
    crowded = label_units(activations, many, names, top=20, holdout=0, progress=False)[0]
    assert [str(one.formula) for one in crowded.formulas] == [str(one.formula) for one in few.formulas]


def test_equal_rows_are_merged_also_when_their_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    labels = rng.random((500, 130)) < 0.5
    labels[250:] = labels[:250]
    for multiplier in (bits_module.MULTIPLIER, 0):  # with 0 all hashes are equal
        monkeypatch.setattr(bits_module, "MULTIPLIER", multiplier)
        rows, row_of = merge_rows(labels)
        assert len(rows) == 250
        assert np.array_equal(unpack(rows.true, 250).T[row_of], labels)


def test_the_planted_formula_is_found_among_many_concepts() -> None:
    rng = np.random.default_rng(3)
    labels = rng.random((2000, 60)) < 0.3
    names = [f"concept {k}" for k in range(60)]
    truth = (labels[:, 7] | labels[:, 9]) & ~labels[:, 30]
    unit = truth + rng.normal(scale=0.2, size=2000)
    best = label_units(torch.tensor(unit), labels, names, progress=False)[0].best
    assert str(best.formula) == "(concept 7 OR concept 9) AND NOT concept 30"
    assert [one.concept for one in best.negations] == ["concept 30"]
    assert best.negations[0].heldout_worth > 0.05


def test_a_dead_unit_does_not_make_the_search_look_at_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    best_first = ranking_module._best_first

    def counting(numbers: torch.Tensor, values: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index, value in best_first(numbers, values):
            looked_at.append(len(index))
            yield index, value

    monkeypatch.setattr(ranking_module, "_best_first", counting)
    labels = np.random.default_rng(0).random((100, 120)) < 0.4
    names = [f"c{k}" for k in range(120)]
    label = label_units(np.zeros(100), labels, names, progress=False)[0]
    assert [str(one.formula) for one in label.formulas] == names[:5]
    assert sum(looked_at) < 10_000  # there are 57,120 formulas of two literals


@pytest.mark.parametrize("samples", [150_000, 200_000])  # one product carries both sums, and one does no longer
def test_sums_beyond_32_bits_are_exact(samples: int) -> None:
    rng = np.random.default_rng(samples)
    labels = rng.random((samples, 5)) < 0.3
    activations = np.round(labels[:, 0] * 1.0 - labels[:, 3] * labels[:, 1] + rng.normal(size=samples), 2)
    label = label_units(activations, labels, [f"c{k}" for k in range(5)], holdout=0, progress=False)[0]
    for one in label.formulas:
        truth = one.formula.evaluate(labels, [f"c{k}" for k in range(5)])
        assert one.auc == float(auroc(activations, truth[:, None])[0])
    assert label.best.formula.length == 3


def test_pairs_that_are_better_by_chance_leave_the_concept_to_the_shortest_description() -> None:
    """Of 20,000 pairs of concepts that the unit knows nothing of, dozens that fail on a handful of samples have a higher
    AUC than the one concept that it follows: c0 has to be among those that are judged.
    """
    rng = np.random.default_rng(0)
    labels = rng.random((4000, 200)) < rng.uniform(0.02, 0.5, 200)
    labels[:, 0] = rng.random(4000) < 0.3
    unit = torch.from_numpy(rng.normal(size=4000) + 0.5 * labels[:, 0])
    names = [f"c{k}" for k in range(200)]
    for exact_pairs in (True, False):
        options = {"exact_pairs": exact_pairs, "progress": False}
        (found,) = label_units_as_they_are_named(unit, torch.from_numpy(labels), names, **options)
        assert str(found.best.formula) == "c0"
        assert found.best.p is not None
        assert found.best.p < 1e-15
