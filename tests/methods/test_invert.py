"""INVERT's score, formulas and labels: exact fractions, planted absences, calibration, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, kstest, mannwhitneyu

from absence_plugins.methods.invert import Formula, auroc, label_units
from absence_plugins.methods.invert.scores import rank_sums
from absence_plugins.methods.invert.significance import permutation_p


def tie_heavy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 90))
    activations = rng.integers(0, rng.integers(1, 12) + 1, n).astype(
        [np.float32, np.float64, np.int64, np.uint8][seed % 4]
    )
    labels = rng.random((n, 3)) < rng.uniform(0.1, 0.9, 3)
    labels[0], labels[-1] = True, False
    return activations, labels


def test_auroc_is_mann_whitneys_fraction_on_300_tie_heavy_cases() -> None:
    for seed in range(300):
        activations, labels = tie_heavy(seed)
        scores = auroc(torch.from_numpy(activations), torch.from_numpy(labels))
        assert scores.dtype == torch.float64
        for k in range(3):
            truth = labels[:, k]
            u = mannwhitneyu(activations[truth], activations[~truth]).statistic
            exact = Fraction(float(u)) / (int(truth.sum()) * int((~truth).sum()))
            assert float(scores[k]) == float(exact)  # the fraction, rounded once
            assert Fraction(float(scores[k])).limit_denominator(10**6) == exact


def test_the_p_value_of_large_counts_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for levels in (3, 50, 10_000):
        activations, truth = rng.integers(0, levels, 6000).astype(float), rng.random(6000) < 0.4
        values = rank_sums(torch.from_numpy(activations)[None], torch.arange(6000), 6000)[0][0].numpy()
        expected = mannwhitneyu(
            activations[truth], activations[~truth], alternative="greater", method="asymptotic"
        ).pvalue
        assert permutation_p(values, truth) == pytest.approx(expected, rel=0.02)


def test_many_units_are_one_table_and_only_the_order_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(200, 7, generator=generator, dtype=torch.float64).round(decimals=1)
    labels = torch.rand(200, 4, generator=generator) < 0.3
    scores = auroc(activations, labels)
    assert scores.shape == (7, 4)
    for u in range(7):
        assert torch.equal(scores[u], auroc(activations[:, u], labels))
    for increasing in (lambda x: 12 * x + 30, torch.exp, lambda x: x**3, torch.atan):
        assert torch.equal(auroc(increasing(activations), labels), scores)
    torch.testing.assert_close(auroc(-activations, labels), 1 - scores, rtol=0, atol=1e-15)
    infinite = activations.clone()
    infinite[activations == activations.max()] = torch.inf
    assert torch.equal(auroc(infinite, labels), scores)
    for dtype in (torch.uint8, torch.int64, torch.float32, torch.bool):
        assert torch.equal(auroc(activations, labels.to(dtype)), scores)
    assert torch.equal(auroc(activations.half(), labels), auroc(activations.half().double(), labels))


def test_a_large_number_of_samples_stays_exact() -> None:
    n = 300_000  # n1 n0 is above 2^32, and the sums above float32's whole numbers
    values = torch.arange(n, dtype=torch.float64)
    truth = values % 3 == 0
    score = float(auroc(values, truth[:, None])[0])
    positive = torch.arange(0, n, 3)
    u = int((positive - torch.arange(len(positive))).sum())
    assert score == float(Fraction(u, len(positive) * (n - len(positive))))


names = st.text(max_size=6) | st.sampled_from(
    ["AND", "OR", "NOT", "black dog", "not", "c1", "c11", "(", '"', "a\\", " "]
)
formulas = st.recursive(
    st.builds(Formula, names, st.booleans()),
    lambda inner: st.tuples(inner, inner, st.booleans()).map(lambda p: p[0] & p[1] if p[2] else p[0] | p[1]),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(formulas)
def test_a_printed_formula_is_read_back(formula: Formula) -> None:
    assert Formula.parse(str(formula)) == formula
    assert ~~formula == formula
    assert formula & formula == formula == formula | formula


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=5))
def test_simplifying_and_negating_keep_the_truth(steps: list[tuple[int, bool, bool]]) -> None:
    labels = torch.tensor([[i >> k & 1 for k in range(4)] for i in range(16)], dtype=torch.bool)
    columns = ["a", "b", "c", "d"]
    formula, truth = Formula("a"), labels[:, 0]
    for k, negated, is_and in steps:
        literal, value = Formula(columns[k], negated), labels[:, k] ^ negated
        formula, truth = (formula & literal, truth & value) if is_and else (formula | literal, truth | value)
    assert torch.equal(formula.evaluate(labels, columns), truth)
    assert torch.equal((~formula).evaluate(labels, columns), ~truth)
    assert torch.equal(formula.ordered({n: k for k, n in enumerate(columns)}).evaluate(labels, columns), truth)


def test_a_formula_reads_well_and_counts() -> None:
    dog, leash, cat = Formula("black dog"), Formula("leash"), Formula("cat")
    formula = (dog | cat) & ~leash
    assert str(formula) == "(black dog OR cat) AND NOT leash"
    assert repr(formula) == "Formula('(black dog OR cat) AND NOT leash')"
    assert (formula.length, formula.negations, formula.names) == (3, 1, ("black dog", "cat", "leash"))
    assert formula == ~leash & (cat | dog)
    assert len({formula, ~leash & (cat | dog)}) == 1
    assert Formula.parse("a OR b AND NOT c") == Formula("a") | (Formula("b") & ~Formula("c"))
    assert Formula.parse("NOT (a OR NOT b)") == ~Formula("a") & Formula("b")
    assert (dog & (dog | cat)) == dog  # absorbed
    assert (dog & leash & dog).length == 2
    assert str(formula.without(2)) == "black dog OR cat"
    assert dog.without(0) is None
    assert formula.to_dict()["literals"][2] == ["leash", True]
    labels = [[1, 0], [1, 1]]
    assert not Formula("x").same_truth(Formula("y"), labels, ["x", "y"])
    assert Formula("y").same_truth(Formula("x") & Formula("y"), labels, ["x", "y"])
    with pytest.raises(AttributeError):
        formula.name = "other"  # type: ignore[misc]


def test_names_are_never_replaced_inside_each_other() -> None:
    labels = torch.tensor([[1, 0], [0, 1]])
    assert Formula("c11").evaluate(labels, ["c1", "c11"]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a concept expected at character 0, found the end"),
        ("a AND", "a concept expected at character 5, found the end"),
        ("(a OR b", "a closing parenthesis expected"),
        ("a) AND b", "AND, OR or the end expected at character 1, found '\\)'"),
        ("a OR OR b", "a concept expected at character 5, found 'OR'"),
        ('"a', "a quote is opened at character 0 and not closed"),
        ('a "b"', "AND, OR or the end expected"),
        ('"\\x"', "cannot be read"),
    ],
)
def test_what_is_no_formula_is_shown_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Formula.parse(text)


def test_bad_formulas_are_refused() -> None:
    with pytest.raises(ValueError, match="concept 'dgo' of dgo is not among the names; there are: dog"):
        Formula("dgo").evaluate([[1, 0]], ["dog", "leash"])
    with pytest.raises(TypeError, match="name must be a string, got 3"):
        Formula(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Formula("a") & "b"  # type: ignore[operator]
    with pytest.raises(TypeError, match="parsed from a string"):
        Formula.parse(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="literal 2 does not exist"):
        Formula("a").without(2)
    with pytest.raises(ValueError, match="build chains with & and"):
        Formula(operator="XOR", parts=(Formula("a"), Formula("b")))


def planted(seed: int = 0, samples: int = 1200) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Unit 0: NOT of a rare concept; unit 1: dog AND NOT leash; unit 2: a concept; unit 3: noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(samples, 5, generator=generator) < torch.tensor([0.5, 0.4, 0.03, 0.3, 0.5])
    names = ["grass", "dog", "rare", "leash", "indoors"]
    truths = torch.stack([~labels[:, 2], labels[:, 1] & ~labels[:, 3], labels[:, 0], torch.zeros(samples) > 0], 1)
    return truths + 0.3 * torch.randn(samples, 4, generator=generator), labels, names


def test_a_planted_absence_is_found_and_named() -> None:
    activations, labels, names = planted()
    found = label_units(activations, labels, names, length=2, progress=False)
    assert [str(one.best.formula) for one in found][:3] == ["NOT rare", "dog AND NOT leash", "grass"]
    rare, leash = found[0].best, found[1].best
    assert rare.fraction > 0.9  # what max_fraction=0.5 would hide
    assert rare.negations[0].worth == pytest.approx(rare.auc - 0.5)
    assert rare.negations[0].heldout_worth == pytest.approx(rare.heldout_auc - 0.5)
    only = next(
        one
        for one in label_units(activations, labels, names, length=1, holdout=0, progress=False)[1].formulas
        if str(one.formula) == "dog"
    )
    both = label_units(activations, labels, names, length=2, holdout=0, progress=False)[1].best
    assert both.negations[0].worth == pytest.approx(both.auc - only.auc)
    assert leash.negations[0].concept == "leash"
    assert found[1].absence == leash.negations[0]
    assert found[2].absence is None
    assert [one.unit for one in found.with_not()] == [0, 1] or [one.unit for one in found.with_not()] == [1, 0]
    assert all(one.best.q < 1e-3 for one in found[:3])
    assert found[3].best.q > 0.01
    limited = label_units(activations, labels, names, length=1, max_fraction=0.5, progress=False)
    assert "rare" not in str(limited[0].best.formula)


def test_the_negative_mode_names_where_a_unit_is_low() -> None:
    activations, labels, names = planted()
    low = label_units(activations, labels, names, mode="negative", progress=False)
    high = label_units(-activations, labels, names, progress=False)
    assert [one.formulas for one in low] == [one.formulas for one in high]
    assert low[1].mode == "negative"
    assert "low where it holds" in repr(low[1])
    truth = low[1].best.formula.evaluate(labels, names)
    assert activations[truth, 1].mean() < activations[~truth, 1].mean()


def test_held_out_scores_are_those_of_samples_that_took_no_part() -> None:
    activations, labels, names = planted(samples=301)
    found = label_units(activations, labels, names, holdout=0.3, seed=5, progress=False)
    assert (found.searched, found.heldout) in ((211, 90), (210, 91))
    p = [one.best.p for one in found]
    assert [one.best.q for one in found] == pytest.approx(list(false_discovery_control(p)))
    from absence_plugins.methods.invert.bits import merge_rows
    from absence_plugins.methods.invert.groups import split

    held = split(*merge_rows(labels.numpy()), 0.3, 5)
    for u, one in enumerate(found):
        truth = one.best.formula.evaluate(labels, names).numpy()
        unit = activations[:, u].numpy()
        test = mannwhitneyu(unit[held & truth], unit[held & ~truth], alternative="greater", method="exact")
        assert one.best.p == pytest.approx(test.pvalue, rel=1e-9 if (held & truth).sum() < 10 else 0.05)
        assert one.best.heldout_auc == pytest.approx(test.statistic / (held & truth).sum() / (held & ~truth).sum())
        assert one.best.auc == float(auroc(activations[~held, u], torch.tensor(truth)[~held, None])[0])
        assert one.best.heldout_fraction == pytest.approx(truth[held].mean())
    counts = labels.sum(0).numpy()
    for k in range(5):  # every concept is shared out, the rarest exactly
        assert abs(labels[held, k].sum() - 0.3 * counts[k]) < (1 if k == 2 else 4)


def test_the_same_seed_gives_the_same_bits_and_the_random_states_stay() -> None:
    activations, labels, names = planted(samples=300)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = label_units(activations, labels, names, seed=3, progress=False)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    again = label_units(activations, labels, names, seed=3, progress=False)
    assert first.to_dict() == again.to_dict()
    other = label_units(activations, labels, names, seed=4, progress=False)
    assert first.to_dict() != other.to_dict()
    increasing = label_units(torch.exp(activations.double()), labels, names, seed=3, progress=False)
    assert (
        increasing.to_dict()["units"]
        == label_units(activations.double(), labels, names, seed=3, progress=False).to_dict()["units"]
    )


@pytest.mark.slow
def test_p_values_of_winners_are_uniform_on_random_labels() -> None:
    p, naive, significant = [], [], 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = rng.random((200, 12)) < rng.uniform(0.2, 0.5, 12)
        activations = rng.normal(size=(200, 3))
        found = label_units(activations, labels, [f"c{k}" for k in range(12)], length=2, seed=seed, progress=False)
        p += [one.best.p for one in found]
        significant += any(one.best.q < 0.05 for one in found)
        searched = label_units(
            activations[:, 0], labels, [f"c{k}" for k in range(12)], length=2, holdout=0, progress=False
        )
        truth = searched[0].best.formula.evaluate(labels, [f"c{k}" for k in range(12)]).numpy()
        naive.append(mannwhitneyu(activations[truth, 0], activations[~truth, 0], alternative="greater").pvalue)
    assert kstest(p, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.085
    assert significant / 200 < 0.1  # Benjamini-Hochberg keeps 5 % of the runs
    assert np.mean(np.array(naive) < 0.05) > 0.5  # what a p-value on the samples of the search would claim


def test_without_held_out_samples_there_is_no_p_value_and_it_says_so() -> None:
    activations, labels, names = planted(samples=300)
    found = label_units(activations, labels, names, holdout=0, progress=False)
    best = found[1].best
    assert (best.p, best.q, best.heldout_auc, best.heldout_fraction) == (None, None, None, None)
    assert best.negations[0].heldout_worth is None
    assert best.negations[0].evidence == best.negations[0].worth
    assert "no p: nothing was held out" in repr(best)
    assert "no p- and q-values" in found.table()
    assert (found.searched, found.heldout) == (300, 0)


def test_a_concept_that_is_constant_in_the_searched_half_is_not_used() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 2), bool)
    labels[:20, 0] = True
    labels[7, 1] = True  # one sample: on one side of the split only
    for seed in range(8):
        found = label_units(rng.normal(size=40), labels, ["half", "one"], min_fraction=0, seed=seed, progress=False)
        for one in found[0].formulas:
            assert one.p is not None
            assert 0 <= one.p <= 1
            if one.heldout_auc is None:
                assert one.p == 1.0


def test_a_unit_that_never_changes_has_no_evidence() -> None:
    _, labels, names = planted(samples=100)
    best = label_units(torch.zeros(100), labels, names, progress=False)[0].best
    assert (best.auc, best.heldout_auc, best.p, best.q) == (0.5, 0.5, 1.0, 1.0)
    assert str(best.formula) == "grass"  # the shortest, then the first


def test_the_result_is_a_sequence_with_table_json_and_csv(tmp_path: object) -> None:
    activations, labels, names = planted(samples=300)
    found = label_units(activations, labels, ["grass, tall", *names[1:]], progress=False)
    assert len(found) == 4
    assert [one.unit for one in found] == [0, 1, 2, 3]
    assert found[-1] is found.units[3]
    assert len(found[1:3]) == 2
    table = found.table()
    assert table.splitlines()[0].split()[:3] == ["unit", "formula", "AUC"]
    assert "NOT leash +0." in table
    assert table in repr(found)
    assert json.loads(found.to_json(tmp_path / "labels.json")) == json.loads(json.dumps(found.to_dict()))  # type: ignore[operator]
    lines = list(csv.DictReader(io.StringIO(found.to_csv(tmp_path / "labels.csv"))))  # type: ignore[operator]
    assert (tmp_path / "labels.csv").read_text() == found.to_csv()  # type: ignore[operator]
    assert len(lines) == sum(len(one.formulas) for one in found)
    row = next(line for line in lines if line["unit"] == "1" and line["rank"] == "1")
    assert Formula.parse(row["formula"]) == found[1].best.formula
    assert float(row["q"]) == found[1].best.q
    assert row["not"].split(";")[0] == found[1].best.negations[0].concept
    assert "dog AND" in repr(found[1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"concepts": [[0, 2]] * 4}, ValueError, r"concepts\[0, 1\] is 2; labels must be 0 or 1"),
        ({"concepts": [[0, 0.5]] * 4}, ValueError, "0.5; labels must be 0 or 1"),
        ({"concepts": [[0, float("nan")], [1, float("nan")]] * 2}, ValueError, "concept 'b' .* is unknown on every sample"),
        ({"prefer": "long"}, ValueError, "prefer='long' must be one of short, auc"),
        ({"min_support": 0}, ValueError, "min_support=0 must be at least 1"),
        ({"concepts": [[0, 1], [1, 1], [0, 1], [1, 1]]}, ValueError, r"concept 'b' \(column 1\) holds on every sample.*leave it out"),
        ({"concepts": [[0, 1], [0, 0], [0, 1], [0, 0]]}, ValueError, "concept 'a' .* holds on no sample"),
        ({"concepts": [0, 1, 0, 1]}, ValueError, r"pass \[N, K\]"),
        ({"concepts": [[0, 1], [1, 0]]}, ValueError, "4 activations but 2 rows of concepts"),
        ({"activations": [1.0, float("nan"), 2.0, 3.0]}, ValueError, r"NaN, first at \[1\]"),
        ({"activations": [[[1.0]]]}, ValueError, r"pass \[N\] or \[N, U\]"),
        ({"activations": []}, ValueError, "shape"),
        ({"activations": torch.ones(4, dtype=torch.complex64)}, TypeError, "pass real numbers"),
        ({"activations": "high"}, TypeError, "activations must be a tensor or array of numbers, got str"),
        ({"names": ["a"]}, ValueError, "1 names for 2 concepts"),
        ({"names": ["a", "a"]}, ValueError, "'a' stands for two concepts"),
        ({"names": ["a", 1]}, TypeError, "1 is no string"),
        ({"names": "ab"}, TypeError, "is one string"),
        ({"mode": "postive"}, ValueError, "mode='postive' is not known; use 'positive'.*'negative'"),
        ({"length": 0}, ValueError, "length=0 must be at least 1"),
        ({"length": 1.5}, ValueError, "length=1.5"),
        ({"beam": 0}, ValueError, "beam=0"),
        ({"top": True}, ValueError, "top=True"),
        ({"holdout": 1.0}, ValueError, "holdout=1.0 must be a share"),
        ({"holdout": 0.99}, ValueError, "both need two"),
        ({"min_fraction": 0.9, "max_fraction": 0.1}, ValueError, "min_fraction=0.9 and max_fraction=0.1"),
        ({"min_fraction": 0.9, "max_fraction": 0.95}, ValueError, "no formula of up to 3 concepts can hold on between 0.9 and 0.95 of the .*: no whole number.*widen"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change: dict[str, object], error: type[Exception], message: str) -> None:
    good: dict[str, object] = {
        "activations": [1.0, 2.0, 3.0, 4.0],
        "concepts": [[0, 1], [1, 0], [0, 0], [1, 1]],
        "names": ["a", "b"],
    }
    arguments = good | change
    options = {name: arguments.pop(name) for name in list(arguments) if name not in good}
    with pytest.raises(error, match=message):
        label_units(arguments["activations"], arguments["concepts"], arguments["names"], progress=False, **options)  # type: ignore[arg-type]


def test_auroc_refuses_what_has_no_score() -> None:
    with pytest.raises(ValueError, match=r"concept 0 holds on every sample \(1 more is constant\): .*leave it out"):
        auroc([1.0, 2.0], [[1, 0], [1, 0]])
    with pytest.raises(ValueError, match="NaN"):
        auroc([1.0, float("nan")], [[1], [0]])
    with pytest.raises(ValueError, match="2 activations but 3 rows"):
        auroc([1.0, 2.0], [[1], [0], [0]])


def test_inputs_stay_as_they_are() -> None:
    activations, labels, names = planted(samples=100)
    activations.requires_grad_()
    copies = activations.detach().clone(), labels.clone(), list(names)
    label_units(activations, labels, names, progress=False)
    assert torch.equal(activations.detach(), copies[0])
    assert torch.equal(labels, copies[1])
    assert names == copies[2]
    assert activations.grad is None
