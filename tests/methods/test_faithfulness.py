"""Scores of absence evidence: exact where the effect is known on paper, and nothing of the user's is touched."""

from __future__ import annotations

import json
import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from faithfulness_nets import SAMPLES, SIDE, Weighted, images, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from absence_plugins import ReferenceSet, Unit
from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.faithfulness import AbsenceScores, absence_scores
from absence_plugins.methods.faithfulness.cells import Cells
from absence_plugins.methods.faithfulness.claims import deletion


@pytest.fixture
def net() -> Weighted:
    return Weighted().eval()


def effect(net: Weighted, unit: int, x: Tensor) -> Tensor:
    """What each pixel adds to the unit, on paper (for unit 1 where its ReLU is open)."""
    return (net.w * x if unit == 0 else -net.h * x).detach()


# -- the scale: 1, 0, below 0 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [0, 1])
@pytest.mark.parametrize("view", ["nontarget", "reference"])
def test_the_true_effect_scores_one_noise_zero_and_the_negated_map_below(net: Weighted, view: str, unit: int) -> None:
    x = images()
    references = None
    true = effect(net, unit, x)
    if view == "reference":  # what is missing: the reference has content everywhere
        references = images(seed=2) + 0.5 * (x == 0)
        true = -effect(net, unit, references - x)  # R = effect(x) - effect(r): > 0 where the reference's pixel lowers u
    options = {"view": view, "reference": references, "steps": 16}
    right = absence_scores(net, x, unit, true, **options)  # type: ignore[arg-type]
    assert right.score == pytest.approx(1, abs=0.02)
    assert right.interval[0] >= 0.98
    wrong = absence_scores(net, x, unit, -true, **options)  # type: ignore[arg-type]
    assert wrong.score < -0.3
    assert wrong.interval[1] < 0
    chance = [absence_scores(net, x, unit, noise(seed), seed=seed, **options).score for seed in range(16)]  # type: ignore[arg-type]
    assert np.mean(chance) == pytest.approx(0, abs=0.05)


def test_a_map_of_nothing_is_a_random_order(net: Weighted) -> None:
    """All ties: the same random orders as those it is compared with, so exactly 0."""
    found = absence_scores(net, images(), 0, torch.zeros(SAMPLES, 1, SIDE, SIDE))
    assert found.score == 0
    assert found.over_random.value == 1 or math.isnan(found.over_random.value)


@pytest.mark.parametrize("factor", [3.7, 1e-6, 1e8])
@pytest.mark.parametrize("view", ["nontarget", "reference"])
def test_only_the_order_counts(net: Weighted, view: str, factor: float) -> None:
    x, signed = images(), noise(0)
    options = {"view": view, "reference": images(seed=2) if view == "reference" else None, "steps": 8}
    one, other = (absence_scores(net, x, 0, scaled, **options) for scaled in (signed, signed * factor))  # type: ignore[arg-type]
    assert one.to_dict() == other.to_dict()


