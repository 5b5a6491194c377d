"""Things that are not regions of an image: what a map says of columns, tokens, spans and volumes, tested."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import Tensor

from absence_plugins.core.columns import Column
from absence_plugins.core.kinds import Kind, SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.methods.regions import ThingTest, ThingTests, measure_things, strongest_things
from absence_plugins.methods.regions.places import draw_places
from absence_plugins.methods.regions.things import draw_sets, find_changed

COLUMNS = TableKind(tuple(Column(f"c{number}", mean=10.0, unit="mg") for number in range(24)))
MIXED = TableKind((Column("age"), Column("color", ("red", "blue", "green")), Column("size")))
TEXT = TextKind({0: "[PAD]", 1: "[CLS]", 2: "not", 3: "good", **{n: f"w{n}" for n in range(4, 40)}}, special=(0, 1))
SIGNAL = SignalKind(rate=10.0)
VOLUME = VolumeKind()


def mask(kind_shape: tuple[int, ...], *places: tuple[int | slice, ...]) -> Tensor:
    found = torch.zeros(len(places), *kind_shape, dtype=torch.bool)
    for row, place in zip(found, places, strict=True):
        row[place] = True
    return found


def test_a_column_is_replaced_and_all_others_are_the_control() -> None:
    """Second writing: every column is replaced by hand, in float64."""
    weights = torch.linspace(-1, 1, 24, dtype=torch.float64)
    x, reference = torch.zeros(24, dtype=torch.float64), torch.arange(1.0, 25.0, dtype=torch.float64)
    found = measure_things(lambda rows: rows @ weights, x, reference, COLUMNS, mask((24,), (0,)), draws=99)
    test = found.tests[0]
    by_hand = []
    for column in range(24):
        row = x.clone()
        row[column] = reference[column]
        by_hand.append(float(row @ weights))
    assert test.before == 0
    assert test.after == pytest.approx(by_hand[0], abs=1e-12)
    assert sorted(test.random_values.tolist()) == pytest.approx(sorted(by_hand[1:]), abs=1e-12)
    falls = [-value for value in by_hand]
    assert found.p == pytest.approx((1 + sum(fall >= falls[0] for fall in falls[1:])) / 24)
    assert (test.name, test.replaced) == ("c0", "10 mg -> 11 mg")


def test_a_categorical_column_is_replaced_whole() -> None:
    x, reference = torch.tensor([1.0, 1, 0, 0, 5]), torch.tensor([1.0, 0, 0, 1, 5])
    read: list[Tensor] = []

    def output(rows: Tensor) -> Tensor:
        read.append(rows)
        return rows.sum(1)

    test = measure_things(output, x, reference, MIXED, mask((3,), (1,))).tests[0]
    assert torch.equal(test.changed, reference)
    assert test.replaced == "red -> green"
    assert len(torch.cat(read)) == 2  # nothing else differs, so that there is no control
    assert test.verdict().startswith("The network does not bear the map out: the output did not move")


@pytest.mark.parametrize(
    ("differing", "words"),
    [
        (5, "Undecided: only 4 other columns differ from the reference, so p cannot be 0.05 (p = 0.20)."),
        (2, "Undecided: only 1 other column differs from the reference, so p cannot be 0.05 (p = 0.50)."),
        (1, "Undecided: no other column differs from the reference, so p cannot be 0.05 (p = 1.00)."),
        (20, "The network bears the map out."),
    ],
)
def test_few_columns_leave_it_undecided(differing: int, words: str) -> None:
    x, reference = torch.zeros(24), (torch.arange(24) < differing).float()
    found = measure_things(
        lambda rows: -rows[:, 0] + rows[:, 1:].sum(1) / 100, x, reference, COLUMNS, mask((24,), (0,))
    )
    assert found.verdict() == words
    assert found.is_borne == (differing == 20)
    for text in (words, repr(found), str(found.to_dict())):
        assert not any(word in text for word in ("image", "pixel", "nan"))
    assert found.to_dict()["verdict"] == words


def test_two_columns_are_compared_with_pairs_of_others() -> None:
    x, reference = torch.zeros(24), torch.zeros(24)
    reference[:9] = 2.0 ** torch.arange(9)
    found = measure_things(lambda rows: -rows.sum(1), x, reference, COLUMNS, mask((24,), ([7, 8],)), draws=99)
    pairs = sorted(-float(reference[list(pair)].sum()) for pair in combinations(range(7), 2))
    assert sorted(found.tests[0].random_values.tolist()) == pairs
    assert (found.p, found.tests[0].name) == (pytest.approx(1 / 22), "c7, c8")
    few = measure_things(lambda rows: -rows.sum(1), x, reference, COLUMNS, mask((24,), (slice(0, 6),)))
    assert len(few.tests[0].random_values) == 0
    assert few.tests[0].verdict().startswith("Undecided: with 0 draws")


def test_named_things_are_no_control_of_each_other() -> None:
    """Three columns that all hold the output up: with each other as a control only the first would be borne out."""
    wide = TableKind(tuple(Column(f"c{number}") for number in range(70)))
    x, reference = torch.zeros(70), torch.ones(70)
    weights = torch.tensor([3.0, 2.0, 2.5] + [0.0] * 67)
    found = measure_things(lambda rows: -rows @ weights, x, reference, wide, mask((70,), (0,), (1,), (2,)))
    assert found.borne == (True, True, True)
    assert [len(test.random_values) for test in found.tests] == [59] * 3
    assert found.best == 0
    assert found.p_values == pytest.approx((3 / 60, 3 / 60, 3 / 60))
    narrow = measure_things(
        lambda rows: -rows @ weights[:24], x[:24], reference[:24], COLUMNS, mask((24,), (0,), (1,), (2,))
    )
    words = "Undecided: only 21 other columns differ from the reference, so p cannot be 0.05 for one of 3 columns"
    assert narrow.verdict() == f"{words} (p = 0.14)."


def test_p_values_are_those_of_holm() -> None:
    """Second writing, on ranks."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(24, generator=generator)
    named = [3, 9, 11, 20]
    things = torch.eye(24).bool()[named]
    found = measure_things(lambda r: -r @ weights, torch.zeros(24), torch.ones(24), COLUMNS, things)
    others = np.delete(weights.numpy(), named)
    alone = np.array([(1 + (others >= weights[n].item()).sum()) / 21 for n in named])
    order = np.argsort(alone, kind="stable")
    expected = np.minimum(1, np.maximum.accumulate(alone[order] * np.arange(4, 0, -1)))
    assert [found.p_values[i] for i in order] == pytest.approx(expected)


