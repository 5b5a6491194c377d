"""What one thing of every kind of data is, when it counts as missing, and what its references and `empty` are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from absence_plugins import Column, MadeReferences, ReferenceSet, SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.core.kinds import Kind, kind_from_dict, split_evidence, sum_positive

TABLE = TableKind((Column("age", mean=40.0, std=10.0, unit="years"), Column("color", ("red", "blue"))))
KINDS: dict[str, tuple[Kind, tuple[int, ...], tuple[int, ...]]] = {  # kind, shape of maps, shape of their things
    "table": (TABLE, (4, 3), (4, 2)),
    "text": (TextKind({0: "", 1: "not"}, special=(0,)), (4, 5, 6), (4, 5)),
    "text without embedding": (TextKind({}), (4, 5), (4, 5)),
    "signal": (SignalKind(rate=50.0, channels=("a", "b"), unit="mV"), (4, 2, 5), (4, 5)),
    "signal without channels": (SignalKind(), (4, 5), (4, 5)),
    "volume": (VolumeKind(spacing=(1.0, 0.5, 0.5)), (4, 2, 3, 2, 2), (4, 3, 2, 2)),
    "volume without channels": (VolumeKind(axes=("z", "y", "x"), unit="cm"), (4, 3, 2, 2), (4, 3, 2, 2)),
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", KINDS)
def test_things_keep_the_total_and_the_signs(name: str) -> None:
    kind, shape, things = KINDS[name]
    maps = noise(*shape)
    found = kind.things(maps)
    assert found.shape == things
    torch.testing.assert_close(found.flatten(1).sum(1), maps.flatten(1).sum(1))
    torch.testing.assert_close(kind.things(-maps), -found)


@pytest.mark.parametrize("name", ["table", "text"])
def test_positive_evidence_is_that_of_the_whole_thing(name: str) -> None:
    kind, shape, _ = KINDS[name]
    maps = noise(*shape)
    positive = kind.positive(maps)
    assert bool((positive >= 0).all())
    torch.testing.assert_close(kind.things(positive), kind.things(maps).clamp(min=0))
    assert not bool((positive > 0)[maps <= 0].any())  # nothing to entries that speak against it
    assert bool((kind.things(positive) == 0).any())
    assert bool((kind.things(positive) > 0).any())
    assert torch.equal(sum_positive(maps, kind), positive)
    assert torch.equal(sum_positive(maps, None), maps.clamp(min=0))


def test_signals_and_volumes_count_every_entry() -> None:
    for name in ("signal", "signal without channels", "volume", "volume without channels", "text without embedding"):
        kind, shape, _ = KINDS[name]
        assert torch.equal(kind.positive(noise(*shape)), noise(*shape).clamp(min=0))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0]), min_size=3, max_size=3), st.booleans())
def test_a_column_is_shared_out_in_proportion(row: list[float], doubled: bool) -> None:
    """Of a one-hot column max(sum, 0) goes to the entries that speak for it, in proportion."""
    row = [value * (1 + doubled) for value in row]
    gross, net = max(row[1], 0) + max(row[2], 0), max(row[1] + row[2], 0)
    wanted = [max(row[0], 0), *(max(value, 0) * net / gross if gross else 0.0 for value in row[1:])]
    assert TABLE.positive(torch.tensor([row]).double())[0].tolist() == pytest.approx(wanted)


def test_missing_in_a_table_is_below_the_reference_or_another_category() -> None:
    x = torch.tensor([[1.0, 1.0, 0.0]])
    lower, same, higher = (torch.tensor([[age, 1.0, 0.0]]) for age in (0.5, 1.0, 2.0))
    assert TABLE.lacks(x, higher, empty=99.0).tolist() == [[True, False, False]]  # empty plays no part
    assert TABLE.lacks(x, same).tolist() == TABLE.lacks(x, lower).tolist() == [[False] * 3]
    assert TABLE.lacks(x, torch.tensor([[1.0, 0.0, 1.0]])).tolist() == [[False, True, True]]
    codes = TableKind((Column("color", ("red", "blue"), one_hot=False),))
    assert codes.lacks(torch.tensor([[1.0]]), torch.tensor([[0.0]])).tolist() == [[True]]  # though 1 is above 0


def test_missing_in_a_text_is_another_token_that_is_not_special() -> None:
    kind = TextKind({1: "not"}, special=(0, 9))
    x, reference = torch.tensor([[1, 5, 5, 0]]), torch.tensor([[1, 1, 9, 0]])
    assert kind.lacks(x, reference).tolist() == [[False, True, False, False]]
    assert kind.is_special(reference).tolist() == [[False, False, True, True]]
    assert kind.tokens(torch.tensor([1, 7])) == ["not", "[7]"]


@pytest.mark.parametrize("name", ["signal", "volume"])
def test_missing_in_signals_and_volumes_is_further_from_empty(name: str) -> None:
    kind, shape, _ = KINDS[name]
    x, reference = noise(*shape), noise(*shape, seed=1)
    assert torch.equal(kind.lacks(x, reference, 0.3), (x - 0.3).abs() < (reference - 0.3).abs())
    with pytest.raises(ValueError, match="the reference has shape"):
        kind.lacks(x, reference[:1])


@pytest.mark.parametrize("name", ["table", "signal", "volume"])
def test_the_two_parts_sum_to_the_map(name: str) -> None:
    kind, shape, _ = KINDS[name]
    signed, x, reference = noise(*shape), noise(*shape, seed=1), noise(*shape, seed=2)
    present, absent = split_evidence(signed, x, reference, 0.0, kind)
    assert torch.equal(present + absent, signed)
    assert torch.equal(absent != 0, kind.lacks(x, reference))


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_written_and_read(name: str) -> None:
    kind = KINDS[name][0]
    again = kind_from_dict(kind.to_dict())
    assert again.to_dict() == kind.to_dict()
    assert vars(again) == vars(kind)


def test_columns_say_their_value() -> None:
    color, code = Column("color", ("red", "blue")), Column("color", ("red", "blue"), one_hot=False)
    assert [color.says(torch.tensor(e)) for e in ([1.0, 0.0], [0.0, 0.0], [0.5, 0.5])] == [
        "red",
        "none",
        "mixed (0.5, 0.5)",
    ]
    assert [code.says(torch.tensor([e])) for e in (1.0, 2.0, 0.5)] == ["blue", "code 2", "code 0.5"]
    plain = Column("area")
    assert [plain.says(torch.tensor([e])) for e in (1203.4, 12034.0, 0.12345, -3.0)] == [
        "1203",
        "12,034",
        "0.1235",
        "-3",
    ]
    shifted = Column("age", mean=0.3, std=0.1)
    assert shifted.says(torch.tensor([-3.0])) == "0"  # and not 5.551e-17


@pytest.mark.parametrize(
    ("kind", "inputs", "match"),
    [
        (TABLE, torch.zeros(2, 4), r"rows have shape \(2, 4\), and the 2 columns take 3 entries"),
        (TABLE, torch.zeros(3), "rows have shape"),
        (TextKind({}), torch.zeros(2, 4), "token ids .* of an integer type, got torch.float32"),
        (TextKind({}), torch.zeros(2, 4, 5).long(), "token ids"),
        (SignalKind(), torch.zeros(2), "signals have shape"),
        (SignalKind(channels=("a", "b")), torch.zeros(2, 3, 5), "2 names for 3 channels: a, b"),
        (SignalKind(channels=("a", "b")), torch.zeros(2, 5), "2 names for 1 channels"),
        (VolumeKind(), torch.zeros(2, 3, 3), "volumes have shape"),
    ],
)
def test_inputs_of_another_kind_are_rejected(kind: Kind, inputs: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        kind.check(inputs)
    with pytest.raises(ValueError, match=match):
        ReferenceSet(inputs, kind=kind)


def test_wrong_kinds_are_rejected() -> None:
    with pytest.raises(ValueError, match="a table needs columns"):
        TableKind(())
    with pytest.raises(ValueError, match="two columns are called 'a'"):
        TableKind((Column("a"), Column("a")))
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"rate={rate} must be a positive number"):
            SignalKind(rate=rate)
    for spacing in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)):
        with pytest.raises(ValueError, match="three positive sizes"):
            VolumeKind(spacing=spacing)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'sound' is no kind of data; there are table, text, signal, volume"):
        kind_from_dict({"kind": "sound"})
    with pytest.raises(ValueError, match="has not the 3 entries"):
        TABLE.things(torch.zeros(2, 4))
    with pytest.raises(TypeError, match="kind must be a TableKind"):
        ReferenceSet(torch.zeros(2, 4), kind="signal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a signal is one input, and the references have 2"):
        ReferenceSet((torch.zeros(2, 4), torch.zeros(2, 4)), kind=SignalKind())
    with pytest.raises(ValueError, match="reference signal 1 holds NaN"):
        ReferenceSet(torch.tensor([[0.0], [math.nan]]), kind=SignalKind())
    assert MadeReferences().kind is None


@pytest.mark.parametrize("shape", [(2, 6), (6,), (2, 3, 2, 4), (3, 2, 4)], ids=str)
def test_empty_is_a_number_or_one_value_per_channel(shape: tuple[int, ...]) -> None:
    """[C, T], [T], [C, D, H, W], [D, H, W]."""
    kind: Any = SignalKind() if len(shape) < 3 else VolumeKind()
    axes = 1 if len(shape) < 3 else 3
    images = torch.zeros(3, *shape)
    assert ReferenceSet(images, kind=kind, empty=0.5).empty[0].expand(shape).unique().tolist() == [0.5]
    assert ReferenceSet(images, kind=kind, empty=[0.5]).empty[0].expand(shape).unique().tolist() == [0.5]
    if len(shape) == axes + 1:
        per_channel = ReferenceSet(images, kind=kind, empty=[0.5, 2.0]).empty[0].expand(shape)
        assert per_channel[0].unique().tolist() == [0.5]
        assert per_channel[1].unique().tolist() == [2.0]
    whole = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    given = whole if len(shape) > 1 else whole[None]
    assert torch.equal(ReferenceSet(images, kind=kind, empty=given).empty[0].expand(shape), whole)
    channels = shape[0] if len(shape) == axes + 1 else 1
    for wrong in {shape[-1], shape[0], 3} - {channels}:  # along time, depth or width, or none of them
        with pytest.raises(
            ValueError, match=rf"empty has {wrong} values, and a {kind.name} of shape .* {channels} channel"
        ):
            ReferenceSet(images, kind=kind, empty=torch.zeros(wrong))
    with pytest.raises(ValueError, match="empty holds NaN"):
        ReferenceSet(images, kind=kind, empty=math.nan)
    with pytest.raises(ValueError, match=f"does not fit a {kind.name} of shape"):
        ReferenceSet(images, kind=kind, empty=torch.zeros(*[7] * (axes + 1)))


def test_as_many_samples_as_channels_are_channels() -> None:
    assert ReferenceSet(torch.zeros(3, 2, 2), kind=SignalKind(), empty=[1.0, 2.0]).empty[0].tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("name", ["table", "signal", "signal without channels", "volume", "volume without channels"])
def test_labels_that_are_true_at_once_choose_the_pool_of_every_kind(name: str) -> None:
    kind, shape, _ = KINDS[name]
    images = noise(8, *shape[1:]) if name != "table" else torch.cat([noise(8, 1), torch.eye(2)[torch.arange(8) % 2]], 1)
    labels = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]]).repeat(2, 1)
    references = ReferenceSet(images, labels, kind=kind, k=2)
    assert references.is_multi_label
    x = images[:2].flip(0)
    for target, allowed in ((0, {2, 3, 6, 7}), (1, {0, 3, 4, 7})):
        found = references.nearest_indices(x, target=target)
        assert set(found.flatten().tolist()) <= allowed
        assert references.nearest(x, target=target).shape == (2, 2, *images.shape[1:])
    contrast = ReferenceSet(images, labels, kind=kind, k=2, contrast=1)
    assert set(contrast.nearest_indices(x, target=0).flatten().tolist()) == {2, 6}  # has 1 and lacks 0


@pytest.mark.filterwarnings("error")
def test_what_is_of_a_kind_is_not_compared_as_a_picture() -> None:
    """Volumes [N, D, H, W] of few slices have the shape of pictures; their values are no brightness."""
    counts = (noise(20, 3, 4, 4).abs() * 100).float()
    assert ReferenceSet(counts, kind=VolumeKind(), k=1).nearest(counts[:1] / 300).shape == (1, 1, 3, 4, 4)
    rain = ReferenceSet(noise(20, 3, 4, 4), kind=VolumeKind(), k=1)
    assert rain.nearest(torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))).shape == (1, 1, 3, 4, 4)
    wide = ReferenceSet.from_table(counts[:, 0].flatten(1), columns=[f"c{i}" for i in range(16)], k=1)
    assert wide.nearest(torch.full((1, 16), 0.5)).shape == (1, 1, 16)
    with pytest.raises(ValueError, match=r"prepare both as the model's inputs are prepared$"):  # no word of pictures
        ReferenceSet((counts[:, 0, 0] * 2).long(), kind=SignalKind(), k=1).nearest(
            torch.tensor([[0.1, -0.2, 0.5, 0.9]])
        )


@pytest.mark.parametrize("scale", [{"std": 0.0}, {"std": float("nan")}, {"mean": float("inf")}])
def test_a_column_without_a_scale_is_refused(scale: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"column 'age' has mean .* std must not be 0"):
        Column("age", **scale)
