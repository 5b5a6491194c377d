"""Which output, compared with what: references, non-targets and seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit import attribution
from zennit.composites import EpsilonPlus
from zennit_nets import (
    CONSERVATIVE,
    UPSTREAM,
    conv_net,
    dense_net,
    explain,
    images,
    one,
    relative,
    rows,
    summed,
)

import absence_plugins.zennit as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning
from absence_plugins.zennit import (
    AbsenceEpsilonGamma,
    AbsenceGradient,
    AbsenceIntegratedGradients,
    AbsenceOcclusion,
    nontarget,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def given(k: int = 3, **options: Any) -> ReferenceSet:
    return ReferenceSet(images(18, seed=9), torch.arange(18) % 3, k=k, **options)


# -- references -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_several_references_are_the_mean_of_single_ones(name: str) -> None:
    net, x, references = conv_net(1), images(2), given()
    attributor = AbsenceGradient(net, CONSERVATIVE[name](), one(1, 2), reference=references)
    nearest = references.nearest(x, torch.tensor([1, 2]))
    each = [explain(net, CONSERVATIVE[name](), x, nearest[:, k], one(1, 2)) for k in range(3)]
    found, explanation = attributor(x)[1], attributor.explain(x)
    assert torch.equal(found, torch.stack(each).mean(0))
    assert torch.equal(explanation.attribution, found)
    assert torch.equal(explanation.per_reference, torch.stack(each, 1))
    with torch.no_grad():
        values = torch.stack([(net(nearest[:, k]) * one(1, 2)).sum(1) for k in range(3)], 1)
        output = (net(x) * one(1, 2)).sum(1)
    assert torch.allclose(explanation.reference_output, values, rtol=1e-12)
    assert torch.allclose(explanation.output, output, rtol=1e-12)
    assert torch.allclose(summed(found), output - values.mean(1), rtol=1e-9)
    assert float(explanation.completeness_error.abs().max()) <= 1e-9
    assert explanation.view == "target"
    missing = x[:, None].abs() < nearest.abs()
    parts = [explanation.per_reference.masked_fill(~keep, 0).mean(1).clamp(min=0) for keep in (missing, ~missing)]
    assert torch.allclose(explanation.absence, parts[0])
    assert torch.allclose(explanation.presence, parts[1])


def test_the_explanation_names_the_target() -> None:
    # target is None in the target view, although its class chose the references (attributor.py, _collect)
    explanation = AbsenceGradient(conv_net(1), AbsenceEpsilonGamma(), reference=given()).explain(images(2), one(1, 2))
    assert explanation.nontarget is None
    assert explanation.target.tolist() == [1, 2]


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_with_both_the_non_target_is_compared_with_its_own_class(name: str) -> None:
    net, x, references = conv_net(1), images(2), given(2)
    attributor = AbsenceGradient(net, CONSERVATIVE[name](), one(1, 2), reference=references, nontarget="runner_up")
    chosen = (net(x).detach() - 1e9 * one(1, 2)).argmax(1)
    nearest = references.nearest(x, torch.tensor([1, 2]), label=chosen)
    each = [explain(net, CONSERVATIVE[name](), x, nearest[:, k], one(*chosen.tolist())) for k in range(2)]
    explanation = attributor.explain(x)
    assert torch.equal(attributor(x)[1], torch.stack(each).mean(0))
    assert explanation.view == "nontarget"
    assert explanation.target.tolist() == [1, 2]
    assert torch.equal(explanation.nontarget, chosen)
    present = x[:, None].abs() >= nearest.abs()
    held = -explanation.per_reference.masked_fill(~present, 0).mean(1)
    assert torch.allclose(explanation.absence, held.clamp(min=0))
    assert torch.allclose(explanation.presence, explanation.attribution.clamp(min=0))


def test_references_that_cannot_show_an_absence_are_announced() -> None:
    net, x = conv_net(1), images(1)
    higher = images(40, seed=3)
    higher = higher[(net(higher) > net(x))[:, 0]][:1]
    with pytest.warns(AbsenceWarning, match=r"samples \[0\] have references .* not lower"):
        AbsenceGradient(net, AbsenceEpsilonGamma(), one(0), reference=higher)(x)
    with pytest.warns(AbsenceWarning, match="compared with zeros, where nothing missing can show"):
        attribution.Gradient(net, AbsenceEpsilonGamma())(x, one(0))


# -- non-targets ------------------------------------------------------------------------------------------------------

TARGETS = torch.tensor([0, 1, 2])
SELECTIONS: dict[str, Any] = {
    "runner_up": lambda outputs: one(*(outputs - 1e9 * one(0, 1, 2)).argmax(1).tolist()),
    "others": lambda outputs: (1 - one(0, 1, 2)) / 2,
    "list": lambda outputs: one(2, 0, 1),
    "tensor": lambda outputs: one(1, 2, 0),
    "function": lambda outputs: one(*(outputs + 1e9 * one(0, 1, 2)).argmin(1).tolist()),
}
GIVEN: dict[str, Any] = {
    "list": [2, 0, 1],
    "tensor": torch.tensor([1, 2, 0]),
    "function": lambda outputs, target: outputs.scatter(1, target[:, None], torch.inf).argmin(1),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_and_their_seeds(name: str) -> None:
    """The value under rules that divide by outputs, 1 under gradients and under ours."""
    net, x, r = conv_net(2), images(3), images(3, seed=2)
    select = GIVEN.get(name, name)
    outputs = net(x).detach()
    weights = SELECTIONS[name](outputs)
    ours = explain(net, AbsenceEpsilonGamma(), x, r, weights)
    function = nontarget(TARGETS, select)
    assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r, one(0, 1, 2), nontarget=select), ours)
    assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r, function), ours)
    zeros = explain(net, AbsenceEpsilonGamma(), x, torch.zeros(()), weights)
    assert torch.equal(attribution.Gradient(net, AbsenceEpsilonGamma(), function)(x)[1], zeros)
    for composite in (*UPSTREAM, None):
        options = {"low": -4.0, "high": 4.0} if composite == "epsilon_gamma_box" else {}
        build = lambda composite=composite, options=options: UPSTREAM[composite](**options) if composite else None  # noqa: E731
        divides = composite not in (None, "deconvnet", "guided_backprop", "beta_smooth")
        seed = weights * outputs if divides else weights
        expected = attribution.Gradient(net, build())(x, seed)[1]
        for host in (attribution.Gradient, AbsenceGradient):
            assert torch.allclose(host(net, build())(x, function)[1], expected, rtol=1e-9), composite
            assert torch.allclose(host(net, build(), lambda out: function(out))(x)[1], expected, rtol=1e-9), composite
        if build() is not None:
            with build().context(net) as registered:
                assert torch.allclose(attribution.Gradient(registered)(x, function)[1], expected, rtol=1e-9), composite
        if composite not in ("deconvnet", "beta_smooth"):
            found = AbsenceGradient(net, build(), one(0, 1, 2), nontarget=select)(x)[1]
            assert torch.allclose(found, expected, rtol=1e-9), composite


def test_an_integer_for_all_and_outputs_of_more_axes() -> None:
    net, x, r = conv_net(2), images(2), images(2, seed=2)
    found = explain(net, AbsenceEpsilonGamma(), x, r, one(0, 0), nontarget=2)
    assert torch.equal(found, explain(net, AbsenceEpsilonGamma(), x, r, one(2, 2)))
    wide = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 4)).double()  # [B, 3, 3, 3]
    at = torch.zeros(2, 3, 3, 3).double()
    at[:, 0, 1, 2] = 1.0
    other = at.roll(2, 1)
    expected = explain(wide, AbsenceEpsilonGamma(), x, r, other)
    assert torch.equal(explain(wide, AbsenceEpsilonGamma(), x, r, at, nontarget=2), expected)
    assert torch.equal(explain(wide, AbsenceEpsilonGamma(), x, r, nontarget((0, 1, 2), 2)), expected)


@pytest.mark.parametrize("flat", [True, False], ids=["[B]", "[B, 1]"])
def test_a_single_output_is_itself_or_its_negative(flat: bool) -> None:
    net: Any = dense_net(3)
    net[-1] = nn.Linear(6, 1).double()
    net = nn.Sequential(net, nn.Flatten(0)) if flat else net
    x, r = rows(2), rows(2, seed=2)
    plus = torch.ones(2, *([] if flat else [1])).double()
    expected = explain(net, AbsenceEpsilonGamma(), x, r, plus)
    for select, sign in (("negated", -1), ("target", 1)):
        assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r, plus, nontarget=select), sign * expected)
        assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r, nontarget(0, select)), sign * expected)
    for other in ("runner_up", "others", "margin", 1):
        with pytest.raises(ValueError, match="nontarget='negated' explains its negative"):
            explain(net, AbsenceEpsilonGamma(), x, r, plus, nontarget=other)
    value = attribution.Gradient(net, EpsilonPlus())(x, lambda out: out)[1]
    assert torch.allclose(attribution.Gradient(net, EpsilonPlus())(x, nontarget(0, "negated"))[1], -value)
    assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r, -plus), -expected)
    references = ReferenceSet(rows(12, seed=9), torch.arange(12) % 2, k=1)  # class 1 is what z is for
    for seed, options, classes, label in (
        (plus, {}, 1, None), (-plus, {}, 0, None), (plus, {"nontarget": "negated"}, 1, None)
    ):  # fmt: skip
        nearest = references.nearest(x, classes, label=label)[:, 0]
        sign = -1 if options or seed is not plus else 1
        assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, references, seed, **options), explain(net, AbsenceEpsilonGamma(), x, nearest, sign * plus))  # fmt: skip


def test_a_single_logit_with_axes_of_one() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 6)).double()  # [B, 1, 1, 1]
    x, r, plus = images(2), images(2, seed=2), torch.ones(2, 1, 1, 1).double()
    expected = explain(net, AbsenceEpsilonGamma(), x, r, plus)
    assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r, plus, nontarget="negated"), -expected)


def test_minus_z_negated_is_z() -> None:
    net = nn.Sequential(nn.Linear(5, 1)).double()
    x, r, minus = rows(2), rows(2, seed=2), -torch.ones(2, 1).double()
    expected = explain(net, AbsenceEpsilonGamma(), x, r, -minus)
    assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r, minus, nontarget="negated"), expected)
    attributor = AbsenceGradient(net, AbsenceEpsilonGamma(), minus, reference=r, nontarget="negated")
    assert attributor.explain(x).words() == ["the output"] * 2


@pytest.mark.parametrize("name", ["Gradient", "IntegratedGradients", "Occlusion"])
def test_target_negated_and_margin_are_combinations(name: str) -> None:
    net, x, r = conv_net(3), images(2), images(2, seed=2)
    cls, options = {
        "Gradient": (AbsenceGradient, {"composite": AbsenceEpsilonGamma()}),
        "IntegratedGradients": (AbsenceIntegratedGradients, {}),
        "Occlusion": (AbsenceOcclusion, {"window": 3, "stride": 3}),
    }[name]
    found = {
        word: cls(net, attr_output=one(0, 2), reference=r, nontarget=word, **options).explain(x)
        for word in (None, "target", "negated", "margin", "runner_up")
    }
    maps = {word: each.attribution.detach() for word, each in found.items()}
    assert torch.equal(maps["target"], maps[None])
    assert torch.allclose(maps["negated"], -maps[None], atol=1e-12)
    assert torch.allclose(maps["margin"], maps["target"] - maps["runner_up"], atol=1e-12)
    other = found["runner_up"].nontarget.tolist()
    assert found["margin"].words() == [f"logit 0 minus logit {other[0]}", f"logit 2 minus logit {other[1]}"]
    assert found[None].words() == found["target"].words() == ["logit 0", "logit 2"]
    seed = nontarget([0, 2], "margin")
    with attribution.Gradient(net, EpsilonPlus()) as host:  # LRP is linear in its seed
        values = net(x).detach()
        expected = sum(
            sign * host(x, values * torch.eye(3).double()[which])[1] for sign, which in ((1, [0, 2]), (-1, other))
        )
        assert torch.allclose(host(x, seed)[1], expected, atol=1e-10)


@pytest.mark.parametrize("word", [None, "runner_up", "others", "margin"])
def test_maps_of_logits_are_summed_over_the_image(word: Any) -> None:
    """A row of classes as attr_output, or a mask of one class, means the sum; as with a wrapper made by hand."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 1)).double()
    summed = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the mean of 16 places
    x, r = images(2), images(2, seed=2)
    classes = torch.eye(4).double()[[1, 3]]
    places = classes[:, :, None, None].expand(2, 4, *net(x).shape[2:])
    expected = explain(summed, AbsenceEpsilonGamma(), x, r, classes, nontarget=word) * net(x)[0, 0].numel()
    for seed in (classes, places):
        assert torch.allclose(explain(net, AbsenceEpsilonGamma(), x, r, seed, nontarget=word), expected, atol=1e-10)
    if word is not None:
        assert torch.allclose(explain(net, AbsenceEpsilonGamma(), x, r, nontarget([1, 3], word)), expected, atol=1e-10)


