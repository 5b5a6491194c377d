"""The methods that ``bench models`` asks: relevance of differences, our adapters, and others' as shipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.references import ReferenceSet
from absence_plugins.relevance import relevance

TARGET = 1
STEPS, CHUNK = 50, 10


@dataclass(frozen=True)
class ModelMethod:
    """A method that explains logit 1 of one input.

    Attributes:
        attribute: the map of (model, x, r).
        has_reference: whether it compares with r: its sum is to be u(x) - u(r), else u(x).
        is_ours: a class of this package, which has to say where its map cannot be right.
        is_complete: whether it promises that sum; a gradient does not.
    """

    attribute: Callable[[nn.Module, Tensor, Tensor], Tensor]
    has_reference: bool = True
    is_ours: bool = False
    is_complete: bool = True


def _relevance(rule: str) -> ModelMethod:
    def attribute(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
        found: Tensor = relevance(model, x, r, TARGET, rule=rule).attribution
        return found

    return ModelMethod(attribute, is_ours=True)


def _absence(name: str, **options: Any) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """An adapter of Captum's, of the target itself; against r where the class takes a baseline."""

    def attribute(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
        import absence_plugins.captum

        method = getattr(absence_plugins.captum, name)(model, nontarget="target")
        found: Tensor = method.attribute(x, target=TARGET, **options)
        return found

    return attribute


def _absence_deeplift(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    return _absence("AbsenceDeepLift", baselines=r)(model, x, r)


def _absence_integrated_gradients(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    options = {"baselines": r, "n_steps": STEPS, "internal_batch_size": CHUNK}
    return _absence("AbsenceIntegratedGradients", **options)(model, x, r)


def _absence_lrp(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    from absence_plugins.captum import AbsenceLRP

    found: Tensor = AbsenceLRP(model, reference=ReferenceSet(r, k=1)).attribute(x, target=TARGET)
    return found


def _absence_epsilon_plus(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    from absence_plugins.zennit import AbsenceEpsilonPlus, AbsenceGradient

    def logit(outputs: Tensor) -> Tensor:
        return torch.eye(outputs.shape[1])[[TARGET]].to(outputs)

    with AbsenceGradient(model, AbsenceEpsilonPlus(), reference=r) as attributor:
        found: Tensor = attributor(x, logit)[1]
    return found


def _deeplift(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    from captum.attr import DeepLift

    found: Tensor = DeepLift(model).attribute(x, baselines=r, target=TARGET)
    return found


def _lrp(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    from captum.attr import LRP

    found: Tensor = LRP(model).attribute(x, target=TARGET)
    return found


def integrated_gradients(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """Captum's map of the logit."""
    from captum.attr import IntegratedGradients

    host = IntegratedGradients(model)
    found: Tensor = host.attribute(x, baselines=r, target=TARGET, n_steps=STEPS, internal_batch_size=CHUNK)
    return found


def _epsilon_plus(model: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlus

    def logit(outputs: Tensor) -> Tensor:
        return outputs.detach() * torch.eye(outputs.shape[1])[[TARGET]].to(outputs)

    with Gradient(model, EpsilonPlus(canonizers=_canonizers(model))) as attributor:
        found: Tensor = attributor(x, logit)[1]
    return found


def _canonizers(model: nn.Module) -> list[object]:
    """The one that Zennit ships for the family; else merged batch norms."""
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    family = {"ResNet": ResNetCanonizer, "VGG": VGGCanonizer}
    is_torchvision = type(model).__module__.startswith("torchvision.")
    kind = family.get(type(model).__name__, SequentialMergeBatchNorm) if is_torchvision else SequentialMergeBatchNorm
    return [kind()]


METHODS: dict[str, ModelMethod] = {
    "relevance epsilon": _relevance("epsilon"),
    "relevance lower_gamma": _relevance("lower_gamma"),
    "AbsenceDeepLift": ModelMethod(_absence_deeplift, is_ours=True),
    "AbsenceLRP": ModelMethod(_absence_lrp, is_ours=True),
    "AbsenceIntegratedGradients": ModelMethod(_absence_integrated_gradients, is_ours=True),
    "AbsenceEpsilonPlus": ModelMethod(_absence_epsilon_plus, is_ours=True),
    "AbsenceInputXGradient": ModelMethod(_absence("AbsenceInputXGradient"), False, is_ours=True, is_complete=False),
    "AbsenceGuidedBackprop": ModelMethod(_absence("AbsenceGuidedBackprop"), False, is_ours=True, is_complete=False),
    "DeepLift (Captum)": ModelMethod(_deeplift),
    "IntegratedGradients, 50 steps": ModelMethod(integrated_gradients),
    "LRP (Captum)": ModelMethod(_lrp, has_reference=False),
    "EpsilonPlus (Zennit)": ModelMethod(_epsilon_plus, has_reference=False),
}
