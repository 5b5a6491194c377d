"""Massive activations are named, and ordinary features hold none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from absence_plugins.data.synthetic_directions import SyntheticDirections, many_directions
from absence_plugins.methods.directions import DirectionPairs, FeatureStore
from absence_plugins.methods.directions.features import MemoryFeatures
from absence_plugins.methods.directions.outliers import count_outliers, note_outliers


@pytest.fixture(scope="module")
def data() -> SyntheticDirections:
    return many_directions(concepts=10, dimensions=32, distractors=2, images=300)


def test_few_far_positions_are_counted_by_channel(data: SyntheticDirections, tmp_path: Path) -> None:
    x = data.features.clone()
    x[:15, 0, 0, 5] += 1000
    x[7, 0, 1, 9] = -1e4
    expected = torch.zeros(32, dtype=torch.long)
    expected[5], expected[9] = 15, 1
    assert torch.equal(count_outliers(MemoryFeatures(x)), expected)
    assert torch.equal(count_outliers(FeatureStore.write(tmp_path, x.split(85))), expected)
    assert "channel 5 (15 positions), 9 (1 positions):" in note_outliers(MemoryFeatures(x))[0]


def test_ordinary_features_hold_none(data: SyntheticDirections) -> None:
    generator = torch.Generator().manual_seed(0)
    rates = torch.logspace(-0.5, -2.5, 20)  # how often each channel behind a rectifier is above 0
    rectified = (torch.rand(5000, 20, generator=generator) < rates) * torch.rand(5000, 20, generator=generator)
    scaled = data.features * torch.logspace(-2, 2, 32)
    for x in (data.features, scaled, rectified[:, None, None], torch.ones(50, 1, 1, 4)):
        assert note_outliers(MemoryFeatures(x)) == ()


def test_a_fit_and_an_error_name_the_channel_and_clamping_is_the_remedy(data: SyntheticDirections) -> None:
    x = data.features.clone()
    x[:15, 0, 0, 5] += 1000
    assert any("massive activations" in note and "channel 5 (15" in note for note in DirectionPairs(10).fit(x).notes_)
    clamped = DirectionPairs(10).fit(x.clamp(max=float(data.features.max())))
    assert not any("massive" in note for note in clamped.notes_)
    assert float((F.normalize(data.encoding, dim=0).T @ clamped.encoding).amax(1).min()) > 0.97
    x[0, 0, 0, 5] = 1e6
    with pytest.raises(ValueError, match=r"more than .* Massive activations.* channel 5 \(15 positions\)"):
        DirectionPairs(10).fit(x)
