"""On a trained network: influence against true effects, edits against images with the shape taken out, no trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from absence_plugins import Unit
from absence_plugins.data.shapes_cnn import BLANK, KINDS, LAYER, ShapesProblem, shapes_problem
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions import (
    DirectionPairs,
    delete,
    edited,
    influence,
    insert,
    interpretability,
    layer_features,
    random_way,
    removal_check,
    unlearn,
)


class Fitted:
    """A shapes network, the pairs of its layer, and which direction stands for which kind of shape."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.problem: ShapesProblem = shapes_problem(seed)
        self.model, self.images = self.problem.model, self.problem.images
        self.pairs = DirectionPairs(5, **options).fit_model(self.model, LAYER, self.images)
        self.features = layer_features(self.model, LAYER, self.images)
        self.found = interpretability(self.pairs, self.features, self.problem.scenes.masks, names=KINDS)
        directions, kinds = linear_sum_assignment(-self.found.iou.numpy())
        self.of_kind = dict(zip(kinds.tolist(), directions.tolist(), strict=True))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return Fitted(0, starts=6)


def agreement(fitted: Fitted) -> tuple[int, int, float]:
    """Significant pairs, how many of them have the true sign, correlation with the true effects."""
    found = influence(fitted.pairs, fitted.model, LAYER, fitted.images)
    order = torch.tensor([fitted.of_kind[kind] for kind in range(len(KINDS))])
    effect, significant, truth = found.effect[order], found.significant[order], fitted.problem.true_effects()
    agree = (effect.sign() == truth.sign()) & significant
    correlation = float(torch.corrcoef(torch.stack([effect.flatten(), truth.double().flatten()]))[0, 1])
    return int(significant.sum()), int(agree.sum()), correlation


def test_every_shape_has_its_direction(fitted: Fitted) -> None:
    assert fitted.problem.accuracy > 0.95
    assert sorted(fitted.found.best[fitted.of_kind[kind]] for kind in range(4)) == [0, 1, 2, 3]
    assert fitted.found.s2 > 3.8


def test_influence_has_the_true_sign(fitted: Fitted) -> None:
    significant, agree, correlation = agreement(fitted)
    assert significant >= 12
    assert agree >= 0.95 * significant
    assert correlation > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_influence_has_the_true_sign_for_other_networks(seed: int) -> None:
    significant, agree, correlation = agreement(Fitted(seed))
    assert significant >= 12
    assert agree >= 0.95 * significant
    assert correlation > 0.9


def test_encoded_absences_are_true(fitted: Fitted) -> None:
    found = influence(fitted.pairs, fitted.model, LAYER, fitted.images)
    kind_of = {direction: kind for kind, direction in fitted.of_kind.items()}
    scenes = fitted.problem.scenes
    checked = 0
    for one in found.encoded_absences:
        if one.direction not in kind_of:
            continue  # the blank cells' direction
        kind = kind_of[one.direction]
        there = scenes[(scenes.kind == kind).any(1)]
        check = removal_check(fitted.model, there.render(), there.without(kind).render(), int(one.output.split()[1]))
        assert check.mean_rise > 0, one
        assert check.raised_share > 0.9, one
        assert check.p_value < 0.01, one
        checked += 1
    assert checked >= 8
    assert json.loads(json.dumps(found.to_dict()))["scdp"] == found.scdp
    assert found.encoded_absences[0].output in found.table()
    assert f"{len(found.encoded_absences)} encoded absences" in repr(found)


def explained(fitted: Fitted, edit: Callable[[Tensor, int], Tensor]) -> float:
    """Share of the logits' change under removal from the image that the edit of the features explains (1 - R)."""
    scenes, wrong, whole = fitted.problem.scenes, 0.0, 0.0
    for kind, direction in fitted.of_kind.items():
        there = scenes[(scenes.kind == kind).any(1)]
        images = there.render()
        with torch.no_grad():
            before = fitted.model(images)
            change = fitted.model(there.without(kind).render()) - before
            with edited(fitted.model, LAYER, lambda features, i=direction: edit(features, i)) as model:
                made = model(images) - before
        wrong += float(((made - change) ** 2).sum())
        whole += float((change**2).sum())
    return 1 - wrong / whole


