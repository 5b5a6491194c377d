"""Thresholds of concepts that are present independently of each other, and of those that are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.methods.directions.apart import EDGE, fit_apart, measure_dispersion, split_apart
from absence_plugins.methods.directions.histograms import count_values
from absence_plugins.methods.directions.thresholds import fit_thresholds

POSITIONS, CONCEPTS = 8000, 10


def made(frequency: float | None, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Features [N, 2, 2, 40] and presence [P, I]: independent with a frequency, or exactly one per position."""
    generator = torch.Generator().manual_seed(4)
    mixing = F.normalize(torch.randn(40, CONCEPTS, generator=generator), dim=0)
    draws = torch.rand(POSITIONS, CONCEPTS, generator=generator)
    present = F.one_hot(draws.argmax(1), CONCEPTS).bool() if frequency is None else draws < frequency
    a = 2.5 * (present + torch.rand(POSITIONS, CONCEPTS, generator=generator))
    x = a @ mixing.T + noise * torch.randn(POSITIONS, 40, generator=generator)
    return x.reshape(-1, 2, 2, 40), present


def agreement(fires: Tensor, present: Tensor) -> Tensor:
    """The intersection over union of every detector with the concept that it agrees with most."""
    both = fires.double().T @ present.double()
    return (both / (fires.sum(0)[:, None] + present.sum(0) - both).clamp(min=1)).amax(1)


@pytest.mark.parametrize(("frequency", "least"), [(0.05, 0.7), (0.15, 0.85), (0.3, 0.85)])
def test_detectors_of_independent_concepts_fire_where_the_concepts_are(frequency: float, least: float) -> None:
    x, present = made(frequency)
    pairs = DirectionPairs(CONCEPTS).fit(x)
    assert float(agreement(pairs.logits(x).flatten(0, -2) > 0, present).min()) > least
    assert any(note.startswith("the concepts do not exclude each other") for note in pairs.notes_)
    assert not any("no clear edge" in note or "fire alone" in note for note in pairs.notes_)
    assert set(pairs.report_.status) == {"active"}


def test_exclusive_concepts_keep_their_thresholds() -> None:
    present = made(None)[1]
    a = 2.5 * (present + torch.rand(present.shape, generator=torch.Generator().manual_seed(0)))
    u = (a - a.mean(0)) / a.std(0)
    found = fit_thresholds([u])
    kept, clear = fit_apart([u], found)
    assert kept is found
    assert len(clear) == 0
    assert float(agreement(u > kept.threshold, present).min()) > 0.98


def test_where_noise_hides_the_edge_thresholds_stay_and_the_notes_say_so() -> None:
    x, _ = made(0.1, noise=0.5)
    pairs = DirectionPairs(CONCEPTS).fit(x)
    assert any(f"{CONCEPTS} of {CONCEPTS} have no clear edge" in note for note in pairs.notes_)


def test_dispersion_is_that_of_plain_counting_in_any_pieces() -> None:
    u = torch.randn(3000, 5, generator=torch.Generator().manual_seed(0))
    u[:, 1] += u[:, 0]
    found = fit_thresholds([u])
    fires = (u > found.threshold).double()
    expected = float(fires.sum(1).var(correction=0) / fires.var(0, correction=0).sum())
    assert measure_dispersion(u.split(700), found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("frequency", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("half_normal", [False, True])
def test_a_threshold_is_at_the_edge_between_two_groups(frequency: float, half_normal: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    low, high = torch.rand(20_000, 70, generator=generator), torch.rand(20_000, 70, generator=generator)
    if half_normal:
        high = torch.randn(20_000, 70, generator=generator).abs() / 2
    present = torch.rand(20_000, 70, generator=generator) < frequency
    a = torch.where(present, 1 + high, low) + 0.02 * torch.randn(20_000, 70, generator=generator)
    threshold, gain = split_apart(count_values((a - a.mean(0)) / a.std(0)))
    error = (threshold * a.std(0) + a.mean(0) - 1).abs()
    assert float(error.max()) < 0.12
    assert float(gain.min()) > EDGE
