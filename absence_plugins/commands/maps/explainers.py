"""The three maps of ``absence-plugins explain``, from a Captum method or a Zennit composite.

``standard``: the target as the host shows it. ``nontarget``: another output against a blank image.
``against``: the target against references.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import absence_plugins.captum as captum_adapters
from absence_plugins import ReferenceSet
from absence_plugins.captum.method import AbsenceMethod
from absence_plugins.core.maps import split_by_sign

WINDOW_SHARE = 8  # Occlusion's window is 1/8 of the image wide and moves by half of that
INTERNAL_BATCH = 16  # path points at a time; a few hundred MB on 224x224 inputs


@dataclass(frozen=True)
class Found:
    """A signed map [1, C, H, W], the absence evidence in it (>= 0), and the explained value u(x)."""

    attribution: Tensor
    absence: Tensor
    output: float


class Explainer(Protocol):
    """What the page needs of a method. x: [1, C, H, W]; blank: an empty image of that shape."""

    @property
    def name(self) -> str:
        """As the page calls the method."""

    @property
    def standard_caption(self) -> str:
        """What the standard map shows."""

    def refuse_references(self) -> str:
        """Why the method takes no references; "" if it does."""

    def standard(self, model: nn.Module, x: Tensor, target: int, classes: int, blank: Tensor) -> Tensor:
        """The target's signed map, as the host shows it."""

    def nontarget(self, model: nn.Module, x: Tensor, target: int, other: int | str, blank: Tensor) -> Found:
        """The map of another output (a class, or a word: "others", "negated", "margin")."""

    def against(self, model: nn.Module, x: Tensor, target: int, references: ReferenceSet) -> Found:
        """The target's map against the nearest references."""


def explainer(name: str) -> Explainer:
    """From ``--method``: ``relevance`` or ``relevance:RULE``, ``captum:CLASS`` (or just ``CLASS``), or
    ``zennit:COMPOSITE``.

    Raises ValueError with the names that exist.

    >>> explainer("zennit:epsilon_gamma").name, explainer("deeplift").name
    ('Zennit EpsilonGamma', 'DeepLift')
    """
    if name.lower().partition(":")[0] == "relevance":
        from absence_plugins.commands.maps.relevance import RelevanceMaps

        return RelevanceMaps.named(name.lower())
    if name.lower().startswith("zennit:"):
        from absence_plugins.commands.maps.zennit import ZennitMaps

        return ZennitMaps.named(name)
    return CaptumMaps(input_method(name))


# -- Captum -----------------------------------------------------------------------------------------------------------


def input_method(name: str) -> type[Any]:
    """The adapter behind ``--method``: a Captum class that attributes to inputs, with or without ``captum:``.

    Raises ValueError with the names that exist.

    >>> input_method("captum:deeplift").__name__
    'AbsenceDeepLift'
    """
    wanted = name.removeprefix("captum:").removeprefix("Absence").lower()
    usable = {}
    for attribute, found in vars(captum_adapters).items():
        if inspect.isclass(found) and issubclass(found, AbsenceMethod) and found is not AbsenceMethod:
            plain = attribute.removeprefix("Absence")
            if not plain.startswith(("Layer", "Neuron", "Internal", "LimeBase")) and not found._traits.refuses:
                usable[plain.lower()] = found
    if wanted not in usable:
        names = ", ".join(sorted(found.__name__.removeprefix("Absence") for found in usable.values()))
        raise ValueError(
            f"--method {name!r} is not a method that shows absences on inputs; there are: relevance, {names}, "
            "and Zennit's composites as zennit:NAME, for example zennit:epsilon_gamma"
        )
    return usable[wanted]


def method_arguments(method: type[Any], x: Tensor) -> dict[str, Any]:
    """What a method needs for images beyond inputs and target: window, feature blocks, batch size."""
    parameters = inspect.signature(method.attribute).parameters
    window = max(1, min(x.shape[-2:]) // WINDOW_SHARE)
    arguments: dict[str, Any] = {}
    if "sliding_window_shapes" in parameters:
        arguments |= {
            "sliding_window_shapes": (x.shape[1], window, window),
            "strides": (x.shape[1], max(1, window // 2), max(1, window // 2)),
        }
    if "feature_mask" in parameters:
        rows, columns = torch.arange(x.shape[-2]) // window, torch.arange(x.shape[-1]) // window
        arguments["feature_mask"] = (rows[:, None] * (int(columns[-1]) + 1) + columns).expand(1, *x.shape[1:])
    if "perturbations_per_eval" in parameters:
        arguments["perturbations_per_eval"] = INTERNAL_BATCH
    if "internal_batch_size" in parameters:
        arguments["internal_batch_size"] = INTERNAL_BATCH
    return arguments


class CaptumMaps:
    """The maps of a Captum adapter class."""

    def __init__(self, method: type[Any]) -> None:
        self.method = method
        self.name = method.__name__.removeprefix("Absence")
        self._has_baselines = "baselines" in inspect.signature(method.attribute).parameters
        self.standard_caption = "What is there, seen locally."
        if self._has_baselines:
            self.standard_caption = "Against blank: only what is there."
        elif self.name == "Saliency":
            self.standard_caption = "The gradient: what a brighter pixel would do."

    def refuse_references(self) -> str:
        """Methods without baselines take none."""
        return str(self.method._traits.no_reference).replace("use Absence", "use ")

    def standard(self, model: nn.Module, x: Tensor, target: int, classes: int, blank: Tensor) -> Tensor:
        """The target's own map against blank, signed and corrected like the others."""
        method = self.method(model, nontarget="target")
        return method.attribute(x, target=target, **self._call(x, blank))  # type: ignore[no-any-return]

    def nontarget(self, model: nn.Module, x: Tensor, target: int, other: int | str, blank: Tensor) -> Found:
        """The other output against blank."""
        explained = self.method(model, nontarget=other).explain(x, target=target, **self._call(x, blank))
        return signed_parts(explained.attribution, float(explained.output[0]))

    def against(self, model: nn.Module, x: Tensor, target: int, references: ReferenceSet) -> Found:
        """The target against the nearest references."""
        method = self.method(model, reference=references)
        return _found(method.explain(x, target=target, **method_arguments(self.method, x)))

    def _call(self, x: Tensor, blank: Tensor) -> dict[str, Any]:
        arguments = method_arguments(self.method, x)
        if self._has_baselines:
            arguments["baselines"] = blank_baseline(self.method, x, blank[0])
        return arguments


def _found(explanation: Any) -> Found:
    return Found(explanation.attribution, explanation.absence, float(explanation.output[0]))


def signed_parts(attribution: Tensor, output: float) -> Found:
    """A map against a blank image: all that holds the explained output down is content of x."""
    return Found(attribution, split_by_sign(attribution)[1], output)


def blank_baseline(method: type[Any], x: Tensor, blank: Tensor) -> Tensor:
    """An empty image (one of ``blank``'s) for every sample of x; the Shap classes want a distribution of at least
    two.
    """
    return (
        torch.stack([blank] * 2)
        if "Shap" in method.__name__ and method.__name__ not in _SINGLE_SHAP
        else blank[None].expand_as(x).contiguous()
    )


_SINGLE_SHAP = ("AbsenceKernelShap", "AbsenceShapleyValueSampling", "AbsenceShapleyValues")
