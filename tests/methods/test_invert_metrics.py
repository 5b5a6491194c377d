"""Scores beside AUC, against scikit-learn's and scipy's, and what they notice."""

from __future__ import annotations

import numpy as np
import pytest

from absence_plugins.methods.invert import auroc, label_units, name_scores, sanity_test

NAN = float("nan")


def case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(80) < 0.3
    truth[:2] = [True, False]
    return np.round(truth + rng.normal(size=80), seed % 3), truth


def test_scores_are_those_of_plain_algebra() -> None:
    for seed in range(20):
        values, truth = case(seed)
        found = name_scores(values, truth)
        fires = [values >= threshold for threshold in np.unique(values)]
        hits = [(one & truth).sum() for one in fires]
        assert found["auc"] == float(auroc(values, truth[:, None])[0])
        assert found["iou"] == pytest.approx(max(h / (one | truth).sum() for h, one in zip(hits, fires, strict=True)))
        assert found["f1"] == pytest.approx(
            max(2 * h / (one.sum() + truth.sum()) for h, one in zip(hits, fires, strict=True))
        )
        assert found["correlation"] == pytest.approx(np.corrcoef(values, truth)[0, 1])
        recall = np.array(hits[::-1]) / truth.sum()
        precision = np.array([h / one.sum() for h, one in zip(hits, fires, strict=True)][::-1])
        assert found["auprc"] == pytest.approx((np.diff(recall, prepend=0) * precision).sum())


def test_unknown_samples_are_left_out() -> None:
    values, truth = case(0)
    told = np.where(np.arange(80) % 4 == 0, NAN, truth)
    known = ~np.isnan(told)
    assert name_scores(values, told) == name_scores(values[known], truth[known])


def test_auc_does_not_notice_missing_labels_of_a_rare_concept_and_the_others_do() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(2000) < 20
    values = truth + 0.1 * rng.random(2000)
    noticed = {score: sanity_test(values, truth, score) for score in name_scores(values, truth)}
    assert [score for score, one in noticed.items() if not one.notices_missing] == ["auc"]
    assert all(one.notices_extra for one in noticed.values())
    assert noticed["auc"].to_dict()["notices_missing"] is False
    assert sanity_test(values, truth, "f1", seed=1) == sanity_test(values, truth, "f1", seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "cosine"}, "score='cosine' must be one of auc, auprc, f1, iou, correlation"),
        ({"truth": [1, 1, 1, 1]}, "holds on every sample, or on none"),
        ({"truth": [1, 0, 0, 0]}, "holds on 1 samples and fails on 3; both need two"),
        ({"truth": [1, 0]}, "4 activations but 2 labels"),
        ({"activations": [[1.0, 2.0]] * 4}, "pass those of one unit"),
        ({"repeats": 0}, "repeats=0"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"activations": [1.0, 2.0, 3.0, 4.0], "truth": [1, 1, 0, 0], "score": "auc"}
    arguments = good | change
    with pytest.raises(ValueError, match=message):
        sanity_test(arguments.pop("activations"), arguments.pop("truth"), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 5e307])
def test_correlation_does_not_depend_on_the_scale(scale: float) -> None:
    values, truth = np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1])
    expected = np.corrcoef(values, truth)[0, 1]
    assert name_scores(scale * values, truth)["correlation"] == pytest.approx(
        expected, abs=1e-3 if scale < 1e-300 else 1e-12
    )
    assert name_scores(-scale * values, truth)["correlation"] == pytest.approx(-expected, abs=1e-3)
    units = scale * (np.random.default_rng(0).permutation(40) / 40)
    labels = units[:, None] > scale * np.array([0.3, 0.8])
    found = label_units(units, labels, ["a", "b"], score="correlation", holdout=0, progress=False)[0]
    assert found.best.score > 0.8


def test_infinite_activations_have_no_correlation() -> None:
    values, truth = [0.0, 1.0, float("inf")], [0, 0, 1]
    for call in (lambda: name_scores(values, truth), lambda: sanity_test([*values, 2.0], [0, 0, 1, 1], "correlation")):
        with pytest.raises(ValueError, match="infinite activations is not defined; clip them"):
            call()
    assert sanity_test([*values, 2.0], [0, 0, 1, 1], "auc").value == 1.0
    assert name_scores([0.1, 0.1, 0.1], truth)["correlation"] == 0.0
