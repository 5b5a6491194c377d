"""Layers and outputs as people have them: tokens, channels-last maps, tuples, dataclasses, dictionaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from adapter_table import seeded
from captum import attr
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import Layer, ReferenceSet
from absence_plugins.core import AbsenceWarning

pytestmark = pytest.mark.filterwarnings("ignore")
SEED = 0


class Block(nn.Module):
    """A layer that returns ``(features, None)``, as the stages of transformers do."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.mlp, self.wrap = nn.Linear(5, 5), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.mlp(x))


@dataclass
class Hidden:
    last_hidden_state: Tensor
    attentions: Tensor | None = None


def first(value: Any) -> Tensor:
    if isinstance(value, Hidden):
        return value.last_hidden_state
    return value if isinstance(value, Tensor) else value[0]  # type: ignore[no-any-return]


class Tokens(nn.Module):
    """Images [B, 3, 8, 8] -> 24 tokens of 5 channels, or maps [B, 8, 3, 5] of 5 channels."""

    def __init__(self, wrap: Any = lambda value: value, is_map: bool = False) -> None:
        super().__init__()
        self.embed, self.act, self.block, self.head = nn.Linear(8, 5), nn.GELU(), Block(wrap), nn.Linear(5, 4)
        self.is_map = is_map

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.transpose(1, 2) if self.is_map else x.flatten(1, 2)
        hidden = first(self.block(self.act(self.embed(tokens))))
        weights = torch.linspace(-1, 1, hidden[0, ..., 0].numel()).reshape(hidden.shape[1:-1]).to(hidden)
        return self.head((hidden * weights[None, ..., None]).tanh().flatten(1, -2).sum(1))  # type: ignore[no-any-return]


def build(*args: Any, **options: Any) -> Tokens:
    torch.manual_seed(SEED)
    return Tokens(*args, **options).double().eval()


