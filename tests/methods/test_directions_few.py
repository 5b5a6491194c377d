"""A few concepts: recovered where they are correlated, unequally frequent or overlap; the head chooses, never pulls."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from absence_plugins.data.synthetic_directions import many_directions, synthetic_directions
from absence_plugins.data.synthetic_truth import truth_detectors
from absence_plugins.experiments.directions.recovery import Recovery, recovery
from absence_plugins.methods.directions import DirectionPairs, DirectionReport
from absence_plugins.methods.directions.few import Candidate, distinct, find_rivals
from absence_plugins.methods.directions.likelihood import estimate_entropy, log_likelihood
from absence_plugins.methods.directions.ranking import measure_effects
from absence_plugins.methods.directions.sharpen import Firing, presence_labels, sharpen
from absence_plugins.methods.directions.thresholds import Thresholds


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def recovered(seed: int, **setting: Any) -> Recovery:
    data = synthetic_directions(seed, **setting)
    return recovery(data, DirectionPairs(data.encoding.shape[1], starts=16).fit(data.features, data.head))


HARD: list[dict[str, Any]] = [{"frequencies": 0.8}, {"overlap": 0.2}, {"frequencies": (67, 22, 11)}, {"scales": 100.0}]


def test_overlapping_concepts_are_recovered() -> None:
    data = synthetic_directions(301, images=800, overlap=0.1)
    found = recovery(data, DirectionPairs(3, starts=4).fit(data.features, data.head))
    assert min(found.iou) >= 0.95, found
    assert min(found.cosine) >= 0.95, found


@pytest.mark.slow
@pytest.mark.parametrize("setting", HARD)
def test_correlated_overlapping_and_rare_concepts_are_recovered(setting: dict[str, Any]) -> None:
    found = recovered(302, **setting)
    assert min(found.iou) >= 0.95, found
    assert min(found.cosine) >= 0.95, found


@pytest.mark.parametrize(("dimensions", "frequencies"), [(64, 0.15), (16, (0.8, 0.3, 0.15))])
def test_independent_concepts_are_recovered(dimensions: int, frequencies: Any) -> None:
    """One at .8 is found as its absence, as nothing but the rarer group tells presence; then its sign is named open."""
    data = many_directions(
        305, dimensions=dimensions, concepts=3, distractors=2, images=400, presence="independent",
        frequencies=frequencies, noise=0.02,
    )  # fmt: skip
    pairs = DirectionPairs(3, starts=3).fit(data.features)
    cosines = recovery(data, pairs).cosines
    near, found = cosines.abs().max(1)
    assert float(near.min()) > 0.98
    assert len(set(found.tolist())) == 3
    sign = cosines.gather(1, found[:, None])[:, 0].sign()
    assert sign.tolist() == [-1.0 if frequencies != 0.15 else 1.0, 1.0, 1.0]
    fires = (pairs.logits(data.features)[..., found] > 0) == (sign > 0)
    both, either = (fires & data.present).sum((0, 1, 2)), (fires | data.present).sum((0, 1, 2))
    assert bool((both / either > truth_detectors(data).iou - 0.05).all())
    assert pairs.report_.open_sign == (True, True, True)
    assert any(note.startswith("the concepts do not exclude each other") for note in pairs.notes_)


def test_likelihood_prefers_the_concepts_to_mixtures_also_where_they_overlap() -> None:
    present = drawn(4000, 2) < 0.5
    a = drawn(4000, 2, seed=1) * 2.5 + 2.5 * present
    a = (a - a.mean(0)) / a.std(0)
    threshold = torch.tensor([0.0, 0.0])
    right = log_likelihood(a, torch.eye(2), threshold)
    for angle in (0.1, 0.2, 0.4):
        turn = torch.tensor([angle]).cos(), torch.tensor([angle]).sin()
        mixed = torch.cat([torch.stack([turn[0], turn[1]], 1), torch.stack([-turn[1], turn[0]], 1)])
        assert log_likelihood(a, mixed, threshold) < right - 0.02


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_entropy_of_a_normal_distribution(scale: float) -> None:
    values = scale * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    exact = 0.5 * torch.log(2 * torch.pi * torch.e * torch.tensor(scale) ** 2)
    assert estimate_entropy(values) == pytest.approx(float(exact), abs=0.03)
    assert estimate_entropy(torch.zeros(100)) == pytest.approx(estimate_entropy(torch.ones(100)))


def test_labels_know_overlap_and_empty_positions() -> None:
    at = Thresholds(torch.zeros(2), torch.ones(2))
    alone = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(100, 1)
    slips = torch.cat([alone, torch.tensor([[0.2, 0.3], [-0.1, -0.3]])])
    assert presence_labels(slips, at).tolist()[-2:] == [[False, True], [True, False]]
    both = torch.cat([alone, torch.ones(20, 2)])
    assert bool(presence_labels(both, at)[-20:].all())
    empty = torch.cat([alone, -torch.ones(20, 2)])
    assert not bool(presence_labels(empty, at)[-20:].any())
    assert Firing.of(both > 0).overlaps
    assert Firing.of(empty > 0).empty


def test_sharpening_separates_better_and_stays_close() -> None:
    present = torch.nn.functional.one_hot((drawn(3000) * 2).long(), 2).bool()
    a = drawn(3000, 2, seed=1) * 2.5 + 2.5 * present
    z = torch.cat([a, drawn(3000, 1, seed=2) * 5], 1)
    z = (z - z.mean(0)) / z.std(0)
    w = torch.nn.functional.normalize(torch.eye(3)[:, :2] + 0.03, dim=0)
    at = Thresholds(torch.tensor([0.05, -0.05]), torch.ones(2))
    before = ((z @ w > at.threshold) == present).double().mean()
    v, threshold = sharpen(z, w, at)
    assert float(((z @ v > threshold) == present).double().mean()) > before + 0.005
    assert bool(((v * w).sum(0) > 0.99).all())


def test_rivals_are_likely_and_different() -> None:
    at = Thresholds(torch.zeros(2), torch.ones(2))
    eye = torch.eye(5)
    mixed = torch.nn.functional.normalize(torch.stack([eye[0] + eye[1], eye[0] - eye[1]], 1), dim=0)
    sets = ((eye[:, :2], -3.0), (eye[:, [1, 0]], -3.1), (mixed, -3.1), (eye[:, 2:4], -3.15), (eye[:, 3:], -3.5))
    found = distinct([Candidate(w, at, likelihood, 5) for w, likelihood in sets])
    assert [one.times for one in found] == [2, 1, 1, 1]
    assert [one.likelihood for one in find_rivals(found)] == [-3.0, -3.15]


def test_effect_of_a_step_on_a_linear_head() -> None:
    weight = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 5.0]])
    images, strength = drawn(4, 2, 2, 2), drawn(4, 2, 2, 2, seed=1)
    steps = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    change = weight @ steps / 4  # one of four positions
    expected = (change - change.mean(0)).square().mean(0).sqrt()
    found = measure_effects(lambda x: x.mean((1, 2)) @ weight.T, images, strength, steps)
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_head_decides_where_positions_do_not() -> None:
    data = synthetic_directions(303, images=800, decoys=True)
    pairs = DirectionPairs(3, starts=6).fit(data.features, data.head)
    found = recovery(data, pairs)
    assert min(found.iou) >= 0.95, found
    assert any("positions alone do not decide" in note for note in pairs.notes_)
    effect = pairs.report_.effect
    assert effect is not None
    assert list(effect) == sorted(effect, reverse=True)
    assert "effect" in pairs.report_.table()


def made_features(values: Tensor, encoding: Tensor) -> Tensor:
    """Features [N, 1, 2, D] of strengths [P, I]."""
    distractors = torch.nn.functional.normalize(torch.randn(len(encoding), 2, generator=SEEDED), dim=0)
    x = values @ encoding.T + 5 * torch.rand(len(values), 2, generator=SEEDED) @ distractors.T
    return x.reshape(-1, 1, 2, len(encoding))


SEEDED = torch.Generator().manual_seed(5)
ENCODING = torch.nn.functional.normalize(torch.randn(16, 3, generator=SEEDED), dim=0)
PRESENT = torch.nn.functional.one_hot(torch.randint(3, (2400,), generator=SEEDED), 3)
STRENGTH = torch.rand(2400, 3, generator=SEEDED) * 2.5
TOGETHER = PRESENT[:, [0, 0, 1]] | torch.stack([0 * PRESENT[:, 2], 0 * PRESENT[:, 2], PRESENT[:, 2]], 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "said"),
    [
        (torch.randn(400, 1, 2, 5, generator=SEEDED), "differ between two halves"),
        (made_features(STRENGTH + 2.5 * TOGETHER, ENCODING), "fire at nearly all positions|fire alone|hold fewer"),
        (
            made_features(STRENGTH + 2.5 * PRESENT, ENCODING[:, [0, 0, 2]]),
            "hardly ever fire alone|do not decide|hold fewer",
        ),
    ],
    ids=["no concept", "always together", "same encoding"],
)
def test_notes_say_what_positions_do_not_determine(features: Tensor, said: str) -> None:
    pairs = DirectionPairs(3).fit(features)
    assert any(re.search(said, note) for note in pairs.notes_), (pairs.notes_, pairs.report_)
    assert DirectionReport.from_dict(pairs.report_.to_dict()) == pairs.report_


def test_right_directions_are_stable() -> None:
    data = synthetic_directions(304, images=600)
    pairs = DirectionPairs(3, starts=4).fit(data.features, data.head)
    assert pairs.notes_ == ()
    assert min(pairs.report_.stability or ()) > 0.98
