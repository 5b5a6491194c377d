"""Every Captum class and every Zennit composite, as shipped and as ``Absence*``, as methods of the planted
benchmark.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

import absence_plugins.captum as captum_adapters
from absence_plugins.bench.planted_layers import find_outputs, find_positions, upsample
from absence_plugins.bench.scores import built, composites
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.commands.maps.explainers import blank_baseline
from absence_plugins.core.units import Layer
from absence_plugins.methods.faithfulness import Question

WINDOW = 3  # pixels a side of what is perturbed at once
CHUNK = 16  # perturbations of every image at a time
SETTINGS: dict[str, dict[str, Any]] = {
    "IntegratedGradients": {"n_steps": 20},
    "Conductance": {"n_steps": 20},
    "InternalInfluence": {"n_steps": 20},
    "GradientShap": {"n_samples": 12, "stdevs": 0.02},
    "ShapleyValueSampling": {"n_samples": 6},
    "Lime": {"n_samples": 100},
    "KernelShap": {"n_samples": 100},
}
BLOCKS = (2, 2)  # of ShapleyValues, which tries all orders
LEFT_OUT = ("LimeBase",)  # needs a similarity, a sampler and a regression of its user


@dataclass(frozen=True)
class CaptumMethod:
    """A class of ``captum.attr`` on a planted question: as shipped, or as ``Absence*``.

    As shipped: the map of the class the images belong to against blank, which is what one looks at; with ``asks_unit``
    that of the unit, which in the reference view is the same. As ``Absence*``: the map of the unit; against blank in
    the non-target view, against the nearest references in the reference view.
    """

    adapter: type[Any]
    is_absence: bool
    asks_unit: bool = False

    def __call__(self, question: Question) -> Tensor | None:
        """The signed map [N, 1, H, W], or per reference [N, k, 1, H, W]."""
        adapter, name = self.adapter, self.adapter.__name__.removeprefix("Absence")
        kind = adapter if self.is_absence else adapter._host
        if self.asks_unit and question.view == "reference":
            return None
        target = question.unit if self.is_absence or self.asks_unit else question.label
        options: dict[str, Any] = {}
        if self.is_absence and adapter._traits.refuses:
            return None
        if self.is_absence and question.view == "reference":
            if adapter._traits.no_reference:
                return None
            options["reference"] = question.references
        elif self.is_absence and "target" in inspect.signature(adapter.attribute).parameters:
            options["nontarget"] = question.unit
        module = _module(question, name)
        method = kind(question.model, *([] if module is None else [module]), **options)
        call = self._call(question, name, target)
        if "reference" in options:
            return upsample(method.explain(question.x, **call).per_reference, question.model, question.x)
        if "baselines" in inspect.signature(adapter.attribute).parameters:
            call["baselines"] = blank_baseline(adapter, question.x, question.blank[0])
        found = method.attribute(question.x, **call)
        return upsample(found[0] if isinstance(found, tuple) else found, question.model, question.x)

    def _call(self, question: Question, name: str, target: int) -> dict[str, Any]:
        parameters = inspect.signature(self.adapter.attribute).parameters
        channels, height, width = question.x.shape[1:]
        call = {key: value for part, given in SETTINGS.items() if part in name for key, value in given.items()}
        call = {key: value for key, value in call.items() if key in parameters}
        if "target" in parameters:
            # an Absence class is told the images' class and chooses the unit by `nontarget`
            call["target"] = question.label if self.is_absence else target
        if "neuron_selector" in parameters:
            call["neuron_selector"] = target
        if "sliding_window_shapes" in parameters:
            window = (channels, min(WINDOW, height), min(WINDOW, width))
            call |= {"sliding_window_shapes": window, "strides": (channels, 1, 1)}
        elif "feature_mask" in parameters:
            rows = -(-height // BLOCKS[0]) if name == "ShapleyValues" else WINDOW
            columns = -(-width // BLOCKS[1]) if name == "ShapleyValues" else WINDOW
            down, right = torch.arange(height) // rows, torch.arange(width) // columns
            call["feature_mask"] = (
                (down[:, None] * (int(right[-1]) + 1) + right).expand(1, channels, -1, -1).contiguous()
            )
        if "layer_mask" in parameters:
            call["layer_mask"] = _positions(question)
        if "perturbations_per_eval" in parameters:
            call["perturbations_per_eval"] = CHUNK
        return call


@dataclass(frozen=True)
class ZennitMethod:
    """A composite on a planted question; as shipped with the unit's own output as seed ("+1" or "logit"), "" for
    ``Absence*``.
    """

    kind: Any
    seed: str

    def __call__(self, question: Question) -> Tensor | None:
        """The signed map of the unit."""
        from zennit.attribution import Gradient

        from absence_plugins.zennit import AbsenceGradient

        planted, x = question.planted, question.x
        with torch.no_grad():
            outputs = torch.eye(question.model(x[:1]).shape[1]).to(x)
        unit, label = outputs[[question.unit]], outputs[[question.label]]
        if self.seed:
            with Gradient(question.model, built(self.kind, planted)) as attributor:
                seed = unit.expand(len(x), -1) if self.seed == "+1" else lambda output: output.detach() * unit
                return _sum_channels(attributor(x, seed)[1])
        composite = built(self.kind, planted)
        if question.view == "nontarget":
            with AbsenceGradient(
                question.model, composite, reference=question.references, nontarget=question.unit
            ) as attributor:
                return _sum_channels(attributor(x, label)[1])
        attributor = AbsenceGradient(question.model, composite, reference=question.references)
        return _sum_channels(attributor.explain(x, label).per_reference)


def all_methods() -> dict[str, Any]:
    """Name -> method: each class of Captum and composite of Zennit as shipped, and behind it as ``Absence*``."""
    return dict([*captum_methods(), *zennit_methods()])


def captum_methods() -> Iterator[tuple[str, CaptumMethod]]:
    """``Name``, ``Name (unit)`` and ``AbsenceName``."""
    for name, adapter in vars(captum_adapters).items():
        if not (inspect.isclass(adapter) and issubclass(adapter, AbsenceMethod)) or adapter is AbsenceMethod:
            continue
        plain = name.removeprefix("Absence")
        if plain not in LEFT_OUT:
            yield plain, CaptumMethod(adapter, False)
            yield f"{plain} (unit)", CaptumMethod(adapter, False, asks_unit=True)
            if not adapter._traits.refuses:
                yield name, CaptumMethod(adapter, True)


def zennit_methods() -> Iterator[tuple[str, ZennitMethod]]:
    """``Name +1``, ``Name logit`` and ``AbsenceName``, with "(Zennit)" where Captum's class has the same name."""
    ours = composites(absence=True)
    for name, kind in composites(absence=False).items():
        yield f"{name} +1", ZennitMethod(kind, "+1")
        yield f"{name} logit", ZennitMethod(kind, "logit")
        if f"Absence{name}" in ours:
            yield _name(f"Absence{name}"), ZennitMethod(ours.pop(f"Absence{name}"), "")
    for name, kind in ours.items():
        yield _name(name), ZennitMethod(kind, "")


def _name(composite: str) -> str:
    return f"{composite} (Zennit)" if hasattr(captum_adapters, composite) else composite


def _module(question: Question, name: str) -> nn.Module | None:
    """The module a layer class looks at: the last one with positions; of a neuron class the output layer."""
    model, x = question.model, question.x
    if name.startswith("Neuron"):
        leaves = tuple({type(module) for module in model.modules() if not list(module.children())})
        return model.get_submodule([name for name, shape in find_outputs(model, x, leaves) if len(shape) == 1][-1])
    if not name.startswith(("Layer", "InternalInfluence", "GuidedGradCam")):
        return None
    return model.get_submodule(find_positions(model, x)[0])


def _positions(question: Question) -> Tensor:
    """One number per position of the layer, the same in all channels."""
    name, positions = find_positions(question.model, question.x)
    channels = Layer(name, channels="first", side="output").shape(question.model, question.x[:1]).channels
    return torch.arange(prod(positions)).reshape(1, 1, *positions).expand(1, channels, *positions)


def _sum_channels(signed: Tensor) -> Tensor:
    return signed.detach().sum(-3, keepdim=True)