def test_sets_are_drawn_once() -> None:
    others = torch.arange(40)
    found = draw_sets(others, 3, 50, 0)
    assert len({tuple(one.tolist()) for one in found}) == 50
    assert [one.tolist() for one in found] == [one.tolist() for one in draw_sets(others, 3, 50, 0)]
    assert sorted(int(one) for one in draw_sets(others[:6], 1, 99, 3)) == list(range(6))
    assert draw_sets(others[:2], 3, 9, 0) == []
    assert draw_sets(others, 0, 9, 0) == []


def bag(ids: Tensor) -> Tensor:
    """ "good" counts 1, unless "not" stands in front of it; every other word a little."""
    negated = (ids[:, :-1] == 2) & (ids[:, 1:] == 3)
    return 1.0 * (ids == 3).sum(1) - 2.0 * negated.sum(1) + 1e-2 * (ids % 7).float().mean(1)


def test_a_missing_token_is_put_in() -> None:
    x = torch.tensor([1, *range(4, 26), 5, 3, 0])
    reference = x.clone()
    reference[1:24] = torch.arange(10, 33)
    reference[23] = 2
    found = measure_things(bag, x, reference, TEXT, mask((26,), (23,)))
    assert found.is_borne
    test = found.tests[0]
    assert test.changed.dtype == torch.int64
    assert (test.name, test.replaced) == ("'not'", "'w5' -> 'not'")
    assert found.table().splitlines()[0].split()[0] == "token"
    assert "other tokens" in found.table()


