"""Three-valued labels: unknown is never absent."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from absence_plugins.methods.invert import Formula, auroc, expand_hypernyms, label_units, unknown
from absence_plugins.methods.invert.inputs import Truth, as_truth

NAN = float("nan")


def test_formulas_follow_kleenes_logic() -> None:
    rows = torch.tensor(list(itertools.product([0.0, 1.0, NAN], repeat=2)))
    for text, function in (
        ("a AND b", lambda a, b: False if False in (a, b) else None if None in (a, b) else True),
        ("a OR b", lambda a, b: True if True in (a, b) else None if None in (a, b) else False),
        ("NOT a", lambda a, b: None if a is None else not a),
        ("a AND NOT b", lambda a, b: False if a is False or b is True else None if None in (a, b) else True),
    ):
        truth = Formula.parse(text).truth(rows, ["a", "b"])
        for row, is_true, is_false in zip(rows.tolist(), truth.true.tolist(), truth.false.tolist(), strict=True):
            expected = function(*(None if v != v else bool(v) for v in row))
            assert (is_true, is_false) == (expected is True, expected is False), (text, row)


def test_a_formula_of_unknown_labels_is_evaluated_to_nan() -> None:
    values = Formula("a").evaluate([[1, 0], [None, 0], [0, 1]], ["a", "b"])
    assert values.tolist()[::2] == [1.0, 0.0]
    assert values[1].isnan()
    assert Formula("b").evaluate([[1, 0], [None, 1]], ["a", "b"]).dtype == torch.bool  # all of b is known
    assert not Formula("a").same_truth(Formula("b"), [[1, 1], [0, None]], ["a", "b"])


def test_auroc_leaves_unknown_samples_out() -> None:
    rng = np.random.default_rng(0)
    for seed in range(30):
        values = torch.from_numpy(np.round(rng.normal(size=(40, 2)), seed % 2))
        labels = torch.from_numpy(rng.choice([0.0, 1.0, NAN], (40, 3)))
        labels[:2] = torch.tensor([[0.0], [1.0]])
        scores = auroc(values, labels)
        for k in range(3):
            known = ~labels[:, k].isnan()
            torch.testing.assert_close(
                scores[:, k], auroc(values[known], labels[known, k : k + 1])[:, 0], rtol=0, atol=0
            )


def test_a_parent_is_present_if_a_child_is_and_unknown_if_one_is_unknown() -> None:
    rows = [[1, NAN], [0, NAN], [0, 0], [NAN, NAN], [0, 1]]
    labels, names = expand_hypernyms(rows, ["cat", "dog"], {"cat": "pet", "dog": "pet"})
    assert names == ("cat", "dog", "pet")
    assert str(labels[:, 2].tolist()) == "[1.0, nan, 0.0, nan, 1.0]"
    own, _ = expand_hypernyms([[1, 0], [0, NAN], [NAN, 0]], ["cat", "pet"], {"cat": "pet"})
    assert str(own[:, 1].tolist()) == "[1.0, nan, 0.0]"  # a parent that is known to be absent stays so
    assert expand_hypernyms([[1, 0], [0, 0]], ["cat", "dog"], {"cat": "pet"})[0].dtype == torch.bool


def test_what_is_no_label_is_named() -> None:
    for wrong, message in (
        ([[0, -1]], r"concepts\[0, 1\] is -1; labels must be 0 or 1, and NaN where they are unknown"),
        ([[0.5, 1.0]], "is 0.5"),
        ([["a", 1]], "concepts must be a tensor or array of numbers"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            as_truth(wrong)
    with pytest.raises(ValueError, match="concept 1 is unknown on every sample"):
        auroc([1.0, 2.0], [[0, NAN], [1, NAN]])
    with pytest.raises(ValueError, match="concept 1 holds on every sample on which it is known"):
        auroc([1.0, 2.0], [[0, NAN], [1, 1]])
    truth = as_truth(np.array([[1, None], [0, 1]], dtype=object))
    assert isinstance(truth, Truth)
    assert truth.known.tolist() == [[True, False], [True, True]]


def brute(values: np.ndarray, labels: np.ndarray, low: float, high: float, support: int, length: int) -> float:
    """The best AUC of two or three different concepts, by counting pairs on the samples on which a formula is known."""
    columns = [Truth(labels[:, k] == 1, labels[:, k] == 0) for k in range(labels.shape[1])]
    levels = [[({k}, side) for k, one in enumerate(columns) for side in (one, ~one)]]
    for _ in range(1, length):
        levels.append([
            (names | more, op(one, two))
            for (names, one), (more, two) in itertools.product(levels[-1], levels[0])
            for op in (Truth.__and__, Truth.__or__)
            if not names & more
        ])  # fmt: skip
    best = 0.0
    for _, truth in itertools.chain(*levels):
        n1, n0 = int(truth.true.sum()), int(truth.false.sum())
        if min(n1, n0) >= support and low * (n1 + n0) - 1e-9 <= n1 <= high * (n1 + n0) + 1e-9:
            one, two = values[truth.true][:, None], values[truth.false][None]
            best = max(best, float(((one > two) + 0.5 * (one == two)).mean()))
    return best


def test_the_search_leaves_unknown_samples_out_of_each_formula_and_equals_brute_force() -> None:
    rng = np.random.default_rng(1)
    for seed in range(14):
        length = 3 if seed % 4 == 0 else 2
        labels = rng.choice([0.0, 1.0, NAN], (60, 4 if length == 3 else 5), p=[0.5, 0.3, 0.2])
        names = list("abcde")[: labels.shape[1]]
        values = np.round((labels[:, 0] == 1) - 1.0 * (labels[:, 1] == 1) + rng.normal(size=60), seed % 2)
        low, high = [(0.0, 1.0), (0.2, 1.0), (0.1, 0.6)][seed % 3]
        found = label_units(
            values, labels, names, length=length, min_fraction=low, max_fraction=high, min_support=2, search="certified", holdout=0,
            prefer="auc", progress=False,
        )[0]  # fmt: skip
        assert found.gap == 0.0
        assert found.best.auc == pytest.approx(brute(values, labels, low, high, 2, length), abs=1e-12)
        for one in found.formulas:
            truth = one.formula.truth(labels, names)
            score = auroc(values[truth.known], truth.true[truth.known][:, None])
            assert one.auc == float(score[0])
            assert one.fraction == pytest.approx(float(truth.true.sum() / truth.known.sum()))
        truths = [one.formula.truth(labels, names) for one in found.formulas]
        keys = {(tuple(t.true.tolist()), tuple(t.false.tolist())) for t in truths}
        assert len(keys) == len(truths)


def test_three_literals_are_searched_where_no_pair_is_within_the_bounds() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([[i >> k & 1 for k in range(3)] for i in range(8)] * 50, float)
    values = ((labels[:, 0] + labels[:, 1] > 0) & (labels[:, 2] > 0)) * 2 + rng.normal(size=400)
    hardly = np.full((400, 1), NAN)
    hardly[:2, 0] = 0, 1
    options = {"min_fraction": 0.37, "max_fraction": 0.38, "holdout": 0, "prefer": "auc", "progress": False}
    known = label_units(values, labels, list("abc"), search="certified", **options)[0]
    told = label_units(values, np.hstack([labels, hardly]), list("abcd"), search="certified", **options)[0]
    assert str(told.best.formula) == str(known.best.formula) == "c AND (a OR b)"
    assert told.gap == 0.0
    assert told.best.auc == known.best.auc
    with pytest.raises(ValueError, match=r"no formula of up to 3 concepts that the search found \(search='certified'"):
        label_units(values, np.hstack([labels, hardly]), list("abcd"), search="beam", **options)


def test_no_concept_stands_twice_in_a_formula() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 8)) < 0.4).astype(float)
    values = labels[:, :1] + rng.normal(size=(200, 3))
    labels[rng.random(labels.shape) < 0.3] = NAN  # a OR NOT a would choose who was verified for a
    for options in ({}, {"search": "beam", "length": 4}, {"search": "beam", "exact_pairs": False}):
        for one in label_units(values, labels, [f"c{k}" for k in range(8)], prefer="auc", progress=False, **options):
            for each in one.formulas:
                names = [name for name, _ in each.formula.literals]
                assert len(set(names)) == len(names)


def test_screening_many_candidates_finds_the_planted_name(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    truth = rng.random((400, 10)) < 0.4
    labels = np.where(rng.random(truth.shape) < 0.15, NAN, truth)
    values = (truth[:, 3] & ~truth[:, 7]) + 0.3 * rng.normal(size=400)
    names = [f"c{k}" for k in range(10)]
    whole = label_units(values, labels, names, length=2, progress=False)[0]
    assert str(whole.best.formula) == "c3 AND NOT c7"
    assert whole.best.q < 1e-6
    assert whole.best.negations[0].q < 1e-4
    monkeypatch.setattr(unknown, "CHEAP", 1)
    monkeypatch.setattr(unknown, "SCREENED", 40)
    monkeypatch.setattr(unknown, "CHUNK", 1000)
    screened = label_units(values, labels, names, length=2, progress=False)[0]
    assert screened.best == whole.best


def test_unknown_is_not_absent() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(600) < 0.5
    values = torch.from_numpy(truth + 0.2 * rng.normal(size=600))
    told = np.where(rng.random(600) < 0.5, NAN, truth)[:, None]  # half of the labels are missing
    found = label_units(values, told, ["c"], progress=False)[0].best
    as_absent = label_units(values, np.nan_to_num(told), ["c"], progress=False)[0].best
    assert found.heldout_auc > 0.99
    assert as_absent.heldout_auc < 0.9
