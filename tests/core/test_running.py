"""Ways of running that hooks or gradients cannot follow: right, or one line with the cause and the remedy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lucent.optvis import param
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from absence_plugins import Unit
from absence_plugins.captum import (
    AbsenceDeepLift,
    AbsenceFeatureAblation,
    AbsenceGuidedBackprop,
    AbsenceIntegratedGradients,
    AbsenceLayerGradCam,
    AbsenceLayerIntegratedGradients,
    AbsenceLRP,
    AbsenceNeuronGradient,
    AbsenceSaliency,
)
from absence_plugins.core.checkpoints import host, without_checkpoints
from absence_plugins.core.recorder import Recorder
from absence_plugins.core.turns import _locks_of
from absence_plugins.lucent import render_vis, unit_values
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.debias import AttributionPrior
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.layer_values import layer_values
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.relevance import relevance
from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient, AbsenceOcclusion
from absence_plugins.zennit import AbsenceIntegratedGradients as ZennitIntegratedGradients

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
ONE, MASK = torch.eye(3)[[0]], torch.ones(3, 1, 6, 6)
SCAN: dict[str, Any] = {"k": 1, "size": 3, "stride": 3, "mode": "mask", "progress": False}
PICTURE: dict[str, Any] = {
    "thresholds": (2,), "transforms": [], "preprocess": False, "fixed_image_size": 6, "progress": False, "seed": 0,
}  # fmt: skip

DOORS: dict[str, Callable[[Any], Any]] = {
    "paths": lambda net: AbsenceIntegratedGradients(net, nontarget=1).attribute(X, target=0, n_steps=4),
    "saliency": lambda net: AbsenceSaliency(net, nontarget=1).attribute(X, target=0),
    "ablation": lambda net: AbsenceFeatureAblation(net, nontarget=1).attribute(X, target=0),
    "guided": lambda net: AbsenceGuidedBackprop(net, nontarget=1).attribute(X, target=0),
    "deeplift": lambda net: AbsenceDeepLift(net, nontarget=1).attribute(X, target=0),
    "lrp": lambda net: AbsenceLRP(net, nontarget=1).attribute(X, target=0),
    "layer": lambda net: AbsenceLayerGradCam(net, "first", nontarget=1).attribute(X, target=0),
    "layer paths": lambda net: AbsenceLayerIntegratedGradients(net, "first", nontarget=1).attribute(
        X, target=0, n_steps=4
    ),
    "neuron": lambda net: AbsenceNeuronGradient(net, "first").attribute(X, (0, 1, 1)),
    "rules": lambda net: AbsenceGradient(net, AbsenceEpsilonGamma(), reference=X[:1] * 0)(X, ONE)[1],
    "gradient": lambda net: AbsenceGradient(net, nontarget=1)(X, ONE)[1],
    "path of zennit": lambda net: ZennitIntegratedGradients(net, n_iter=4, reference=X[:1] * 0, nontarget=1)(X, ONE)[1],
    "occlusion": lambda net: AbsenceOcclusion(net, window=3, stride=3, nontarget=1)(X, ONE)[1],
    "relevance": lambda net: relevance(net, X, X * 0, 0).attribution,
    "relevance by a rule": lambda net: relevance(net, X, X * 0, 0, rule="lower_gamma").attribution,
    "unit": lambda net: Unit("first", 1).values(net, X),
    "label": lambda net: layer_values(net, "first", Batches.of(X, 2), progress=False),
    "patches": lambda net: find_extreme_patches(net, "first", X, **SCAN).lowest.scores,
    "scores": lambda net: torch.tensor(absence_scores(net, X, 0, X - 0.5, progress=False).score),
    "prior": lambda net: AttributionPrior(net).with_logits(X, torch.tensor([0, 1, 2]), MASK)[1],
    "lucent": lambda net: unit_values(net, "-first:1", X),
    "picture": lambda net: torch.from_numpy(render_vis(net, "-first:1", lambda: param.image(6), **PICTURE)[0]),
}
ON_LAYERS = {"layer", "layer paths", "neuron", "unit", "label", "patches", "lucent", "picture"}
ON_RULES = {"guided", "rules"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act, self.second = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)
        self.last, self.head = nn.ReLU(), nn.Linear(16, 3)

    def body(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.act(self.first(x))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))  # type: ignore[no-any-return]


class Plain(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=False).flatten(1))


class Reentrant(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=True).flatten(1))


class Sequential(Net):
    def forward(self, x: Tensor) -> Tensor:
        parts = nn.Sequential(self.first, self.act, self.second, self.last)
        return self.head(checkpoint_sequential(parts, 2, x, use_reentrant=False).flatten(1))


def same(door: str, net: Any) -> bool:
    return torch.allclose(DOORS[door](net), DOORS[door](Net().eval()), rtol=1e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("kind", [Plain, Reentrant, Sequential])
@pytest.mark.parametrize("door", DOORS)
def test_checkpointed_models_are_explained_as_without(door: str, kind: type[Net]) -> None:
    before = {name: getattr(host, name) for name in vars(host)}
    assert same(door, kind().eval())
    assert all(getattr(host, name) is value for name, value in before.items())


def test_checkpoints_stay_on_in_other_threads_and_after_errors() -> None:
    calls: list[str] = []

    def block(x: Tensor) -> Tensor:
        calls.append(threading.current_thread().name)
        return x.exp() * x.sin()

    def train() -> None:
        for reentrant in (True, False):
            checkpoint(block, torch.ones(1, requires_grad=True), use_reentrant=reentrant).backward()

    def explain() -> None:
        with without_checkpoints():
            thread = threading.Thread(target=train, name="other")
            thread.start()
            thread.join()
            train()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        explain()
    assert calls.count("other") == 4  # each block forward, and again in the backward pass
    assert len(calls) == 6
    train()
    assert len(calls) == 10


@pytest.mark.parametrize("door", DOORS)
def test_scripted_and_traced_models(door: str) -> None:
    for net in (torch.jit.script(Net().eval()), torch.jit.trace(Net().eval(), X)):
        if door in ON_LAYERS | ON_RULES | {"deeplift", "lrp", "relevance", "relevance by a rule"}:
            with pytest.raises(ValueError, match=r"TorchScript.*pass|TorchScript.*use the plain"):
                DOORS[door](net)
        elif isinstance(net, torch.jit.RecursiveScriptModule) and door in {"gradient", "path of zennit", "occlusion"}:
            with pytest.raises(ValueError, match=r"TorchScript.*torch\.jit"):
                DOORS[door](net)
        else:
            assert same(door, net)


def test_a_module_that_takes_no_hook_leaves_none_on_the_others() -> None:
    """The blocks are left, too, and the model is free (see conftest)."""
    net = torch.nn.Sequential(torch.nn.ReLU(), torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2))))
    with pytest.raises(RuntimeError, match="register_forward_hook"), Recorder(net):
        pass
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in net.modules())
    assert all(lock._owner is None for lock in _locks_of(net))


@pytest.mark.parametrize("door", DOORS)
def test_graph_modules(door: str) -> None:
    assert same(door, torch.fx.symbolic_trace(Net().eval()))


@pytest.mark.slow  # torch.export imports dynamo
@pytest.mark.parametrize("door", DOORS)
def test_exported_programs(door: str) -> None:
    net = torch.export.export(Net().eval(), (X,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    if door in {"lucent", "picture"}:
        with pytest.raises(ValueError, match="layer 'first' was not computed"):
            DOORS[door](net)
    elif door in ON_LAYERS | ON_RULES | {"relevance by a rule"}:
        with pytest.raises(ValueError, match=r"exported program.*torch\.export"):
            DOORS[door](net)
    else:
        assert same(door, net)


@pytest.mark.parametrize("door", DOORS)
def test_inference_mode(door: str) -> None:
    net = Net().eval()
    with torch.inference_mode():
        if door == "prior":
            with pytest.raises(ValueError, match="a prior needs gradients, which inference mode rules out"):
                DOORS[door](net)
            return
        found = DOORS[door](net)
    assert torch.allclose(found, DOORS[door](net), equal_nan=True)


@pytest.mark.parametrize("door", DOORS)
def test_parameters_of_inference_mode_work_or_are_named(door: str) -> None:
    with torch.inference_mode():
        net = Net().eval()
    try:
        found = DOORS[door](net)
    except ValueError as error:
        assert "parameters were made in torch.inference_mode()" in str(error)  # noqa: PT017
    else:
        assert torch.allclose(found, DOORS[door](Net().eval()), rtol=1e-5, atol=1e-7, equal_nan=True)


def test_functions_in_place_of_modules() -> None:
    net = Net().eval()

    def function(x: Tensor) -> Any:
        return torch.func.functional_call(net, dict(net.named_parameters()), (x,))

    for door in ("paths", "saliency", "ablation", "deeplift", "relevance", "scores", "gradient", "occlusion"):
        assert same(door, function)
    for door in ("rules", "unit"):
        with pytest.raises((ValueError, TypeError), match=r"pass the (nn\.M|m)odule"):
            DOORS[door](function)


class InPlace(Net):  # normalizes what it is given
    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        x /= 0.25
        return super().forward(x)


class Normalized(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 0.5) / 0.25)


@pytest.mark.parametrize("door", DOORS)
def test_forwards_that_overwrite_their_input(door: str) -> None:
    before = X.clone()
    found, wanted = DOORS[door](InPlace().eval()), DOORS[door](Normalized().eval())
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6, equal_nan=True)
    assert torch.equal(X, before)
