"""What ``relevance`` costs next to one forward and backward pass of input and reference together."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.model_methods import STEPS, TARGET, integrated_gradients
from absence_plugins.bench.result import Measurement
from absence_plugins.bench.subjects import subject
from absence_plugins.bench.timing import seconds
from absence_plugins.bench.works import Growth, Work
from absence_plugins.bench.zoo import Entry, build
from absence_plugins.relevance import relevance

RULES = ("epsilon", "gamma", "lower_gamma")
GRADIENTS = f"integrated gradients, {STEPS} steps"
AGAINST = f"epsilon against {GRADIENTS}"
SHORT = 5  # calls of relevance around one of integrated gradients
BATCHES = (1, 2, 4)
CONVOLUTIONS = nn.modules.conv._ConvNd
PIXELS, QUICK_PIXELS = 224, 32
# of torchvision; the vision transformer takes its size from its builder
FAMILIES = (
    "resnet18",
    "vgg11_bn",
    "mobilenet_v2",
    "efficientnet_b0",
    "densenet121",
    "convnext_tiny",
    "vit_b_32",
    "swin_t",
)
QUICK_FAMILIES = ("resnet18",)
BUILDER = "absence_plugins.bench.relevance_works:build_relevance_works"


@dataclass(frozen=True)
class SumError:
    """By how much the sum of a map misses u(x) - u(r), relative to it, on one network."""

    network: str
    relevance: float
    gradients: float


def build_relevance_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """What is measured on one network, by rule; all against the same passes."""
    model, x, r = _subject(network, quick)
    model, x, r = model.to(device), x.to(device), r.to(device)
    passes = _passes(model, x, r)

    def work(rule: str) -> Work:
        names = _convolutions(model)
        chosen = (lambda name: "gamma" if name in names else None) if rule == "gamma" else rule
        where = " of the convolutions" if rule == "gamma" else ""
        what = f"relevance of logit {TARGET}, {rule}{where}, and forward and backward of the batch [x, r]"
        growth = Growth("pairs of x and r", BATCHES, lambda size: _sides(model, x, r, chosen, size), rule == "epsilon")
        return Work(what, None, _map(model, x, r, chosen), passes, is_same=False, growth=growth)

    return {rule: work(rule) for rule in RULES if rule == "epsilon" or _convolutions(model)}


def measure_gradients(network: str, quick: bool, device: torch.device) -> tuple[Measurement, SumError]:
    """Epsilon next to one call of integrated gradients for the same pair, and what the sums miss."""
    model, x, r = _subject(network, quick)
    model, x, r = model.to(device), x.to(device), r.to(device)
    with torch.no_grad():
        difference = float((model(x) - model(r))[:, TARGET].double().sum())
    found: list[Tensor] = []
    ours = _map(model, x, r, "epsilon")
    found.append(ours())
    calls = [1e3 * seconds(ours, device) for _ in range(SHORT)]
    path = 1e3 * seconds(lambda: found.append(integrated_gradients(model, x, r)), device)
    calls += [1e3 * seconds(ours, device) for _ in range(SHORT)]
    relevant, others = (abs(float(one.detach().double().sum()) - difference) / abs(difference) for one in found)
    what = f"the exact map, and {GRADIENTS}, as shipped by Captum (one call)"
    took = statistics.median(calls)
    cost = Measurement(f"{network} {AGAINST}: time", what, took, path, "ms", took / path, None, None, (took / path,))
    return cost, SumError(network, relevant, others)


def _sides(
    model: nn.Module, x: Tensor, r: Tensor, rule: Any, size: int
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Relevance and passes of a batch of ``size`` pairs."""
    images, references = (torch.cat([one] * size)[:size] for one in (x, r))
    return _map(model, images, references, rule), _passes(model, images, references)


def _passes(model: nn.Module, x: Tensor, r: Tensor) -> Callable[[], Tensor]:
    """Forward and backward of the batch [x, r]."""
    both = torch.cat([x, r])

    def run() -> Tensor:
        inputs = both.clone().requires_grad_()
        gradient: Tensor = torch.autograd.grad(model(inputs)[:, TARGET].sum(), inputs)[0]
        return gradient

    return run


def _map(model: nn.Module, x: Tensor, r: Tensor, rule: str | Callable[[str], str | None]) -> Callable[[], Tensor]:
    def attribute() -> Tensor:
        found: Tensor = relevance(model, x, r, TARGET, rule=rule).attribution
        return found

    return attribute


def _convolutions(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}


def _subject(network: str, quick: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, x and r of batch 1 (digits: 16)."""
    if network == "digits":
        batch = 2 if quick else 16
        model, x, pool, _ = subject("digits", batch, batch, 0)
        return model, x, pool
    pixels = QUICK_PIXELS if quick else PIXELS
    options = {"image_size": pixels} if network.startswith("vit") else {}
    return build(Entry("torchvision", network, pixels, options))