def test_a_text_that_differs_in_one_token_is_compared_with_other_places_of_it() -> None:
    x = torch.tensor([1, *range(4, 26), 2, 8, 5, 3, 0])
    reference = x.clone()
    reference[25] = 2
    alone = measure_things(bag, x, reference, TEXT, mask((28,), (25,)))
    assert alone.verdict() == "Undecided: no other token differs from the reference, so p cannot be 0.05 (p = 1.00)."
    moved = measure_things(bag, x, reference, TEXT, mask((28,), (25,)), control="moved", draws=99)
    # 22 words and the ones behind them; not the class token, the padding, its own place, nor where "not" stands
    assert len(moved.tests[0].random_values) == 28 - 4
    assert moved.is_borne
    assert "other places" in repr(moved)


def test_special_tokens_are_never_replaced() -> None:
    x, reference = torch.tensor([1, 4, 5, 0, 0]), torch.tensor([1, 6, 7, 0, 1])
    assert find_changed(TEXT, x, reference).tolist() == [False, True, True, False, False]
    seen: list[Tensor] = []

    def output(ids: Tensor) -> Tensor:
        seen.append(ids)
        return ids.float().sum(1)

    measure_things(output, x, reference, TEXT, mask((5,), (1,)))
    read = torch.cat(seen)
    assert (read[:, [0, 3, 4]] == x[[0, 3, 4]]).all()
    assert not read.is_floating_point()
    with pytest.raises(ValueError, match=r"place 4, .*'\[PAD\]'.*leave them out"):
        measure_things(output, x, reference, TEXT, mask((5,), (4,)))


def test_other_spans_hold_what_the_reference_has_there() -> None:
    """Second writing: the same length at every other time that differs."""
    generator = torch.Generator().manual_seed(0)
    x, reference = torch.zeros(2, 40), torch.zeros(2, 40)
    reference[:, 5:35] = torch.rand(2, 30, generator=generator)
    weights = torch.rand(2, 40, generator=generator)

    def output(signals: Tensor) -> Tensor:
        return -(signals * weights).sum((1, 2)) - 9 * signals[:, 0, 10] * signals[:, 0, 12]

    found = measure_things(output, x, reference, SIGNAL, mask((40,), (slice(10, 13),)), draws=99)
    by_hand = []
    for start in range(38):
        if not (7 < start < 13) and reference[:, start : start + 3].any():
            signal = x.clone()
            signal[:, start : start + 3] = reference[:, start : start + 3]
            by_hand.append(float(output(signal[None])))
    assert len(by_hand) == 38 - 5 - 3 - 3
    assert sorted(found.tests[0].random_values.tolist()) == pytest.approx(sorted(by_hand), abs=1e-5)
    assert found.is_borne


def test_places_of_a_shape() -> None:
    where = torch.zeros(4, 5, 6, dtype=torch.bool)
    where[1, 1:3, 2], where[2, 1, 2] = True, True
    differ = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0)) < 0.1
    masks, many = draw_places(where, differ, where, 999, 0)
    expected = []
    for shift in product(range(-1, 2), range(-1, 3), range(-2, 4)):
        moved = where.roll(shift, (0, 1, 2))
        if not (moved & where).any() and (moved & differ).any():
            expected.append(moved.flatten().tolist())
    assert sorted(mask.flatten().tolist() for mask in masks) == sorted(expected)
    assert many == len(expected)
    some, many = draw_places(where, differ, where, 3, 0)
    assert (len(some), many) == (3, 3 * 4 * 6)
    assert draw_places(torch.ones(5).bool(), torch.ones(5).bool(), torch.ones(5).bool(), 9, 0) == ([], 0)


