"""A model in training mode: named in the same words by every adapter and reader, and left as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins import Layer, Unit
from absence_plugins.captum import (
    AbsenceDeepLift,
    AbsenceFeatureAblation,
    AbsenceIntegratedGradients,
    AbsenceLayerGradCam,
    AbsenceNeuronGradient,
    AbsenceSaliency,
)
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.training import find_drawing, find_training
from absence_plugins.lucent import unit_values
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.layer_values import layer_values
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.relevance import relevance
from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient, AbsenceOcclusion

X = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
ONE = torch.eye(3)[[0]]


class Functional(nn.Module):  # a container that draws in a forward of its own
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class DropPath(nn.Module):  # as in timm and transformers: known by its name
    def __init__(self) -> None:
        super().__init__()
        self.drop_prob = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.empty(len(x), 1, 1, 1).bernoulli_(0.5) if self.training else x


class Attention(nn.Module):  # drops out inside a function of torch
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 1, 0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.inner(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)  # type: ignore[no-any-return]


MODULES: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.5),
    "channels": lambda: nn.Dropout2d(0.5),
    "rrelu": nn.RReLU,
    "depth": lambda: torchvision.ops.StochasticDepth(0.5, "row"),
    "path": DropPath,
    "functional": Functional,
    "noise": Noise,
    "attention": Attention,
}
BY_CLASS = {"dropout", "channels", "rrelu", "depth", "path"}


def network(middle: nn.Module, training: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), middle, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    return nn.Sequential(*layers).train(training)


WARNING: dict[str, Callable[[nn.Module], Any]] = {
    "ablation": lambda net: AbsenceFeatureAblation(net, nontarget=1).attribute(X, target=0),
    "saliency": lambda net: AbsenceSaliency(net, nontarget=1).attribute(X, target=0),
    "paths": lambda net: AbsenceIntegratedGradients(net, nontarget=1).attribute(X, target=0, n_steps=4),
    "layer": lambda net: AbsenceLayerGradCam(net, "0", nontarget=1).attribute(X, target=0),
    "neuron": lambda net: AbsenceNeuronGradient(net, "4").attribute(X, 0),
}
REJECTING: dict[str, Callable[[nn.Module], Any]] = {
    "deeplift": lambda net: AbsenceDeepLift(net, nontarget=1).attribute(X, target=0),
    "rules": lambda net: AbsenceGradient(net, AbsenceEpsilonGamma(), reference=torch.zeros(1, 1, 6, 6))(X, ONE),
    "gradient": lambda net: AbsenceGradient(net, nontarget="runner_up")(X, ONE),
    "occlusion": lambda net: AbsenceOcclusion(net, window=3, stride=3, nontarget=1)(X, ONE),
    "relevance": lambda net: relevance(net, X, torch.zeros_like(X), 0),
}
RIGHT: dict[str, Callable[[nn.Module], Tensor]] = {  # these run the model in evaluation mode
    "label": lambda net: layer_values(net, "4", Batches.of(X, 2), progress=False),
    "patches": lambda net: (
        find_extreme_patches(net, "4", X, k=1, size=3, stride=3, mode="mask", progress=False).lowest.scores
    ),
    "lucent": lambda net: unit_values(net, "-4:1", X),
    "scores": lambda net: torch.tensor(absence_scores(net, X, 0, X - 0.5, progress=False).score),
}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("door", [*WARNING, *REJECTING])
def test_a_module_that_draws_is_named(door: str, module: str) -> None:
    net = network(MODULES[module]())
    modes, state = [one.training for one in net.modules()], torch.get_rng_state()
    name = "1" if module != "attention" else r"1\.inner"
    if door in WARNING:
        with pytest.warns(
            AbsenceWarning, match=rf"^{name} \(.*\) is in training mode and draws at random.*model\.eval"
        ):
            WARNING[door](net)
    else:
        with pytest.raises(ValueError, match=rf"{name}\b.* is in training mode and draws at random.*call model\.eval"):
            REJECTING[door](net)
        assert torch.equal(torch.get_rng_state(), state)
    assert [one.training for one in net.modules()] == modes
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in net.modules())


@pytest.mark.parametrize("door", [*WARNING, *REJECTING])
def test_statistics_of_the_batch_are_rejected_and_do_not_move(door: str) -> None:
    net = network(nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"1 \(BatchNorm2d\) is in training mode and takes its statistics from the ba"):
        (WARNING | REJECTING)[door](net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("module", [*MODULES, "batch norm"])
@pytest.mark.parametrize("door", RIGHT)
def test_scans_and_scores_run_in_evaluation_mode(door: str, module: str) -> None:
    made = MODULES.get(module, lambda: nn.BatchNorm2d(4))
    net = network(made())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*training mode")
        found = RIGHT[door](net)
    assert torch.allclose(found, RIGHT[door](network(made(), training=False)), rtol=0, atol=0, equal_nan=True)
    assert all(one.training for one in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("module", [*sorted(BY_CLASS), "batch norm"])
def test_a_value_that_is_read_is_of_this_call(module: str) -> None:
    net = network(MODULES.get(module, lambda: nn.BatchNorm2d(4))())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for read in (lambda: Unit("4", 1).values(net, X), lambda: Layer("4").read(net, X)):
        torch.manual_seed(3)
        with pytest.warns(AbsenceWarning, match=r"^1 \(.*\) is in training mode.*of this one call"):
            found = read()
        torch.manual_seed(3)
        found.sum().backward()
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(found, net(X))


def test_what_does_not_draw_is_not_named() -> None:
    for module in (nn.Dropout(0.0), torchvision.ops.StochasticDepth(0.0, "row"), nn.InstanceNorm2d(4), nn.LayerNorm(4)):
        net = network(module)
        assert find_training(net) is None
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*at random")
            AbsenceSaliency(net, nontarget=1).attribute(X, target=0)
    assert find_training(network(nn.Dropout(0.5), training=False)) is None
    assert find_training(network(nn.BatchNorm2d(4)), mixes=False) is None


def test_what_draws_in_evaluation_mode_is_warned_of_if_it_matters() -> None:
    class Sampling(nn.Module):
        def __init__(self, size: float) -> None:
            super().__init__()
            self.size = size

        def forward(self, x: Tensor) -> Tensor:
            return x + self.size * torch.randn_like(x)

    net = network(Sampling(1.0), training=False)
    with pytest.warns(AbsenceWarning, match=r"^1 \(Sampling\) draws at random in evaluation mode, too"):
        AbsenceSaliency(net, nontarget=1).attribute(X, target=0)
    quiet = network(Sampling(0.0), training=False)
    assert find_drawing(quiet, lambda: quiet(X)) is None
