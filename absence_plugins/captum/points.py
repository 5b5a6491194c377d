"""Where a layer is read: at its module, as Captum does, or at a point of the forward that Captum's hooks do not reach.

Captum's hooks take a module that puts out a tensor (or a tuple of tensors) with its channels on axis 1, and see a
rectifier's output. Elsewhere - in front of a rectifier, in a tuple with None, in a dataclass, in tokens [B, T, C] for
Grad-CAM, in an embedding of positions that puts out one row for the whole batch - the forward is led through an
identity module, and Captum is given that module as its layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from absence_plugins.core.hooks import keep_to_thread
from absence_plugins.core.layouts import Axes
from absence_plugins.core.reading import Watch
from absence_plugins.core.replacing import replaced
from absence_plugins.core.units import Layer


@dataclass(frozen=True)
class Point:
    """One layer of a call. ``module`` and ``is_input``: what Captum is told; ``value``: what was read on the real
    inputs.
    """

    module: nn.Module
    is_input: bool
    value: Tensor
    watch: Watch | None = None
    axes: Axes | None = None
    rows: int = 0  # samples for which the layer puts out one row
    is_whole: bool = True  # Captum sees the value there, and not several tensors

    @contextmanager
    def on(self) -> Iterator[None]:
        """In this block the forward passes through ``module``."""
        with ExitStack() as stack:
            if self.watch is not None:
                stack.enter_context(replaced(self.watch, self._through))
            yield

    def _through(self, value: Tensor) -> Tensor:
        if self.rows and len(value) == 1:
            return self.module(expand_rows(value, self.rows))
        if self.axes is None:
            return self.module(value)
        return self.axes.back(self.module(self.axes.maps(value)))


class Lookout:
    """Watches the layers of a method during one forward on the real inputs; then says at which point each is read."""

    def __init__(self, layers: list[nn.Module], named: list[Layer], model: Any, *, side: str) -> None:
        self.model = getattr(model, "__self__", model)
        self.side = side
        given = named or [Layer(name_of(module, self.model)) for module in layers]
        self.layers = [layer if named else Layer.of(layer, side=side) for layer in given]
        self.watches = [
            Watch(module, layer.side if side == "auto" else side, layer.name)
            for module, layer in zip(layers, self.layers, strict=True)
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Lookout:
        with ExitStack() as stack:  # a module may take no hook
            for watch in self.watches:
                stack.enter_context(watch)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def points(self, inputs: tuple[Any, ...], *, arranged: bool) -> list[Point]:
        """After the forward. ``arranged``: with the channels on axis 1.

        Raises:
            ValueError: a layer that did not run, puts out no tensor, or whose axis of channels cannot be told.
        """
        found = []
        for layer, watch in zip(self.layers, self.watches, strict=True):
            returned, value = watch.returned, watch.last()
            samples = len(inputs[0])
            if isinstance(watch.module, nn.Embedding) and value.dim() > 1 and len(value) == 1 < samples:
                whole = expand_rows(value, samples)  # of positions, for the whole batch
                found.append(Point(nn.Identity(), False, whole, watch, rows=samples))
                continue
            axes = self._axes(layer, watch, value, inputs) if arranged and value.dim() > 2 else None
            is_plain = _is_plain(returned, arranged=arranged)
            is_there = watch.point == (watch.module, "input" if self.side == "input" else "output")
            if is_plain and is_there and axes in (None, Axes(0, 1)):
                is_whole = isinstance(returned, Tensor) or (self.side == "input" and len(returned) == 1)
                found.append(Point(watch.module, self.side == "input", value, is_whole=is_whole))
            else:
                found.append(Point(nn.Identity(), False, value if axes is None else axes.maps(value), watch, axes))
        return found

    def _axes(self, layer: Layer, watch: Watch, value: Tensor, inputs: tuple[Any, ...]) -> Axes:
        # without a module around it, a layer is judged alone
        model = self.model if isinstance(self.model, nn.Module) else nn.ModuleList([watch.module])
        return layer.axes(model, watch, value, inputs)


class OneLayer:
    """Sees what one module puts out in a forward, to tell whether Captum's own hook reads it right (as a
    :class:`Lookout` would tell).
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.returned: Any = None

    def __enter__(self) -> OneLayer:
        self._handle = self.module.register_forward_hook(keep_to_thread(self._keep), prepend=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self.returned = output

    def is_plain(self, samples: int, *, arranged: bool) -> bool:
        """Whether it ran and put out tensors with one row per sample; ``arranged``: with its channels on axis 1."""
        if self.returned is None or not _is_plain(self.returned, arranged=arranged):
            return False
        if isinstance(self.module, nn.Embedding):  # of positions, for the whole batch
            return False
        parts = self.returned if isinstance(self.returned, (tuple, list)) else (self.returned,)
        return all(part.dim() > 0 and len(part) == samples for part in parts)


def expand_rows(value: Tensor, samples: int) -> Tensor:
    """One row [1, ...] as that of every sample [B, ...]."""
    return value.expand(samples, *value.shape[1:])


def _is_plain(returned: Any, *, arranged: bool) -> bool:
    """Whether Captum's hook can take it."""
    if isinstance(returned, Tensor):
        return True
    return isinstance(returned, (tuple, list)) and all(isinstance(part, Tensor) for part in returned) and not (
        arranged and len(returned) > 1
    )  # fmt: skip


def name_of(layer: nn.Module, model: Any) -> str:
    """The layer's name in the model; its class where it has none."""
    if isinstance(model, nn.Module):
        for name, module in model.named_modules():
            if module is layer and name:
                return name
    return type(layer).__name__