def test_a_span_is_moved_with_its_content() -> None:
    """Second writing: the event at every other time."""
    x, reference = torch.zeros(2, 40), torch.zeros(2, 40)
    reference[0, 10:13], reference[1, 20] = torch.tensor([1.0, 2, 3]), 9.0
    times = torch.linspace(1, 0, 40)

    def output(signals: Tensor) -> Tensor:
        return -10 * (signals[:, 0, 10] == 1).float() * signals[:, 0, 12] - signals[:, 0] @ times

    things = mask((40,), (slice(10, 13),))
    found = measure_things(output, x, reference, SIGNAL, things, control="moved", draws=99)
    by_hand = []
    for shift in range(3, 38):  # no sample in common
        signal = x.clone()
        for offset in range(3):
            signal[0, (10 + offset + shift) % 40] = offset + 1
            signal[1, (10 + offset + shift) % 40] = 0
        by_hand.append(float(output(signal[None])))
    values = found.tests[0].random_values[:35]  # then those that share samples
    assert sorted(values.tolist()) == pytest.approx(sorted(by_hand), abs=1e-5)
    assert found.is_borne
    assert found.tests[0].name == "1 to 1.3 s"
    assert found.table().splitlines()[0].split()[:2] == ["span", "before"]
    assert "other times" in repr(found.tests[0])


def test_a_region_of_a_volume() -> None:
    x, reference = torch.zeros(6, 6, 6), torch.zeros(6, 6, 6)
    reference[1:3, 2:4, 3:5] = 1
    reference[4:, 4:] = 0.5
    things = mask((6, 6, 6), (slice(1, 3), slice(2, 4), slice(3, 5)))
    found = measure_things(lambda volumes: -volumes[:, 1, 2, 3] * volumes[:, 2, 3, 4], x, reference, VOLUME, things)
    assert found.is_borne
    assert found.tests[0].name == "depth 1 to 2, height 2 to 3, width 3 to 4"
    assert found.tests[0].control == "others"
    moved = measure_things(lambda v: -v[:, 1, 2, 3] * v[:, 2, 3, 4], x, reference, VOLUME, things, control="moved")
    assert moved.is_borne
    assert "other places" in moved.table()


def test_without_influence_nothing_is_borne_out() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(200):
        weights = torch.randn(24, generator=generator)
        weights[5] = 0
        x, reference = torch.randn(2, 24, generator=generator)
        for rises in (False, True):
            found = measure_things(
                lambda r, weights=weights: r @ weights, x, reference, COLUMNS, mask((24,), (5,)), rises=rises, seed=seed
            )
            assert not found.is_borne


@pytest.mark.parametrize(("named", "width"), [(1, 24), (2, 60)])
def test_things_like_any_others_are_borne_out_as_often_as_p_says(named: int, width: int) -> None:
    """Columns of random influence, named at random: one in twenty tables has one with p = 0.05."""
    generator = torch.Generator().manual_seed(named)
    kind = TableKind(tuple(Column(f"c{number}") for number in range(width)))
    x, reference = torch.zeros(width), torch.ones(width)
    borne, small = 0, 0
    for seed in range(300):
        weights = torch.randn(width, generator=generator).exp()
        things = torch.eye(width).bool()[torch.randperm(width, generator=generator)[:named]]
        found = measure_things(lambda r, weights=weights: -r @ weights, x, reference, kind, things, seed=seed)
        borne += found.is_borne
        small += min(found.p_values) <= 0.05
    assert borne <= small
    assert 3 <= small <= 26  # 15 expected at most; 3 standard deviations are 11


def test_several_outputs_and_inputs_stay_as_they_were() -> None:
    x, reference = torch.zeros(24, requires_grad=True), torch.ones(24)
    things = mask((24,), (0,), (1,))
    kept = x.detach().clone()
    state = torch.get_rng_state()
    found = measure_things(lambda r: torch.stack([-r[:, 0], r[:, 1]], 1), x, reference, COLUMNS, things, columns=[0, 1])
    assert [test.change for test in found.tests] == [-1.0, 1.0]
    assert torch.equal(x.detach(), kept)
    assert x.grad is None
    assert not found.tests[0].changed.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    again = measure_things(lambda r: torch.stack([-r[:, 0], r[:, 1]], 1), x, reference, COLUMNS, things, columns=[0, 1])
    assert torch.equal(again.tests[0].random_values, found.tests[0].random_values)


