"""Pairs that a sample excludes: the search ends at the formulas of the search of all pairs, and looks at far fewer."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.invert import UnitLabels, label_units
from absence_plugins.methods.invert import labels as labels_module
from absence_plugins.methods.invert import pairs as pairs_module
from absence_plugins.methods.invert import screening as screening_module
from absence_plugins.methods.invert.bits import merge_rows
from absence_plugins.methods.invert.ranking import Bounds
from absence_plugins.methods.invert.screening import Margins, Screen
from absence_plugins.methods.invert.table import Columns, columns_of

SAMPLES, CONCEPTS = 12_000, 48
SIZES = (2**10, 2**11, 2**12)


def draw_labels(kind: str, seed: int) -> np.ndarray:
    """[N, K], with as many distinct rows as there can be."""
    rng = np.random.default_rng(seed)
    n, k = SAMPLES, CONCEPTS
    if kind == "correlated":  # kinds of kinds, opposites, repeated concepts
        hidden = rng.normal(size=(n, 6)) @ rng.normal(size=(6, k)) + 0.7 * rng.normal(size=(n, k))
        labels = hidden > rng.normal(size=k)
        labels[:, 1] = labels[:, 0] & (rng.random(n) < 0.9)
        labels[:, 2] = ~labels[:, 3]
        labels[:, 5] = labels[:, 4]
    elif kind == "rare":
        labels = rng.random((n, k)) < rng.choice([0.004, 0.02, 0.1, 0.9], k)
        labels[:, [0, 7, 9]] = rng.random((n, 3)) < 0.3
    else:
        labels = rng.random((n, k)) < rng.uniform(0.1, 0.5, k)
    return labels


def draw_units(kind: str, truths: np.ndarray, seed: int) -> np.ndarray:
    """[N, U] that follow a pair, two alike concepts, the absence of one, and nothing."""
    rng = np.random.default_rng(seed)
    a, b, c = truths[:, 0], truths[:, 7], truths[:, 9]
    causes = np.stack([a & ~b, a | c, ~b, 0.6 * a + 0.58 * c, np.zeros(len(a))], 1)
    values = 4 * causes + 0.8 * rng.normal(size=causes.shape)
    if kind == "ties":
        return np.round(values)
    if kind == "sparse":  # a rectifier
        return np.maximum(values - 1.5, 0)
    return values


def name(values: np.ndarray, labels: np.ndarray, **options: Any) -> UnitLabels:
    names = [f"c{k}" for k in range(labels.shape[1])]
    return label_units(values, labels, names, search="beam", progress=False, **options)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Screens small problems; holds how many units all pairs of were scored."""
    monkeypatch.setattr(pairs_module, "FEW", 8)
    monkeypatch.setattr(pairs_module, "SIZES", SIZES)
    monkeypatch.setattr(pairs_module, "ROWS", 2)
    monkeypatch.setattr(pairs_module, "COVER", 1)
    monkeypatch.setattr(pairs_module, "WORTH", 1.0)
    monkeypatch.setattr(screening_module, "LOG", 10.0)  # samples are small, so what is excluded is less certain
    whole: list[int] = []
    score_all = pairs_module._score_all

    def counting(problem: pairs_module.Problem) -> None:
        whole.append(len(problem.rankings))
        score_all(problem)

    monkeypatch.setattr(pairs_module, "_score_all", counting)
    return whole


