"""The generators of direction pairs do what their arguments say, and the detectors that know the truth are the best."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from absence_plugins.data.synthetic_directions import (
    SyntheticDirections,
    many_directions,
    synthetic_directions,
)
from absence_plugins.data.synthetic_truth import find_thresholds, truth_detectors


def count_concepts(data: SyntheticDirections) -> list[int]:
    """How many positions hold none, one, two concepts."""
    return data.present.sum(-1).flatten().bincount(minlength=3).tolist()


def test_published_data_are_what_they_say() -> None:
    before = torch.get_rng_state()
    made = synthetic_directions(3, images=900)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made.features, synthetic_directions(3, images=900).features)
    assert count_concepts(made) == [0, 1800, 0]
    assert made.labels.bincount().tolist() == [300, 300, 300]
    assert bool(((made.signal_values > 2.5) == made.present).all())
    assert torch.allclose(made.encoding.norm(dim=0), torch.ones(3), atol=1e-5)
    rank = torch.linalg.matrix_rank((made.features.flatten(0, 2) - made.features.mean((0, 1, 2))).double(), rtol=1e-4)
    assert int(rank) == 5  # three concepts, two distractors
    assert made.accuracy > 0.85


@pytest.mark.parametrize("overlap", [0.05, 0.1, 0.2, 1.0])
def test_overlap_is_the_share_of_positions_with_two_different_concepts(overlap: float) -> None:
    for made in (
        synthetic_directions(1, images=600, overlap=overlap),
        many_directions(1, dimensions=40, concepts=9, images=120, overlap=overlap),
    ):
        assert count_concepts(made) == [0, round(1200 * (1 - overlap)), round(1200 * overlap)]


def test_second_concepts_are_drawn_alike_from_all_others() -> None:
    made = many_directions(0, dimensions=8, concepts=4, images=3000, overlap=1.0)
    present = made.present.flatten(0, 2).double()
    together = present.T @ present
    others = together[~torch.eye(4, dtype=torch.bool)] / len(present)
    assert torch.allclose(others, torch.full((12,), 1 / 6, dtype=torch.float64), atol=0.01)


def test_overlap_background_and_decoys_together() -> None:
    made = synthetic_directions(3, images=900, decoys=True, overlap=0.5, background=0.2, frequencies="zipf", noise=0.1)
    assert count_concepts(made) == [360, 540, 900]
    assert made.decoys.shape == (16, 3)
    assert made.decoys_present.shape == (900, 1, 2, 3)
    counts = made.present.flatten(0, 2).double().mean(0)
    assert float(counts[0]) > float(counts[2])


@pytest.mark.parametrize(
    ("frequencies", "counts"),
    [(0.8, [480, 60, 60]), ((67, 22, 11), [402, 132, 66]), ("zipf", [300, 200, 100]), ((1, 0, 1), [300, 0, 300])],
)
def test_frequencies_are_those_of_the_pairs(frequencies: Any, counts: list[int]) -> None:
    made = synthetic_directions(0, images=600, frequencies=frequencies)
    pairs = ((0, 1), (0, 2), (1, 2))
    shown = [int((made.present.any(2)[:, 0] == F.one_hot(torch.tensor(p), 3).any(0)).all(1).sum()) for p in pairs]
    assert shown == counts
    assert made.labels.bincount(minlength=3).tolist() == counts
    assert made.labels[:300].bincount(minlength=3).tolist() != counts  # in random order


def test_zipf_of_many_concepts() -> None:
    made = many_directions(0, dimensions=40, concepts=8, images=500, frequencies="zipf")
    counts = made.present.flatten(0, 2).sum(0).double()
    assert torch.allclose(counts / counts[0], 1 / torch.arange(1, 9).double(), atol=1e-3)


@pytest.mark.parametrize(
    ("frequencies", "rates"),
    [
        ("equal", [1 / 3] * 3),
        ("zipf", [6 / 11, 3 / 11, 2 / 11]),
        (0.3, [0.3] * 3),
        (torch.tensor(0.3), [0.3] * 3),
        ((0.8, 0.15, 0.0), [0.8, 0.15, 0.0]),
    ],
)
def test_independent_concepts(frequencies: Any, rates: list[float]) -> None:
    made = many_directions(
        0, dimensions=8, concepts=3, distractors=1, images=4000, presence="independent", frequencies=frequencies
    )
    present, wanted = made.present.flatten(0, 2).double(), torch.tensor(rates).double()
    assert torch.allclose(present.mean(0), wanted, atol=0.01)
    together = present.T @ present / len(present) - torch.outer(wanted, wanted)
    assert float(together.fill_diagonal_(0).abs().max()) < 0.01
    assert float((present.sum(1) == 0).double().mean()) == pytest.approx(float((1 - wanted).prod()), abs=0.01)
    assert bool(((made.signal_values > 2.5) == made.present).all())


def test_one_number_is_the_share_of_the_first_concept() -> None:
    made = many_directions(0, dimensions=8, concepts=4, images=100, frequencies=torch.tensor(0.7))
    assert made.present.flatten(0, 2).sum(0).tolist() == [700, 100, 100, 100]


def test_decoys_are_as_often_and_as_concepts_are() -> None:
    options: dict[str, Any] = {"images": 3000, "frequencies": (67, 22, 11), "overlap": 0.1, "background": 0.2}
    made = synthetic_directions(2, decoys=True, **options)
    assert synthetic_directions(2, **options).decoys_present.shape == (3000, 1, 2, 0)
    concepts, decoys = made.present.flatten(0, 2).double(), made.decoys_present.flatten(0, 2).double()
    assert torch.allclose(concepts.mean(0), decoys.mean(0), atol=0.02)
    assert decoys.sum(1).long().bincount().tolist() == concepts.sum(1).long().bincount().tolist()
    assert float((concepts.T @ decoys / len(decoys) - torch.outer(concepts.mean(0), decoys.mean(0))).abs().max()) < 0.02
    plainly = synthetic_directions(2, images=900, decoys=True).decoys_present[:, 0]
    assert not bool(plainly.all(1).any())  # never at both positions of an image, as a concept


def test_scales_multiply_the_features_and_nothing_else() -> None:
    many = partial(many_directions, dimensions=48, concepts=12)
    for make in (synthetic_directions, many):
        plain, made = make(2, images=400, noise=0.1), make(2, images=400, scales=100, noise=0.1)
        assert float(made.scale.max() / made.scale.min()) == pytest.approx(100, rel=1e-4)
        assert torch.allclose(made.features / made.scale, plain.features, rtol=1e-4, atol=1e-4)
        assert torch.allclose(made.encoding / made.scale[:, None] * made.unit, plain.encoding, atol=1e-5)
        assert torch.allclose(made.encoding.norm(dim=0), torch.ones(made.encoding.shape[1]), atol=1e-5)
        assert torch.equal(plain.scale, torch.ones(len(plain.scale)))
        assert torch.allclose(plain.unit, torch.ones(plain.encoding.shape[1]), atol=1e-5)
        # a step of 1 in a signal value moves the features by unit along encoding
        found = truth_detectors(made)
        assert torch.allclose(found.iou, truth_detectors(plain).iou, atol=0.01)


def test_half_normal_strengths() -> None:
    made = many_directions(0, dimensions=20, concepts=10, images=2000, strengths="half-normal")
    values, present = made.signal_values, made.present
    assert bool(((values > 2.5) == present).all())
    above = values[present] - 2.5
    assert float(above.mean()) == pytest.approx(1.25 * (2 / torch.pi) ** 0.5, abs=0.02)
    assert float(above.square().mean()) == pytest.approx(1.25**2, abs=0.04)
    inside = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).abs() * 1.25
    assert float(values[~present].mean()) == pytest.approx(float(inside[inside < 2.5].mean()), abs=0.02)


def test_noise_is_relative_to_the_features() -> None:
    plain, made = (synthetic_directions(0, images=2000, noise=noise) for noise in (0.0, 0.3))
    noise = (made.features - plain.features).std() / (plain.features - plain.features.mean((0, 1, 2))).std()
    assert float(noise) == pytest.approx(0.3, abs=0.005)


def test_the_head_of_many_concepts_reads_them() -> None:
    made = many_directions(0, dimensions=64, concepts=16, images=600)
    with torch.no_grad():
        shares, logits = made.present.float().mean((1, 2)), made.head(made.features)
    assert logits.shape == (600, 16)
    assert float(torch.corrcoef(torch.stack([shares.flatten(), logits.flatten()]))[0, 1]) > 0.6
    assert made.accuracy > 0.3  # of ties, and 1 in 16 by chance
    assert torch.equal(made.labels, shares.argmax(1))


def test_truth_detectors_are_right_without_noise_and_the_best_with_it() -> None:
    clean = truth_detectors(synthetic_directions(0, images=600))
    assert float(clean.iou.min()) > 0.99
    made = many_directions(4, dimensions=64, concepts=12, images=200, scales=10)
    found = truth_detectors(made)
    fires = (made.features.flatten(0, 2).double() @ found.decoding > found.threshold).double()
    present = made.present.flatten(0, 2).double()
    iou = (fires * present).sum(0) / torch.maximum(fires, present).sum(0)
    assert torch.allclose(iou, found.iou, atol=2e-3)  # the threshold is that of the IoU that it reports
    # no threshold on the projection of the features onto the true encodings, nor on any of 30 moved detectors, is better
    x = (made.features.flatten(0, 2) / made.scale).double()
    projected, _ = find_thresholds(x @ (made.encoding / made.scale[:, None]).double(), made.present.flatten(0, 2))
    assert bool((found.iou > projected).all())
    w = found.decoding * made.scale[:, None]
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        moved = w + 0.1 * w.norm(dim=0) / 8 * torch.randn(w.shape, generator=generator, dtype=w.dtype)
        assert bool((find_thresholds(x @ moved, made.present.flatten(0, 2))[0] < found.iou + 0.015).all())
    true, found_encoding = (
        F.normalize(e.double() / made.scale[:, None], dim=0) for e in (made.encoding, found.encoding)
    )
    assert float((true * found_encoding).sum(0).min()) > 0.97


def test_thresholds_by_trying_all() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    present = values + torch.randn(60, 3, generator=generator) > 0.5
    iou, cuts = find_thresholds(values, present)
    for i in range(3):
        tried = [values[:, i] >= cut for cut in values[:, i]]
        best = max(float((fires & present[:, i]).sum() / (fires | present[:, i]).sum()) for fires in tried)
        fires = values[:, i] > cuts[i]
        assert float(iou[i]) == pytest.approx(best)
        assert float((fires & present[:, i]).sum() / (fires | present[:, i]).sum()) == pytest.approx(best)


@pytest.mark.parametrize(
    "bad",
    [
        {"concepts": 1},
        {"images": 2},
        {"overlap": 2.0},
        {"background": -0.1},
        {"overlap": 0.6, "background": 0.6},
        {"frequencies": (1, 2)},
        {"frequencies": 1.5},
        {"frequencies": "rare"},
        {"strengths": "normal"},
        {"scales": 0.5},
        {"frequencies": (torch.inf, 1, 1)},
        {"frequencies": (torch.nan, 1, 1)},
        {"frequencies": (0, 0, 0)},
        {"frequencies": 0.8, "concepts": 2},
        {"noise": -1.0},
        {"noise": torch.nan},
        {"scales": torch.nan},
    ],
)
def test_arguments_that_are_rejected(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least|between|at most|must be"):
        synthetic_directions(0, **bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"concepts": 1},
        {"images": 2, "width": 3},
        {"overlap": -1.0},
        {"scales": 0.0},
        {"noise": torch.inf},
        {"presence": "two"},
        {"presence": "independent", "overlap": 0.1},
        {"presence": "independent", "frequencies": (1.5, 0.5), "concepts": 2},
        {"presence": "independent", "frequencies": (0.5, 0.5), "concepts": 3},
        {"frequencies": "rare"},
    ],
)
def test_arguments_of_many_concepts_that_are_rejected(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least|between|must be"):
        many_directions(0, **bad)
