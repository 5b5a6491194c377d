"""The maps of Grad-CAM, for ``absence-plugins explain``: coarse, of one layer, and without references."""

from __future__ import annotations

from dataclasses import dataclass

import torch  # noqa: F401  (examples)
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins import Layer, ReferenceSet
from absence_plugins.captum import AbsenceLayerGradCam
from absence_plugins.commands.maps.explainers import Found, signed_parts
from absence_plugins.commands.pace import Passes


@dataclass(frozen=True)
class GradCamMaps:
    """Grad-CAM without its ReLU, at a layer; "": the last convolution that has positions."""

    layer: str = ""
    standard_caption: str = "Grad-CAM with both signs; channels are summed first, so the sign is less sure."

    @property
    def name(self) -> str:
        """As the page calls it."""
        return f"Grad-CAM ({self.layer})" if self.layer else "Grad-CAM"

    @classmethod
    def named(cls, name: str) -> GradCamMaps:
        """From ``GradCam`` or ``GradCam:LAYER``, with or without ``captum:`` in front.

        >>> GradCamMaps.named("captum:GradCam:layer4").layer
        'layer4'
        """
        words = name.split(":")[1:] if name.lower().startswith("captum:") else name.split(":")
        return cls(":".join(words[1:]))

    def refuse_references(self) -> str:
        """It has no baseline."""
        return "Grad-CAM has no baseline to compare with; use relevance or IntegratedGradients"

    def count_passes(self, x: Tensor, k: int) -> Passes:
        """A few."""
        return Passes(0, 6)

    def standard(self, model: nn.Module, x: Tensor, target: int, classes: int, blank: Tensor) -> Tensor:
        """The target's map."""
        return self._map(model, x, target, "target")[0]

    def nontarget(self, model: nn.Module, x: Tensor, target: int, other: int | str, blank: Tensor) -> Found:
        """The other output's map."""
        return signed_parts(*self._map(model, x, target, other))

    def against(self, model: nn.Module, x: Tensor, target: int, references: ReferenceSet) -> Found:
        """Raises ValueError: there is no such map."""
        raise ValueError(self.refuse_references())

    def _map(self, model: nn.Module, x: Tensor, target: int, other: int | str) -> tuple[Tensor, float]:
        module = model.get_submodule(find_layer(model, x, self.layer))
        method = AbsenceLayerGradCam(model, module, nontarget=other)  # type: ignore[arg-type]  # a class, or a word
        found = method.explain(x, target=target)
        shown = F.interpolate(found.attribution.detach(), x.shape[-2:], mode="bilinear", align_corners=False)
        return shown, float(found.output[0])


def find_layer(model: nn.Module, x: Tensor, name: str = "") -> str:
    """The layer of that name; for "" the last convolution whose output has more than one position.

    Raises:
        ValueError: there is no such layer, or no convolution.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    >>> find_layer(net, torch.zeros(1, 1, 8, 8))
    '0'
    """
    known = dict(model.named_modules())
    if name:
        if name not in known:
            raise ValueError(f"--method GradCam:{name}: the model has no layer {name!r}; see model.named_modules()")
        return name
    convolutions = [each for each, module in known.items() if isinstance(module, nn.Conv2d)]
    for each in reversed(convolutions):
        positions = Layer(each).shape(model, x).positions
        if len(positions) == 2 and max(positions) > 1:
            return str(each)
    raise ValueError("--method GradCam needs a convolution with positions; name a layer as GradCam:LAYER")