@pytest.mark.parametrize("kind", ["independent", "correlated", "rare"])
@pytest.mark.parametrize("values", ["dense", "ties", "sparse"])
@pytest.mark.parametrize(
    "options", [{"holdout": 0.0, "prefer": "auc", "top": 3, "beam": 2}, {"length": 2, "min_fraction": 0.0}]
)
def test_the_names_are_those_of_the_search_of_all_pairs(
    kind: str, values: str, options: dict[str, Any], small: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = draw_labels(kind, 0)
    units = draw_units(values, labels, 1)
    found = name(units, labels, **options)
    screened = sum(small)
    assert screened < units.shape[1]  # one at least was screened
    monkeypatch.setattr(pairs_module, "SIZES", ())
    small.clear()
    whole = name(units, labels, **options)
    assert sum(small) == units.shape[1]
    assert found.to_dict() == whole.to_dict()


def test_blocks_and_columns_of_a_ranking_change_nothing(small: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    labels = draw_labels("correlated", 2)
    units = draw_units("ties", labels, 3)
    for chunk in (8 * 5 * CONCEPTS, 8 * 1 * CONCEPTS):
        monkeypatch.setattr(pairs_module, "CHUNK", chunk)
        monkeypatch.setattr(pairs_module, "TABLES", chunk)
        monkeypatch.setattr(pairs_module, "SIZES", SIZES)
        found = name(units, labels, holdout=0.0)
        monkeypatch.setattr(pairs_module, "SIZES", ())
        assert found.to_dict() == name(units, labels, holdout=0.0).to_dict()


def test_a_clear_unit_scores_a_few_columns_only(small: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    score_rows = pairs_module._score_rows

    def counting(problem: pairs_module.Problem, own: Any, floors: Any) -> Any:
        asked.append(len(own))
        return score_rows(problem, own, floors)

    monkeypatch.setattr(pairs_module, "_score_rows", counting)
    labels = draw_labels("independent", 4)
    rng = np.random.default_rng(5)
    unit = 3.0 * (labels[:, 0] & ~labels[:, 7]) + 0.2 * rng.normal(size=SAMPLES)
    label = name(unit[:, None], labels, holdout=0.0, min_fraction=0.05, beam=2)[0]
    assert str(label.best.formula) == "c0 AND NOT c7"
    assert not small
    assert sum(asked) < CONCEPTS / 4


def test_a_unit_of_which_nothing_can_be_excluded_gets_all_pairs(
    small: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs_module, "COVER", 4)
    labels = draw_labels("independent", 6)
    units = np.random.default_rng(7).normal(size=(SAMPLES, 3))
    name(units, labels, holdout=0.0)
    assert small == [3]


def columns_from(labels: np.ndarray) -> Columns:
    bits, row_of = merge_rows(labels)
    columns = columns_of(bits, np.bincount(row_of), [f"c{k}" for k in range(labels.shape[1])], torch.device("cpu"))
    assert columns is not None
    return columns


@pytest.mark.parametrize("kind", ["independent", "correlated", "rare"])
def test_counts_of_pairs_are_those_of_the_samples(kind: str) -> None:
    columns = columns_from(draw_labels(kind, 8))
    holds = columns.values.double()
    assert torch.equal(columns.shared.double(), (holds * columns.weight) @ holds.T)


@pytest.mark.parametrize("kind", ["independent", "correlated", "rare"])
@pytest.mark.parametrize("seed", [0, 1])
def test_estimates_are_within_their_errors_and_no_pair_is_lost(kind: str, seed: int) -> None:
    labels = draw_labels(kind, 10 + seed)
    columns = columns_from(labels)
    n, j = SAMPLES, len(columns)
    rng = np.random.default_rng(seed)
    _, row_of = merge_rows(labels)
    holds = columns.values.double()
    bounds = Bounds.of(0.0, 1.0, 1, n)
    # a unit that puts its highest samples where one pair holds: the worst that the error allows for
    both = labels[:, 0] & labels[:, 8]
    holding = labels.astype(float)
    for values in (
        rng.normal(size=n),
        both + 1e-3 * rng.random(n),
        holding[:, 0] - holding[:, 8] + 1e-9 * rng.random(n),
    ):
        d = 2.0 * np.argsort(np.argsort(values)) - n + 1
        sums = torch.zeros(1, columns.rows, dtype=torch.float64).index_add_(
            1, torch.from_numpy(row_of), torch.from_numpy(d)[None]
        )
        literal = columns.products(sums)
        screen = Screen(columns, sums, literal, bounds, 2**11)
        true = (holds * sums) @ holds.T / n**2
        a, b = torch.triu_indices(j, j, 1)
        margins = screen._margins(a, b)
        edge, s = screen.edges[0], literal[0] / n**2
        sampled = (screen.drawn.truths[a].double() * screen.drawn.truths[b] * screen.levels[0]).sum(1)
        centered = sampled - margins.second * edge[a] - margins.first * (edge[b] - margins.second * edge[-1])
        estimate = centered * margins.scale + s[a] * margins.second + s[b] * margins.first
        assert bool(((estimate - true[a, b]).abs() <= margins.error).all())
        t = true[a, b]
        cells = torch.stack([t, s[a] - t, s[b] - t, t - s[a] - s[b]])
        score = (cells.abs() / margins.need).amax(0)  # AUC - 1/2, of the formula or its complement
        for floor in score.quantile(torch.tensor([0.5, 0.9, 0.999], dtype=torch.float64)).tolist():
            kept = screen.pairs([0], [floor])[0]
            high = {(int(x), int(y)) for x, y in zip(a[score >= floor], b[score >= floor], strict=True)}
            assert high <= {(int(x), int(y)) for x, y in kept.T}
            again = screen.among(0, kept, sorted({int(x) for x in kept[0]}), floor)
            assert high <= {(int(x), int(y)) for x, y in again.T}


def test_the_square_is_never_above_what_the_error_allows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = 400
        a, b = rng.random(n) < rng.uniform(0.02, 0.98), rng.random(n) < rng.uniform(0.02, 0.98)
        a[:2], b[:2] = (True, False), (False, True)
        if columns_from(np.stack([a, b], 1)).__len__() < 2:
            continue
        y = (a - a.mean()) * (b - b.mean())
        order = np.argsort(np.abs(y))
        x = np.empty(n)
        x[order] = np.sort(np.abs(2.0 * np.arange(n) - n + 1)) / n  # the largest |x| where |y| is the largest
        columns = columns_from(np.stack([a, b], 1))
        one = torch.tensor([0]), torch.tensor([1])
        margins = Margins.of(columns, *one, columns.shared[one].double(), Bounds.of(0.0, 1.0, 1, n), 10**9)
        # with so many samples the error is that of rounding, and of the square
        least = ((x * y) ** 2).mean() ** 0.5 * (2 * 50 / 1e9) ** 0.5
        assert float(margins.error) >= min(least, np.abs(y).mean())


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "exact_pairs=False (--no-exact-pairs)"),
        ({"search": "certified"}, "search='beam' (--search beam)"),
        ({"exact_pairs": False}, "fewer concepts"),
    ],
)
def test_what_takes_hours_is_said_after_the_first_units(
    options: dict[str, Any], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    labels, units = rng.random((60, 4)) < 0.4, rng.normal(size=(60, 5))
    names = list("abcd")
    monkeypatch.setattr(labels_module, "TOGETHER", 2)
    monkeypatch.setattr(labels_module, "CHUNK", 60)
    clock = iter(range(0, 10**9, 10**4))
    monkeypatch.setattr(labels_module.time, "perf_counter", lambda: float(next(clock)))
    with pytest.warns(AbsenceWarning, match="naming the 3 units that are left takes about 4.2 h") as told:
        label_units(units, labels, names, progress=False, **options)
    assert remedy in str(told[0].message)
    assert told[0].filename == __file__
    monkeypatch.setattr(labels_module, "HOUR", 10**9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label_units(units, labels, names, progress=False, **options)
