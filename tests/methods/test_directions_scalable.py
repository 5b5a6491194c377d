"""Many directions at once: sources in passes, what the data resolve, kept fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.data.synthetic_directions import SyntheticDirections, many_directions
from absence_plugins.data.synthetic_truth import truth_detectors
from absence_plugins.experiments.directions.recovery import recovery
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions import DirectionPairs, FeatureStore, scalable
from absence_plugins.methods.directions.features import MemoryFeatures
from absence_plugins.methods.directions.histograms import bin_edges, count_values
from absence_plugins.methods.directions.passes import (
    Sample,
    Search,
    choose_distinct,
    find_complement,
    find_sources,
    measure_gains,
)
from absence_plugins.methods.directions.polish import orthogonalize
from absence_plugins.methods.directions.thresholds import DENSE, lower_rare
from absence_plugins.methods.directions.whitened import WhitenedPositions, draw_positions
from absence_plugins.methods.directions.whitening import fit_whitening


@pytest.fixture(scope="module")
def data() -> SyntheticDirections:
    return many_directions(concepts=10, dimensions=32, distractors=3, images=300, overlap=0.1, scales=10)


@pytest.fixture(scope="module")
def pairs(data: SyntheticDirections) -> DirectionPairs:
    return DirectionPairs(10).fit(data.features)


def mixed(seed: int, size: int, positions: int) -> tuple[Tensor, Tensor]:
    """Skewed sources u [P, size], whitened, and the turn z = u @ turn."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(positions, size, generator=generator) ** 3
    u = (u - u.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(u.T.cov())).T
    return u, orthogonalize(torch.randn(size, size, generator=generator))


def test_pairs_are_as_good_as_detectors_that_know_the_truth(data: SyntheticDirections, pairs: DirectionPairs) -> None:
    found, truth = recovery(data, pairs), truth_detectors(data)
    assert min(found.cosine) > 0.98
    assert torch.tensor(found.iou).median() > truth.iou.median() - 0.02
    assert torch.tensor(found.rmse).median() < 0.2
    assert set(pairs.report_.status) == {"active"}
    assert not any("resolve" in note for note in pairs.notes_)


