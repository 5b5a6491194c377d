"""Layers as they are compared: their modules, and where their values have samples, channels and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from absence_plugins.core.layouts import Axes
from absence_plugins.core.units import Layer


@dataclass(frozen=True, eq=False)
class Points:
    """The layers of a question, by name.

    Positions are summed, as relevance adds up; a value on x or a reference is the mean over positions.
    """

    model: nn.Module
    layers: dict[str, Layer]
    inputs: tuple[Any, ...]
    keywords: dict[str, Any]

    @classmethod
    def of(cls, model: nn.Module, layers: Sequence[str | Layer] | str | Layer, x: Any) -> Points:
        """Of names and Layers; where a side is left to the library, the output, where an inactive unit is 0.

        Raises:
            TypeError: the model is no module.
            ValueError: no layer, one twice, or one that does not exist (with the nearest names).
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"units are those of an nn.Module, got a {type(model).__name__}; pass the module")
        given = [layers] if isinstance(layers, (str, Layer)) else list(layers)
        if not given:
            raise ValueError("name at least one layer, as in layers=['layer4']")
        found: dict[str, Layer] = {}
        for one in map(Layer.of, given):
            at = replace(one, side="output") if one.side == "auto" else one
            if at.name in found:
                raise ValueError(f"layer {at.name!r} is named twice")
            at.module(model)
            found[at.name] = at
        keywords = dict(x) if isinstance(x, Mapping) else {}
        inputs = () if keywords else tuple(x) if isinstance(x, (tuple, list)) else (x,)
        return cls(model, found, inputs, keywords)

    def modules(self) -> dict[str, tuple[nn.Module, str]]:
        """What a comparison reads: by name a module and its side."""
        return {name: (layer.module(self.model), layer.side) for name, layer in self.layers.items()}

    def axes(self, name: str, value: Tensor) -> Axes:
        """Where a layer's value has samples and channels."""
        layer = self.layers[name]
        return layer.axes(self.model, layer.watch(self.model), value, self.inputs, self.keywords)

    def summed(self, name: str, value: Tensor) -> Tensor:
        """Relevance as the layer holds it -> [B, U], summed over positions."""
        maps = self.axes(name, value).maps(value)
        return maps.flatten(2).sum(2) if maps.dim() > 2 else maps

    def averaged(self, name: str, value: Tensor) -> Tensor:
        """Activations as the layer holds them -> [B, U], the mean over positions."""
        maps = self.axes(name, value).maps(value)
        return maps.flatten(2).mean(2) if maps.dim() > 2 else maps

    def only(self, name: str, value: Tensor, unit: int) -> Tensor:
        """A value with zeros in all channels but one.

        Raises:
            ValueError: the layer has no such channel.
        """
        axes = self.axes(name, value)
        maps = axes.maps(value)
        if not 0 <= unit < maps.shape[1]:
            raise ValueError(f"layer {name!r} has {maps.shape[1]} units, 0 to {maps.shape[1] - 1}, and no {unit}")
        kept = maps.new_zeros(maps.shape)
        kept[:, unit] = maps[:, unit]
        return axes.back(kept)
