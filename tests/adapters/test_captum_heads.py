"""A model that ends in a softmax or sigmoid: every adapter explains the logits in front of it, and says so."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from adapter_table import ADAPTERS, REFUSING, STOCHASTIC, Net, arguments, build, has_target, images, references, seeded
from captum.attr import NoiseTunnel
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins.core import AbsenceWarning

NAMES = [name for name in ADAPTERS if name not in REFUSING and has_target(ADAPTERS[name])]


@dataclass
class Found:
    """As Hugging Face returns it."""

    logits: Tensor
    loss: Any = None


class Ending(Net):
    """The net of the table with something behind its logits."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.end = end

    def forward(self, *args: Any) -> Any:
        return self.end(super().forward(*args))


ENDS = {
    "softmax": nn.Softmax(1),
    "dataclass": lambda z: Found(F.softmax(z, dim=-1)),
    "sigmoid": nn.Sigmoid(),
}


def map_of(name: str, net: nn.Module, **options: Any) -> Any:
    samples = 1 if name == "AbsenceLimeBase" else 3
    call = {**arguments(ADAPTERS[name], baselines="reference" not in options), "target": torch.arange(samples)}
    seeded()
    return build(ADAPTERS[name], net, **options).attribute(images(samples), **call)


SOME = ["AbsenceIntegratedGradients", "AbsenceDeepLift", "AbsenceLayerGradCam", "AbsenceOcclusion"]


@pytest.mark.parametrize(
    ("name", "end"),
    [(name, "dataclass") for name in NAMES] + [(name, end) for name in SOME for end in ("softmax", "sigmoid")],
)
def test_the_map_is_that_of_the_logits(name: str, end: str) -> None:
    net = Ending(ENDS[end])
    with pytest.warns(AbsenceWarning) as seen:
        found = map_of(name, net)
    kind = "sigmoid" if end == "sigmoid" else "softmax over axis 1"
    said = [str(one.message) for one in seen if "model ends in" in str(one.message)]
    assert said == [f"the model ends in a {kind}; its input, the logits, is explained"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # labels behind a sigmoid have no runner-up: that of the label asked for
        expected = map_of(name, Net(), **({"nontarget": "target"} if end == "sigmoid" else {}))
    assert any("which are no rivals" in str(one.message) for one in seen) == (end == "sigmoid")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if name in STOCHASTIC else 1e-14)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("options", [{"reference": references()}, {"nontarget": "others"}, {"evidence": "absence"}])
@pytest.mark.parametrize("name", ["AbsenceIntegratedGradients", "AbsenceLayerConductance", "AbsenceDeepLift"])
def test_references_the_others_and_evidence(name: str, options: dict[str, Any]) -> None:
    with pytest.warns(AbsenceWarning, match="model ends in a softmax"):
        found = map_of(name, Ending(nn.Softmax(1)), **options)
    torch.testing.assert_close(found, map_of(name, Net(), **options), rtol=0, atol=1e-14)


def test_a_switched_off_adapter_is_captums_on_probabilities() -> None:
    net, x = Ending(nn.Softmax(1)), images(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        found = adapters.AbsenceIntegratedGradients(net, nontarget=None).attribute(x, target=1, n_steps=4)
    own = adapters.AbsenceIntegratedGradients.__bases__[1](net).attribute(x, target=1, n_steps=4)
    assert torch.equal(found, own)


def test_the_explanation_holds_logits_and_one_output_has_its_logit() -> None:
    net, x = Ending(nn.LogSoftmax(1)), images(3)
    with pytest.warns(AbsenceWarning, match="ends in a log_softmax over axis 1"):
        explained = adapters.AbsenceIntegratedGradients(net).explain(x, target=0, n_steps=4)
    assert torch.equal(explained.output, Net()(x).gather(1, explained.nontarget[:, None])[:, 0].detach())
    single = nn.Sequential(Net(), nn.Linear(4, 1).double(), nn.Sigmoid())
    with pytest.warns(AbsenceWarning, match="ends in a sigmoid; its input"):
        logit = adapters.AbsenceIntegratedGradients(single, reference=references()).explain(x, n_steps=4)
    assert torch.equal(logit.output, single[:2](x)[:, 0].detach())


def test_a_softmax_in_the_middle_is_not_taken() -> None:
    class Attention(Net):
        def forward(self, x: Tensor) -> Tensor:
            z = super().forward(x)
            return z + F.softmax(z, 1) @ torch.ones(4, 4, dtype=z.dtype)

    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        found = adapters.AbsenceInputXGradient(Attention(), nontarget=1).attribute(images(3), target=0)
    expected = adapters.AbsenceInputXGradient(Attention(), nontarget=None).attribute(images(3), target=1)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, pytest.param(lambda net: torch.compile(net, backend="eager"), marks=pytest.mark.slow)],
    ids=["DataParallel", "compile"],
)
def test_wrapped_models(wrap: Any) -> None:
    net = wrap(Ending(nn.Softmax(1)))
    with pytest.warns(AbsenceWarning, match="model ends in a softmax"):
        found = map_of("AbsenceIntegratedGradients", net)
    assert torch.equal(found, map_of("AbsenceIntegratedGradients", Net()))


def test_functions_tunnels_and_pickles() -> None:
    net, x = Ending(nn.Softmax(1)), images(3)
    copied = pickle.loads(pickle.dumps(adapters.AbsenceSaliency(net)))
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(net))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = [
            adapters.AbsenceSaliency(lambda inputs: net(inputs)).attribute(x, target=0),
            copied.attribute(x, target=0),
            tunnel.attribute(x, target=0, nt_samples=2, nt_samples_batch_size=1, stdevs=0.0),
        ]
    assert sum("ends in a softmax" in str(one.message) for one in seen) == 3
    expected = adapters.AbsenceSaliency(Net()).attribute(x, target=0)
    assert all(torch.equal(one, expected) for one in found)


@pytest.mark.parametrize("name", ["AbsenceIntegratedGradients", "AbsenceLayerConductance", "AbsenceNeuronConductance"])
def test_captums_first_tutorial(name: str) -> None:
    """A table of 12 columns, two classes, a softmax; the three classes that the tutorial uses."""
    torch.manual_seed(0)
    layers = [nn.Linear(12, 12), nn.Sigmoid(), nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 2), nn.Softmax(dim=1)]
    net, x = nn.Sequential(*layers), torch.rand(5, 12)
    call: dict[str, Any] = {"target": 1, "n_steps": 20}
    if name == "AbsenceNeuronConductance":
        call["neuron_selector"] = 10
    elif name == "AbsenceIntegratedGradients":
        call["return_convergence_delta"] = True

    def found(model: nn.Module) -> Any:
        cls = getattr(adapters, name)
        return (cls(model, model[1]) if "Conductance" in name else cls(model)).attribute(x, **call)

    with pytest.warns(AbsenceWarning, match="ends in a softmax over axis 1; its input, the logits, is explained"):
        of_probabilities = found(net)
    torch.testing.assert_close(of_probabilities, found(net[:-1]), rtol=0, atol=0)
