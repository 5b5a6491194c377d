"""The methods of ``bench kinds``: the hosts as one calls them, the import changed, and relevance without a host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.kind_questions import KindQuestion
from absence_plugins.core.kinds import TextKind

KindMethod = Callable[[KindQuestion], Tensor | None]


def integrated_gradients(question: KindQuestion) -> Tensor:
    """Captum's, as one calls it: the inputs' class against blank; of a text at the embedding."""
    from captum.attr import IntegratedGradients, LayerIntegratedGradients

    model, x = question.model, question.x
    if isinstance(question.form.kind, TextKind):
        layered = LayerIntegratedGradients(model, model.get_submodule("embedding"))
        return _one(layered.attribute(x, baselines=question.blank, target=question.label))
    return _one(IntegratedGradients(model).attribute(x, baselines=question.blank, target=question.label))


def absence_integrated_gradients(question: KindQuestion) -> Tensor:
    """The same call, import changed: against the nearest references, or of the unit that inputs do not belong to."""
    from absence_plugins.captum import AbsenceIntegratedGradients, AbsenceLayerIntegratedGradients

    model, x = question.model, question.x
    view: dict[str, Any] = {"reference": question.references}
    if question.view == "nontarget":
        view = {"nontarget": question.unit}
    if isinstance(question.form.kind, TextKind):
        method: Any = AbsenceLayerIntegratedGradients(model, model.get_submodule("embedding"), **view)
    else:
        method = AbsenceIntegratedGradients(model, **view)
    if question.view == "reference":
        return _one(method.explain(x, target=question.label).per_reference)
    return _one(method.attribute(x, baselines=question.blank, target=question.label))


def epsilon_plus(question: KindQuestion) -> Tensor | None:
    """Zennit's composite, seeded with the logit of the inputs' class; it has no rules for attention."""
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlus

    if isinstance(question.form.kind, TextKind):
        return None
    seed = torch.eye(2)[[question.label] * len(question.x)]
    with Gradient(question.model, EpsilonPlus()) as attributor:
        return _one(attributor(question.x, lambda output: output.detach() * seed)[1])


def absence_epsilon_gamma(question: KindQuestion) -> Tensor | None:
    """The composite changed: the unit against the nearest references in both views."""
    from absence_plugins.zennit import AbsenceEpsilonGamma, AbsenceGradient

    if isinstance(question.form.kind, TextKind):
        return None
    seed = torch.eye(2)[[question.label] * len(question.x)]
    options: dict[str, Any] = {"reference": question.references}
    if question.view == "nontarget":
        with AbsenceGradient(question.model, AbsenceEpsilonGamma(), nontarget=question.unit, **options) as attributor:
            return _one(attributor(question.x, seed)[1])
    attributor = AbsenceGradient(question.model, AbsenceEpsilonGamma(), **options)
    return _one(attributor.explain(question.x, seed).per_reference)


def relevance_lower_gamma(question: KindQuestion) -> Tensor:
    """No host: the unit against the nearest references, or against blank; of a text from its embedding on."""
    from absence_plugins.relevance import relevance

    model, x = question.model, question.x
    against = question.blank[None] if question.view == "nontarget" else question.drawn.transpose(0, 1)
    if isinstance(question.form.kind, TextKind):
        embedding = model.get_submodule("embedding")
        x, against = embedding(x).detach(), embedding(against).detach()
        model = nn.Sequential(*list(model.children())[1:]).eval()
    found = relevance(model, x, against.contiguous(), question.unit, rule="lower_gamma")
    maps: Tensor = found.per_reference.detach()
    return maps[0] if question.view == "nontarget" else maps.transpose(0, 1).contiguous()


def random_map(question: KindQuestion) -> Tensor:
    """What chance reaches: independent noise for every thing."""
    shape = question.things(torch.zeros(question.x.shape)).shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return noise[:, None] if question.x.dim() > noise.dim() else noise


METHODS: dict[str, tuple[KindMethod, str]] = {
    "IntegratedGradients": (integrated_gradients, "Captum, as one calls it: `IntegratedGradients`"),
    "AbsenceIntegratedGradients": (absence_integrated_gradients, "the import changed: `AbsenceIntegratedGradients`"),
    "EpsilonPlus logit": (epsilon_plus, "Zennit: `EpsilonPlus`, seeded with the logit"),
    "AbsenceEpsilonGamma": (absence_epsilon_gamma, "the composite changed: `AbsenceEpsilonGamma`"),
    "relevance lower_gamma": (relevance_lower_gamma, 'no host: `relevance(..., rule="lower_gamma")`'),
    "Random map": (random_map, "chance: a random map"),
}
JUDGED = (
    "AbsenceIntegratedGradients",
    "AbsenceEpsilonGamma",
    "relevance lower_gamma",
)  # what the missing must be found by


def _one(signed: Any) -> Tensor:
    """The map, of a tuple its first part."""
    found: Tensor = signed[0] if isinstance(signed, tuple) else signed
    return found.detach()
