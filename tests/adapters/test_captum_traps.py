"""Cases in which a map misleads: each is fixed, rejected or warned of."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from adapter_table import (
    ADAPTERS,
    CLOSE,
    FLIPPING,
    Net,
    images,
    linear,
    random_states,
    seeded,
)
from captum import attr
from captum.attr import NoiseTunnel
from captum.attr._utils.lrp_rules import GammaRule, IdentityRule
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning
from absence_plugins.relevance import relevance

pytestmark = pytest.mark.filterwarnings("ignore")


def test_deeplift_is_complete_behind_relu_and_max_pooling_where_captum_is_not() -> None:
    net, x, base = Net(), images(4), images(4, seed=8)
    target = torch.tensor([0, 1, 2, 3])
    runner_up = net(x).detach().scatter(1, target[:, None], -torch.inf).argmax(1)
    wanted = (net(x) - net(base)).gather(1, runner_up[:, None])[:, 0].detach()
    ours = adapters.AbsenceDeepLift(net).attribute(x, base, target=target).flatten(1).sum(1)
    theirs = attr.DeepLift(net).attribute(x, base, target=runner_up).flatten(1).sum(1)
    assert torch.allclose(ours, wanted, atol=1e-9)
    assert (theirs - wanted).abs().max() > 0.05  # if this fails, Captum is mended and our remedy can go
    layer = adapters.AbsenceLayerDeepLift(net, net.conv).attribute(x, base, target=target).flatten(1).sum(1)
    assert torch.allclose(layer, wanted, atol=1e-9)


def test_lrp_passes_flatten_and_keeps_the_users_rules() -> None:
    net, x = Net(), images(2)
    flat = nn.Sequential(net.conv, net.relu, net.pool, nn.Flatten(), net.linear)
    with pytest.raises(TypeError, match="Flatten"):
        attr.LRP(copy.deepcopy(flat)).attribute(x, target=1)  # a copy: Captum leaves its rules behind
    # against zeros, without a rule of the user's, it is DeepLIFT
    expected = adapters.AbsenceDeepLift(flat, nontarget=1).attribute(x, target=0)
    assert torch.equal(adapters.AbsenceLRP(flat, nontarget=1).attribute(x, target=0), expected)
    rule = GammaRule()
    net.conv.rule = rule
    with_rule = adapters.AbsenceLRP(flat, nontarget=1).attribute(x, target=0)
    assert net.conv.rule is rule
    assert not hasattr(flat[3], "rule")
    assert not torch.allclose(with_rule, expected, atol=1e-3)
    gamma = relevance(flat, x, torch.zeros_like(x), 1, rule=lambda name: "gamma" if name == "0" else None)
    assert torch.equal(with_rule, gamma.attribution)
    difference = (net(x) - net(torch.zeros_like(x)))[:, 1].detach()
    assert torch.allclose(with_rule.flatten(1).sum(1), difference, atol=1e-10)


@pytest.mark.parametrize("name", ["LRP", "LayerLRP"])
def test_lrp_takes_references_and_is_antisymmetric(name: str) -> None:
    net, x, r = Net(), images(2), images(2, seed=9)
    layer = [net.conv] if name == "LayerLRP" else []

    def of(one: Tensor, other: Tensor) -> Tensor:
        maps = [
            ADAPTERS[f"Absence{name}"](net, *layer, reference=ReferenceSet(other[[i]], k=1)).attribute(
                one[[i]], target=2
            )
            for i in range(2)
        ]
        return torch.cat(maps)

    assert torch.equal(of(x, r), -of(r, x))
    assert torch.allclose(of(x, r).flatten(1).sum(1), (net(x) - net(r))[:, 2].detach(), atol=1e-10)


def test_a_rule_of_captums_without_a_form_for_differences_is_named() -> None:
    net = Net()
    net.conv.rule = IdentityRule()
    with pytest.raises(ValueError, match=r"conv \(Conv2d\) has IdentityRule"):
        adapters.AbsenceLRP(net).attribute(images(1), target=0)


@pytest.mark.parametrize("columns", [2, 1])
def test_guided_backprop_is_two_sided(columns: int) -> None:
    """u = relu(x0) - relu(x1), at x = (1, 2): one-sided guided backpropagation hides x1."""
    body = nn.Sequential(nn.Identity(), nn.ReLU(), linear([[0.0, 0.0], [1.0, -1.0]][-columns:]))
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    with pytest.warns(AbsenceWarning, match="local"):
        found = adapters.AbsenceGuidedBackprop(body).attribute(x, target=0)
    assert found.tolist() == [[1.0, -2.0]]
    assert attr.GuidedBackprop(body).attribute(x, target=columns - 1)[0, 1] <= 0


def dead_net() -> nn.Sequential:
    """Logit 1 = relu(1 - x0): at x0 = 2 its unit is dead; what holds it down is x0."""
    return nn.Sequential(linear([[-1.0, 0.0]], [1.0]), nn.ReLU(), linear([[0.0], [1.0]], [5.0, 0.0]))


DEAD = torch.tensor([[2.0, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["InputXGradient", "Saliency", "GuidedBackprop", "LayerGradientXActivation"])
def test_local_methods_say_that_a_dead_unit_blinds_them(name: str) -> None:
    net = dead_net()
    layer = (net[0],) if name.startswith("Layer") else ()
    with pytest.warns(AbsenceWarning, match=r"samples \[0\] is zero.*dead unit.*use AbsenceIntegratedGradients"):
        found = ADAPTERS[f"Absence{name}"](net, *layer).attribute(DEAD, target=0)
    assert not found.any()


@pytest.mark.parametrize("name", ["IntegratedGradients", "FeatureAblation", "DeepLift", "LRP", "ShapleyValues"])
def test_path_and_ablation_methods_see_through_a_dead_unit(name: str) -> None:
    found = ADAPTERS[f"Absence{name}"](dead_net(), evidence="absence").attribute(DEAD, target=0)
    assert found[0, 0].item() == pytest.approx(1.0, abs=0.03)
    assert found[0, 1].item() == 0.0


@pytest.mark.parametrize(
    ("reference", "options", "warns"),
    [
        ([3.0, 0.0], {}, True),  # the target is higher on the reference: no absence
        ([0.0, 3.0], {}, False),
        ([3.0, 0.0], {"nontarget": 1}, True),
        ([0.0, 3.0], {"nontarget": 1}, False),
    ],
)
def test_references_on_the_wrong_side_are_announced(
    reference: list[float], options: dict[str, Any], warns: bool
) -> None:
    x, net = torch.tensor([[1.0, 0.0]], dtype=torch.float64), linear([[1.0, 0.0], [0.0, 1.0]])
    given = ReferenceSet(torch.tensor([reference]), torch.tensor([1]), k=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapters.AbsenceIntegratedGradients(net, reference=given, **options).attribute(x, target=0)
    texts = [str(one.message) for one in caught if issubclass(one.category, AbsenceWarning)]
    assert bool(texts) is warns
    if warns:
        assert ("not higher" if options else "not lower") in texts[0]


def test_a_distribution_of_baselines_is_not_paired_with_the_samples() -> None:
    """Two samples, two baselines: GradientShap compares every sample with both."""
    x, net = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), linear([[1.0, 0.0], [0.0, 1.0]])
    for name in ("GradientShap", "DeepLiftShap"):
        explainer = ADAPTERS[f"Absence{name}"](net, nontarget=None, evidence="absence")
        with pytest.raises(ValueError, match=r"one baseline image per sample.*pass reference="):
            explainer.attribute(x, baselines=torch.eye(2, dtype=torch.float64), target=0)


def test_one_axis_inputs_are_taken() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([x, -2 * x], 1)

    x = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert adapters.AbsenceInputXGradient(model).attribute(x, target=0).tolist() == [-2.0, -6.0]
    assert adapters.AbsenceIntegratedGradients(model).explain(x, target=0).absence.tolist() == pytest.approx([2.0, 6.0])


def test_training_mode_and_dropout_draw_no_more_than_the_host() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)).double().train()
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()
    states: list[Callable[[], Any]] = [
        lambda: adapters.AbsenceIntegratedGradients(net, nontarget=2).attribute(x, target=0, n_steps=4),
        lambda: attr.IntegratedGradients(net).attribute(x, target=2, n_steps=4),
    ]
    results = []
    for run in states:
        seeded()
        results.append((run(), random_states()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert all(module.training for module in net.modules())


def test_lists_of_layers() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = linear([[1.0, -1.0], [0.0, 1.0]]), linear([[0.0, -2.0], [1.0, 0.0]])

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x)  # type: ignore[no-any-return]

    net, given = Sum(), ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    ig = adapters.AbsenceLayerIntegratedGradients
    maps = ig(net, [net.a, net.b], reference=given, evidence="absence").attribute(x, target=0, n_steps=5)
    assert isinstance(maps, list)
    # a: 1 on x, -1 on r, so no less content; b: 0 on x, -4 on r: content that x lacks
    assert torch.allclose(torch.cat(maps), torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64))
    signed = ig(net, [net.a, net.b], reference=given).attribute(x, target=0, n_steps=5)
    assert torch.allclose(torch.cat(signed), torch.tensor([[2.0, 0.0], [4.0, 0.0]], dtype=torch.float64))


def test_a_subclass_of_the_users_keeps_working_in_the_tunnel() -> None:
    class Mine(adapters.AbsenceSaliency):  # type: ignore[misc]
        pass

    assert NoiseTunnel(Mine(FLIPPING)).attribute(CLOSE, stdevs=1.0, target=0).tolist() == [[1.0, 0.0], [0.0, 1.0]]
