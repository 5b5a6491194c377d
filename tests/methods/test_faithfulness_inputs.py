"""Ways to ask for scores of absence evidence, wrong ones included; nothing of the user's is touched."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from faithfulness_nets import SAMPLES, Weighted, effect, images, noise
from torch import Tensor, nn

from absence_plugins import ReferenceSet, Unit
from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.faithfulness import AbsenceScores, absence_scores


@pytest.fixture
def net() -> Weighted:
    return Weighted().eval()


# -- ways to ask ------------------------------------------------------------------------------------------------------


def test_units_can_be_named_in_many_ways(net: Weighted) -> None:
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
    ({"unit": -9}, ValueError, "unit=-9 does not exist"),
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
    ({"model": nn.Sequential(Weighted().eval(), nn.Softmax(1), nn.ReLU())}, ValueError, "probabilities"),
]


@pytest.mark.parametrize(("change", "kind", "words"), BAD, ids=[words for *_, words in BAD])
def test_bad_input_is_named(net: Weighted, change: dict[str, object], kind: type[Exception], words: str) -> None:
    call: dict[str, object] = {"model": net, "x": X, "unit": 0, "attribution": torch.randn(4, 1, 8, 8), **change}
    with pytest.raises(kind, match=words):
        absence_scores(**call)  # type: ignore[arg-type]


def test_the_type_is_public() -> None:
    import absence_plugins.methods.faithfulness as faithfulness

    assert faithfulness.AbsenceScores is AbsenceScores


def test_references_of_a_single_output_are_of_the_other_label() -> None:
    net = nn.Linear(4, 1, bias=False)
    net.weight.data = torch.tensor([[1.0, -1.0, -2.0, 1.0]])
    x, rows = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 3.0, 1.0, 0.0]])
    pool = ReferenceSet(rows, torch.tensor([1, 0]), k=1)  # z = 2, z = -4
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)  # "the explained output is not lower"
        signed = torch.tensor([[0.0, 3.0, 2.0, 0.0]])
        found = absence_scores(net, x, 0, signed, view="reference", reference=pool, steps=2, progress=False)
    assert found.score == pytest.approx(1.0)


def test_logits_count_from_the_end() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval(), torch.rand(2, 1, 4, 4)
    signed = torch.randn(2, 1, 4, 4)
    for unit, same in ((-1, 2), (torch.tensor([-3, -1]), torch.tensor([0, 2]))):
        found, wanted = (absence_scores(net, x, one, signed, steps=4, draws=2, progress=False) for one in (unit, same))
        assert found.score == wanted.score


@pytest.mark.parametrize(("side", "most"), [(8, 128), (80, 8)])
def test_batches_on_a_cpu_are_small_enough_for_its_caches(side: int, most: int) -> None:
    sizes: list[int] = []

    def unit(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images.flatten(1).double().mean(1)

    x = torch.rand(3, 1, side, side, generator=torch.Generator().manual_seed(0))
    absence_scores(nn.Identity(), x, unit, -x, steps=3, draws=2, progress=False)
    assert max(sizes) == most