def test_the_order_among_many_that_must_go_together() -> None:
    """A unit that is dead until three of four pixels are gone: no pixel alone has an effect, yet the best order is found."""

    class Dead(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(1.5 - x[:, 0, 2:4, 2:4].sum((1, 2)))

    x = torch.ones(12, 1, SIDE, SIDE)
    truth = torch.zeros_like(x)
    truth[:, :, 2:4, 2:4] = -1
    found = absence_scores(Dead(), x, lambda z: Dead()(z), truth, steps=SIDE * SIDE)
    assert found.score == pytest.approx(1, abs=0.02)
    assert found.curves["map"].tolist()[-1] == 1.5  # up to where all four are gone
    assert absence_scores(Dead(), x, lambda z: Dead()(z), -truth, steps=SIDE * SIDE).score <= 0


# -- a second writing -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 12), view=st.sampled_from(["nontarget", "reference"]))
def test_curve_and_area_as_plain_loops(seed: int, steps: int, view: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, 5, generator=generator)
    model = nn.Sequential(nn.Linear(5, 2, bias=False), nn.Tanh()).requires_grad_(False)
    model[0].weight.data = weights
    x = torch.randn(3, 5, generator=generator).round()
    r = torch.randn(3, 5, generator=generator).round() * 2
    signed = torch.randn(3, 5, generator=generator)
    way = 1 if view == "nontarget" else -1
    empty = 1.0
    changeable = x != empty if view == "nontarget" else (x - empty).abs() < (r - empty).abs()
    if not changeable.any():
        return

    def gain(row: int, features: list[int]) -> float:
        changed = x[row].clone()
        for i in features:
            changed[i] = empty if view == "nontarget" else r[row, i]
        return way * (float(model(changed)[1]) - float(model(x[row])[1]))

    every = [[i for i in range(5) if changeable[row, i]] for row in range(3)]
    counts = []
    for row, features in enumerate(every):
        whole = gain(row, features)
        alone = {i: gain(row, [i]) for i in features}
        last = {i: whole - gain(row, [j for j in features if j != i]) for i in features}
        peaks = []
        for effect in ({i: alone[i] + last[i] for i in features}, alone, last):
            order = sorted(features, key=lambda i: -effect[i])
            peaks += [(gain(row, order[:count]), -count) for count in range(1, len(order) + 1)]
        highest, count = max(peaks, default=(0.0, -1))
        counts.append(-count if highest > 1e-5 else max(1, len(features)))
    most = max(1, min(steps, max(counts)))
    expected = []
    for row, features in enumerate(every):
        if not features:
            continue
        order = sorted(features, key=lambda i: way * float(signed[row, i]))
        gains = [0.0, *(gain(row, order[: math.ceil(step * counts[row] / most)]) for step in range(1, most + 1))]
        expected.append(sum((a + b) / 2 for a, b in pairwise(gains)) / most)
    found = absence_scores(
        model,
        x,
        1,
        signed,
        view=view,
        reference=r if view == "reference" else None,
        empty=empty,
        steps=steps,  # type: ignore[arg-type]
    )
    assert found.areas["map"].tolist() == pytest.approx(expected, abs=1e-5)
    assert found.samples == len(expected)
    assert (found.areas["best"] >= found.areas["map"] - 1e-9).all()


def test_the_best_of_a_sum_is_the_sorted_order(net: Weighted) -> None:
    """For a linear unit no order beats the one by effects; the search must find it without being told."""
    x = images()
    blind = absence_scores(net, x, 0, noise(3), steps=64)
    told = absence_scores(net, x, 0, effect(net, 0, x), steps=64)
    assert torch.allclose(blind.areas["best"], told.areas["map"], atol=1e-5)


def test_the_best_order_does_not_depend_on_what_else_is_asked(net: Weighted) -> None:
    x = images()
    alone = absence_scores(net, x, 1, noise(0), steps=8)
    beside = absence_scores(net, x, 1, noise(0), standard=effect(net, 1, x), steps=8)
    assert alone.score == beside.score


def test_a_placebo_is_a_map_that_says_nothing(net: Weighted) -> None:
    """The map shifted and given to another sample: near 0 where pixels act alone, whatever the map is worth."""
    x = images()
    right = absence_scores(net, x, 0, effect(net, 0, x) + 0 * x, steps=16, draws=16)
    assert right.placebo_score is not None
    assert abs(right.placebo_score) < 0.1
    assert "the same map where it says nothing" in right.sentence()
    assert absence_scores(net, x, 0, torch.zeros_like(x)).placebo_score == 0


def test_channels_of_a_pixel_change_together() -> None:
    """The reference has content in some channels only; the pixel is copied whole, and its map counts whole."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(3, 8, 8, generator=generator)
    x, r = (torch.rand(8, 3, 8, 8, generator=generator) for _ in range(2))
    true = weights * (x - r)

    def u(z: Tensor) -> Tensor:
        return (z * weights).sum((1, 2, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsenceWarning)  # random references, some of which raise u
        full, summed = (
            absence_scores(nn.Identity(), x, u, signed, view="reference", reference=r)
            for signed in (true, true.sum(1, keepdim=True))
        )
    assert full.score == pytest.approx(1, abs=0.02)
    assert full.to_dict() == summed.to_dict()


def test_where_the_unit_only_goes_the_other_way_there_is_no_score(net: Weighted) -> None:
    """Copying in raises u: it does not encode an absence here, and no order of the pixels makes it fall."""
    x, weights = torch.zeros(6, 1, SIDE, SIDE), net.h.detach() + 0.1
    references = images(6)

    def u(z: Tensor) -> Tensor:
        return (z * weights).sum((1, 2, 3))

    with pytest.warns(AbsenceWarning, match="not lower"):
        found = absence_scores(nn.Identity(), x, u, weights * references, view="reference", reference=references)
    assert math.isnan(found.score)
    assert "no order of the cells makes the unit fall" in found.sentence()


def test_rounding_is_no_score() -> None:
    x = torch.full((16, 1, SIDE, SIDE), 0.3)
    signed = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for offset in (0.0, 100.0):
        found = absence_scores(nn.Identity(), x, lambda z, c=offset: c - z.sum((1, 2, 3)), signed)  # type: ignore[misc]
        assert math.isnan(found.score)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_scale_of_the_map_is_lost(net: Weighted, dtype: torch.dtype) -> None:
    x = images()
    true = effect(net, 0, x).double()
    model = Weighted().to(dtype).eval()
    scores = [absence_scores(model, x.to(dtype), 0, true * factor, steps=8).score for factor in (1, 1e-50, 1e45)]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0] > 0.95


def test_a_blank_pixel_may_be_off_by_rounding() -> None:
    """ImageNet's black in Python floats is not the float32 number in the image."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = torch.zeros(2, 3, 8, 8)
    x[:, :, 2:4, 2:4] = 0.8
    x = (x - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    empty = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    claim = deletion(
        x, torch.tensor(empty).reshape(3, 1, 1) * (1 + 1e-7), Cells.of(x), lambda z, _: z.sum((1, 2, 3)), 8
    )
    assert claim.universe.sum(1).tolist() == [4, 4]


def test_one_logit_has_two_neurons() -> None:
    x = torch.ones(3, 4)
    weights = torch.tensor([[1.0, 2.0, -3.0, -1.0]])
    model = nn.Linear(4, 1, bias=False)
    model.weight.data = weights
    for unit, sign in ((0, 1.0), (1, -1.0)):
        assert absence_scores(model, x, unit, sign * weights.expand(3, 4)).score == pytest.approx(1)
    assert math.isnan(absence_scores(model, x[:1], 0, weights).interval[0])  # one sample has no spread


# -- ways to ask ------------------------------------------------------------------------------------------------------


def test_units_can_be_named_in_four_ways(net: Weighted) -> None:
    x, signed = images(6), noise(0)[:6]
    scores = [
        absence_scores(net, x, unit, signed, steps=8).score
        for unit in (1, np.int64(1), [1] * 6, torch.ones(6, dtype=torch.uint8), Unit("", 1), lambda z: net(z)[:, 1])
    ]
    assert len({round(score, 9) for score in scores}) == 1
    mixed = absence_scores(net, x, torch.tensor([0, 1, 0, 1, 0, 1]), signed, steps=8)
    singles = [absence_scores(net, x, unit, signed, steps=8) for unit in (0, 1)]
    for row in range(6):
        assert mixed.areas["map"][row] == singles[row % 2].areas["map"][row]


def test_maps_with_channels_and_without_are_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, 6, 6, generator=generator)
    weights = torch.randn(3, 6, 6, generator=generator)
    signed = x * weights

    def u(z: Tensor) -> Tensor:
        return (z * weights).sum((1, 2, 3))

    full, summed, flat = (
        absence_scores(nn.Identity(), x, u, shape) for shape in (signed, signed.sum(1, keepdim=True), signed.sum(1))
    )
    assert full.score == pytest.approx(1, abs=0.02)
    assert full.to_dict() == summed.to_dict() == flat.to_dict()


def test_references_of_a_set_are_the_nearest_and_may_have_maps_of_their_own(net: Weighted) -> None:
    x, pool = images(5), images(20, seed=7)
    references = ReferenceSet(pool, torch.arange(20) % 2, k=3)
    nearest = references.nearest(x, 0)
    assert isinstance(nearest, Tensor)
    own = (net.w * (x[:, None] - nearest)).detach()
    by_set = absence_scores(net, x, 0, own, view="reference", reference=references, steps=8)
    by_hand = absence_scores(net, x, 0, own, view="reference", reference=nearest, steps=8)
    assert by_set.to_dict() == by_hand.to_dict()
    assert by_set.score == pytest.approx(1, abs=0.02)
    assert by_set.samples == 5
    averaged = absence_scores(net, x, 0, own.mean(1), view="reference", reference=nearest, steps=8)
    assert averaged.score < by_set.score


def test_the_blank_value_comes_from_the_set_or_the_caller(net: Weighted) -> None:
    """Black is -1 here: with the wrong blank value other pixels count as missing."""
    x, pool = images(4) - 1, images(12, seed=5) - 1
    references = ReferenceSet(pool, torch.arange(12) % 2, k=1, empty=-1.0)
    right, same, wrong = (
        absence_scores(net, x, 0, noise(0)[:4], view="reference", reference=references, empty=empty, steps=8)
        for empty in (None, -1.0, 0.0)
    )
    assert right.to_dict() == same.to_dict() != wrong.to_dict()


def test_cells_of_several_pixels(net: Weighted) -> None:
    x = images()
    coarse = absence_scores(net, x, 0, effect(net, 0, x), cell=3, steps=9)
    assert coarse.cell == 3
    assert coarse.score == pytest.approx(1, abs=0.02)
    assert len(coarse.curves["map"]) <= 10


def test_batches_and_the_standard_map(net: Weighted) -> None:
    x = images()
    options = {"standard": lambda z: -effect(net, 0, z), "steps": 8}
    large, small = (absence_scores(net, x, 0, lambda z: effect(net, 0, z), batch_size=b, **options) for b in (512, 7))  # type: ignore[arg-type]
    assert large.score == pytest.approx(small.score, abs=1e-6)
    assert large.standard_score is not None
    assert large.standard_score < 0
    assert large.over_standard is not None
    assert "standard map -" in large.sentence()


def test_samples_without_content_do_not_count(net: Weighted) -> None:
    x = images()
    x[[2, 5]] = 0
    found = absence_scores(net, x, 0, effect(net, 0, x))
    assert found.empty_samples == (2, 5)
    assert found.samples == SAMPLES - 2
    assert torch.isnan(found.per_sample[[2, 5]]).all()
    assert torch.isfinite(found.per_sample[[0, 1]]).all()
    with pytest.raises(ValueError, match="nothing to change"):
        absence_scores(net, torch.zeros_like(x), 0, noise(0))


def test_a_unit_that_never_moves_has_no_score() -> None:
    found = absence_scores(nn.Identity(), images(), lambda z: z.new_zeros(len(z)), noise(0))
    assert math.isnan(found.score)
    assert "there is no score" in found.sentence()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["score"] is None


# -- nothing of the user's changes ------------------------------------------------------------------------------------


def test_the_model_and_the_random_state_are_as_before(net: Weighted) -> None:
    net.train()  # dropout would make every score random
    torch.manual_seed(5)
    before, x = torch.get_rng_state(), images()
    x.requires_grad_()
    scores = [absence_scores(net, x, 1, noise(0), seed=4).to_dict() for _ in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    assert scores[0] == scores[1]
    assert all(module.training for module in net.modules())
    assert x.grad is None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert not net._forward_hooks


def test_a_failing_model_is_left_as_it_was(net: Weighted) -> None:
    net.train()
    with pytest.raises(RuntimeError):
        absence_scores(net, torch.ones(2, 1, 5, 5), 0, torch.ones(2, 1, 5, 5))
    assert net.training
    assert net.drop.training


# -- results ----------------------------------------------------------------------------------------------------------


def test_result_reads_well_and_draws(net: Weighted) -> None:
    pytest.importorskip("matplotlib")
    x = images()
    found = absence_scores(net, x, 0, effect(net, 0, x), standard=noise(0))
    assert "Deletion of suppressors: 1.00 [" in repr(found)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["score"] == found.score
    assert len(plain["per_sample"]) == SAMPLES
    labels = [line.get_label() for line in found.figure().axes[0].lines]
    assert {"this map", "random order", "standard map", "best order found"} <= set(labels)


def test_an_absence_map_is_not_a_signed_map(net: Weighted) -> None:
    x = images()
    magnitudes = (-effect(net, 0, x)).clamp(min=0)
    with pytest.warns(AbsenceWarning, match="pass the negative"):
        absence_scores(net, x, 0, magnitudes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = absence_scores(net, x, 0, -magnitudes)
    assert found.score == pytest.approx(1, abs=0.02)  # the order of what raises the unit earns nothing


X = images(4)
BAD: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"view": "target"}, ValueError, "view='target' must be"),
    ({"view": "reference"}, ValueError, "needs reference="),
    ({"view": "reference", "reference": torch.zeros(4, 1, 5, 5)}, ValueError, "reference has shape"),
    ({"view": "reference", "reference": [1]}, TypeError, "got list"),
    ({"view": "reference", "reference": X.clone()}, ValueError, "only its reference has content"),
    ({"unit": 2}, ValueError, "unit=2 does not exist"),
    ({"unit": -1}, ValueError, "unit=-1 does not exist"),
    ({"unit": None}, ValueError, "unit=None must be a logit's number"),
    ({"unit": "0"}, ValueError, "unit='0' must be"),
    ({"unit": lambda z: z}, ValueError, "there must be one each"),
    ({"unit": lambda z: z.sum((1, 2, 3)) * torch.nan}, ValueError, "unit of sample 0 is NaN"),
    ({"empty": float("nan")}, ValueError, "empty=nan is NaN"),
    ({"attribution": torch.zeros(3, 1, 8, 8)}, ValueError, r"attribution has shape \(3, 1, 8, 8\)"),
    ({"attribution": [1]}, TypeError, "attribution must be a callable or a tensor, got list"),
    ({"unit": 0.5}, ValueError, "must be a logit's number"),
    ({"unit": torch.tensor([0, 1])}, ValueError, "2 units for 4 samples"),
    ({"unit": Unit("nowhere", 0)}, ValueError, "no layer 'nowhere'"),
    ({"attribution": torch.zeros(4, 1, 5, 5)}, ValueError, "attribution has shape"),
    ({"attribution": torch.full((4, 1, 8, 8), torch.nan)}, ValueError, "sample 0 holds NaN"),
    ({"attribution": lambda x: (x,)}, TypeError, "got tuple"),
    ({"standard": torch.zeros(4, 2, 8, 8)}, ValueError, "standard has shape"),
    ({"x": torch.zeros(0, 1, 8, 8)}, ValueError, "x has shape"),
    ({"x": torch.zeros(8, 8, 8)}, ValueError, "x has shape"),
    ({"steps": 0}, ValueError, "steps=0"),
    ({"draws": 1.5}, ValueError, "draws=1.5"),
    ({"cell": 0}, ValueError, "cell=0"),
    ({"empty": torch.zeros(3)}, ValueError, "does not fit images"),
    ({"model": nn.Sequential(Weighted().eval(), nn.Softmax(1))}, ValueError, "probabilities"),
]


@pytest.mark.parametrize(("change", "kind", "words"), BAD, ids=[words for *_, words in BAD])
def test_bad_input_is_named(net: Weighted, change: dict[str, object], kind: type[Exception], words: str) -> None:
    call: dict[str, object] = {"model": net, "x": X, "unit": 0, "attribution": torch.randn(4, 1, 8, 8), **change}
    with pytest.raises(kind, match=words):
        absence_scores(**call)  # type: ignore[arg-type]


def test_the_type_is_public() -> None:
    import absence_plugins.methods.faithfulness as faithfulness

    assert faithfulness.AbsenceScores is AbsenceScores
