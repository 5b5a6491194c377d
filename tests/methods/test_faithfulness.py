"""Scores of absence evidence: exact where the effect is known on paper."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from faithfulness_nets import SAMPLES, SIDE, Weighted, effect, images, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from absence_plugins import MadeReferences
from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.faithfulness.cells import Cells
from absence_plugins.methods.faithfulness.claims import deletion


@pytest.fixture
def net() -> Weighted:
    return Weighted().eval()


# -- the scale: 1, 0, below 0 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("view", ["nontarget", pytest.param("reference", marks=pytest.mark.slow)])
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
    assert 0.8 < right.interval[0] < right.interval[1] == 1  # 24 samples at 1 do not exclude that 1 in 10 is not
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
        gains: list[list[float]] = []
        for strength in ({i: alone[i] + last[i] for i in features}, alone, last):
            order = sorted(features, key=lambda i: -strength[i])
            gains.append([gain(row, order[:count]) for count in range(1, len(order) + 1)])
        furthest = max(gains, key=lambda one: max(one, default=0.0))  # the first of equals
        highest = max(furthest, default=0.0)
        reached = [count for count, one in enumerate(furthest, 1) if one >= 0.9 * highest]
        counts.append(reached[0] if highest > 1e-5 else max(1, len(features)))
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


def test_made_references_take_the_place_of_blank_in_the_nontarget_view() -> None:
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    weights = torch.linspace(-2, 1, 16).double()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False)).double()
    model[1].weight.data = weights[None]
    made = MadeReferences("grey")
    signed = weights.view(1, 1, 4, 4) * (x - x.mean((2, 3), keepdim=True))
    found = absence_scores(model, x, 0, signed, reference=made, progress=False)
    assert found.score == pytest.approx(1.0)
    gains = (-signed.flatten(1)).clamp(min=0).sum(1)  # what holds the unit down is replaced by grey
    end = found.curves["map"][-1].item()  # at 90 % of the peak
    assert 0.9 * gains.mean().item() <= end <= gains.mean().item() + 1e-9
    with pytest.raises(ValueError, match="nothing is missing compared with MadeReferences"):
        absence_scores(model, x, 0, signed, view="reference", reference=made)
