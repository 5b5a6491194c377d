"""What a fit recovers, refuses, keeps and leaves untouched."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.data.synthetic_directions import SyntheticDirections, synthetic_directions
from absence_plugins.experiments.directions.recovery import Recovery, recovery
from absence_plugins.methods.directions import DirectionPairs, FeatureStore

QUICK: dict[str, Any] = {"starts": 4}


@pytest.fixture(scope="module")
def data() -> SyntheticDirections:
    return synthetic_directions(0, images=400)


@pytest.fixture(scope="module")
def pairs(data: SyntheticDirections) -> DirectionPairs:
    return DirectionPairs(3, **QUICK).fit(data.features, head=data.head)


def recovered(seed: int, directions: int = 3, head: bool = True, **variant: Any) -> Recovery:
    made = synthetic_directions(seed, **variant)
    return recovery(made, DirectionPairs(directions).fit(made.features, made.head if head else None))


@pytest.mark.slow
def test_all_pairs_are_recovered() -> None:
    assert recovered(100).ok


@pytest.mark.slow
def test_all_pairs_are_recovered_in_every_data_set() -> None:
    """The twenty of docs/directions.md are asked by ``bench directions``."""
    found = [recovered(seed) for seed in range(3)]
    assert all(one.ok for one in found), found


@pytest.mark.slow
def test_eight_and_twelve_concepts_in_32_dimensions() -> None:
    for seed, concepts in ((0, 8), (2, 12)):
        found = recovered(seed, concepts, concepts=concepts, dimensions=32)
        assert min(found.iou) >= 0.93, found
        assert statistics.mean(found.cosine) >= 0.95, found


@pytest.mark.slow
@pytest.mark.parametrize("variant", [{"overlap": 0.1}, {"frequencies": "zipf"}, {"noise": 0.1}])
def test_harder_data(variant: dict[str, Any]) -> None:
    found = [recovered(seed, **variant) for seed in range(3)]
    assert statistics.median(min(one.iou) for one in found) >= 0.92, found
    assert statistics.median(min(one.cosine) for one in found) >= 0.92, found


def matches_truth(found: Recovery) -> bool:
    return min(found.iou) > 0.9


@pytest.mark.slow
def test_the_head_picks_the_concepts_that_it_uses() -> None:
    with_head = [matches_truth(recovered(seed, decoys=True)) for seed in range(6)]
    without = [matches_truth(recovered(seed, head=False, decoys=True)) for seed in range(6)]
    assert sum(with_head) >= 5
    assert sum(without) <= 4  # a coin's toss


def test_a_head_against_decoys() -> None:
    made = synthetic_directions(1, images=1000, decoys=True)
    assert matches_truth(recovery(made, DirectionPairs(3, starts=6).fit(made.features, made.head)))


def test_without_a_head_it_says_so(data: SyntheticDirections) -> None:
    pairs = DirectionPairs(3, starts=1).fit(data.features)
    assert "alignment" not in pairs.losses_
    assert "without head" in repr(pairs)
    assert "no head was given" in pairs.notes_[0]


def test_attributes(data: SyntheticDirections, pairs: DirectionPairs) -> None:
    assert pairs.decoding.shape == pairs.encoding.shape == (16, 3)
    assert pairs.threshold.shape == (3,)
    assert torch.allclose(pairs.encoding.norm(dim=0), torch.ones(3), atol=1e-5)
    assert bool((pairs.gain > 0).all())
    assert bool((pairs.step > 0).all())
    logits = data.features @ pairs.decoding - pairs.threshold
    assert torch.allclose(pairs.logits(data.features), logits, atol=1e-2)
    assert torch.allclose(pairs.transform(data.features), logits.sigmoid(), atol=1e-2)
    # a step of d along s_i raises signal value i by d
    moved = pairs.signal_values(data.features + 0.5 * pairs.encoding[:, 1]) - pairs.signal_values(data.features)
    assert torch.allclose(moved[..., 1], torch.full_like(moved[..., 1], 0.5), atol=1e-3)
    assert {"sparsity", "max_activation", "inactive", "alignment"} <= set(pairs.losses_)


@pytest.mark.slow
def test_same_seed_same_bits_and_no_trace(data: SyntheticDirections, pairs: DirectionPairs) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    features = data.features.clone()
    drawing: list[Tensor] = []

    def head(x: Tensor) -> Tensor:
        drawing.append(torch.rand(1))  # a head that moves the global state
        return data.head(x)

    again = DirectionPairs(3, **QUICK).fit(features, head=head)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert torch.equal(features, data.features)
    for name in ("decoding", "threshold", "encoding", "typical"):
        assert torch.equal(getattr(again, name), getattr(pairs, name))
    other = DirectionPairs(3, seed=1, **QUICK).fit(features, head=data.head)
    assert not torch.equal(other.decoding, pairs.decoding)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (1e-3, 0.0), (1.0, 25.0), (0.25, -3.0)])
def test_scaling_and_shifting_change_no_detector(
    data: SyntheticDirections, pairs: DirectionPairs, scale: float, shift: float
) -> None:
    changed = data.features.double() * scale + shift
    other = DirectionPairs(3, **QUICK).fit(changed, head=lambda x: data.head(((x - shift) / scale).float()))
    fires, expected = other.logits(changed) > 0, pairs.logits(data.features) > 0
    assert float((fires == expected).double().mean()) > 0.999
    assert bool(((other.encoding * pairs.encoding).sum(0) > 0.9999).all())


@pytest.mark.slow
def test_more_directions_than_concepts_are_reported() -> None:
    made = synthetic_directions(0, images=1500)
    pairs = DirectionPairs(5).fit(made.features, head=made.head)
    found = recovery(made, pairs)
    assert min(found.iou) > 0.9
    assert min(found.cosine) > 0.9
    status = pairs.report_.status
    assert all(status[i] in ("inactive", "split") for i in range(5) if i not in found.matched)
    assert all(status[i] == "active" for i in found.matched)
    assert any("hardly ever fire alone" in note or "inactive" in note for note in pairs.notes_)
    assert "split" in repr(pairs.report_) or "inactive" in repr(pairs.report_)


def test_a_store_on_disk_gives_the_same(data: SyntheticDirections, pairs: DirectionPairs, tmp_path: Path) -> None:
    store = FeatureStore.write(tmp_path, data.features.split(150))
    assert store.shape == tuple(data.features.shape)
    assert torch.equal(store.batch(torch.tensor([399, 0, 301])), data.features[[399, 0, 301]])
    other = DirectionPairs(3, **QUICK).fit(store, head=data.head)
    assert torch.equal(other.decoding, pairs.decoding)
    with pytest.raises(ValueError, match="holds no feature store"):
        FeatureStore(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="every batch is"):
        FeatureStore.write(tmp_path / "bad", [torch.zeros(2, 1, 1, 3), torch.zeros(2, 1, 1, 4)])
    with pytest.raises(ValueError, match="batches is empty"):
        FeatureStore.write(tmp_path / "none", [])
    (tmp_path / "features-00001.safetensors").unlink()
    with pytest.raises(ValueError, match="write the store again"):
        FeatureStore(tmp_path)


def test_saved_and_loaded(data: SyntheticDirections, pairs: DirectionPairs, tmp_path: Path) -> None:
    loaded = DirectionPairs.load(pairs.save(tmp_path / "pairs"))
    assert repr(loaded) == repr(pairs)
    assert loaded.options == pairs.options
    assert loaded.losses_ == pairs.losses_
    assert loaded.notes_ == pairs.notes_
    assert loaded.report_ == pairs.report_
    assert torch.equal(loaded.transform(data.features), pairs.transform(data.features))
    with pytest.raises(ValueError, match="holds no direction pairs"):
        DirectionPairs.load(tmp_path)
    with pytest.raises(ValueError, match="not fitted"):
        DirectionPairs(3).save(tmp_path / "unfitted")


def test_backgrounds_have_no_effect_and_that_is_said(data: SyntheticDirections) -> None:
    plain, *others = (
        DirectionPairs(2, background=background, starts=1).fit(data.features[:150])
        for background in ("none", "virtual", "detectors")
    )
    assert not any("has no effect" in note for note in plain.notes_)
    for pairs in others:
        assert pairs.encoding.shape == (16, 2)
        assert len(pairs.report_.status) == 2
        assert torch.equal(pairs.decoding, plain.decoding)  # empty positions are allowed for without it
        assert any("has no effect" in note for note in pairs.notes_)


GOOD = torch.randn(60, 1, 2, 6, generator=torch.Generator().manual_seed(0))
NAN, INFINITE = GOOD.clone(), GOOD.clone()
NAN[3, 0, 1, 2], INFINITE[0, 0, 0, 0] = float("nan"), float("inf")


@pytest.mark.filterwarnings("ignore:features has")
@pytest.mark.parametrize(
    ("features", "error", "words"),
    [
        (NAN, ValueError, "NaN or infinite"),
        (INFINITE, ValueError, "NaN or infinite"),
        (GOOD[:, 0], ValueError, "channels last"),
        (GOOD[:0], ValueError, "channels last"),
        (GOOD.long(), TypeError, "floating point"),
        (GOOD.numpy().tolist(), TypeError, "FeatureStore"),
        (torch.full_like(GOOD, 0.3), ValueError, "constant"),
        (GOOD[:10], ValueError, "20 positions for 3 directions"),
        (torch.cat([GOOD[..., :2], torch.zeros(60, 1, 2, 4)], -1), ValueError, "rank of the features, 2"),
    ],
)
def test_features_that_are_refused(features: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        DirectionPairs(3, starts=1).fit(features)


@pytest.mark.parametrize(
    ("head", "error", "words"),
    [
        (3, TypeError, "must map features"),
        (lambda x: (x,), TypeError, "must return logits"),
        (lambda x: x.mean((1, 2, 3)), ValueError, "must return"),
        (lambda x: x.flatten(0, 2), ValueError, "must return"),
        (lambda x: x.mean((1, 2))[:, :0], ValueError, "no logits"),
        (lambda x: x.mean((1, 2)) * float("nan"), ValueError, "NaN or infinite logits"),
        (lambda x: x.mean((1, 2)).detach(), ValueError, "no gradient"),
        (lambda x: torch.ones(len(x), 2, requires_grad=True) * 2, ValueError, "no gradient"),
    ],
)
@pytest.mark.filterwarnings("ignore:features has 120 positions")
def test_heads_that_are_refused(head: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        DirectionPairs(3, starts=1).fit(GOOD, head=head)


@pytest.mark.filterwarnings("ignore:features has 120 positions")
def test_a_head_of_one_logit_has_no_uncertainty_but_effects() -> None:
    def head(x: Tensor) -> Tensor:
        return x.mean((1, 2))[:, :1]

    pairs = DirectionPairs(3, starts=1).fit(GOOD, head=head)
    assert pairs.report_.effect is not None
    assert bool((torch.as_tensor(pairs.report_.effect) > 0).any())
    assert "alignment" not in pairs.losses_
    with pytest.raises(ValueError, match=r"head returned 1 logits .* recipe='paper'"):
        DirectionPairs(3, recipe="paper", starts=2, steps=2).fit(GOOD, head=head)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_directions": 1}, ValueError),
        ({"n_directions": 2.0}, TypeError),
        ({"n_directions": True}, TypeError),
        ({"background": "some"}, ValueError),
        ({"signal": "negative"}, ValueError),
        ({"recipe": "best"}, ValueError),
        ({"seed": -1}, ValueError),
        ({"starts": 0}, ValueError),
        ({"steps": 0}, ValueError),
        ({"step_range": (0.9, 0.5)}, ValueError),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        DirectionPairs(**({"n_directions": 3} | options))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_directions": 3, "steps": 10}, "steps has no effect with recipe='robust'; recipe='paper' reads it"),
        ({"n_directions": 3, "step_range": (0.1, 0.2), "batch_size": 9}, "batch_size and step_range have no effect"),
        ({"n_directions": 9, "starts": 5}, "starts has no effect of 9 directions; leave out"),
        ({"n_directions": 3, "starts": 5, "recipe": "paper"}, "starts has no effect with recipe='paper'; leave out"),
    ],
)
def test_options_that_a_recipe_does_not_read_are_announced(options: dict[str, Any], said: str) -> None:
    with pytest.warns(AbsenceWarning, match=said) as caught:
        pairs = DirectionPairs(**options)
    assert caught[0].filename == __file__
    assert pairs.options == DirectionPairs(pairs.n_directions, recipe=pairs.recipe).options


def test_few_positions_are_announced() -> None:
    with pytest.warns(UserWarning, match="120 positions for 3 directions"):
        DirectionPairs(3, starts=1).fit(GOOD)


def test_other_features_are_refused(pairs: DirectionPairs) -> None:
    with pytest.raises(ValueError, match="channels last"):
        pairs.transform(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="not fitted"):
        DirectionPairs(3).transform(torch.zeros(2, 16))