def images(samples: int = 2) -> Tensor:
    return torch.randn(samples, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def grad_cam(net: nn.Module, module: nn.Module, x: Tensor, target: int, axis: int) -> Tensor:
    """Grad-CAM a second time: the weights are means of the gradient over positions, per channel."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        first(output).retain_grad()
        seen.append(first(output))

    handle = module.register_forward_hook(keep)
    net(x.clone().requires_grad_())[:, target].sum().backward()
    handle.remove()
    value, slope = seen[0].detach().movedim(axis, 1), seen[0].grad.movedim(axis, 1)  # type: ignore[union-attr]
    weights = slope.flatten(2).mean(2).reshape(*slope.shape[:2], *[1] * (slope.dim() - 2))
    net.zero_grad()
    return (weights * value).sum(1, keepdim=True)


LAYOUTS = [  # how the block's output is wrapped, whether it is a map, the layer, the axis of its channels, the map's shape
    (lambda value: value, False, "embed", 2, (2, 1, 24)),
    (lambda value: value, False, "act", 2, (2, 1, 24)),
    (lambda value: value, False, "block", 2, (2, 1, 24)),
    (lambda value: value, True, "embed", 3, (2, 1, 8, 3)),
    (lambda value: value, True, "act", 3, (2, 1, 8, 3)),
    (lambda value: (value, None), False, "block", 2, (2, 1, 24)),
    (lambda value: (value, None), True, "block", 3, (2, 1, 8, 3)),
    (lambda value: (value, value.mean(1)), False, "block", 2, (2, 1, 24)),
    (Hidden, False, "block", 2, (2, 1, 24)),
]


@pytest.mark.parametrize(("wrap", "is_map", "layer", "axis", "shape"), LAYOUTS)
def test_grad_cam_tells_channels_from_positions(
    wrap: Any, is_map: bool, layer: str, axis: int, shape: tuple[int, ...]
) -> None:
    net, x = build(wrap, is_map), images()
    expected = grad_cam(net, getattr(net, layer), x, 2, axis)
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()]
    found = adapters.AbsenceLayerGradCam(net, getattr(net, layer), nontarget=2).attribute(x, target=0)
    assert found.shape == shape
    assert torch.allclose(found, expected)
    assert float(found.abs().min()) > 0
    named = adapters.AbsenceLayerGradCam(net, Layer(layer, channels="last"), nontarget=2).attribute(x, target=0)
    assert torch.equal(named, found)
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()] == hooks


def test_grad_cam_at_a_convolution_is_captums() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 4)), torch.rand(2, 3, 8, 8)
    for layer in (net[0], net[1], "1"):
        found = adapters.AbsenceLayerGradCam(net, layer, nontarget=2).attribute(x, target=0)
        module = net[1] if layer == "1" else layer
        assert torch.equal(found, attr.LayerGradCam(net, module).attribute(x, target=2).detach())


def test_grad_cam_stays_captums_in_the_neutral_setting() -> None:
    net = build()
    neutral = adapters.AbsenceLayerGradCam(net, "embed", nontarget=None).attribute(images(), target=2)
    assert torch.equal(neutral, attr.LayerGradCam(net, net.embed).attribute(images(), target=2))


def test_an_axis_that_cannot_be_told_is_asked_for() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.square, self.head = Square(), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.square(x).flatten(1))  # type: ignore[no-any-return]

    net, x = Net(), torch.rand(2, 2, 8)
    with pytest.raises(
        ValueError, match=r"'square' has activations of shape \(2, 2, 8\).*Layer\('square', channels='last'\)"
    ):
        adapters.AbsenceLayerGradCam(net, net.square).attribute(x, target=0)
    for channels, shape in (("first", (2, 1, 8)), ("last", (2, 1, 2))):
        cam = adapters.AbsenceLayerGradCam(net, Layer("square", channels=channels))  # type: ignore[arg-type]
        assert cam.attribute(x, target=0).shape == shape


# -- layers that return several things --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda value: (value, None), Hidden], ids=["tuple", "dataclass"])
@pytest.mark.parametrize(
    "name",
    "NeuronIntegratedGradients NeuronGradient NeuronDeepLift NeuronFeatureAblation NeuronConductance LayerConductance "
    "LayerGradientXActivation LayerIntegratedGradients LayerDeepLift LayerFeatureAblation InternalInfluence".split(),
)
def test_a_layer_with_several_outputs_is_read_at_its_tensor(name: str, wrap: Any) -> None:
    """As on the same network whose layer returns the tensor alone."""
    options: dict[str, Any] = {"target": 0} if not name.startswith("Neuron") or name == "NeuronConductance" else {}
    if name.startswith("Neuron"):
        options["neuron_selector"] = (3, 2)
    plain, wrapped, x = build(), build(wrap), images()
    adapter = getattr(adapters, f"Absence{name}")
    expected = adapter(plain, plain.block).attribute(x, **options)
    found = adapter(wrapped, wrapped.block).attribute(x, **options)
    assert torch.allclose(found, expected)
    assert float(expected.abs().sum()) > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in wrapped.modules())


def test_a_layer_without_a_tensor_is_named() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"shape": tuple(x.shape)}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sized, self.head = Nothing(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.sized(x)
            return self.head(x)  # type: ignore[no-any-return]

    net = Net()
    with pytest.raises(ValueError, match="layer 'sized' puts out shape"):
        adapters.AbsenceNeuronGradient(net, net.sized).attribute(torch.rand(2, 4), 0)
    with pytest.raises(ValueError, match="no layer 'size'; it has: sized"):
        adapters.AbsenceNeuronGradient(net, "size")


def test_neurons_of_tokens_keep_captums_index() -> None:
    net, x = build(), images()
    found = adapters.AbsenceNeuronGradient(net, net.embed).attribute(x, neuron_selector=(7, 2))  # token 7, channel 2
    y = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net.embed(y.flatten(1, 2))[:, 7, 2].sum(), y)
    assert torch.allclose(found, expected)
    in_front = adapters.AbsenceNeuronGradient(net, net.act).attribute(x, neuron_selector=(7, 2))
    assert torch.allclose(in_front, expected)  # of a GELU as of a ReLU


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.last(self.relu(self.first(x)))
        hidden += x
        return self.relu(hidden)  # type: ignore[no-any-return]


def test_a_block_that_ends_in_a_rectifier_is_read_in_front_of_it() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(Residual(), nn.Linear(4, 3)), torch.randn(6, 4)
    block, y = net[0], x.clone().requires_grad_()
    value = (block.last(torch.relu(block.first(y))) + y)[:, 1]
    (expected,) = torch.autograd.grad(value.sum(), y)
    assert torch.allclose(adapters.AbsenceNeuronGradient(net, block).attribute(x, 1), expected)
    explanation = adapters.AbsenceNeuronIntegratedGradients(net, block).explain(x, 1)
    assert torch.allclose(explanation.output, value.detach())
    assert bool((explanation.output < 0).any())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("is_inplace", [False, True])
@pytest.mark.parametrize("name", ["Gradient", "IntegratedGradients", "FeatureAblation", "DeepLift", "Conductance"])
def test_what_is_written_in_place_behind_a_layer_does_not_change_its_neurons(name: str, is_inplace: bool) -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.nn.functional.relu(self.body(x), inplace=is_inplace))  # type: ignore[no-any-return]

    net, x = Written(), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    options = {"target": 0} if name == "Conductance" else {}
    found = getattr(adapters, f"AbsenceNeuron{name}")(net, net.body).explain(x, neuron_selector=1, **options)
    if name == "Conductance":
        expected = attr.NeuronConductance(net, net.body).attribute(x, 1, target=1)
        assert torch.allclose(found.attribution, expected, atol=1e-6)
        return
    value = net.body(x)[:, 1].detach()
    assert torch.allclose(found.output, value)
    assert bool((value < 0).any())
    factor = torch.ones(1) if name == "Gradient" else x
    assert torch.allclose(found.attribution, net.body.weight[1].detach() * factor, atol=1e-5)


# -- outputs ----------------------------------------------------------------------------------------------------------


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class Returning(nn.Module):
    def __init__(self, wrap: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.flat, self.head = nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)
        self.wrap = wrap
        self.double()

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.head(self.flat(self.relu(self.conv(x)))))


OUTPUTS = {
    "dataclass": Output,
    "out": lambda logits: {"out": logits, "aux": logits * 2},
    "tuple": lambda logits: (logits,),
}
METHODS = (
    "IntegratedGradients DeepLift DeepLiftShap GradientShap Saliency InputXGradient GuidedBackprop LRP FeatureAblation Occlusion "
    "ShapleyValueSampling KernelShap Lime LayerGradCam LayerConductance LayerDeepLift LayerIntegratedGradients LayerFeatureAblation "
    "LayerLRP NeuronIntegratedGradients NeuronDeepLift NeuronConductance"
).split()


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("name", METHODS)
def test_outputs_of_every_shape_are_explained_as_their_scores(name: str, kind: str) -> None:
    maps = []
    for wrap in (lambda logits: logits, OUTPUTS[kind]):
        net = Returning(wrap)
        given = (net, net.conv) if name.startswith(("Layer", "Neuron")) else (net,)
        options: dict[str, Any] = {} if name.startswith("Neuron") and "Cond" not in name else {"target": 0}
        if name.startswith("Neuron"):
            options["neuron_selector"] = (slice(None), slice(0, 3), slice(0, 3))
        if name == "Occlusion":
            options["sliding_window_shapes"] = (3, 4, 4)
        if name in ("ShapleyValueSampling", "KernelShap", "Lime"):
            options["feature_mask"] = (torch.arange(64).reshape(1, 1, 8, 8) // 16).repeat(1, 3, 1, 1)
        if name in ("DeepLiftShap", "GradientShap"):
            options["baselines"] = images(3) * 0
        seeded()
        maps.append(getattr(adapters, f"Absence{name}")(net, *given[1:]).attribute(images(), **options))
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch.allclose(maps[0], maps[1])
    assert float(maps[0].abs().sum()) > 0


@pytest.mark.parametrize("nontarget", ["others", 1])
def test_combinations_of_scores_in_a_dataclass(nontarget: Any) -> None:
    maps = [
        adapters.AbsenceIntegratedGradients(Returning(wrap), nontarget=nontarget).explain(images(), target=0)
        for wrap in (lambda logits: logits, Output)
    ]
    assert torch.equal(maps[0].attribution, maps[1].attribution)
    given = ReferenceSet(images(4), torch.arange(4), k=1)
    found = adapters.AbsenceDeepLift(Returning(Output), reference=given).explain(images(), target=0)
    assert found.reference_output is not None


def test_outputs_that_cannot_be_told_apart_are_listed() -> None:
    net = Returning(lambda logits: (logits, logits * 2))
    with pytest.raises(ValueError, match=r"tuple with 0 \(2, 4\), 1 \(2, 4\).*Scores\(model, field=0\)"):
        adapters.AbsenceIntegratedGradients(net).attribute(images(), target=0)


class InPlace(nn.Module):
    """Normalizes what it is given, in place."""

    def __init__(self, is_inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.is_inplace = nn.Linear(4, 3), is_inplace

    def forward(self, x: Tensor) -> Tensor:
        if self.is_inplace:
            x -= 0.5
            x /= 0.25
        else:
            x = (x - 0.5) / 0.25
        return self.first(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "name", "FeatureAblation IntegratedGradients Saliency Occlusion DeepLift ShapleyValues".split()
)
def test_a_model_that_works_in_place_on_its_input_gets_copies(name: str) -> None:
    x = torch.tensor([[0.2, 0.4, 0.6, 0.8]])
    before, options = x.clone(), {"sliding_window_shapes": (1,)} if name == "Occlusion" else {}
    maps = [
        getattr(adapters, f"Absence{name}")(InPlace(is_inplace)).attribute(x, target=0, **options)
        for is_inplace in (False, True)
    ]
    assert torch.allclose(*maps, atol=1e-6)
    assert torch.equal(x, before)


def test_rectified_neurons_that_are_no_modules_draw_a_warning() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.inner(x))

    net = nn.Sequential(Functional(), nn.Linear(4, 3))
    with pytest.warns(AbsenceWarning, match=r"layer \(Functional\) is 0 or more") as caught:
        adapters.AbsenceNeuronGradient(net, net[0]).attribute(torch.randn(6, 4), 1)
    assert caught[0].filename == __file__
