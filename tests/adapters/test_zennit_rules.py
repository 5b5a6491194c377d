"""Every rule on single layers, and every composite on whole networks, against the second writing (zennit_algebra)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit.composites import LayerMapComposite
from zennit.layer import Sum
from zennit_algebra import Network, linear, max_pool
from zennit_nets import CONSERVATIVE, Residual
from zennit_nets import randomized as nets_randomized

from absence_plugins.zennit import (
    AbsenceAlphaBeta,
    AbsenceEpsilon,
    AbsenceFlat,
    AbsenceGamma,
    AbsenceGradient,
    AbsenceMaxPool,
    AbsenceNorm,
    AbsencePass,
    AbsenceWSquare,
    AbsenceZPlus,
)

pytestmark = pytest.mark.filterwarnings("ignore")

RULES: dict[str, Any] = {
    "epsilon": AbsenceEpsilon(),
    "gamma": AbsenceGamma(0.25),
    "gamma 3": AbsenceGamma(3.0),
    "zplus": AbsenceZPlus(),
    "alpha 2 beta 1": AbsenceAlphaBeta(2, 1),
    "alpha 1 beta 0": AbsenceAlphaBeta(1, 0),
    "alpha 3 beta 2": AbsenceAlphaBeta(3, 2),
}


def randomized(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module.double()


LINEAR: dict[str, tuple[Callable[[bool], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda bias: nn.Linear(5, 4, bias=bias), (5,)),
    "linear on a sequence": (lambda bias: nn.Linear(3, 2, bias=bias), (4, 3)),
    "conv1d": (lambda bias: nn.Conv1d(2, 3, 3, bias=bias), (2, 7)),
    "conv1d dilated": (lambda bias: nn.Conv1d(2, 2, 3, dilation=2, padding=2, bias=bias), (2, 7)),
    "conv1d reflect": (lambda bias: nn.Conv1d(1, 2, 3, padding=2, padding_mode="reflect", bias=bias), (1, 6)),
    "conv2d": (lambda bias: nn.Conv2d(2, 3, 2, bias=bias), (2, 4, 4)),
    "conv2d all": (
        lambda bias: nn.Conv2d(4, 2, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, bias=bias),
        (4, 4, 3),
    ),
    "conv2d depthwise": (lambda bias: nn.Conv2d(2, 4, 2, stride=2, groups=2, bias=bias), (2, 4, 4)),
    "conv2d same": (lambda bias: nn.Conv2d(1, 2, 2, padding="same", bias=bias), (1, 3, 4)),
    "conv2d circular": (lambda bias: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", bias=bias), (1, 4, 3)),
    "conv2d replicate": (lambda bias: nn.Conv2d(1, 2, 3, padding=1, padding_mode="replicate", bias=bias), (1, 3, 3)),
    "conv3d": (lambda bias: nn.Conv3d(2, 2, 2, stride=(1, 2, 1), padding=(0, 1, 0), bias=bias), (2, 2, 3, 3)),
    "conv3d grouped": (lambda bias: nn.Conv3d(2, 2, (2, 1, 2), groups=2, bias=bias), (2, 3, 2, 2)),
    "transposed1d": (lambda bias: nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1, bias=bias), (2, 4)),
    "transposed1d dilated": (lambda bias: nn.ConvTranspose1d(2, 2, 2, dilation=2, padding=1, bias=bias), (2, 4)),
    "transposed2d": (
        lambda bias: nn.ConvTranspose2d(2, 4, 3, stride=(2, 1), padding=(1, 0), output_padding=(1, 0), groups=2, bias=bias),
        (2, 3, 2),
    ),
    "transposed3d": (lambda bias: nn.ConvTranspose3d(2, 2, 2, stride=(1, 2, 1), groups=2, bias=bias), (2, 2, 2, 2)),
}  # fmt: skip
WEIGHTLESS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "average1d": (nn.AvgPool1d(3, stride=2, padding=1), (2, 7)),
    "average1d ceil": (nn.AvgPool1d(2, ceil_mode=True, count_include_pad=False), (2, 5)),
    "average2d": (nn.AvgPool2d((3, 2), stride=(1, 2), padding=(1, 0), count_include_pad=True), (2, 4, 5)),
    "average2d inside": (nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), (1, 4, 5)),
    "average2d divisor": (nn.AvgPool2d(2, divisor_override=3), (1, 4, 4)),
    "average3d": (nn.AvgPool3d(2, stride=1, padding=1), (1, 2, 2, 3)),
    "adaptive average1d": (nn.AdaptiveAvgPool1d(3), (2, 7)),
    "adaptive average2d": (nn.AdaptiveAvgPool2d((2, None)), (2, 5, 3)),
    "adaptive average3d": (nn.AdaptiveAvgPool3d((1, 2, 2)), (1, 3, 3, 2)),
    "sum": (Sum(-1), (2, 3, 2)),
    "sum in the middle": (Sum(2), (2, 3, 2)),
}


def inputs(shape: tuple[int, ...], seed: int, samples: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """x, r and weights on at most 400 outputs per sample; a third of the inputs does not differ."""
    generator = torch.Generator().manual_seed(seed)
    x, r = torch.randn(2, samples, *shape, generator=generator, dtype=torch.float64)
    same = torch.rand(x.shape, generator=generator) < 1 / 3
    return x, torch.where(same, x, r), torch.randn(samples, 400, generator=generator, dtype=torch.float64)


def ours(module: nn.Module, rule: Any, x: Tensor, r: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """R of the inputs, and the R of the outputs that it came from."""
    with torch.no_grad():
        change = module(x) - module(r)
    weights = weights[:, : change[0].numel()].reshape(change.shape)
    composite = LayerMapComposite([(type(module), rule)])
    _, found = AbsenceGradient(module, composite, attr_output=weights, reference=r)(x)
    return found, weights * change


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("layer", LINEAR)
def test_rules_of_layers_with_weights(layer: str, bias: bool) -> None:
    make, shape = LINEAR[layer]
    module = randomized(make(bias), seed=len(layer))
    x, r, weights = inputs(shape, seed=1 + bias)
    for name, rule in RULES.items():
        found, seed = ours(module, rule, x, r, weights)
        expected = linear(module, x, r, seed, name)
        assert float(expected.abs().max()) > 0.1
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9), name
        assert bool((found[x == r] == 0).all()), name  # what does not differ gets nothing


@pytest.mark.parametrize("layer", LINEAR)
def test_flat_and_wsquare(layer: str) -> None:
    make, shape = LINEAR[layer]
    module = randomized(make(True), seed=len(layer))
    x, r, weights = inputs(shape, seed=4)
    for name, rule in {"flat": AbsenceFlat(), "wsquare": AbsenceWSquare()}.items():
        found, seed = ours(module, rule, x, r, weights)
        assert torch.allclose(found, linear(module, x, r, seed, name), rtol=1e-9, atol=1e-9), name


@pytest.mark.parametrize("layer", WEIGHTLESS)
def test_norm(layer: str) -> None:
    module, shape = WEIGHTLESS[layer]
    x, r, weights = inputs(shape, seed=6)
    found, seed = ours(module, AbsenceNorm(), x, r, weights)
    assert torch.allclose(found, linear(module, x, r, seed, "epsilon"), rtol=1e-9, atol=1e-9)
    assert torch.allclose(ours(module, AbsenceEpsilon(), x, r, weights)[0], found, rtol=1e-12)


@pytest.mark.parametrize(
    "module", [nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh(), nn.GELU(), nn.LeakyReLU(-0.5)], ids=str
)
def test_pass(module: nn.Module) -> None:
    x, r, weights = inputs((3, 4), seed=7)
    found, seed = ours(copy.deepcopy(module), AbsencePass(), x.clone(), r.clone(), weights)
    expected = weights[:, :12].reshape(2, 3, 4) * (copy.deepcopy(module)(x.clone()) - copy.deepcopy(module)(r.clone()))
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)
    if not getattr(module, "inplace", False):
        assert torch.equal(seed, expected)


def test_pass_through_batch_norm() -> None:
    module = nn.BatchNorm1d(3)
    module.running_mean, module.running_var = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 2.0, 1.0])
    module.weight.data, module.bias.data = torch.tensor([1.0, -3.0, 0.5]), torch.tensor([0.3, 1.0, -1.0])
    x, r, weights = inputs((3, 4), seed=8)
    found, seed = ours(module.double().eval(), AbsencePass(), x, r, weights)
    assert torch.allclose(found, seed, rtol=1e-12, atol=1e-14)


# -- max pooling: windows written out ---------------------------------------------------------------------------------

MAX_POOLS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "1d": (nn.MaxPool1d(2), (2, 6)),
    "1d overlapping": (nn.MaxPool1d(3, stride=1, padding=1), (2, 6)),
    "1d dilated": (nn.MaxPool1d(2, stride=1, dilation=3), (2, 7)),
    "1d ceil": (nn.MaxPool1d(2, ceil_mode=True), (2, 5)),
    "2d": (nn.MaxPool2d((2, 3), stride=(1, 2), padding=(1, 1)), (2, 4, 5)),
    "2d dilated ceil": (nn.MaxPool2d(2, stride=2, padding=1, dilation=2, ceil_mode=True), (1, 5, 6)),
    "3d": (nn.MaxPool3d(2, stride=1, padding=(0, 1, 0)), (1, 2, 3, 3)),
    "adaptive 1d": (nn.AdaptiveMaxPool1d(3), (2, 7)),
    "adaptive 2d": (nn.AdaptiveMaxPool2d((2, 3)), (2, 5, 4)),
    "adaptive 2d as is": (nn.AdaptiveMaxPool2d((None, 1)), (1, 3, 4)),
    "adaptive 3d": (nn.AdaptiveMaxPool3d(2), (1, 3, 3, 2)),
}


@pytest.mark.parametrize("layer", MAX_POOLS)
def test_max_pooling(layer: str) -> None:
    pool, shape = MAX_POOLS[layer]
    x, r, weights = inputs(shape, seed=9)
    found, seed = ours(pool, AbsenceMaxPool(), x, r, weights)
    expected = max_pool(pool, x, r, seed)
    assert float(expected.abs().max()) > 0.1
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


# -- what the rules say on paper --------------------------------------------------------------------------------------


def test_numbers_on_paper() -> None:
    """z = (4, -1), and mirrored (1, -4): written out by hand."""
    net = nn.Linear(2, 1, bias=False).double()
    net.weight.data = torch.tensor([[2.0, -0.5]]).double()
    x, r = torch.tensor([[[3.0, 1.0]], [[1.0, -1.0]]]).double()  # da = (2, 2)
    by_hand = {
        "epsilon": [4.0, -1.0],
        "gamma": [5 / 4 * 3, -1 / 4 * 3],  # 1.25 * 4 / (1.25 * 4 - 1) = 5 / 4
        "gamma 3": [16 / 15 * 3, -1 / 15 * 3],
        "zplus": [3.0, 0.0],
        "alpha 2 beta 1": [4.0, -1.0],  # n / (p - n) = 1/3 < 1: Epsilon's
        "alpha 1 beta 0": [3.0, 0.0],
        "alpha 3 beta 2": [4.0, -1.0],
    }
    for name, expected in by_hand.items():
        composite = LayerMapComposite([(nn.Linear, RULES[name])])
        found = AbsenceGradient(net, composite, reference=r)(x)[1]
        assert found[0].tolist() == pytest.approx(expected, abs=1e-12), name
        assert torch.equal(AbsenceGradient(net, composite, reference=x)(r)[1], -found), name
    net.weight.data = torch.tensor([[0.5, -0.375]]).double()  # z = (1, -0.75): n / (p - n) = 3
    capped = LayerMapComposite([(nn.Linear, AbsenceAlphaBeta(2, 1))])
    assert AbsenceGradient(net, capped, reference=r)(x)[1][0].tolist() == pytest.approx([0.5, -0.25])


@pytest.mark.parametrize("name", RULES)
def test_a_layer_on_which_everything_pulls_one_way(name: str) -> None:
    """n = 0 and p = 0 are no special cases: all rules agree with Epsilon there."""
    module = randomized(nn.Linear(4, 3), seed=2)
    module.weight.data = module.weight.data.abs()
    x, r, weights = inputs((4,), seed=3)
    low, high = torch.minimum(x, r), torch.maximum(x, r)
    for one, other in ((high, low), (low, high), (high, high)):
        found, seed = ours(module, RULES[name], one, other, weights)
        expected = linear(module, one, other, seed, "epsilon")
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


# -- whole networks ---------------------------------------------------------------------------------------------------

COMPOSITES = {  # convolutions, dense layers, the first layer; the own layer is always Epsilon
    "absence_epsilon_gamma": ("gamma", "epsilon", None),
    "absence_epsilon_gamma_box": ("gamma", "epsilon", None),
    "absence_epsilon_plus": ("zplus", "epsilon", None),
    "absence_epsilon_plus_flat": ("zplus", "epsilon", "flat"),
    "absence_epsilon_alpha2_beta1": ("alpha 2 beta 1", "epsilon", None),
    "absence_epsilon_alpha2_beta1_flat": ("alpha 2 beta 1", "epsilon", "flat"),
    "absence_excitation_backprop": ("zplus", "zplus", None),
}


def network(head: str) -> nn.Sequential:
    """Images [B, 1, 5, 5]. Everything that has a rule, in one line."""
    layers = [
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.MaxPool2d(2, stride=1),
        Residual(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)), nn.Tanh(),
        nn.ConvTranspose2d(2, 2, 2), nn.LeakyReLU(0.1), nn.AvgPool2d(2),
    ]  # fmt: skip
    if head == "conv":
        layers += [nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    else:
        layers += [nn.Flatten(), nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 3)]
    net = nn.Sequential(*layers)
    return nets_randomized(net, 5)


@pytest.mark.parametrize("head", ["conv", "dense"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_composites_on_whole_networks(name: str, head: str) -> None:
    assert set(COMPOSITES) == set(CONSERVATIVE)
    conv, dense, first = COMPOSITES[name]
    net = network(head)
    own = [label for label, module in net.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]

    def rule_of(label: str, module: nn.Module) -> str:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            if label == own:
                return "epsilon"
            if label == "0" and first is not None:
                return first
            return dense if isinstance(module, nn.Linear) else conv
        if isinstance(module, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
            return "epsilon"
        return "max" if isinstance(module, nn.MaxPool2d) else "pass"

    x, r, _ = inputs((1, 5, 5), seed=3)
    weights = torch.tensor([[1.0, -0.5, 0.0], [0.0, 0.0, 2.0]]).double()
    expected = Network(net, rule_of).relevance(x, r, weights)
    found = AbsenceGradient(net, CONSERVATIVE[name](), weights, reference=r)(x)[1]
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-10)
    swapped = AbsenceGradient(net, CONSERVATIVE[name](), weights, reference=x)(r)[1]
    assert torch.allclose(swapped, -expected, rtol=1e-8, atol=1e-10)
