"""The maps of a Zennit composite, for ``absence-plugins explain`` and the demo."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.composites import COMPOSITES, EpsilonGammaBox

import absence_plugins.zennit as adapters
from absence_plugins import ReferenceSet
from absence_plugins.commands.early_checks import check_method_name
from absence_plugins.commands.maps.explainers import Found, signed_parts
from absence_plugins.commands.pace import Passes
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import as_columns
from absence_plugins.zennit.refused import REFUSALS
from absence_plugins.zennit.scores import scores_only

PREFIX = "absence_"
DEFAULT = "epsilon_gamma"


def canonizers_for(model: nn.Module) -> list[Any]:
    """What Zennit's own composites need: the canonizer for the sums of torchvision's ResNets, if the model has such
    blocks.
    """
    try:
        from torchvision.models.resnet import BasicBlock, Bottleneck
        from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetBottleneckCanonizer
    except ImportError:
        return []
    if not any(isinstance(module, (BasicBlock, Bottleneck)) for module in model.modules()):
        return []
    return [ResNetBasicBlockCanonizer(), ResNetBottleneckCanonizer()]


class ZennitMaps:
    """Relevance by an ``Absence*`` composite, and by the composite of Zennit that it stands for."""

    def __init__(self, key: str = DEFAULT) -> None:
        self.key = key
        self.composite: type[Any] = COMPOSITES[PREFIX + key]
        self.host: type[Any] = EpsilonGammaBox if key == DEFAULT else COMPOSITES[key]
        self.name = "Zennit " + self.composite.__name__.removeprefix("Absence")
        self.standard_caption = f"Zennit's {self.host.__name__} of the output's value: what is there."

    @classmethod
    def named(cls, name: str) -> ZennitMaps:
        """From ``zennit:epsilon_plus``, ``zennit:EpsilonPlus`` or ``zennit:AbsenceEpsilonPlus``.

        Raises ValueError with the names that exist.

        >>> ZennitMaps.named("zennit:AbsenceEpsilonPlus").key
        'epsilon_plus'
        """
        wanted = name.partition(":")[2].lower().replace("_", "").removeprefix("absence")
        keys = {
            key.removeprefix(PREFIX).replace("_", ""): key.removeprefix(PREFIX)
            for key in COMPOSITES
            if key.startswith(PREFIX)
        }
        for rejected, reason in REFUSALS.items():
            if wanted == rejected.lower():
                raise ValueError(f"{rejected} cannot show absences: {reason}")
        if wanted not in keys:
            check_method_name(name)
            raise ValueError(f"--method {name!r} is no composite that shows absences")
        return cls(keys[wanted])

    def refuse_references(self) -> str:
        """Every composite takes references."""
        return ""

    def count_passes(self, x: Tensor, k: int) -> Passes:
        """Two for every image that x is compared with."""
        return Passes(0, 4 + (1 + 2 * k) * bool(k))

    def standard(self, model: nn.Module, x: Tensor, target: int, classes: int, blank: Tensor) -> Tensor:
        """Zennit's own composite, seeded with the target's output, or with 1 for guided backpropagation."""
        options: dict[str, Any] = {"canonizers": canonizers_for(model)}
        if "low" in inspect.signature(self.host).parameters:
            # the lowest and highest value that this image and a blank one have, per channel
            both = torch.cat([x, blank])
            low, high = (find(both, (0, 2, 3), keepdim=True) for find in (torch.amin, torch.amax))
            options |= {"low": low, "high": high}
        seeded = self.key != "guided_backprop"

        def seed(output: Tensor) -> Tensor:
            columns = as_columns(output.detach())
            chosen = torch.zeros_like(columns)
            chosen[:, target] = columns[:, target] if seeded else 1
            return chosen.view_as(output)

        with scores_only(model):
            _, relevance = Gradient(model, self.host(**options), seed)(x.clone())
        return relevance.detach()  # type: ignore[no-any-return]

    def nontarget(self, model: nn.Module, x: Tensor, target: int, other: int | str, blank: Tensor) -> Found:
        """The other output against blank."""
        return self._against_blank(model, target, x, nontarget=other, reference=blank)

    def nontarget_against(
        self, model: nn.Module, x: Tensor, target: int, other: int, references: ReferenceSet
    ) -> Found:
        """The other output against the nearest references of that class."""
        explained = self._attributor(model, target, x, nontarget=other, reference=references).explain(x)
        return Found(explained.attribution.detach(), explained.absence.detach(), float(explained.output[0]))

    def against(self, model: nn.Module, x: Tensor, target: int, references: ReferenceSet) -> Found:
        """The target against the nearest references."""
        if references.is_made:
            made = references.nearest(x)
            assert isinstance(made, Tensor)
            return self._against_blank(model, target, x, reference=made[:, 0])
        explained = self._attributor(model, target, x, reference=references).explain(x)
        return Found(explained.attribution.detach(), explained.absence.detach(), float(explained.output[0]))

    def _against_blank(self, model: nn.Module, target: int, x: Tensor, **options: Any) -> Found:
        with warnings.catch_warnings():
            # no user chooses a blank image as a reference, and the page asks the network itself
            warnings.filterwarnings("ignore", message=r"samples \[0\] have references", category=AbsenceWarning)
            explained = self._attributor(model, target, x, **options).explain(x)
        return signed_parts(explained.attribution.detach(), float(explained.output[0]))

    def _attributor(self, model: nn.Module, target: int, x: Tensor, **options: Any) -> adapters.AbsenceGradient:
        def names(output: Tensor) -> Tensor:
            chosen = torch.zeros_like(as_columns(output))
            chosen[:, target] = 1
            return chosen.view_as(output)

        return adapters.AbsenceGradient(model, self.composite(), names, **options)
