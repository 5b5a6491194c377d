"""The attributors that need no rules, and rules under every attributor."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit import attribution, rules
from zennit.composites import EpsilonPlus, GuidedBackprop, MixedComposite, NameMapComposite
from zennit_nets import (
    UPSTREAM,
    Residual,
    conv_net,
    dense_net,
    explain,
    images,
    one,
    randomized,
    relative,
    rows,
    summed,
)

from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning
from absence_plugins.zennit import (
    AbsenceEpsilonGamma,
    AbsenceGradient,
    AbsenceGuidedBackprop,
    AbsenceIntegratedGradients,
    AbsenceOcclusion,
    AbsenceSmoothGrad,
    nontarget,
)

pytestmark = pytest.mark.filterwarnings("ignore")


# -- attributors ------------------------------------------------------------------------------------------------------


def test_smooth_grad_is_the_mean_over_noisy_copies() -> None:
    net, x, r = conv_net(2), images(2), images(2, seed=2)
    torch.manual_seed(5)
    found = AbsenceSmoothGrad(net, AbsenceEpsilonGamma(), one(1, 1), noise_level=0.2, n_iter=3, reference=r)(x)[1]
    torch.manual_seed(5)
    width = 0.2 * (x.amax((1, 2, 3), True) - x.amin((1, 2, 3), True))
    noisy = [x + torch.randn_like(x) * width, x + torch.randn_like(x) * width, x]
    expected = torch.stack([explain(net, AbsenceEpsilonGamma(), copy, r, one(1, 1)) for copy in noisy]).mean(0)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def gradient(net: nn.Module, x: Tensor, seed: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x), x, seed)[0]


@pytest.mark.parametrize("composite", [None, "beta_smooth"])
def test_integrated_gradients_are_a_riemann_sum(composite: Any) -> None:
    net, x, r = conv_net(2, "gelu"), images(2), images(2, seed=2)
    build = UPSTREAM[composite] if composite else (lambda: None)  # BetaSmooth changes ReLUs only
    found = AbsenceIntegratedGradients(net, build(), one(1, 2), n_iter=7, reference=r)(x)[1]
    steps = [gradient(net, r + step / 7 * (x - r), one(1, 2)) for step in range(1, 8)]
    assert relative(found, (x - r) * torch.stack(steps).mean(0)) <= 1e-6  # Zennit's steps are in float32


def test_integrated_gradients_are_complete_and_say_where_not() -> None:
    net, x, r = conv_net(2, "tanh"), images(2), images(2, seed=2)
    attributor = AbsenceIntegratedGradients(net, None, one(1, 2), n_iter=400, reference=r)
    with torch.no_grad():
        difference = ((net(x) - net(r)) * one(1, 2)).sum(1)
    assert relative(summed(attributor(x)[1]), difference) <= 2e-2
    explanation = attributor.explain(x)
    assert torch.allclose(explanation.completeness_error, summed(explanation.attribution) - difference, atol=1e-12)
    with pytest.warns(AbsenceWarning, match=r"miss up to .*; raise n_iter \(now 1\)"):
        AbsenceIntegratedGradients(net, None, one(1, 2), n_iter=1, reference=r)(x)
    references = ReferenceSet(images(18, seed=9), torch.arange(18) % 3, k=2)
    each = references.nearest(x, torch.tensor([1, 2]))
    parts = [AbsenceIntegratedGradients(net, None, one(1, 2), reference=each[:, k])(x)[1] for k in range(2)]
    found = AbsenceIntegratedGradients(net, None, one(1, 2), reference=references)(x)[1]
    assert torch.allclose(found, torch.stack(parts).mean(0))


def test_integrated_gradients_with_rules_that_divide_by_outputs_have_their_seed() -> None:
    # seeded with 1, not with the value as nontarget(...) and AbsenceGradient are (attributors.py, AbsenceIntegratedGradients._one)
    net, x = conv_net(2), images(2)
    expected = attribution.IntegratedGradients(net, EpsilonPlus(), nontarget([0, 0], 1))(x)[1]
    by_hand = attribution.IntegratedGradients(net, EpsilonPlus(), lambda output: output * one(1, 1))(x)[1]
    assert torch.equal(expected, by_hand)
    found = AbsenceIntegratedGradients(net, EpsilonPlus(), one(0, 0), nontarget=1)(x)[1]
    assert torch.allclose(found, expected)


def test_occlusion_is_the_difference_window_by_window() -> None:
    net, x, r = conv_net(2), images(2), images(2, seed=2)
    for window, stride, reference in product(((3, 4), 4), ((2, 4),), (r, None, torch.full((), 0.5))):
        size = (2, *((window, window) if isinstance(window, int) else window))
        fill = torch.zeros_like(x) if reference is None else reference.to(x).expand_as(x)
        options = {"nontarget": 2} if reference is None else {"reference": reference}
        target = one(2, 2)
        found = AbsenceOcclusion(net, None, one(0, 0) if reference is None else target, window=window, stride=stride, **options)(x)[1]  # fmt: skip
        expected = torch.zeros_like(x)
        for top, left in product(range(0, 8, stride[0]), range(0, 8, stride[1])):
            inside = torch.zeros(2, 8, 8, dtype=torch.bool)
            for channel, row, column in product(range(size[0]), range(size[1]), range(size[2])):
                inside[channel, (top + row) % 8, (left + column) % 8] = True  # Zennit's windows wrap around
            with torch.no_grad():
                change = ((net(x) - net(torch.where(inside, fill, x))) * target).sum(1)
            expected += inside * change[:, None, None, None]
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_occlusion_of_an_input_that_requires_grad() -> None:
    """Zennit's hooks raise on one where gradients are off, as in its Occlusion; the composite has no effect there."""
    net, x, r = dense_net(1), rows(1), rows(1, seed=2)
    options = {"window": 1, "stride": 1, "reference": r}
    expected = AbsenceOcclusion(net, None, one(0), **options)(x)[1]
    found = AbsenceOcclusion(net, EpsilonPlus(), one(0), **options)(x.clone().requires_grad_())[1]
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("host", [attribution.Occlusion, AbsenceOcclusion])
def test_nontarget_under_occlusion(host: Any) -> None:
    """Zennit's Occlusion asks attr_output for a score of the outputs, so a seed of 1 makes a constant map."""
    # without a composite nontarget(...) hands over 1 (seeds.py, NontargetOutput._wants_value)
    net, x = dense_net(1), rows(1)
    expected = attribution.Occlusion(net, None, lambda output: output * one(1), window=1, stride=1)(x)[1]
    assert torch.allclose(host(net, None, nontarget(0, 1), window=1, stride=1)(x)[1], expected)


