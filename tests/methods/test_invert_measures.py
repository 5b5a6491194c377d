"""Formulas chosen by AUC, AUPRC, F1, IoU and correlation: the proven best of three and four literals by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from absence_plugins.methods.invert import label_units, name_scores, sanity_test
from absence_plugins.methods.invert.measures import SCORES

NAMES = [f"c{k}" for k in range(8)]
NAN = float("nan")


def case(seed: int, samples: int, concepts: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random((samples, concepts)) < rng.uniform(0.15, 0.85, concepts)
    if seed % 3 == 0:
        labels[:, 1], labels[:, 2] = labels[:, 0], ~labels[:, 3]  # a repeated concept, and a complement
    labels[0], labels[1] = True, False
    truth = (labels[:, 4] & ~labels[:, 5]) | (labels[:, 3] & labels[:, 0])
    return np.round(truth * rng.uniform(0, 2) + rng.normal(size=samples), seed % 2), labels


def all_truths(true: np.ndarray, false: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where every formula of up to ``length`` different concepts holds, and fails, [M, N] each: every way to join them."""
    bits = 1 << np.arange(len(true), dtype=object)
    columns = [
        (int(bits @ t.astype(object)), int(bits @ f.astype(object))) for t, f in zip(true.T, false.T, strict=True)
    ]
    levels = {1: {(*side, 1 << k) for k, (t, f) in enumerate(columns) for side in ((t, f), (f, t))}}
    for n in range(2, length + 1):
        levels[n] = set()
        for i in range(1, n // 2 + 1):
            for (a, b, one), (c, d, other) in itertools.product(levels[i], levels[n - i]):
                if not one & other:
                    levels[n] |= {(a & c, b | d, one | other), (a | c, b & d, one | other)}
    both = list({truth[:2] for level in levels.values() for truth in level})
    unpacked = [[[one >> i & 1 for i in range(len(true))] for one in side] for side in zip(*both, strict=True)]
    return np.array(unpacked[0], bool), np.array(unpacked[1], bool)


def plain(score: str, values: np.ndarray, threshold: float | None, true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """The score of many formulas, written as in textbooks."""
    t, f = true.astype(float), false.astype(float)
    n1, n0 = t.sum(1), f.sum(1)
    if score == "auc":
        wins = (values[:, None] > values) + 0.5 * (values[:, None] == values)
        return np.einsum("mi,ij,mj->m", t, wins, f, optimize=True) / (n1 * n0)
    if score == "correlation":
        known, n = t + f, n1 + n0
        mean, share = known @ values / n, n1 / n
        covariance = t @ values / n - mean * share
        return covariance / np.sqrt((known @ values**2 / n - mean**2) * share * (1 - share))
    if score == "auprc":
        above = (values >= values[:, None]).astype(float)  # of each threshold, who is at or above it
        precision = (t @ above.T) / np.maximum(1, (t + f) @ above.T)
        return ((t * precision).sum(1) / n1 - n1 / (n1 + n0)) / (n0 / (n1 + n0))
    fires = values >= threshold
    hits, alarms = t @ fires, f @ fires
    return hits / (n1 + alarms) if score == "iou" else 2 * hits / (n1 + hits + alarms)


def best_of(score: str, values: np.ndarray, threshold: float | None, labels: np.ndarray, length: int, low: float, high: float, support: int) -> float:  # fmt: skip
    """The highest score of all formulas within the bounds."""
    true, false = all_truths(labels == 1, labels == 0, length)
    n1, n0 = true.sum(1), false.sum(1)
    share = n1 / np.maximum(1, n1 + n0)
    allowed = (n1 >= support) & (n0 >= support) & (share >= low - 1e-9) & (share <= high + 1e-9)
    return float(plain(score, values, threshold, true[allowed], false[allowed]).max())


@pytest.mark.parametrize("score", SCORES)
def test_the_proven_best_of_three_literals_is_that_of_brute_force(score: str) -> None:
    for seed, mode in ((0, "positive"), (1, "negative"), (2, "positive"), (3, "negative")):
        values, labels = case(seed, 40, 6)
        low, high = [(0.0, 1.0), (0.1, 1.0), (0.2, 0.6)][seed % 3]
        label = label_units(
            values, labels, NAMES[:6], score=score, search="certified", min_fraction=low, max_fraction=high, mode=mode,
            min_support=1, prefer="score", holdout=0, progress=False,
        )[0]  # fmt: skip
        signed, sign = (values, 1) if mode == "positive" else (-values, -1)
        threshold = None if label.threshold is None else sign * label.threshold
        assert (threshold is None) == (score not in ("f1", "iou"))
        expected = best_of(score, signed, threshold, labels, 3, low, high, 1)
        assert label.certified
        assert label.best.score == pytest.approx(expected, abs=1e-12), (seed, mode)
        assert label.bound == pytest.approx(expected, abs=1e-12)
        for one in label.formulas:
            truth = one.formula.evaluate(labels, NAMES[:6]).numpy()[None]
            assert one.score == pytest.approx(plain(score, signed, threshold, truth, ~truth)[0], abs=1e-12)


@pytest.mark.parametrize("score", ["auc", "f1", "iou", "correlation"])
def test_the_proven_best_of_four_literals_is_that_of_brute_force(score: str) -> None:
    longest = 0
    for seed, concepts in enumerate((6, 7, 8)[: 3 if score == "auc" else 2]):
        values, labels = case(seed + 1, 40, concepts)
        label = label_units(
            values, labels, NAMES[:concepts], length=4, score=score, search="certified", min_fraction=0.1, min_support=1,
            prefer="score", holdout=0, progress=False,
        )[0]  # fmt: skip
        assert label.certified
        expected = best_of(score, values, label.threshold, labels, 4, 0.1, 1.0, 1)
        assert label.best.score == pytest.approx(expected, abs=1e-12), seed
        longest = max(longest, label.best.formula.length)
    assert longest == 4


@pytest.mark.parametrize("score", SCORES)
def test_unknown_labels_take_no_part(score: str) -> None:
    rng = np.random.default_rng(1)
    for seed in range(2):
        labels = rng.choice([0.0, 1.0, NAN], (50, 4), p=[0.5, 0.3, 0.2])
        values = np.round((labels[:, 0] == 1) - 1.0 * (labels[:, 1] == 1) + rng.normal(size=50), seed % 2)
        label = label_units(
            values, labels, NAMES[:4], score=score, search="certified", min_support=2, min_fraction=0.1, prefer="score", holdout=0,
            progress=False,
        )[0]  # fmt: skip
        assert label.certified
        expected = best_of(score, values, label.threshold, labels, 3, 0.1, 1.0, 2)
        assert label.best.score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("length", [3, 4])
@pytest.mark.parametrize("score", ["auc", "f1", "iou", "correlation"])
def test_a_budget_that_ends_leaves_a_bound_that_holds(score: str, length: int) -> None:
    below = 0
    for seed in (1, 2):
        values, labels = case(seed, 120, 8)
        options = {
            "length": length,
            "score": score,
            "search": "certified",
            "prefer": "score",
            "min_fraction": 0.3,
            "max_fraction": 0.7,
        }
        proven = label_units(values, labels, NAMES, holdout=0, progress=False, **options)[0]
        for budget in (1, 64 * 21 + (832 * 35 if length == 4 else 0) + 64 * 15):
            cut = label_units(values, labels, NAMES, holdout=0, progress=False, budget=budget, **options)[0]
            assert cut.bound >= proven.bound - 1e-12
            assert cut.best.score <= proven.best.score + 1e-12
            assert cut.certified == (cut.gap == 0)
            below += cut.bound < 1
    assert below > 0  # it says something


@pytest.mark.parametrize("score", SCORES)
def test_a_formula_on_which_the_unit_is_low_is_not_its_name(score: str) -> None:
    generator = torch.Generator().manual_seed(0)
    c = torch.rand(600, 3, generator=generator) < torch.tensor([0.25, 0.5, 0.5])
    unit = torch.randn(600, generator=generator) - 4 * c[:, 0] + 1.5 * (c[:, 1] & c[:, 2])
    found = label_units(unit, c, ["wet", "dog", "ball"], score=score, length=2, max_fraction=0.3, progress=False)[0]
    assert str(found.best.formula) == "dog AND ball"  # "wet" has an AUC near 0
    assert found.best.heldout_auc > 0.6


def test_a_bound_that_is_reached_is_a_certificate_without_a_search() -> None:
    _, labels = case(1, 200, 8)
    truth = labels[:, 0] & ~labels[:, 3]
    for score in ("auc", "iou", "f1", "correlation"):
        found = label_units(truth, labels, NAMES, score=score, search="certified", budget=1, holdout=0, progress=False)[
            0
        ]
        assert found.certified, score
        assert found.bound == pytest.approx(1.0)
    noisy = truth + np.random.default_rng(0).normal(size=200)
    cut = label_units(noisy, labels, NAMES, search="certified", budget=1, holdout=0, progress=False)
    assert not cut[0].certified
    assert cut[0].bound == pytest.approx(1.0)
    assert "bounded by 1 only, which excludes nothing" in cut.table()


def test_a_planted_formula_is_found_by_every_score_and_judged_on_the_held_out_half() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((800, 8)) < np.r_[0.4, 0.4, rng.uniform(0.05, 0.5, 6)]
    truth = labels[:, 0] & ~labels[:, 1]
    values = 4.0 * truth + rng.normal(size=800)
    for score in SCORES:
        for search in ("auto", "beam"):
            found = label_units(values, labels, NAMES, score=score, search=search, progress=False)
            best = found[0].best
            assert str(best.formula) == "c0 AND NOT c1", score
            assert best.q < 1e-6
            assert best.negations[0].q < 1e-3
            assert best.score == (best.auc if score == "auc" else pytest.approx(best.score))
            assert abs(best.heldout_score - best.score) < 0.1
            assert 0 < best.score <= 1
        whole = name_scores(values, truth)
        if score in ("f1", "iou"):
            assert 0.5 < found[0].threshold < 3.5
            assert best.score <= whole[score] + 0.05  # at the best threshold of all
        assert found.to_dict()["units"][0]["formulas"][0]["heldout_score"] == best.heldout_score
        assert (f"chosen by {'IoU' if score == 'iou' else ''}" in found.table()) or score != "iou"


def test_a_perfect_detector_of_a_rare_concept_is_named_by_it_alone() -> None:
    rng = np.random.default_rng(7)
    classes = rng.integers(0, 10, 1000)
    labels = classes[:, None] == np.arange(6)
    values = 9.0 * labels[:, 0] + 2.0 * labels[:, 1] + rng.normal(size=1000)  # some of c1, too
    for score in SCORES:
        best = label_units(values, labels, NAMES[:6], score=score, progress=False)[0].best
        assert str(best.formula) == "c0", score  # a union explains more of the variance of the ranks


def test_the_threshold_sees_the_searched_half_only() -> None:
    rng = np.random.default_rng(3)
    labels = rng.random((300, 5)) < 0.4
    values = torch.from_numpy(2.0 * labels[:, 0] + rng.normal(size=300))
    from absence_plugins.methods.invert.bits import merge_rows
    from absence_plugins.methods.invert.groups import split

    held = torch.from_numpy(split(*merge_rows(labels), 0.5, 0))
    one = label_units(values, labels, NAMES[:5], score="iou", progress=False)[0]
    moved = label_units(torch.where(held, -values, values), labels, NAMES[:5], score="iou", progress=False)[0]
    assert moved.threshold == one.threshold
    assert [each.formula for each in moved.formulas] == [each.formula for each in one.formulas]
    assert one.threshold in values[~held]
    constant = label_units(torch.ones(300), labels, NAMES[:5], score="f1", holdout=0, progress=False)[0]
    assert constant.threshold == 1.0
    counts = label_units((values > 1).byte(), labels, NAMES[:5], score="iou", mode="negative", progress=False)[0]
    assert counts.threshold == 0.0  # fires at 0
    assert str(counts.best.formula) == "NOT c0"


def test_the_scores_that_literature_says_pass_both_sanity_tests() -> None:
    rng = np.random.default_rng(5)
    failed = {}
    for score in SCORES:
        failed[score] = set()
        for share in (0.01, 0.05, 0.2):
            truth = rng.random(2000) < share
            values = truth + 0.2 * rng.normal(size=2000)
            test = sanity_test(values, truth, score, repeats=5)
            failed[score] |= {("missing", share)} if not test.notices_missing else set()
            failed[score] |= {("extra", share)} if not test.notices_extra else set()
    assert {score: sorted(tests) for score, tests in failed.items() if tests} == {
        "auc": [("missing", 0.01), ("missing", 0.05)]
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "cosine"}, "score='cosine' must be one of auc, auprc, f1, iou, correlation"),
        ({"score": "iou", "prefer": "auc"}, "prefer='auc' with score='iou': write prefer='score'"),
        (
            {"score": "correlation", "values": [0.0, float("inf")] * 20},
            "score='correlation' asks for finite activations",
        ),
        (
            {"min_support": 11},
            r"min_support=11 \(--min-support\): no formula can hold on so many samples, and fail on as many, of the 20.*at most 10 is",
        ),
        ({"length": 5, "search": "certified"}, "proves formulas of up to four literals, with exact_pairs; length=5"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    values = options.pop("values", [0.0, 1.0] * 20)
    with pytest.raises(ValueError, match=message):
        label_units(values, [[0, 1], [1, 0]] * 20, ["a", "b"], progress=False, **options)  # type: ignore[arg-type]
