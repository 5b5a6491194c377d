"""One table of all Captum adapters: how each is built and called on one small net. `import adapter_table`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model  # noqa: F401  (imported late it draws from Python's random state)
import torch
from captum import attr
from captum._utils.models.linear_model import SkLearnLinearRegression
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.captum import AbsenceMethod

ADAPTERS: dict[str, type[AbsenceMethod]] = {
    name: cls
    for name, cls in vars(adapters).items()
    if isinstance(cls, type) and issubclass(cls, AbsenceMethod) and cls is not AbsenceMethod
}
STOCHASTIC = {
    f"Absence{name}"
    for name in (
        "GradientShap LayerGradientShap NeuronGradientShap FeaturePermutation LayerFeaturePermutation "
        "ShapleyValueSampling LimeBase Lime KernelShap"
    ).split()
}
REFUSING = {f"Absence{name}" for name in ("Deconvolution", "GuidedGradCam", "LayerActivation", "NeuronDeconvolution")}
WITHOUT_BASELINE = {
    f"Absence{name}"
    for name in (
        "InputXGradient Saliency GuidedBackprop FeaturePermutation LimeBase LayerGradientXActivation "
        "LayerFeaturePermutation LayerGradCam NeuronGradient NeuronGuidedBackprop"
    ).split()
}
CLASSES = 4
SHAPE = (1, 5, 5)
MASK = torch.tensor([[0, 0, 1, 1, 1]] * 3 + [[2, 2, 3, 3, 3]] * 2)[None, None]


class Net(nn.Module):
    """Convolution, ReLU, max pooling, linear: [B, 1, 5, 5] (or two of them) -> [B, 4].

    ``fuse`` counts forwards down and raises at 0. It is a list, so no snapshot of attributes resets it.
    """

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2)
        self.linear = nn.Linear(12, CLASSES)
        self.fuse = [-1]
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
        self.to(dtype)
        self.eval()

    def forward(self, a: Tensor, b: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        hidden = self.pool(self.relu(self.conv(a if b is None else a + 0.5 * b))).flatten(1)
        self.fuse[0] -= 1
        if self.fuse[0] == 0:
            raise RuntimeError("the fuse has blown")
        out = self.linear(hidden)
        return out if shift is None else out + shift  # type: ignore[no-any-return]


def images(samples: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(samples, *SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def similarity(inputs: Tensor, perturbed: Tensor, sample: Tensor, **kwargs: Any) -> float:
    return float(torch.exp(-(inputs - perturbed).square().mean()))


def perturb(inputs: Tensor, **kwargs: Any) -> Tensor:
    return torch.bernoulli(torch.full((1, 4), 0.5, dtype=torch.float64))


def mix(sample: Tensor, inputs: Tensor, **kwargs: Any) -> Tensor:
    return inputs * sample[0][MASK[0]].to(inputs)


def build(cls: type, net: nn.Module, **options: Any) -> Any:
    """An object of an adapter, or of its host class, on the net's convolution."""
    name = cls.__name__.removeprefix("Absence")
    if name == "LimeBase":
        return cls(net, SkLearnLinearRegression(), similarity, perturb, True, mix, None, **options)
    if name in ("Lime",):
        return cls(net, SkLearnLinearRegression(), **options)
    with_layer = name.startswith(("Layer", "Neuron", "InternalInfluence", "GuidedGradCam"))
    return cls(net, net.conv, **options) if with_layer else cls(net, **options)