def deep(frames: int, function: Any, output: torch.Tensor) -> Any:
    return function(output) if frames == 0 else deep(frames - 1, function, output)


@pytest.mark.parametrize("composite", [EpsilonPlus, GuidedBackprop, None])
@pytest.mark.parametrize("host", [attribution.Gradient, attribution.SmoothGrad, AbsenceGradient])
def test_the_seed_does_not_hang_on_the_depth_of_the_stack(host: Any, composite: Any) -> None:
    net, x, function = dense_net(1), rows(1), nontarget(0, 1)
    build = lambda: composite() if composite else None  # noqa: E731
    maps = []
    for frames in (0, 50):
        torch.manual_seed(0)
        maps.append(host(net, build(), lambda output, frames=frames: deep(frames, function, output))(x)[1])
    torch.manual_seed(0)
    seed = (lambda output: output * one(1)) if composite is EpsilonPlus else one(1)
    assert torch.equal(*maps)
    assert torch.allclose(maps[0], host(net, build(), seed)(x)[1])


def skipping_net() -> nn.Sequential:
    """One path through it passes no ReLU."""
    body = Residual(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 1))
    return randomized(nn.Sequential(body, nn.Flatten(), nn.Linear(128, 3)), 4)


@pytest.mark.parametrize("make", [lambda: conv_net(3), skipping_net], ids=["chain", "skipping"])
def test_guided_backprop_is_two_sided(make: Any) -> None:
    """(x - r) * (guided(u) - guided(-u) - what passes no ReLU), each from a pass of its own."""
    net, x, r, target = make(), images(4), images(4, seed=2), one(0, 1, 2, 0)
    blocked: Any = copy.deepcopy(net)
    for module in blocked.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda module, value, output: output.detach() + 0 * value[0])
    up, down = (attribution.Gradient(net, GuidedBackprop())(x, sign * target)[1] for sign in (1, -1))
    around = gradient(blocked, x, target)
    assert bool(around.any()) == (make is skipping_net)
    for reference, difference in ((r, x - r), (None, x)):
        found = explain(net, AbsenceGuidedBackprop(), x, reference, target)
        assert torch.allclose(found, difference * (up - down - around), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", ["Epsilon", "Gamma"])
def test_zennits_own_rules_in_the_layer_map_of_our_composites(rule: str) -> None:
    """They share out by values, not by differences; in the first layer that is conserved, and wrong without a word."""
    # accepted; relevance lands where x and r do not differ (pairing.py, Pair.register could refuse a BasicHook)
    net: Any = dense_net(1, norm=False)
    net[0].bias.data.zero_()
    x = rows(1)
    r = torch.where(torch.arange(5) < 2, x, rows(1, seed=2))
    first = NameMapComposite([(["0"], getattr(rules, rule)(1e-14))])
    with pytest.raises(ValueError, match=rule):
        explain(net, MixedComposite([first, AbsenceEpsilonGamma()]), x, r)