def test_no_things() -> None:
    nothing = measure_things(lambda r: r.sum(1), torch.zeros(24), torch.ones(24), COLUMNS, mask((24,)))
    assert nothing.verdict() == "The map names no column, so there is nothing to test."
    empty = measure_things(lambda r: r.sum(1), torch.zeros(24), torch.ones(24), COLUMNS, torch.zeros(1, 24).bool())
    assert empty.tests[0].verdict() == "The map names no column, so there is nothing to test."


def test_things_without_a_control_do_not_take_it_from_the_others() -> None:
    """Of a set of 15 columns there is no other; the single one is still compared with eight."""
    x, reference = torch.zeros(24), torch.ones(24)
    things = mask((24,), (slice(1, 16),), (0,))
    found = measure_things(lambda r: -r[:, 0], x, reference, COLUMNS, things)
    assert [len(test.random_values) for test in found.tests] == [0, 8]
    assert found.p_values == (1.0, pytest.approx(1 / 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "table"}, "kind must be a TableKind"),
        ({"x": torch.zeros(1, 24)}, "one sample, without the axis of the batch"),
        ({"x": torch.zeros(23), "reference": torch.zeros(23)}, "24 entries"),
        ({"reference": torch.zeros(2, 24)}, "reference has shape"),
        ({"reference": torch.zeros(24).long()}, "must be of one type"),
        ({"things": torch.zeros(1, 23).bool()}, r"must be \[N, 24\]"),
        ({"things": torch.zeros(24).bool()}, r"must be \[N, 24\]"),
        ({"things": torch.zeros(1, 24)}, "must be boolean"),
        ({"columns": [0, 0]}, "2 columns for 1 columns"),
        ({"columns": [1]}, "output 1 does not exist"),
        ({"draws": 0}, "draws=0"),
        ({"control": "moved"}, "whose columns cannot be moved"),
        ({"control": "random"}, "control='random'"),
        ({"output": lambda rows: rows.sum(1) * torch.nan}, "NaN or infinite"),
        ({"output": lambda rows: rows.sum().reshape(())}, "output returned shape"),
    ],
)
def test_bad_questions(options: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "output": lambda rows: rows.sum(1),
        "x": torch.zeros(24),
        "reference": torch.ones(24),
        "kind": COLUMNS,
        "things": mask((24,), (3,)),
        **options,
    }
    with pytest.raises((ValueError, TypeError), match=message):
        measure_things(**arguments)  # type: ignore[arg-type]


def test_the_strongest_columns_are_single_ones() -> None:
    evidence = torch.zeros(24)
    evidence[[4, 5, 9, 2]] = torch.tensor([2.0, 1.9, 3.0, -9.0])
    found = strongest_things(COLUMNS, evidence)
    assert [row.nonzero().flatten().tolist() for row in found] == [[9], [4], [5]]
    assert strongest_things(COLUMNS, -evidence.abs()).shape == (0, 24)


def test_the_strongest_tokens_stand_together_and_are_never_special() -> None:
    ids = torch.tensor([1, 5, 6, 7, 8, 9, 0, 0])
    evidence = torch.tensor([9.0, 1.0, 0.1, 2.0, 1.5, -1.0, 9.0, 9.0])
    found = strongest_things(TEXT, evidence, ids=ids)
    assert [row.nonzero().flatten().tolist() for row in found] == [[3, 4], [1], [2]]
    with pytest.raises(ValueError, match="pass ids="):
        strongest_things(TEXT, evidence)
    long = strongest_things(TEXT, torch.ones(40), 1, ids=torch.full((40,), 7))
    assert int(long.sum()) == 5
    both = strongest_things(TEXT, evidence, 1, ids=torch.stack([ids, torch.full((8,), 9)]))
    assert both[0].nonzero().flatten().tolist() == [6, 7]  # a token of one of the texts


