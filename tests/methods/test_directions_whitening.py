"""Whitening finds the noise, whatever the scales, and leaves alone what has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.data.synthetic_directions import many_directions
from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.methods.directions.features import MemoryFeatures
from absence_plugins.methods.directions.whitening import count_noise, fit_whitening, note_noise


def noisy(seed: int, dimensions: int, rank: int, noise: float, positions: int = 4000, scales: float = 100.0) -> Tensor:
    """Uniform sources in ``rank`` directions, noise in all, then every feature on a scale of its own."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(dimensions, rank, generator=generator), dim=0)
    x = torch.rand(positions, rank, generator=generator) @ directions.T
    x = x + noise * x.std(0).mean() * torch.randn(positions, dimensions, generator=generator)
    return (x * scales ** torch.rand(dimensions, generator=generator))[:, None, None]


@pytest.mark.parametrize(("dimensions", "rank"), [(16, 5), (32, 14), (96, 20)])
def test_the_rank_is_that_of_the_sources(dimensions: int, rank: int) -> None:
    for seed in range(4):
        whitening = fit_whitening(MemoryFeatures(noisy(seed, dimensions, rank, 0.1)))
        assert (whitening.rank, whitening.noise) == (rank, dimensions - rank)


@pytest.mark.parametrize("noise", [0.1, 0.0])
def test_covariance_is_one_and_backward_is_the_way_back(noise: float) -> None:
    x = noisy(0, 16, 5, noise)
    whitening = fit_whitening(MemoryFeatures(x))
    z = whitening(x).flatten(0, -2).double()
    assert torch.allclose(z.T.cov(), torch.eye(5, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(whitening.backward @ whitening.forward, torch.eye(5, dtype=torch.float64), atol=1e-8)


def test_the_scale_of_a_feature_changes_nothing() -> None:
    x = noisy(1, 24, 6, 0.1, scales=1.0)
    factors = 10.0 ** torch.linspace(-2, 2, 24)
    one, other = (fit_whitening(MemoryFeatures(a)) for a in (x, x * factors))
    assert torch.allclose(one(x), other(x * factors), atol=1e-3)


def test_where_nothing_is_noise_nothing_is_cut() -> None:
    """A spectrum that falls evenly, few dimensions, a constant feature beside noise."""
    generator = torch.Generator().manual_seed(0)
    falling = torch.randn(4000, 1, 1, 40, generator=generator) * 0.8 ** torch.arange(40)
    turn = torch.linalg.qr(torch.randn(40, 40, generator=generator))[0]
    few = torch.randn(500, 1, 1, 4, generator=generator)
    constant = noisy(0, 16, 5, 0.1)
    constant[..., 3] = 7.0
    assert fit_whitening(MemoryFeatures(falling @ turn)).noise == 0
    assert fit_whitening(MemoryFeatures(few)).noise == 0
    assert fit_whitening(MemoryFeatures(constant)).rank == 5


def test_an_end_that_holds_structure_is_no_noise() -> None:
    flat = torch.cat([torch.full((4,), 50.0), torch.ones(20)])
    steep = torch.cat([torch.full((4,), 50.0), 0.8 ** torch.arange(20)])
    assert (count_noise(flat, 10_000), count_noise(steep, 10_000)) == (20, 0)
    assert count_noise(torch.cat([flat[:4], flat[4:9]]), 10_000) == 0  # too few


def sparse(generator: torch.Generator, positions: int, size: int) -> Tensor:
    """Concepts at a tenth of the positions, with strengths of 1 to 2."""
    present = torch.rand(positions, size, generator=generator) < 0.1
    return present * (1 + torch.rand(positions, size, generator=generator))


def own_channels(generator: torch.Generator) -> Tensor:
    """12 concepts with a channel each, 3 with four channels, a little noise: 24 channels."""
    spread = torch.tensor([1.0, 0.8, 1.2, 0.9])
    encoding = torch.block_diag(torch.eye(12), *[spread[:, None]] * 3)
    return sparse(generator, 8000, 15) @ encoding.T + 0.05 * torch.randn(8000, 24, generator=generator)


def equal_concepts(generator: torch.Generator) -> Tensor:
    """20 equal orthogonal concepts beside 4 stronger distractors, no noise."""
    turn = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]
    strengths = [2.5 * sparse(generator, 8000, 20), 8 * torch.rand(8000, 4, generator=generator)]
    return torch.cat(strengths, 1) @ turn.T


def one_factor(generator: torch.Generator) -> Tensor:
    """24 concepts with a channel each, and one factor, such as brightness, in 8 further channels."""
    factor = 4 * torch.rand(8000, 1, generator=generator) + 0.3 * torch.randn(8000, 8, generator=generator)
    return torch.cat([sparse(generator, 8000, 24), factor], 1)


@pytest.mark.parametrize("make", [own_channels, equal_concepts, one_factor])
def test_concepts_of_equal_strength_are_no_noise(make: Callable[[torch.Generator], Tensor]) -> None:
    """They make a flat end of the spectrum, which was cut; it is not normally distributed."""
    x = make(torch.Generator().manual_seed(0))
    whitening = fit_whitening(MemoryFeatures(x[:, None, None]))
    assert (whitening.rank, whitening.noise, note_noise(whitening)) == (x.shape[1], 0, ())


def test_concepts_on_channels_of_their_own_are_found() -> None:
    x = own_channels(torch.Generator().manual_seed(0))
    pairs = DirectionPairs(15).fit(x.reshape(-1, 2, 2, 24))
    assert int((pairs.encoding[:12].amax(1) > 0.98).sum()) == 12


def test_cut_noise_is_said_and_kept_in_a_folder(tmp_path: Path) -> None:
    data = many_directions(concepts=10, dimensions=32, distractors=3, images=300)
    pairs = DirectionPairs(10).fit(data.features)
    assert pairs.whitening_.noise == 19
    assert any("19 of the 32 components" in note for note in pairs.notes_)
    loaded = DirectionPairs.load(pairs.save(tmp_path)).whitening_
    assert (loaded.noise, loaded.ranks(2)) == (19, pairs.whitening_.ranks(2))


def test_more_directions_than_components_that_are_no_noise(tmp_path: Path) -> None:
    """The further ones are noise, and said to be; the rank of the features stays the limit."""
    data = many_directions(concepts=10, dimensions=32, distractors=3, images=300)
    pairs = DirectionPairs(16).fit(data.features)
    assert (pairs.whitening_.rank, pairs.whitening_.noise, pairs.whitening_.kept_noise) == (16, 16, 3)
    assert any("more than 13 directions are too many" in note for note in pairs.notes_), pairs.notes_
    assert pairs.report_.status.count("active") == 10
    assert pairs.report_.status.count("unresolved") == 6
    cosines = data.encoding.T @ pairs.encoding[:, [status == "active" for status in pairs.report_.status]]
    assert float(cosines.amax(1).min()) > 0.97
    assert DirectionPairs.load(pairs.save(tmp_path)).whitening_.kept_noise == 3
    with pytest.raises(
        ValueError, match="n_directions=33 is more than the rank of the features, 32; ask for at most 32"
    ):
        DirectionPairs(33).fit(torch.cat([data.features, data.features]))