@pytest.mark.parametrize("word", [None, 1, "runner_up", "margin", "negated"])
def test_outputs_that_are_switched_off_take_no_part(word: Any) -> None:
    class Masked(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.value = nn.Linear(5, 4).double(), value

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).masked_fill(torch.tensor([False, False, False, True]), self.value)

    x, r = rows(2), rows(2, seed=2)
    seed = torch.eye(4).double()[[0]]
    expected, found = (
        explain(Masked(value), AbsenceEpsilonGamma(), x, r, seed, nontarget=word) for value in (-1e4, -torch.inf)
    )
    assert torch.equal(found, expected)
    for host in (
        attribution.Gradient(Masked(-torch.inf), AbsenceEpsilonGamma()),
        attribution.Gradient(Masked(-torch.inf), EpsilonPlus()),
    ):
        with host as registered:
            assert bool(registered(x, nontarget(0, "margin"))[1].isfinite().all())
            with pytest.raises(ValueError, match=r"logit 3 of sample 0 is NaN or infinite \(-inf\)"):
                registered(x, nontarget(0, 3))
    with pytest.raises(ValueError, match=r"output 3 of sample 0 is NaN or infinite \(-inf\)"):
        explain(Masked(-torch.inf), AbsenceEpsilonGamma(), x, r, torch.eye(4).double()[[3]])


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_weights_on_outputs_are_taken_as_they_are(name: str) -> None:
    """R is linear in them; without any, all outputs are explained at once, as in Zennit."""
    net, x, r = conv_net(4), images(1), images(1, seed=2)
    each = [explain(net, CONSERVATIVE[name](), x, r, one(k)) for k in range(3)]
    weights = torch.tensor([[2.0, -0.5, 0.0]]).double()
    assert relative(explain(net, CONSERVATIVE[name](), x, r, weights), 2 * each[0] - each[1] / 2) <= 1e-9
    everything = AbsenceGradient(net, CONSERVATIVE[name](), reference=r)(x)[1]
    assert relative(everything, sum(each)) <= 1e-9
    ones = torch.ones(1, 3).double()
    assert torch.equal(explain(net, CONSERVATIVE[name](), x, r, ones), everything)


