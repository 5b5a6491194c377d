"""Massive activations are named and bounded, and ordinary features hold none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from absence_plugins.data.synthetic_directions import SyntheticDirections, many_directions
from absence_plugins.methods.directions import DirectionPairs, FeatureStore
from absence_plugins.methods.directions.features import MemoryFeatures
from absence_plugins.methods.directions.outliers import BoundedFeatures, bound_outliers, note_outliers


@pytest.fixture(scope="module")
def data() -> SyntheticDirections:
    return many_directions(concepts=10, dimensions=32, distractors=2, images=300)


def test_few_far_positions_are_counted_by_channel(data: SyntheticDirections, tmp_path: Path) -> None:
    x = data.features.clone()
    x[:15, 0, 0, 5] += 1000
    x[7, 0, 1, 9] = -1e4
    expected = torch.zeros(32, dtype=torch.long)
    expected[5], expected[9] = 15, 1
    for features in (MemoryFeatures(x), FeatureStore.write(tmp_path, x.split(85))):
        bounded = bound_outliers(features)
        assert isinstance(bounded, BoundedFeatures)
        assert torch.equal(bounded.counts, expected)
        assert "channel 5 (15 positions), 9 (1 positions):" in note_outliers(bounded)[0]
        rows = bounded.batch(torch.arange(300))
        assert torch.equal(rows[15:], x[15:])
        assert torch.equal(rows[8:15, 0, 1], x[8:15, 0, 1])
        assert torch.allclose(rows[7, 0, 0], data.features.flatten(0, 2).mean(0), atol=0.05)
        assert torch.equal(rows[7, 0, 0], rows[7, 0, 1])


def test_broken_features_are_not_bounded(data: SyntheticDirections) -> None:
    x = data.features.clone()
    x[3, 0, 0, 2], x[:15, 0, 0, 5] = torch.inf, 1e4
    with pytest.raises(ValueError, match="NaN or infinite"):
        DirectionPairs(10).fit(x)


def test_ordinary_features_hold_none(data: SyntheticDirections) -> None:
    generator = torch.Generator().manual_seed(0)
    rates = torch.logspace(-0.5, -2.5, 20)  # how often each channel behind a rectifier is above 0
    rectified = (torch.rand(5000, 20, generator=generator) < rates) * torch.rand(5000, 20, generator=generator)
    scaled = data.features * torch.logspace(-2, 2, 32)
    for x in (data.features, scaled, rectified[:, None, None], torch.ones(50, 1, 1, 4)):
        features = MemoryFeatures(x)
        assert bound_outliers(features) is features
        assert note_outliers(features) == ()


def worst(data: SyntheticDirections, pairs: DirectionPairs) -> float:
    return float((F.normalize(data.encoding, dim=0).T @ pairs.encoding).amax(1).min())


@pytest.mark.parametrize(("positions", "size"), [(15, 1e3), (1, 1e5)])
def test_a_fit_finds_all_directions_beside_massive_activations(
    data: SyntheticDirections, positions: int, size: float
) -> None:
    x = data.features.clone()
    x[:positions, 0, 0, 5] += size
    pairs = DirectionPairs(10).fit(x)
    assert any("massive activations" in note and f"channel 5 ({positions} " in note for note in pairs.notes_)
    assert worst(data, pairs) > 0.99
    assert pairs.report_.status == ("active",) * 10


def test_given_directions_are_read_beside_massive_activations(data: SyntheticDirections) -> None:
    x = data.features.clone()
    x[:15, 0, 0, 5] += 1e4
    rows = torch.linalg.pinv(data.encoding)
    plain = DirectionPairs.from_directions(rows, data.features)
    pairs = DirectionPairs.from_directions(rows, x, thresholds=plain.threshold)
    assert worst(data, pairs) > worst(data, plain) - 0.01 > 0.8
    assert "massive" in pairs.notes_[-1]
    assert torch.allclose(pairs.step, plain.step, rtol=0.1)