def test_editing_along_the_encoding_beats_decoding_and_random(fitted: Fitted) -> None:
    pairs = fitted.pairs
    encoding = explained(fitted, lambda f, i: delete(f, pairs, i))
    decoding = explained(fitted, lambda f, i: delete(f, pairs, i, along="decoding"))
    chance = explained(fitted, lambda f, i: delete(f, pairs, i, along=random_way(pairs, i)))
    assert encoding > 0.8
    assert encoding > decoding + 0.1 > chance + 0.1


def test_inserting_is_what_painting_does(fitted: Fitted) -> None:
    scenes = fitted.problem.scenes
    scenes = scenes[(scenes.kind == BLANK).any(1)]
    for kind, direction in fitted.of_kind.items():
        with torch.no_grad():
            before = fitted.model(scenes.render())
            painted = fitted.model(scenes.with_one(kind).render()) - before
            first = (scenes.with_one(kind).kind != scenes.kind).view(-1, 2, 2)
            with edited(fitted.model, LAYER, lambda f, i=direction, w=first: insert(f, fitted.pairs, i, where=w)) as m:
                made = m(scenes.render()) - before
        assert float(torch.corrcoef(torch.stack([painted.flatten(), made.flatten()]))[0, 1]) > 0.8


def test_edits_do_what_the_detector_says(fitted: Fitted) -> None:
    pairs, features = fitted.pairs, fitted.features
    kept = features.clone()
    for i in range(pairs.n_directions):
        fires = pairs.logits(features)[..., i] > 0
        without, everywhere = delete(features, pairs, i), insert(features, pairs, i)
        assert not bool((pairs.logits(without)[..., i] > 0).any())
        assert bool((pairs.logits(everywhere)[..., i] > 0).all())
        assert torch.equal(without[~fires], features[~fires])
        assert torch.equal(everywhere[fires], features[fires])
        moved = (without - features)[fires]
        assert bool((nn.functional.cosine_similarity(moved, -pairs.encoding[:, i], dim=-1) > 0.999).all())
        assert float(pairs.logits(unlearn(features, pairs, i))[..., i].std()) < 1e-2
        assert torch.allclose(
            pairs.logits(delete(features, pairs, i, to=-3.0))[..., i][fires], torch.tensor(-3.0), atol=1e-2
        )
        only = torch.rand(fires.shape, generator=torch.Generator().manual_seed(i)) < 0.5
        assert torch.equal(delete(features, pairs, i, where=only)[only], without[only])
        assert torch.equal(delete(features, pairs, i, where=only)[~only], features[~only])
        assert torch.allclose(pairs.logits_of(features, i), pairs.logits(features)[..., i], atol=1e-4)
    assert torch.equal(features, kept)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f, p: delete(f, p, 5), "direction=5"),
        (lambda f, p: insert(f, p, True), "direction=True"),
        (lambda f, p: delete(f, p, 0, to=1.0), "use insert"),
        (lambda f, p: insert(f, p, 0, to=-1.0), "use delete"),
        (lambda f, p: delete(f, p, 0, along="somewhere"), "along="),
        (lambda f, p: delete(f, p, 0, along=torch.zeros(32)), "orthogonal"),
        (lambda f, p: delete(f, p, 0, to=float("nan")), "to=nan must be a finite number"),
        (lambda f, p: insert(f, p, 0, to=float("inf")), "to=inf"),
        (lambda f, p: delete(f, p, 0, where=torch.ones(f.shape[:-1])), "where is of torch.float32"),
        (lambda f, p: insert(f, p, 0, where=torch.ones(3, *f.shape[:-1], dtype=torch.bool)), "where has shape"),
        (lambda f, p: unlearn(f.long(), p, 0), "features are of torch.int64"),
    ],
)
def test_edits_that_are_refused(fitted: Fitted, call: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        call(fitted.features, fitted.pairs)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


@pytest.mark.filterwarnings("ignore:features has 320")
def test_no_trace_on_the_model(fitted: Fitted) -> None:
    model, layer = fitted.model, dict(fitted.model.named_modules())[LAYER]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    layer.train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    try:
        images = fitted.images[:80]
        pairs = DirectionPairs(2, recipe="paper", steps=2).fit_model(model, LAYER, images)
        influence(pairs, model, LAYER, images, outputs=[0, Unit("conv4", 3)], n_permutations=50)
        with edited(model, LAYER, lambda features: unlearn(features, pairs, 0)) as changed:
            changed(images)
        with (
            pytest.raises(ValueError, match=r"must return features of the shape \(80, 2, 2, 32\), got \(80, 2, 2, 3\)"),
            edited(model, LAYER, lambda features: features[..., :3]),
        ):
            model(images)
        assert layer.training
        assert not model.training
    finally:
        layer.eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert hooks(model) == 0
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_units_and_rcav(fitted: Fitted) -> None:
    images = fitted.images[:200]
    found = influence(fitted.pairs, fitted.model, LAYER, images, outputs=[2, Unit("conv4", 3), Unit("relu4", 3)])
    assert found.outputs == ("class 2", "conv4:3", "relu4:3")
    assert found.effect.shape == (5, 3)
    # both are the value before the rectifier
    assert torch.allclose(found.effect[:, 1], found.effect[:, 2])
    assert torch.allclose(found.effect[:, 0], influence(fitted.pairs, fitted.model, LAYER, images).effect[:, 2])
    rcav = influence(fitted.pairs, fitted.model, LAYER, images, test="rcav", n_permutations=100)
    assert bool((rcav.effect.abs() <= 1).all())
    assert bool((rcav.p >= 1 / 101 - 1e-12).all())
    again = influence(fitted.pairs, fitted.model, LAYER, images, test="rcav", n_permutations=100)
    assert torch.equal(rcav.p, again.p)
    # against noise directions nothing is rejected although all 24 effects are real
    assert rcav.scdp < influence(fitted.pairs, fitted.model, LAYER, images).scdp


def test_corrections(fitted: Fitted) -> None:
    images = fitted.images[:100]
    bh = influence(fitted.pairs, fitted.model, LAYER, images)
    strict = influence(fitted.pairs, fitted.model, LAYER, images, correction="bonferroni")
    assert torch.equal(bh.p, strict.p)
    assert torch.allclose(strict.q, (bh.p * 30).clamp(max=1))
    assert bool((strict.q >= bh.q - 1e-12).all())
    assert bh.sdc == int((bh.q <= 0.05).any(1).sum())


@pytest.mark.parametrize(
    "options",
    [
        {"test": "t"},
        {"correction": "none"},
        {"n_permutations": 0},
        {"n_permutations": 100, "correction": "bonferroni"},
        {"outputs": []},
        {"level": 2.0},
        {"level": 0.0},
        {"step": float("nan")},
        {"step": 0.0},
        {"batch_size": 0},
    ],
)
def test_influence_refuses(fitted: Fitted, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        influence(fitted.pairs, fitted.model, LAYER, fitted.images[:20], **options)
    with pytest.raises(ValueError, match="not fitted"):
        influence(DirectionPairs(5), fitted.model, LAYER, fitted.images[:20])


def test_a_direction_without_effect_is_not_significant(fitted: Fitted) -> None:
    """The sign-flip test holds its level: of effects that are noise around 0, hardly any is rejected."""
    from absence_plugins.methods.directions.significance import flip_signs

    generator = torch.Generator().manual_seed(0)
    each = torch.randn(60, 40, 10, generator=generator, dtype=torch.float64)
    _, p = flip_signs(each, 500, generator)
    assert 0.02 < float((p <= 0.05).double().mean()) < 0.09


def test_fit_model_takes_data_sets_and_stores(tmp_path: Any, fitted: Fitted) -> None:
    images = fitted.images[:120]
    dataset = torch.utils.data.TensorDataset(images, fitted.problem.labels[:120])
    options: dict[str, Any] = {"recipe": "paper", "steps": 2}
    one = DirectionPairs(2, **options).fit_model(fitted.model, LAYER, images)
    for other in (dataset, torch.utils.data.DataLoader(dataset, batch_size=50)):
        assert torch.equal(DirectionPairs(2, **options).fit_model(fitted.model, LAYER, other).decoding, one.decoding)
    stored = DirectionPairs(2, **options).fit_model(fitted.model, LAYER, images, store=tmp_path)
    assert torch.equal(stored.decoding, one.decoding)
    with pytest.raises(ValueError, match="dataset is empty"):
        DirectionPairs(2).fit_model(fitted.model, LAYER, images[:0])
    with pytest.raises(TypeError, match="image tensors"):
        DirectionPairs(2).fit_model(fitted.model, LAYER, [("a",)])


def test_interpretability_against_its_definition(fitted: Fitted) -> None:
    masks = fitted.problem.scenes.masks
    fires = fitted.pairs.transform(fitted.features) > 0.5
    both = (fires[..., 2] & masks[..., 1]).sum() / (fires[..., 2] | masks[..., 1]).sum()
    assert float(fitted.found.iou[2, 1]) == pytest.approx(float(both))
    thresholds = torch.linspace(0, 1, 20_001)[:-1] + 0.5 / 20_000
    s1 = sum(float((thresholds < value).double().mean()) for value in fitted.found.held_out)
    assert fitted.found.s1 == pytest.approx(s1, abs=1e-3)
    distinct = [
        {c for c, value in zip(fitted.found.best, fitted.found.held_out, strict=True) if value > t}
        for t in thresholds[::20].tolist()
    ]
    assert fitted.found.s2 == pytest.approx(sum(map(len, distinct)) / len(distinct), abs=1e-2)
    assert "held out" in repr(fitted.found)
    assert json.dumps(fitted.found.to_dict())
    for bad in (masks[:5], masks.float() * 0.5, masks[..., 0]):
        with pytest.raises(ValueError):
            interpretability(fitted.pairs, fitted.features, bad)
    with pytest.raises(ValueError, match="names"):
        interpretability(fitted.pairs, fitted.features, masks, names=["a"])


def test_positions_that_nobody_labelled_count_neither_way(fitted: Fitted) -> None:
    masks = fitted.problem.scenes.masks
    known = torch.rand(masks.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    found = interpretability(fitted.pairs, fitted.features, torch.where(known, masks.float(), torch.nan))
    fires = (fitted.pairs.transform(fitted.features) > 0.5)[known[..., 1]]
    there = masks[..., 1][known[..., 1]]
    for i in range(found.iou.shape[0]):
        both = (fires[:, i] & there).sum() / (fires[:, i] | there).sum()
        assert float(found.iou[i, 1]) == pytest.approx(float(both))
    nothing = interpretability(fitted.pairs, fitted.features, torch.full(masks.shape, torch.nan))
    assert (float(nothing.iou.abs().max()), nothing.s1) == (0.0, 0.0)


def test_names_from_labels_of_images(fitted: Fitted) -> None:
    from absence_plugins.methods.directions import name_directions

    labels = torch.stack([(fitted.problem.scenes.kind == kind).any(1) for kind in range(len(KINDS))], 1)
    found = name_directions(fitted.pairs, fitted.features, labels, KINDS, length=1, progress=False)
    for kind, direction in fitted.of_kind.items():
        assert str(found.units[direction].formulas[0].formula) == KINDS[kind]


@pytest.mark.parametrize("test", ["step", "rcav"])
def test_stopped_influence_resumes_to_the_same_bits(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: Any
) -> None:
    options: dict[str, Any] = {"test": test, "n_permutations": 40, "batch_size": 8, "correction": "bh", "level": 0.5}
    images = fitted.images[:28]
    expected = influence(fitted.pairs, fitted.model, LAYER, images, **options)
    module = sys.modules[influence.__module__]
    name = "step_effects" if test == "step" else "rcav_scores"
    real, calls = getattr(module, name), []

    def third_stops(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, name, third_stops)
    with pytest.raises(KeyboardInterrupt):
        influence(
            fitted.pairs, fitted.model, LAYER, images, checkpoint=Checkpoint(tmp_path, {}, "influence"), **options
        )
    found = influence(
        fitted.pairs, fitted.model, LAYER, images, checkpoint=Checkpoint(tmp_path, {}, "influence"), **options
    )
    assert len(calls) == 3 + 2, "two of four batches were kept"
    assert torch.equal(found.effect, expected.effect)
    assert torch.equal(found.p, expected.p)