def test_the_same_bits_from_memory_from_disk_and_again(
    data: SyntheticDirections, pairs: DirectionPairs, tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    store = FeatureStore.write(tmp_path, data.features.split(85))
    for features in (store, data.features):
        again = DirectionPairs(10).fit(features)
        for name in ("decoding", "threshold", "encoding", "typical"):
            assert torch.equal(getattr(again, name), getattr(pairs, name))
    assert torch.equal(torch.get_rng_state(), state)


def test_where_positions_are_too_few_the_missing_are_said_and_the_found_are_right() -> None:
    made = many_directions(concepts=24, dimensions=40, distractors=2, images=200, frequencies="zipf")
    pairs = DirectionPairs(24).fit(made.features)
    resolved = [i for i, status in enumerate(pairs.report_.status) if status != "unresolved"]
    assert 0 < len(resolved) < 24
    assert any(f"resolve {len(resolved)} of the 24" in note for note in pairs.notes_)
    best = torch.tensor(0.0) + (F.normalize(made.encoding, dim=0).T @ pairs.encoding).amax(0)
    assert float(best[resolved].min()) > 0.9


def test_sources_beyond_the_wanted_ones_keep_their_positions(data: SyntheticDirections, pairs: DirectionPairs) -> None:
    fewer = DirectionPairs(9).fit(data.features)
    assert any("resolve 10 one-sided sources" in note for note in fewer.notes_)
    cosines = fewer.encoding.T @ pairs.encoding
    assert float(cosines.amax(1).min()) > 0.99
    before = pairs.transform(data.features)[..., cosines.argmax(1)] > 0.5
    assert float(((fewer.transform(data.features) > 0.5) == before).double().mean()) > 0.99


def test_noise_without_sources_resolves_nothing() -> None:
    z = torch.randn(3000, 6, generator=torch.Generator().manual_seed(0))
    assert find_sources(Sample.split(z), 6, 0).count == 0
    pairs = DirectionPairs(9).fit(torch.randn(2000, 1, 1, 12, generator=torch.Generator().manual_seed(1)))
    assert any("resolve 0 of the 9" in note for note in pairs.notes_)
    assert bool(pairs.encoding.isfinite().all())
    assert torch.allclose(pairs.encoding.norm(dim=0), torch.ones(9), atol=1e-4)


def test_sources_are_found_and_a_search_goes_on_to_the_same_bits() -> None:
    u, turn = mixed(0, 8, 4000)
    sample, steps = Sample.split(u @ turn.T), list[Search]()
    found = find_sources(sample, 4, 3, keep=steps.append)
    w = found.w
    assert found.count == 8
    assert torch.allclose((w.T @ turn).abs().amax(0), torch.ones(8), atol=0.01)
    for step in steps:
        assert torch.equal(find_sources(sample, 4, 3, step).w, w)


def test_gains_of_a_normal_distribution_are_none_and_of_others_significant() -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.stack(
        [torch.randn(6000, generator=generator), 12**0.5 * (torch.rand(6000, generator=generator) - 0.5)], 1
    )
    gains = measure_gains(u[:4000], u[4000:])
    assert float(gains[0]) < 3
    assert float(gains[1]) > 10


def test_complement_and_distinct() -> None:
    w = orthogonalize(torch.randn(6, 2, generator=torch.Generator().manual_seed(0)))
    basis = find_complement(w)
    assert torch.allclose(torch.cat([w, basis], 1).T @ torch.cat([w, basis], 1), torch.eye(6), atol=1e-5)
    some = torch.tensor([[1.0, 0.9, 0.0], [0.0, 0.436, 1.0]])
    assert choose_distinct(some, torch.tensor([1.0, 2.0, 0.5])).tolist() == some[:, [1, 2]].tolist()


def test_rare_thresholds_go_down_to_the_edge() -> None:
    """By a search over all edges in plain Python; a frequent concept stays."""
    generator = torch.Generator().manual_seed(0)
    silent = torch.rand(10_000, generator=generator) - 1
    rare = torch.cat([silent, 3 * torch.rand(300, generator=generator)])
    common = torch.cat([silent[:300], 3 * torch.rand(10_000, generator=generator)])[: len(rare)]
    u = torch.stack([rare, common], 1)
    threshold, typical = torch.tensor([0.8, 0.8]).double(), torch.tensor([1.9, 1.9]).double()
    found = lower_rare(count_values(u), threshold, typical)
    assert float(found[1]) == pytest.approx(0.8)
    edges = [float(edge) for edge in bin_edges(u) if -0.3 <= edge <= 0.8]
    number = float((rare >= max(edges)).sum())
    density = number / (2 * 1.1)
    excess = {e: float(((rare >= e) & (rare < max(edges))).sum()) - DENSE * density * (max(edges) - e) for e in edges}
    assert float(found[0]) == pytest.approx(min(excess, key=lambda e: excess[e]), abs=0.02)
    assert abs(float(found[0])) < 0.1


def test_positions_are_those_of_the_features_and_halves_are_all_of_them(data: SyntheticDirections) -> None:
    features = MemoryFeatures(data.features)
    whitening = fit_whitening(features)
    whole = WhitenedPositions(features, whitening)
    z = torch.cat(list(whole))
    assert torch.equal(z, whitening(data.features).flatten(0, 2))
    images = z.reshape(300, 10, -1)
    for half, positions in enumerate(whole.halves()):
        assert torch.equal(torch.cat(list(positions)), images[half::2].flatten(0, 1))
    one = WhitenedPositions(MemoryFeatures(data.features[:1]), whitening)
    assert sorted(len(torch.cat(list(half))) for half in one.halves()) == [5, 5]
    assert draw_positions(features, whitening, 0).shape == z.shape


class Killed(Exception):
    """Where a fit was stopped."""


@pytest.mark.parametrize("at", [1, 2])
def test_a_killed_fit_goes_on_to_the_same_bits(
    data: SyntheticDirections, pairs: DirectionPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    saves, save = [], Checkpoint.save

    def stop(self: Checkpoint, name: str, tensors: Any) -> None:
        save(self, name, tensors)
        saves.append(name)
        if len(saves) == at:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", stop)
    with pytest.raises(Killed):
        DirectionPairs(10).fit(data.features, checkpoint=tmp_path)
    monkeypatch.setattr(Checkpoint, "save", save)
    again = DirectionPairs(10).fit(data.features, checkpoint=tmp_path)
    for name in ("decoding", "threshold", "encoding", "typical"):
        assert torch.equal(getattr(again, name), getattr(pairs, name))
    with pytest.raises(ValueError, match="belongs to another directions"):
        DirectionPairs(10).fit(data.features + 1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="n_directions is 10 there and 9 here"):
        DirectionPairs(9).fit(data.features, checkpoint=tmp_path)


def test_long_fits_say_so_before_the_work(
    data: SyntheticDirections, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scalable, "estimate_seconds", lambda *_: 600.0)

    def stop(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(scalable, "draw_positions", stop)
    for progress, said in ((True, "fitting directions: about 10 minutes"), (False, "")):
        with pytest.raises(Killed):
            DirectionPairs(10, progress=progress).fit(data.features)
        err = capsys.readouterr().err
        assert said in err
        assert bool(err) == progress


@pytest.mark.slow
def test_sixty_four_concepts_of_very_different_frequencies() -> None:
    made = many_directions(concepts=64, overlap=0.2, frequencies="zipf", scales=10)
    pairs = DirectionPairs(64).fit(made.features)
    found, truth = recovery(made, pairs), truth_detectors(made)
    assert min(found.cosine) > 0.95
    assert torch.tensor(found.iou).median() > truth.iou.median() - 0.02
    assert torch.tensor(found.rmse).median() < 0.2
