"""Directions from elsewhere: what is estimated of them, what is said, what is rejected, and how two sets compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins import Layer
from absence_plugins.data.synthetic_directions import synthetic_directions
from absence_plugins.methods.directions import (
    DirectionPairs,
    FeatureStore,
    delete,
    influence,
    insert,
    layer_features,
    match_directions,
)
from absence_plugins.methods.directions.histograms import count_values
from absence_plugins.methods.directions.splitting import split_values

CONCEPTS, DIMENSIONS = 6, 24


class Made:
    """Independent concepts, some distractors, and a head that one concept suppresses."""

    def __init__(self, positions: int = 6000, rate: float = 0.1) -> None:
        generator = torch.Generator().manual_seed(0)
        normal = torch.randn(DIMENSIONS, CONCEPTS + 2, generator=generator)
        self.encoding, distraction = F.normalize(normal, dim=0).split([CONCEPTS, 2], 1)
        self.present = torch.rand(positions, CONCEPTS, generator=generator) < rate
        strength = 2.5 + 2.5 * torch.rand(positions, CONCEPTS, generator=generator)
        x = (self.present * strength) @ self.encoding.T
        x = x + 5 * torch.rand(positions, 2, generator=generator) @ distraction.T + 10
        x = x + 0.1 * torch.randn(positions, DIMENSIONS, generator=generator)
        self.features = x.reshape(-1, 2, 2, DIMENSIONS)
        self.rows = torch.linalg.pinv(torch.cat([self.encoding, distraction], 1))[:CONCEPTS]

    def iou(self, pairs: DirectionPairs) -> Tensor:
        fires = (pairs.logits(self.features) > 0).flatten(0, 2)
        there = self.present[:, : pairs.n_directions]
        return (fires & there).sum(0) / (fires | there).sum(0)

    def cosine(self, pairs: DirectionPairs) -> Tensor:
        return (self.encoding[:, : pairs.n_directions] * pairs.encoding).sum(0)


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


def test_true_decoders_get_their_thresholds_and_encodings(made: Made) -> None:
    pairs = DirectionPairs.from_directions(made.rows, made.features)
    assert float(made.iou(pairs).min()) > 0.98
    assert float(made.cosine(pairs).min()) > 0.999
    assert pairs.notes_ == ()
    assert pairs.recipe == "given"
    assert torch.allclose(pairs.decoding, made.rows.T)
    share = made.present.double().mean(0)
    assert torch.allclose(torch.tensor(pairs.report_.active_share, dtype=torch.float64), share, atol=0.01)
    z = pairs.logits(made.features).flatten(0, 2)
    for i in range(CONCEPTS):
        fires = z[:, i] > 0
        expected = torch.stack([z[~fires, i].mean(), z[fires, i].mean()])
        assert torch.allclose(pairs.typical[:, i], expected, atol=1e-3)
    assert float((pairs.step - 3.75).abs().max()) < 0.15, "the mean strength of a concept that is there"


@pytest.mark.parametrize(("signal", "least"), [("joint", 0.999), ("exclusive", 0.95), ("positive", 0.95)])
def test_estimates_of_the_encoding(made: Made, signal: Any, least: float) -> None:
    pairs = DirectionPairs.from_directions(made.rows, made.features, signal=signal)
    assert float(made.cosine(pairs).min()) > least
    assert bool((pairs.gain > 0).all())


def test_a_single_direction(made: Made) -> None:
    pairs = DirectionPairs.from_directions(made.rows[:1], made.features)
    assert pairs.n_directions == 1
    assert float(made.iou(pairs)) > 0.98
    assert float(made.cosine(pairs)) > 0.95


def test_scaling_and_shifting_change_nothing(made: Made) -> None:
    pairs = DirectionPairs.from_directions(made.rows, made.features)
    other = DirectionPairs.from_directions(1e-3 * made.rows, made.features * 10 + 5)
    assert torch.equal(pairs.logits(made.features) > 0, other.logits(made.features * 10 + 5) > 0)
    assert torch.allclose(pairs.encoding, other.encoding, atol=1e-4)


def test_thresholds_and_encodings_that_are_known(made: Made) -> None:
    known = torch.linspace(1, 3, CONCEPTS) + made.rows @ torch.full((DIMENSIONS,), 10.0)
    pairs = DirectionPairs.from_directions(made.rows, made.features, thresholds=known, encoding=made.encoding.T * 3)
    assert torch.allclose(pairs.threshold, known)
    assert torch.allclose(pairs.encoding, made.encoding, atol=1e-6)
    together = DirectionPairs.from_directions(made.rows, made.features, thresholds="together")
    assert not torch.equal(together.threshold, pairs.threshold)


def test_an_autoencoder_from_training_to_influence(made: Made) -> None:
    """Encoder and bias of a sparse autoencoder; its thresholds are those at which its ReLUs fire."""
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(DIMENSIONS, 12), nn.Linear(12, DIMENSIONS, bias=False)
    x = made.features.flatten(0, 2)
    pairs = DirectionPairs.from_directions(
        encoder.weight, made.features, thresholds=-encoder.bias, encoding=None, signal="exclusive"
    )
    with torch.no_grad():
        assert torch.equal((pairs.logits(x) > 0)[:, 3], (encoder(x) > 0)[:, 3])
        head = nn.Linear(DIMENSIONS, 2)
    net = nn.Sequential(nn.Identity(), nn.Flatten(), head)
    found = influence(pairs, net, "0", x[:60, :, None, None], n_permutations=50)
    assert torch.allclose(found.effect, (pairs.step * pairs.encoding).T.double() @ head.weight.T.double(), atol=1e-4)
    assert match_directions(pairs, decoder.weight.T.detach()).cosine.shape == (12, 12)


def test_given_pairs_do_what_fitted_ones_do(made: Made, tmp_path: Path) -> None:
    pairs = DirectionPairs.from_directions(made.rows, FeatureStore.write(tmp_path / "store", made.features.split(200)))
    again = DirectionPairs.load(pairs.save(tmp_path / "pairs"))
    assert torch.equal(again.decoding, pairs.decoding)
    assert again.notes_ == pairs.notes_
    assert again.to_dict() == pairs.to_dict()
    assert "given, not fitted; 6 active" in repr(again)
    assert not bool((pairs.logits(delete(made.features, pairs, 2))[..., 2] > 0).any())
    assert bool((pairs.logits(insert(made.features, pairs, 2))[..., 2] > 0).all())
    assert len(pairs.units(Layer("conv"))) == CONCEPTS
    with pytest.raises(ValueError, match="given directions are not fitted"):
        again.fit(made.features)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.T, r"\[I, 24\], a row for each; they are columns here: pass their transpose"),
        (lambda rows: rows[0], r"shape \(24,\); it must be \[I, 24\]"),
        (lambda rows: rows[:0], r"shape \(0, 24\)"),
        (lambda rows: torch.cat([rows, torch.zeros(2, 24)]), r"nothing but zeros in row 6, 7 \(dead features\?\)"),
        (lambda rows: torch.cat([rows, torch.full((1, 24), torch.nan)]), "NaN or infinite values in row 6"),
    ],
)
def test_rows_that_are_rejected(made: Made, change: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DirectionPairs.from_directions(change(made.rows), made.features)


def test_other_input_that_is_rejected(made: Made) -> None:
    flat = torch.cat([made.features, torch.zeros_like(made.features[..., :1])], -1)
    with pytest.raises(ValueError, match="do not vary along direction 0"):
        DirectionPairs.from_directions(torch.eye(25)[-1:], flat)
    with pytest.raises(TypeError, match="directions must be a tensor"):
        DirectionPairs.from_directions([[1.0]], made.features)  # type: ignore[arg-type]
    for options, words in (
        ({"thresholds": torch.zeros(3)}, r"shape \(3,\); it must be \[6\]"),
        ({"thresholds": torch.tensor(torch.nan)}, "one finite number"),
        ({"thresholds": "some"}, "thresholds"),
        ({"signal": "x"}, "signal"),
        ({"encoding": torch.ones(5, 24)}, "encoding has 5 rows for 6 directions"),
        ({"encoding": -made.encoding.T}, "lowers its own detector"),
    ):
        with pytest.raises(ValueError, match=words):
            DirectionPairs.from_directions(made.rows, made.features, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="leave it out"):
        DirectionPairs.from_directions(made.rows, made.features, thresholds=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least two directions"):
        DirectionPairs.from_directions(made.rows[:1], made.features, thresholds="together")
    broken = made.features.clone()
    broken[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="features has NaN"):
        DirectionPairs.from_directions(made.rows, broken)
    with pytest.raises(ValueError, match="pass signal='exclusive'"):
        DirectionPairs.from_directions(made.rows[[0, 0]], made.features, signal="joint")


def test_what_is_said(made: Made) -> None:
    doubled = DirectionPairs.from_directions(torch.cat([made.rows, made.rows[:1], -made.rows[1:2]]), made.features)
    said = " ".join(doubled.notes_)
    assert "directions 0 and 6 are the same" in said
    assert "directions 1 and 7 are opposite" in said
    assert "estimated one by one" in said
    assert doubled.report_.status[0] == doubled.report_.status[6] == "split"
    rows = torch.randn(40, DIMENSIONS, generator=torch.Generator().manual_seed(1))
    many = DirectionPairs.from_directions(rows, made.features)
    assert any("more directions (40) than dimensions (24)" in note for note in many.notes_)
    noise = torch.randn(800, 1, 1, 4, generator=torch.Generator().manual_seed(2))
    assert any("make one group" in note for note in DirectionPairs.from_directions(torch.eye(4)[:2], noise).notes_)


def test_groups_of_values_that_are_known() -> None:
    """Rare, frequent, with and without a gap, uniform and normal: near the best threshold, or said to be none."""
    generator = torch.Generator().manual_seed(0)
    for rate, high in ((0.33, "normal"), (0.1, "uniform"), (0.02, "normal"), (0.01, "uniform")):
        there = torch.rand(20_000, generator=generator) < rate
        own = 4 + torch.randn(20_000, generator=generator) if high == "normal" else 2.5 + 2.5 * torch.rand(20_000)
        v = torch.where(there, own, 0.6 * torch.randn(20_000, generator=generator))
        u = ((v - v.mean()) / v.std())[:, None]
        threshold, _, clear = split_values(count_values(u))
        fires = u[:, 0] > threshold
        assert bool(clear)
        assert float((fires & there).sum() / (fires | there).sum()) > 0.9
    for one in (torch.randn(20_000, 1, generator=generator), torch.rand(20_000, 1, generator=generator)):
        assert not bool(split_values(count_values((one - one.mean()) / one.std()))[2])


@pytest.mark.parametrize("positions", [100, 500, 5000])
def test_one_group_is_not_called_two_whatever_the_number_of_positions(positions: int) -> None:
    generator = torch.Generator().manual_seed(1)
    spread = -torch.rand(positions, 50, generator=generator).log()
    for one in (
        torch.randn(positions, 50, generator=generator),
        torch.rand(positions, 50, generator=generator),
        spread,
        -spread,
        spread - spread.flip(1),
    ):
        clear = split_values(count_values((one - one.mean(0)) / one.std(0)))[2]
        assert int(clear.sum()) <= 1


@pytest.mark.parametrize(("seed", "images"), [(0, 300), (1, 300), (2, 2000)])
def test_thresholds_of_few_positions_are_near_the_best(seed: int, images: int) -> None:
    """Exclusive concepts of the published kind, with a weak edge: an upper group of a few positions was called clear."""
    data = synthetic_directions(seed, images=images)
    pairs = DirectionPairs.from_directions(torch.linalg.pinv(data.encoding), data.features)
    logits, present = pairs.logits(data.features).flatten(0, 2), data.present.flatten(0, 2)
    hits = present.gather(0, logits.argsort(0, descending=True)).cumsum(0)
    fired = torch.arange(1, len(hits) + 1)[:, None]
    best = (hits / (fired + present.sum(0) - hits)).amax(0)
    fires = logits > 0
    assert bool(((fires & present).sum(0) / (fires | present).sum(0) > 0.7 * best).all()), pairs.notes_


def test_one_skewed_group_is_not_called_two() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(2, 6000, 5, generator=generator)
    for one in (-uniform.log().sum(0), torch.randn(6000, 5, generator=generator).mul(0.5).exp()):
        assert not bool(split_values(count_values((one - one.mean(0)) / one.std(0)))[2].any())


@pytest.mark.parametrize("outlier", [150.0, -150.0, 1e4, -1e4, 1e6])
def test_one_outlier_moves_no_threshold(outlier: float) -> None:
    generator = torch.Generator().manual_seed(0)
    there = F.one_hot(torch.randint(0, 3, (5000,), generator=generator), 3).bool()
    strength = 2.5 * torch.rand(5000, 3, generator=generator, dtype=torch.float64)
    x = torch.where(there, 2.5 + strength, strength)
    x[0, 0] = outlier
    there[0, 0] = outlier > 0
    pairs = DirectionPairs.from_directions(torch.eye(3), x[:, None, None])
    fires = (pairs.logits(x) > 0).flatten(0, -2)
    assert float(((fires & there).sum(0) / (fires | there).sum(0)).min()) > 0.98
    assert not any("one group" in note for note in pairs.notes_)


def test_rare_given_directions_are_active_and_long_notes_are_short() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 4, generator=generator)
    x[:16, 0], x[:3, 1] = 9.0, 9.0  # .08 % and .015 % of the positions
    pairs = DirectionPairs.from_directions(
        torch.eye(4), x[:, None, None], thresholds=torch.tensor([6.0, 6.0, 1.0, 9.0])
    )
    assert pairs.report_.status == ("active", "inactive", "active", "inactive")
    rows = torch.randn(1200, 4, generator=generator)
    many = DirectionPairs.from_directions(rows, x[:2000, None, None], thresholds=torch.tensor(0.0))
    assert len(" ".join(many.notes_)) < 2000
    assert len(many.report_.groups[0]) > 1000
    assert any("and 1192 more" in note for note in many.notes_)


def test_pieces_of_columns_change_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = DirectionPairs.from_directions(made.rows, made.features)
    for name, size in (("COLUMNS", 4), ("VALUES", 600)):
        monkeypatch.setattr(f"absence_plugins.methods.directions.given.{name}", size)
    again = DirectionPairs.from_directions(made.rows, made.features)
    assert torch.allclose(again.threshold, pairs.threshold, atol=1e-5)
    assert torch.allclose(again.encoding, pairs.encoding, atol=1e-5)
    assert again.report_.status == pairs.report_.status


def test_thresholds_with_a_graph_leave_none(made: Made) -> None:
    encoder = nn.Linear(DIMENSIONS, 3)
    pairs = DirectionPairs.from_directions(encoder.weight, made.features, thresholds=-encoder.bias, signal="exclusive")
    for found in (pairs.threshold, pairs.typical, pairs.step, pairs.encoding, pairs.decoding):
        assert not found.requires_grad


def test_matches_one_to_one_with_their_sign(made: Made) -> None:
    pairs = DirectionPairs.from_directions(made.rows, made.features)
    order = [3, 0, 5, 1]
    other = made.encoding.T[order] * torch.tensor([1.0, -2.0, 1.0, 1.0])[:, None]
    found = match_directions(pairs, other)
    assert sorted(found.matched) == [(0, 1), (1, 3), (3, 0), (5, 2)]
    signs = dict(zip(found.matched, found.cosines, strict=True))
    assert signs[0, 1] < -0.99
    assert min(signs[1, 3], signs[3, 0], signs[5, 2]) > 0.99
    assert "1 of them opposite" in repr(found)
    assert "2 of the first have no partner" in found.table()
    assert json.loads(json.dumps(found.to_dict()))["matched"][0]["cosine"] == pytest.approx(found.cosines[0])
    decoding = match_directions(pairs, made.rows * 2, of="decoding")
    assert decoding.cosines == pytest.approx([1.0] * 6)
    for bad, words in ((other[:, :5], r"second has shape \(4, 5\)"), (torch.zeros(1, 24), "nothing but zeros")):
        with pytest.raises(ValueError, match=words):
            match_directions(pairs, bad)
    for first, second in (([[1.0]], other), (other, [[1.0]])):
        with pytest.raises(TypeError, match="must be a tensor"):
            match_directions(first, second)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not fitted"):
        match_directions(DirectionPairs(2), other)


def test_of_a_layer_of_a_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 3)).eval()
    images = torch.randn(80, 1, 4, 4)
    features = layer_features(net, "0", images)
    pairs = DirectionPairs.from_directions(torch.eye(6)[:3], features)
    found = influence(pairs, net, "0", images, outputs=[0, *pairs.units("0")], n_permutations=20)
    step = (pairs.encoding * pairs.step).T.double() / 9
    assert torch.allclose(found.effect[:, 1:], step[:, :3], atol=1e-4)
