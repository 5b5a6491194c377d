"""Small random nets for the tests of the Zennit adapters, and one table of composites. `import zennit_nets`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zennit.composites import COMPOSITES
from zennit.layer import Sum
from zennit.types import Convolution

import absence_plugins.zennit as adapters
from absence_plugins.relevance import relevance
from absence_plugins.relevance.secants.redistribution import Gamma

CONSERVATIVE: dict[str, Any] = {
    name: cls
    for name, cls in COMPOSITES.items()
    if name.startswith("absence_") and name != "absence_guided_backprop"
}  # fmt: skip
OURS: dict[str, Any] = {name: cls for name, cls in COMPOSITES.items() if name.startswith("absence_")}
UPSTREAM: dict[str, Any] = {name: cls for name, cls in COMPOSITES.items() if not name.startswith("absence_")}
ATTRIBUTORS = ("Gradient", "SmoothGrad", "IntegratedGradients", "Occlusion")
CLASSES = 3
SIZE = 8  # images are [B, 2, SIZE, SIZE]


class Residual(nn.Module):
    """x + body(x), the sum in a module, as Zennit's canonizers write it."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body, self.sum = nn.Sequential(*body), Sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(torch.stack([x, self.body(x)], -1))  # type: ignore[no-any-return]


ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}
POOLS: dict[str, Any] = {
    "none": nn.Identity,
    "average": lambda: nn.AvgPool2d(2),
    "average overlapping": lambda: nn.AvgPool2d(3, stride=2, padding=1),
    "max": lambda: nn.MaxPool2d(2),
    "max overlapping": lambda: nn.MaxPool2d(3, stride=2, padding=1),
}
HEADS = ("dense", "two dense", "average, dense", "conv, average")


def conv_net(
    seed: int,
    activation: str = "relu",
    pool: str = "max",
    head: str = "dense",
    *,
    bias: bool = True,
    norm: bool = True,
    residual: bool = True,
    dtype: torch.dtype = torch.float64,
) -> nn.Sequential:
    """Convolutions, batch norm with scales of both signs, a residual sum, pooling and a head; in eval mode."""
    active = ACTIVATIONS[activation]
    layers: list[nn.Module] = [nn.Conv2d(2, 4, 3, padding=1, bias=bias)]
    layers += [nn.BatchNorm2d(4)] if norm else []
    layers += [active(), POOLS[pool]()]
    if residual:
        body = [nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=bias), *([nn.BatchNorm2d(4)] if norm else [])]
        layers += [Residual(*body), active()]
    layers += [nn.Conv2d(4, 4, 2, stride=2, bias=bias), active()]
    side = (SIZE if pool == "none" else SIZE // 2) // 2
    if head == "conv, average":
        layers += [nn.Conv2d(4, CLASSES, 1, bias=bias), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    elif head == "average, dense":
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES, bias=bias)]
    elif head == "two dense":
        layers += [nn.Flatten(), nn.Linear(4 * side**2, 6, bias=bias), active(), nn.Linear(6, CLASSES, bias=bias)]
    else:
        layers += [nn.Flatten(), nn.Linear(4 * side**2, CLASSES, bias=bias)]
    return randomized(nn.Sequential(*layers), seed, dtype)


def dense_net(seed: int, activation: str = "relu", *, norm: bool = True, bias: bool = True) -> nn.Sequential:
    """Three dense layers: [B, 5] -> [B, CLASSES]."""
    layers = [nn.Linear(5, 6, bias=bias), *([nn.BatchNorm1d(6)] if norm else []), ACTIVATIONS[activation]()]
    layers += [nn.Linear(6, 6, bias=bias), ACTIVATIONS[activation](), nn.Linear(6, CLASSES, bias=bias)]
    return randomized(nn.Sequential(*layers), seed)


def randomized(net: nn.Sequential, seed: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """He-scaled weights, biases, and batch norm statistics; scales of batch norm of both signs."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            draw = torch.rand(4, module.num_features, generator=generator) + 0.5
            module.running_mean, module.running_var = draw[0] - 1, draw[1]
            sign = torch.where(torch.arange(module.num_features) % 2 == 0, 1.0, -1.0)
            module.weight.data, module.bias.data = draw[2] * sign, draw[3] - 1
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            weight = module.weight.data
            scale = (2 / weight[0].numel()) ** 0.5
            module.weight.data = torch.randn(weight.shape, generator=generator) * scale
            if module.bias is not None:
                module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.3
    return net.to(dtype).eval()


def images(samples: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(samples, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rows(samples: int, seed: int = 1) -> Tensor:
    return torch.randn(samples, 5, generator=torch.Generator().manual_seed(seed)).double()


def one(*classes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Zennit's usual attr_output."""
    return torch.eye(CLASSES, dtype=dtype)[list(classes)]


def explain(
    net: nn.Module, composite: Any, x: Tensor, reference: Any = None, target: Any = None, **options: Any
) -> Tensor:
    """The signed map of AbsenceGradient, of output 0 if no other is named."""
    seed = one(*[0] * len(x), dtype=x.dtype) if target is None else target
    relevance: Tensor = adapters.AbsenceGradient(net, composite, reference=reference, **options)(x, seed)[1]
    return relevance


def summed(relevance: Tensor) -> Tensor:
    return relevance.flatten(1).sum(1)


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


def by_engine(net: nn.Module, x: Tensor, r: Tensor, output: int = 0) -> Tensor:
    """AbsenceEpsilonGamma, named module by module for the engine."""
    modules = dict(net.named_modules())
    rule = lambda name: Gamma(0.25) if isinstance(modules[name], Convolution) else None  # noqa: E731
    found: Tensor = relevance(net, x, r, output, rule=rule).attribution
    return found


class Net(nn.Module):
    """Convolution and whatever ``middle`` does, then a dense layer."""

    def __init__(
        self,
        middle: Callable[[Net, Tensor], Tensor],
        activation: nn.Module | None = None,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.active, self.middle = nn.Conv2d(2, 3, 3), activation or nn.ReLU(), middle
        self.pool = pool
        self.other, self.gate = nn.Conv2d(3, 3, 1), nn.Sigmoid()
        with torch.no_grad():
            size = self.middle(self, self.active(self.conv(torch.zeros(1, 2, 8, 8)))).flatten(1).shape[1]
        self.dense = nn.Linear(size, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.middle(self, self.active(self.conv(x))).flatten(1))  # type: ignore[no-any-return]
