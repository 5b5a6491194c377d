"""Composites of one's own rules under Zennit's attributors and in `composite.context`: as with AbsenceGradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zennit.composites as hosts
from torch import Tensor, nn
from zennit import rules
from zennit.attribution import Gradient
from zennit.types import Convolution, Linear

import absence_plugins.zennit as adapters
from absence_plugins.core import AbsenceWarning
from absence_plugins.zennit import AbsenceEpsilon, AbsenceEpsilonGamma, AbsenceFlat, AbsenceGamma, AbsenceGradient

LAYERS = [(Convolution, AbsenceGamma()), (Linear, AbsenceEpsilon())]
NAMES = [(["0"], AbsenceGamma(0.5)), (["3"], AbsenceEpsilon())]
pytestmark = pytest.mark.filterwarnings("ignore")
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "LayerMapComposite": (LAYERS,),
    "SpecialFirstLayerMapComposite": (LAYERS, [(Convolution, AbsenceFlat())]),
    "NameMapComposite": (NAMES,),
    "MixedComposite": ([hosts.NameMapComposite(NAMES[:1]), AbsenceEpsilonGamma()],),
    "NameLayerMapComposite": (NAMES[:1], LAYERS),
}
SEED = torch.eye(3, dtype=torch.float64)[[0, 2]]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)).double().eval()


def images() -> Tensor:
    return torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def made(name: str) -> tuple[Any, Any]:
    """Zennit's composite and ours, of the same rules."""
    return getattr(hosts, name)(*ARGUMENTS[name]), getattr(adapters, f"Absence{name}")(*ARGUMENTS[name])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_way_of_calling_gives_the_same_map(name: str) -> None:
    theirs, ours = made(name)
    model, x = net(), images()
    with pytest.warns(AbsenceWarning, match="no reference is given"):
        expected = AbsenceGradient(model, theirs)(x, SEED)[1].detach()
    with torch.no_grad():
        difference = ((model(x) - model(x * 0)) * SEED).sum(1)
    assert torch.allclose(expected.sum((1, 2, 3)), difference, rtol=1e-9)
    with pytest.warns(AbsenceWarning, match="no reference is given"):
        assert torch.equal(Gradient(model, ours)(x, SEED)[1], expected)
    assert torch.equal(AbsenceGradient(model, ours)(x, SEED)[1], expected)
    with ours.context(model) as modified:
        inputs = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(modified(inputs), inputs, SEED)
    assert torch.equal(found, expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_reference_is_compared_with(name: str) -> None:
    theirs, ours = made(name)
    reference = images().flip(0)
    expected = AbsenceGradient(net(), theirs, reference=reference)(images(), SEED)[1]
    assert torch.equal(AbsenceGradient(net(), ours, reference=reference)(images(), SEED)[1], expected)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_they_are_zennits_classes_and_take_its_arguments(name: str) -> None:
    assert issubclass(getattr(adapters, f"Absence{name}"), getattr(hosts, name))
    assert isinstance(made(name)[1], hosts.Composite)


def test_names_that_are_no_modules_are_rejected_with_the_nearest() -> None:
    composite = adapters.AbsenceNameMapComposite([(["conv"], AbsenceEpsilon())])
    model = net()
    with pytest.raises(
        ValueError, match=r"no name of AbsenceNameMapComposite fits a module: the model has no layer 'conv'"
    ):
        Gradient(model, composite)(images(), SEED)
    assert not any(module._forward_hooks for module in model.modules())


def test_rules_of_zennits_are_rejected_and_leave_nothing_behind() -> None:
    composite = adapters.AbsenceNameMapComposite([(["0"], rules.ZPlus()), (["3"], AbsenceEpsilon())])
    model = net()
    with pytest.raises(ValueError, match=r"ZPlus is a rule of Zennit's.*use AbsenceZPlus beside"):
        Gradient(model, composite)(images(), SEED)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_guided_backpropagation_is_rejected_inside() -> None:
    """Its hook needs the batch [x, x, x], which only the composite itself makes."""
    composite = adapters.AbsenceMixedComposite([adapters.AbsenceGuidedBackprop()])
    with pytest.raises(ValueError, match=r"AbsenceGuidedBackprop compares in a way of its own .* use it alone"):
        Gradient(net(), composite)(images(), SEED)


@pytest.mark.parametrize("name", ["LayerMapComposite", "NameMapComposite"])
def test_our_rules_in_zennits_composite_name_ours(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"none was paired; use AbsenceGradient .*or an Absence composite .*AbsenceNameMap"
    ):
        Gradient(net(), made(name)[0])(images(), SEED)