def arguments(cls: type, *, baselines: bool = False, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """What ``attribute`` needs besides inputs and target; ``baselines``: also where a reference could give them."""
    name = cls.__name__.removeprefix("Absence")
    options: dict[str, Any] = {}
    if "IntegratedGradients" in name or "Conductance" in name or name == "InternalInfluence":
        options["n_steps"] = 6
    if name.startswith("Neuron"):
        options["neuron_selector"] = (1, 2, 1)
    if "GradientShap" in name:
        options.update(n_samples=3, stdevs=0.1)
    if baselines and name.endswith("Shap") and name != "KernelShap":
        options["baselines"] = images(3, seed=5, dtype=dtype) * 0.1
    if name in ("FeatureAblation", "NeuronFeatureAblation", "FeaturePermutation"):
        options["feature_mask"] = MASK
    if name in ("LayerFeatureAblation", "LayerFeaturePermutation"):
        options["layer_mask"] = torch.arange(48).reshape(1, 3, 4, 4) // 8
    if name == "Occlusion":
        options["sliding_window_shapes"] = (1, 2, 2)
    if name in ("ShapleyValueSampling", "ShapleyValues", "Lime", "KernelShap"):
        options["feature_mask"] = MASK
    if name == "ShapleyValueSampling":
        options["n_samples"] = 2
    if name in ("Lime", "KernelShap", "LimeBase"):
        options["n_samples"] = 10
    return options


def has_target(cls: type) -> bool:
    return "target" in cls.attribute.__wrapped__.__signature__.parameters  # type: ignore[attr-defined]


def references(k: int = 2, dtype: torch.dtype = torch.float64, **options: Any) -> ReferenceSet:
    return ReferenceSet(images(16, seed=9, dtype=dtype), torch.arange(16) % CLASSES, k=k, **options)


def settings_of(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The settings that a class accepts, beside the neutral one."""
    if name in REFUSING:
        return
    yield "default", {}
    if has_target(ADAPTERS[name]):
        yield "others", {"nontarget": "others"}
    if name not in WITHOUT_BASELINE:
        yield "reference", {"reference": references()}
        if has_target(ADAPTERS[name]):
            yield "both", {"reference": references(), "nontarget": "runner_up"}


ROWS = [
    (name, setting, evidence)
    for name in ADAPTERS
    for setting, _ in settings_of(name)
    for evidence in ("signed", "absence", "presence")
]
# Every setting and every kind of evidence once; the other combinations are slow tests, as each test runs over all classes.
QUICK = {
    ("default", "signed"),
    ("default", "absence"),
    ("others", "signed"),
    ("reference", "absence"),
    ("both", "presence"),
}


def marked(rows: Iterable[tuple[str, str, str]]) -> list[Any]:
    """Rows as parameters: those beside ``QUICK`` are slow."""
    return [pytest.param(row, marks=[] if row[1:] in QUICK else pytest.mark.slow) for row in rows]


PUBLIC = [getattr(attr, name) for name in attr.__all__]


DETERMINISTIC = [row for row in ROWS if row[0] not in STOCHASTIC]
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
SINGLE_PRECISION = {"AbsenceOcclusion", "AbsenceShapleyValues"}  # Captum collects these in float32


def method(row: tuple[str, str, str], net: nn.Module, **more: Any) -> Any:
    name, setting, evidence = row
    return build(ADAPTERS[name], net, **dict(settings_of(name))[setting], evidence=evidence, **more)


def call(row: tuple[str, str, str], samples: int) -> dict[str, Any]:
    """Arguments of ``attribute``; against a user's own baselines where the setting brings none."""
    cls = ADAPTERS[row[0]]
    options = arguments(cls, baselines=row[1] in ("default", "others"))
    if has_target(cls):
        options["target"] = torch.arange(samples) % CLASSES
    elif row[1] == "default" and row[2] != "signed":
        options.pop("baselines", None)
        if cls.__name__.endswith("Shap"):  # blank ones: the question stays what holds the neuron down
            options["baselines"] = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    return options


def seeded() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)


def random_states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2:], random.getstate()  # type: ignore[union-attr, index]


def marked_net(seed: int = 0) -> Net:
    """A net whose every flag has a value that a careless restore would lose."""
    net = Net(seed)
    net.relu.train()  # no effect on values
    net.conv.weight.requires_grad_(False)
    net.conv.weight.grad = torch.full_like(net.conv.weight, 2.0)
    net.linear.weight.grad = torch.ones_like(net.linear.weight)
    net.conv.register_forward_hook(lambda *_: None)
    net.linear.note = "user's"
    return net


def trace(net: nn.Module) -> list[Any]:
    """Everything about a model that must stay: attributes, hooks, flags, values, gradients."""
    state: list[Any] = []
    for module in net.modules():
        for name, value in sorted(vars(module).items()):
            if name == "fuse":
                continue
            if isinstance(value, dict):
                state.append((name, [(key, id(entry)) for key, entry in value.items()]))
            else:
                state.append((name, value if isinstance(value, (bool, str)) else id(value)))
    for parameter in net.parameters():
        grad = parameter.grad
        state.append((parameter.requires_grad, parameter.tolist(), None if grad is None else (id(grad), grad.tolist())))
    return state


def linear(rows: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


FLIPPING = linear([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [10.0, 0.0, 0.0])
CLOSE = torch.tensor([[1.0, 0.9], [0.4, 0.5]], dtype=torch.float64)  # runners-up 1 and 2, by a hair
