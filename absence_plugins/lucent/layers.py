"""Lucent's ``T``: the layers of one forward, read by :mod:`absence_plugins.core.reading` under Lucent's names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from absence_plugins.core.reading import find_module, run_model
from absence_plugins.core.recorder import Recorder
from absence_plugins.core.units import Layer

LABELS, INPUT = "labels", "input"


class LayerNotComputed(ValueError):
    """An objective asks for a layer that the forward did not reach."""


def as_layer(layer: str | Layer) -> Layer:
    """A layer from Lucent's name or PyTorch's; ``labels`` is the model itself."""
    return Layer.of("" if isinstance(layer, str) and layer == LABELS else layer)


class Activations(Recorder):
    """What the layers of one forward put out, inside a ``with`` block: the ``T`` that objectives are called with.

    ``T("conv1")`` is the very tensor that Lucent hands out; ``T.maps(Layer("conv1"))`` is what a unit of the layer is
    read from: [B, U, ...], before the nonlinearity.
    """

    def __init__(self, model: nn.Module, image: Any) -> None:
        super().__init__(model)
        self._image = image
        self._inputs: tuple[Any, ...] = ()
        self._maps: dict[Layer, Tensor] = {}

    def __call__(self, name: str) -> Any:
        """The layer's output in the last forward. ``labels`` is the module that was defined last, as in Lucent."""
        if name == INPUT:
            return self._image()
        module = list(self.model.modules())[-1] if name == LABELS else find_module(self.model, name)
        if self.outputs.get(module) is None:
            raise LayerNotComputed(f"layer {name!r} was not computed in the model's forward")
        return self.outputs[module]

    def run(self, images: Tensor) -> None:
        """One forward on model inputs [B, ...]; what was read before is forgotten."""
        self.forget()
        self._maps.clear()
        self._inputs = (images,)
        run_model(self.model, self._inputs)

    def maps(self, layer: Layer) -> Tensor:
        """The layer's units in the last forward: [B, U, ...], as :meth:`Layer.maps` gives them.

        Raises:
            LayerNotComputed: the forward did not reach the layer, or the layer is asked for for the first time.
        """
        watch = self.watch(layer.name, layer.side)
        if not watch.values:
            raise LayerNotComputed(f"layer {str(layer)!r} was not computed in the model's forward")
        if layer not in self._maps:
            value = watch.values[-1]
            with self.held():  # to find the axis of the channels, the model may run once more
                self._maps[layer] = layer.arranged(self.model, watch, value, self._inputs)
        return self._maps[layer]
