"""A model that ends in a softmax or sigmoid, or returns an object: attributors and composites explain its logits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zennit import attribution
from zennit.composites import EpsilonPlus
from zennit_nets import dense_net, one, rows

import absence_plugins.zennit as adapters

KINDS = ["Gradient", "SmoothGrad", "IntegratedGradients", "Occlusion"]
COMPOSITES = ["AbsenceEpsilonGamma", "AbsenceEpsilonPlus", "AbsenceEpsilonAlpha2Beta1", "AbsenceGuidedBackprop"]
SAID = r"the model ends in a {}; its input, the logits, is explained"


@dataclass
class Found:
    """As Hugging Face returns it."""

    logits: Tensor
    hidden_states: Any = None


class Ending(nn.Sequential):
    """The dense net with something behind its logits."""

    def __init__(self, end: Callable[[Tensor], Any]) -> None:
        super().__init__(*dense_net(1))
        self.end = [end]  # no module
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.end[0](super().forward(x))


ENDS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "module": (r"softmax over axis 1", lambda: dense_net(1).append(nn.Softmax(1))),
    "function": (r"softmax over axis 1", lambda: Ending(lambda z: F.softmax(z, -1))),
    "log": (r"log_softmax over axis 1", lambda: Ending(lambda z: F.log_softmax(z, 1))),
    "dataclass": (r"softmax over axis 1", lambda: Ending(lambda z: Found(z.unsqueeze(2).softmax(1).squeeze(2)))),
    "sigmoid": (r"sigmoid", lambda: Ending(torch.sigmoid)),
}


def quietly(act: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return act()


def said_by(act: Callable[[], Any]) -> tuple[Any, list[str]]:
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = act()
    return found, [str(each.message) for each in seen if "model ends in" in str(each.message)]


@pytest.mark.parametrize("options", [{"nontarget": 1}, {"reference": rows(2, seed=2)}], ids=["nontarget", "reference"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_attributors(kind: str, end: str, options: dict[str, Any]) -> None:
    words, make = ENDS[end]
    few: dict[str, Any] = {"window": 1, "stride": 1} if kind == "Occlusion" else {}

    def explain(net: nn.Module) -> Any:
        composite = adapters.AbsenceEpsilonGamma() if kind in ("Gradient", "SmoothGrad") else None
        return getattr(adapters, f"Absence{kind}")(net, composite, one(0, 0), **few, **options)(rows(2))

    (output, found), said = said_by(lambda: explain(make()))
    expected_output, expected = quietly(lambda: explain(dense_net(1)))
    assert said == [SAID.format(words)]
    assert torch.equal(output, expected_output)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("end", ["module", "dataclass", "sigmoid"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_under_zennits_attributor(name: str, end: str) -> None:
    def explain(net: nn.Module) -> Any:
        return attribution.Gradient(net, getattr(adapters, name)())(rows(2).requires_grad_(), one(0, 0))

    net = ENDS[end][1]()
    (output, found), said = said_by(lambda: explain(net))
    expected_output, expected = quietly(lambda: explain(dense_net(1)))
    assert said == [SAID.format(ENDS[end][0])]
    assert torch.equal(output, expected_output)
    assert torch.equal(found, expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert not torch.overrides._get_current_function_mode_stack()


def test_zennits_own_call_stays_on_probabilities() -> None:
    net = dense_net(1).append(nn.Softmax(1))
    (_, found), said = said_by(lambda: adapters.AbsenceGradient(net, EpsilonPlus())(rows(2), one(0, 0)))
    assert not said
    assert torch.equal(found, attribution.Gradient(net, EpsilonPlus())(rows(2).requires_grad_(), one(0, 0))[1])


def test_an_attr_output_that_asks_for_the_non_target() -> None:
    def explain(net: nn.Module) -> Any:
        return adapters.AbsenceGradient(net, EpsilonPlus())(rows(2), adapters.nontarget(0))[1]

    found, said = said_by(lambda: explain(dense_net(1).append(nn.Softmax(1))))
    assert said == [SAID.format("softmax over axis 1")]
    assert torch.equal(found, explain(dense_net(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_without_logits(kind: str) -> None:
    # IntegratedGradients and Occlusion look at the outputs only where there is a non-target (attributor.py, _plan)
    net = Ending(lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2)
    composite = adapters.AbsenceEpsilonGamma() if kind in ("Gradient", "SmoothGrad") else None
    few: dict[str, Any] = {"window": 1, "stride": 1} if kind == "Occlusion" else {}
    for options in ({"nontarget": 1}, {"reference": rows(2, seed=2)}):
        attributor = getattr(adapters, f"Absence{kind}")(net, composite, one(0, 0), **few, **options)
        with pytest.raises(
            ValueError, match=r"probabilities .*drop the softmax.*a softmax in the forward of the model"
        ):
            attributor(rows(2))
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_mean_of_softmaxes_under_zennits_attributor() -> None:
    net = Ending(lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2)
    with pytest.raises(ValueError, match=r"probabilities .*drop the softmax"):
        attribution.Gradient(net, adapters.AbsenceEpsilonGamma())(rows(2).requires_grad_(), one(0, 0))


@pytest.mark.filterwarnings("ignore:AbsenceGuidedBackprop is local")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_forward_that_raises_leaves_no_mode_behind(error: type[BaseException]) -> None:
    def broken(z: Tensor) -> Tensor:
        raise error("the forward breaks")

    for kind in KINDS:
        composite = adapters.AbsenceEpsilonGamma() if kind in ("Gradient", "SmoothGrad") else None
        few: dict[str, Any] = {"window": 1, "stride": 1} if kind == "Occlusion" else {}
        attributor = getattr(adapters, f"Absence{kind}")(Ending(broken), composite, one(0, 0), **few, nontarget=1)
        with pytest.raises(error, match="the forward breaks"):
            attributor(rows(2))
    with pytest.raises(error, match="the forward breaks"):
        attribution.Gradient(Ending(broken), adapters.AbsenceGuidedBackprop())(rows(2).requires_grad_(), one(0, 0))
    with pytest.raises(error, match="the forward breaks"):
        adapters.AbsenceGradient(Ending(broken), adapters.AbsenceGuidedBackprop(), nontarget=1)(rows(2), one(0, 0))
    assert not torch.overrides._get_current_function_mode_stack()