def test_the_strongest_spans_and_regions() -> None:
    evidence = torch.full((64,), -0.1)
    evidence[10:14], evidence[40:42] = torch.tensor([1.0, 2, 2, 1]), 1.5
    found = strongest_things(SIGNAL, evidence, 2)
    assert [row.nonzero().flatten().tolist() for row in found] == [[10, 11, 12, 13], [40, 41]]
    volume = torch.full((12, 12, 12), -0.01)
    volume[2:4, 5:7, 8:10], volume[9, 9, 9] = 1.0, 3.0
    first, second = strongest_things(VOLUME, volume, 2)
    assert first.nonzero().amin(0).tolist() == [2, 5, 8]
    assert int(first.sum()) == 8
    assert int(second.sum()) == 1  # larger would take negative evidence


def test_a_long_signal_and_a_large_volume_are_cut_in_pieces() -> None:
    evidence = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    evidence[50_000:51_000] += 5
    span = strongest_things(SIGNAL, evidence, 1)[0].nonzero().flatten()
    assert abs(int(span[0]) - 50_000) < 400
    assert abs(int(span[-1]) - 51_000) < 400
    assert (span.diff() == 1).all()
    volume = torch.randn(40, 60, 50, generator=torch.Generator().manual_seed(1))
    volume[8:16, 8:16, 8:16] += 3
    region = strongest_things(VOLUME, volume, 1)[0]
    assert int(region[8:16, 8:16, 8:16].sum()) == 8**3
    assert int(region.sum()) < 2 * 8**3


@pytest.mark.parametrize(
    ("kind", "evidence", "options", "message"),
    [
        (COLUMNS, torch.zeros(23), {}, r"must be \[24\]"),
        (SIGNAL, torch.zeros(1, 9), {}, r"must be \[T\]"),
        (VOLUME, torch.zeros(9, 9), {}, r"must be \[D, H, W\]"),
        (SIGNAL, torch.full((9,), torch.nan), {}, "NaN"),
        (SIGNAL, torch.zeros(9), {"share": (0.5, 0.1)}, "in order"),
        (COLUMNS, torch.zeros(24), {"share": (0.0, 0.1)}, "for signals and volumes"),
        (TEXT, torch.zeros(4), {"ids": torch.zeros(3).long()}, "one token id per value"),
        (COLUMNS, torch.zeros(24), {"count": 0}, "count=0"),
        (None, torch.zeros(24), {}, "kind must be"),
    ],
)
def test_bad_evidence(kind: Kind, evidence: Tensor, options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        strongest_things(kind, evidence, **options)  # type: ignore[arg-type]


def test_results_are_those_of_regions() -> None:
    x, reference = torch.zeros(24), torch.ones(24)
    found = measure_things(lambda r: -r[:, 3], x, reference, COLUMNS, mask((24,), (3,)))
    assert isinstance(found, ThingTests)
    test = found.tests[0]
    assert isinstance(test, ThingTest)
    plain = found.to_dict()
    assert (plain["kind"], plain["control"], plain["is_borne"]) == ("table", "others", True)
    assert plain["tests"][0]["name"] == "c3"
    assert np.isclose(plain["tests"][0]["change"], -1)
    assert repr(test) == "ThingTest(column c3: -0.00 -> -1.00, other columns +0.00 ± 0.00; borne out)"


def test_a_column_that_moves_less_than_the_only_other_one_is_undecided() -> None:
    """Both columns count, and one other cannot tell what is chance."""
    kind = TableKind((Column("age"), Column("color")))
    found = measure_things(
        lambda rows: -2 * rows[:, 0] - 9 * rows[:, 1],
        torch.zeros(2),
        torch.ones(2),
        kind,
        torch.tensor([[True, False]]),
    )
    assert (
        found.verdict() == "Undecided: only 1 other column differs from the reference, so p cannot be 0.05 (p = 1.00)."
    )
