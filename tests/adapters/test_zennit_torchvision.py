"""Random-weight networks of torchvision in float32: conservation and gross relevance, with and without canonizers."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from zennit.torchvision import (
    ResNetBasicBlockCanonizer,
    ResNetBottleneckCanonizer,
    ResNetCanonizer,
    VGGCanonizer,
)
from zennit_nets import CONSERVATIVE

from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient

pytestmark = pytest.mark.filterwarnings("ignore")

OTHERS = [name for name in CONSERVATIVE if name != "absence_epsilon_gamma"]
GROSS = 10.0  # allowed sum of |R| over |u(x) - u(r)|


@cache
def network(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = getattr(torchvision.models, name)(weights=None)
        if name == "vit_b_16":
            nn.init.normal_(model.heads.head.weight)  # type: ignore[union-attr, arg-type]  # zeros otherwise
    return model.eval()


def image(size: int, seed: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def sums_only() -> list[Any]:
    """The sums of a ResNet in modules of their own: of no effect here."""
    return [ResNetBasicBlockCanonizer(), ResNetBottleneckCanonizer()]


def measured(net: nn.Module, composite: Any, size: int, reference: str) -> tuple[float, float]:
    """Relative conservation error and gross relevance.

    The class whose output differs most: with random weights and two noise images most differences of outputs are
    hardly more than rounding, and relative to such a one nothing is conserved.
    """
    x = image(size, 1)
    r = torch.zeros_like(x) if reference == "zeros" else image(size, 2)
    with composite.context(net), torch.no_grad():  # batch norm merged by a canonizer is another network (by 1e-4)
        difference = (net(x) - net(r))[0]
    best = int(difference.abs().argmax())
    output, found = AbsenceGradient(net, composite, torch.eye(1000)[[best]], reference=r)(x)
    assert output.shape == (1, 1000)
    scale = abs(float(difference[best]))
    error = abs(float(found.double().sum()) - float(difference[best])) / scale
    return error, float(found.double().abs().sum()) / scale


NETS = [
    ("resnet18", lambda: []),
    ("resnet18", sums_only),
    ("resnet18", lambda: [ResNetCanonizer()]),
    ("resnet50", sums_only),
    ("resnet50", lambda: [ResNetCanonizer()]),
    ("vgg16", lambda: []),
    ("vgg16_bn", lambda: [VGGCanonizer()]),
]
CASES = [
    pytest.param(name, canonizers, size, id=f"{name}-{number}-{size}", marks=[pytest.mark.slow] if slow else [])
    for number, (name, canonizers) in enumerate(NETS)
    for size, slow in ((64, "vgg" in name or number == 3), (224, True))
]


@pytest.mark.parametrize("reference", ["zeros", "another image"])
@pytest.mark.parametrize(("name", "canonizers", "size"), CASES)
def test_the_default_is_conservative_and_stable(name: str, canonizers: Any, size: int, reference: str) -> None:
    error, gross = measured(network(name), AbsenceEpsilonGamma(canonizers=canonizers()), size, reference)
    assert error <= 1e-4
    assert 1 - 1e-4 <= gross <= GROSS


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["zeros", "another image"])
@pytest.mark.parametrize("composite", OTHERS)
@pytest.mark.parametrize(("name", "canonizers"), [NETS[0], NETS[3], NETS[5]], ids=["resnet18", "resnet50", "vgg16"])
def test_the_others_are_conservative(name: str, canonizers: Any, composite: str, reference: str) -> None:
    error, _ = measured(network(name), CONSERVATIVE[composite](canonizers=canonizers()), 64, reference)
    assert error <= 1e-3


@pytest.mark.parametrize("composite", OTHERS)
def test_the_others_are_conservative_on_a_small_one(composite: str) -> None:
    error, _ = measured(network("resnet18"), CONSERVATIVE[composite](), 32, "another image")
    assert error <= 1e-3


@pytest.mark.parametrize("composite", CONSERVATIVE)
def test_a_canonizer_of_sums_changes_nothing(composite: str) -> None:
    net, x, r = network("resnet18"), image(32, 1), image(32, 2)
    maps = [
        AbsenceGradient(net, CONSERVATIVE[composite](canonizers=given), torch.eye(1000)[[3]], reference=r)(x)[1]
        for given in ([], sums_only())
    ]
    assert float((maps[0] - maps[1]).norm() / maps[0].norm()) <= 1e-4
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


# without a canonizer; timm's and Hugging Face's names for residual blocks make no difference either
ANY = ["densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "vit_b_16", "swin_v2_t", "convnext_tiny"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("shufflenet_v2_x0_5", "mobilenet_v2") else [pytest.mark.slow])
        for name in ANY
    ],
)
def test_networks_of_every_kind_are_conservative(name: str) -> None:
    size = 224 if name == "vit_b_16" else 64
    error, _ = measured(network(name), AbsenceEpsilonGamma(), size, "another image")
    assert error <= 1e-4


def test_batch_norm_needs_no_merging() -> None:
    """Merged or not is the same map, up to the eps that Zennit's merging leaves in the network (5e-6 per layer)."""
    net, x, r = network("resnet18"), image(64, 1), image(64, 2)
    maps = [
        AbsenceGradient(net, AbsenceEpsilonGamma(canonizers=canonizers), torch.eye(1000)[[7]], reference=r)(x)[1]
        for canonizers in ([], [ResNetCanonizer()])
    ]
    assert float((maps[0] - maps[1]).norm() / maps[0].norm()) <= 2e-3
    error, _ = measured(net, AbsenceEpsilonGamma(), 64, "another image")
    assert error <= 1e-4