def test_a_weight_that_happens_to_be_the_output_stays_a_weight() -> None:
    """The mean of the others counts output 1 half, also where that output is 0.5 (Zennit's seed for "this output")."""
    net = nn.Linear(2, 3, bias=False).double()
    net.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 2.0]]).double()
    x, r = torch.tensor([[3.0, 1.0]]).double(), torch.zeros(2).double()
    found = explain(net, AbsenceEpsilonGamma(), x, r, one(0), nontarget="others")
    assert found.tolist() == [[0.0, 1.25]]


@pytest.mark.parametrize("kind", ["SmoothGrad", "IntegratedGradients", "Occlusion"])
def test_the_choice_is_made_once_on_the_real_input(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    drawn: list[Tensor] = []

    def spy(outputs: Tensor, target: Tensor) -> Tensor:
        seen.append(outputs)
        return (target + 1) % 3

    original = ReferenceSet.nearest
    monkeypatch.setattr(ReferenceSet, "nearest", lambda self, x, *a, **o: drawn.append(x) or original(self, x, *a, **o))
    net, x = conv_net(2), images(2)
    options: dict[str, Any] = {"window": 4, "stride": 4} if kind == "Occlusion" else {"n_iter": 4}
    composite = AbsenceEpsilonGamma() if kind == "SmoothGrad" else None
    cls = getattr(adapters, f"Absence{kind}")
    for use in ("call", "explain"):
        seen.clear()
        drawn.clear()
        attributor = cls(net, composite, one(0, 1), **options, reference=given(2), nontarget=spy)
        attributor(x) if use == "call" else attributor.explain(x)
        assert len(seen) == len(drawn) == 1
        assert torch.allclose(seen[0], net(x), rtol=1e-12)
        assert torch.equal(drawn[0], x)
