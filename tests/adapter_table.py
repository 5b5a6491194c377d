"""One table of all Captum adapters: how each is built and called on one small net. `import adapter_table`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
        "InputXGradient Saliency GuidedBackprop FeaturePermutation LimeBase LRP LayerGradientXActivation LayerLRP "
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
PUBLIC = [getattr(attr, name) for name in attr.__all__]
