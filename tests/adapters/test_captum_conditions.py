"""What a call needs of the model, its inputs and baselines: taken, or rejected in one line that says what to do."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import NoiseTunnel
from torch import Tensor, nn

from absence_plugins import captum as adapters
from absence_plugins.core import AbsenceWarning


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*layers).eval()


def images(seed: int = 1) -> Tensor:
    return torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


CALLS: dict[str, Callable[[Any, nn.Module], Any]] = {
    "DeepLift": lambda model, _layer: adapters.AbsenceDeepLift(model).attribute(images(), target=1),
    "LRP": lambda model, _layer: adapters.AbsenceLRP(model).attribute(images(), target=1),
    "LayerDeepLift": lambda model, layer: adapters.AbsenceLayerDeepLift(model, layer).attribute(images(), target=1),
    "LayerLRP": lambda model, layer: adapters.AbsenceLayerLRP(model, layer).attribute(images(), target=1),
    "NeuronDeepLift": lambda model, layer: adapters.AbsenceNeuronDeepLift(model, layer).attribute(images(), (0, 1, 1)),
    "GuidedBackprop": lambda model, _layer: adapters.AbsenceGuidedBackprop(model).attribute(images(), target=1),
    "LayerGradCam": lambda model, layer: adapters.AbsenceLayerGradCam(model, layer).attribute(images(), target=1),
    "LayerIntegratedGradients": lambda model, layer: adapters.AbsenceLayerIntegratedGradients(model, layer).attribute(
        images(), target=1, n_steps=4
    ),
}


@pytest.mark.filterwarnings("ignore:AbsenceGuidedBackprop is local")
@pytest.mark.parametrize("name", CALLS)
def test_compiled_models_that_were_used_before(name: str) -> None:
    net = convolutional()
    expected = CALLS[name](net, net[2])
    fast = torch.compile(net, backend="eager")
    for used in (images(), torch.cat([images(), images()])):  # compiled for any number of samples
        fast(used.requires_grad_()).sum().backward()
    assert torch.allclose(CALLS[name](fast, net[2]), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:AbsenceGuidedBackprop is local")
@pytest.mark.parametrize("name", CALLS)
def test_inside_inference_mode(name: str) -> None:
    net = convolutional()
    expected = CALLS[name](net, net[2])
    with torch.inference_mode():
        assert torch.equal(CALLS[name](net, net[2]), expected)


@pytest.mark.parametrize("name", CALLS)
def test_batch_norm_in_training_mode(name: str) -> None:
    net = convolutional().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"1 \(BatchNorm2d\) is in training mode.*call model\.eval\(\)"):
        CALLS[name](net, net[2])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(module.training for module in net.modules())


def test_dropout_in_training_mode_warns() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    with pytest.warns(AbsenceWarning, match=r"1 \(Dropout\) is in training mode and draws at random.*model\.eval\(\)"):
        adapters.AbsenceInputXGradient(net).attribute(torch.ones(2, 4), target=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_noise_in_half_precision(dtype: torch.dtype) -> None:
    net = convolutional()
    maps = []
    for model, x in ((net, images()), (copy.deepcopy(net).to(dtype), images().to(dtype))):
        torch.manual_seed(0)
        maps.append(NoiseTunnel(adapters.AbsenceDeepLift(model)).attribute(x, target=1, nt_samples=2, stdevs=0.1))
    assert maps[1].dtype == dtype
    assert torch.allclose(maps[1].float(), maps[0], atol=0.02)


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).tanh().mean(1))  # type: ignore[no-any-return]


IDS = torch.tensor([[1, 5, 7], [2, 2, 9]])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("DeepLift", "AbsenceLayerDeepLift"),
        ("LRP", "AbsenceLayerLRP"),
        ("IntegratedGradients", "AbsenceLayerIntegratedGradients"),
        ("Saliency", "AbsenceLayerIntegratedGradients"),
        ("InputXGradient", "AbsenceLayerIntegratedGradients"),
    ],
)
def test_token_ids(name: str, remedy: str) -> None:
    net = Tokens().eval()
    with pytest.raises(ValueError, match=rf"input 0 is int64; of token ids.*{remedy}\(model, 'embedding'\)"):
        getattr(adapters, f"Absence{name}")(net).attribute(IDS, target=0)
    assert getattr(adapters, remedy)(net, "embedding").attribute(IDS, target=0).shape == (2, 3, 6)


def test_token_ids_of_a_neuron() -> None:
    net = Tokens().eval()
    with pytest.raises(ValueError, match=r"input 0 is int64.*AbsenceNeuronDeepLift"):
        adapters.AbsenceNeuronGradient(net, net.head).attribute(IDS, 0)
    at_embedding = adapters.AbsenceNeuronDeepLift(net, net.head).attribute(IDS, 0)
    expected = net(IDS)[:, 0] - net(torch.zeros_like(IDS))[:, 0]
    assert torch.allclose(at_embedding.sum((1, 2)), expected, atol=1e-5)


def test_token_ids_in_a_noise_tunnel() -> None:
    net = Tokens().eval()
    tunnel = NoiseTunnel(adapters.AbsenceLayerDeepLift(net, net.embedding))
    with pytest.raises(ValueError, match=r"NoiseTunnel adds noise to input 0, which is int64.*without the tunnel"):
        tunnel.attribute(IDS, target=0, nt_samples=2)


def test_images_of_integers() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.float() / 255) @ torch.tensor([[1.0, -1.0], [0.0, 2.0]])

    x = torch.tensor([[255, 0], [51, 102]])
    signed = adapters.AbsenceIntegratedGradients(Scaled()).attribute(x, target=0, n_steps=4)
    assert torch.allclose(
        signed, torch.tensor([[-1.0, 0.0], [-0.2, 0.8]]), atol=1e-6
    )  # of output 1: (x0, x1) -> -x0 + 2 x1
    with pytest.raises(ValueError, match=r"input 0 is int64; pass it as numbers, input\.float\(\)"):
        adapters.AbsenceDeepLift(Scaled()).attribute(x, target=0)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, p: Tensor, q: Tensor) -> Tensor:
        return self.a(p) * self.b(q)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["DeepLift", "IntegratedGradients", "FeatureAblation"])
@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        (torch.zeros(3, 4), r"has 2 inputs and baselines has 1; pass a tuple"),
        ((torch.zeros(3, 4),), r"has 2 inputs and baselines has 1"),
        ((torch.zeros(3, 2), torch.zeros(3, 4)), r"input 0 have shape \(3, 2\).*inputs of shape \(3, 4\)"),
        ((0.0, torch.zeros(2, 2)), r"input 1 have shape \(2, 2\).*one per sample"),
        ((0.0, "black"), r"input 1 must be a number or a tensor, got str"),
    ],
)
def test_baselines_that_do_not_fit(name: str, baselines: Any, message: str) -> None:
    call: dict[str, Any] = {"baselines": baselines, "target": 0}
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(adapters, f"Absence{name}")(Two().eval()).attribute((torch.ones(3, 4), torch.ones(3, 2)), **call)


def test_references_of_another_shape() -> None:
    explainer = adapters.AbsenceDeepLiftShap(Two().eval())
    with pytest.raises(ValueError, match=r"input 1 have shape \(5, 3\).*references \[R, \.\.\.\]"):
        explainer.attribute((torch.ones(3, 4), torch.ones(3, 2)), (torch.ones(5, 4), torch.ones(5, 3)), target=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out.argmax(1), "returns int64, which are no scores"),
        (lambda out: torch.complex(out, out), "returns complex64"),
        (lambda out: out.detach(), "needs gradients, and the explained output has none.*AbsenceFeatureAblation"),
    ],
)
def test_outputs_without_scores_or_gradients(change: Callable[[Tensor], Tensor], message: str) -> None:
    net = nn.Linear(4, 3)

    def model(x: Tensor) -> Tensor:
        return change(net(x))

    target = None if change(torch.zeros(2, 3)).dim() == 1 else 0
    with pytest.raises(ValueError, match=message):
        adapters.AbsenceIntegratedGradients(model).attribute(torch.ones(2, 4), target=target)
