"""The one reader: what "the value of unit u on x" is, for every method, adapter, page and command.

A :class:`Layer` knows its module, which axis holds its channels, on which side of a nonlinearity it is read, and how
its positions are reduced. A :class:`Unit` is one channel of it, a :class:`~absence_plugins.core.direction.Direction` a
weighted sum of its channels. All three work on maps [B, C, ...], tokens [B, T, C], channels-last maps [B, H, W, C] and
vectors [B, C].
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from absence_plugins.core.layouts import Axes, batch_axis, channel_axis
from absence_plugins.core.names import read_number
from absence_plugins.core.reading import (
    SIDES,
    Watch,
    batch_size_of,
    find_module,
    is_rectifier,
    plain_model,
    run_model,
    stopped_at,
)
from absence_plugins.core.recorder import make_watch
from absence_plugins.core.training import keeping_statistics, warn_training
from absence_plugins.core.turns import working_on
from absence_plugins.core.unit_models import REDUCTIONS, Readable, Reduction, UnitModel

__all__ = ["REDUCTIONS", "Layer", "LayerShape", "Reduction", "Unit", "UnitModel", "is_rectifier"]

Position = int | tuple[int, ...]
REDUCES, CHANNELS = (*REDUCTIONS, "cls"), ("auto", "first", "last")

# By module, side and number of axes: which end the channels are on; found out once.
_KNOWN_ENDS: weakref.WeakKeyDictionary[nn.Module, dict[tuple[str, int], bool]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class LayerShape:
    """What a layer puts out: ``channels`` units at ``positions`` (sizes along each axis), read on which side.

    >>> str(LayerShape("layer4", 512, (7, 7), "output", "mean"))
    'layer4: 512 channels x 7 x 7 positions, mean'
    """

    layer: str
    channels: int
    positions: tuple[int, ...]
    side: str
    reduce: str
    axis: str = ""  # of the channels, next to the positions: "first" [B, C, ...] or "last" [B, ..., C]

    @classmethod
    def of(cls, layer: Layer, watch: Watch, axes: Axes, value: Tensor) -> LayerShape:
        """Of a value that was read."""
        _, channels, *sizes = axes.maps(value).shape
        end = "" if not sizes else "first" if axes.channels == 1 else "last"
        return cls(layer.name, channels, tuple(sizes), watch.point[1], layer.reduce, end)

    def __str__(self) -> str:
        name, where = self.layer or "output", ", before its nonlinearity" if self.side == "input" else ""
        if not self.positions:
            return f"{name}: {self.channels} channels{where}"
        kind = "tokens" if len(self.positions) == 1 else "positions"
        sizes = " x ".join(str(size) for size in self.positions)
        return f"{name}: {self.channels} channels x {sizes} {kind}, {self.reduce}{where}"


@dataclass(frozen=True)
class Layer:
    """A layer of a network as a set of units: where its channels are, on which side it is read, how positions are
    reduced.

    Args:
        name: as in ``model.named_modules()``, or joined with ``_`` as in Lucent; "" is the model itself, whose channels
            are the logits.
        channels: which axis holds the channels: "first" [B, C, ...], "last" [B, ..., C], or "auto": found out from the
            model's own modules.
        side: of a nonlinearity. "auto" reads the value *before* the nonlinearity that the layer ends in (an activation
            module, a ``Sequential`` or a block that returns the output of one), and the output of any other layer;
            "input" and "output" read that side of the module itself.
        reduce: positions to one value: "mean", "max", "min", "sum", or "cls" (the first token).

    Sign: that of the activation itself, before the nonlinearity: low means suppressed.

    Raises:
        ValueError: a setting that does not exist; when read: no such layer (with the nearest names), a layer that does
            not run or puts out no tensor, an axis of channels that cannot be told.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> _ = net[0].weight.data.fill_(-1.0), net[0].bias.data.zero_()
    >>> Layer("1").read(net, torch.ones(1, 2)).tolist()  # before the ReLU
    [[-2.0, -2.0, -2.0]]
    >>> Layer("1")[2]
    Unit('1', 2)
    """

    name: str
    channels: Literal["auto", "first", "last"] = "auto"
    side: Literal["auto", "input", "output"] = "auto"
    reduce: Literal["mean", "max", "min", "sum", "cls"] = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"layer must be a name as in model.named_modules(), got a {type(self.name).__name__}")
        for setting, known in (("channels", CHANNELS), ("side", SIDES), ("reduce", REDUCES)):
            value = getattr(self, setting)
            if value not in known:
                raise ValueError(f"{setting}={value!r} must be one of {', '.join(known)}")

    @classmethod
    def of(cls, layer: str | Layer, **settings: Any) -> Layer:
        """A layer from its name or from a ``Layer``; settings replace the layer's own."""
        return replace(layer, **settings) if isinstance(layer, Layer) else cls(layer, **settings)

    def __getitem__(self, index: int) -> Unit:
        return Unit(self, index)

    def __str__(self) -> str:
        return self.name or "output"

    def module(self, model: nn.Module) -> nn.Module:
        """The layer's module. Raises ValueError with the nearest names."""
        return find_module(model, self.name)

    def activation(self, model: nn.Module, *inputs: Any, **keywords: Any) -> Tensor:
        """Every unit at every position: inputs [B, ...] -> [B, U, positions]. Differentiable; leaves no hook.

        Inputs are the model's: tensors, a mapping for keywords (``pixel_values=``), or keywords themselves.
        """
        maps = self.maps(model, *inputs, **keywords)
        return maps.flatten(2) if maps.dim() > 2 else maps[..., None]

    def maps(self, model: nn.Module, *inputs: Any, **keywords: Any) -> Tensor:
        """As :meth:`activation`, with the positions along their own axes: [B, U], [B, U, T], [B, U, H, W], ..."""
        watch = self.watch(model)
        warn_training(plain_model(model), "what is read is of this one call", stacklevel=3)
        with working_on(model), watch, keeping_statistics(plain_model(model)):
            run_model(model, inputs, keywords)
        return self.arranged(model, watch, watch.last(), inputs, keywords)

    def read(self, model: nn.Module, *inputs: Any, **keywords: Any) -> Tensor:
        """Every unit's value: inputs [B, ...] -> [B, U]. Differentiable; leaves no hook."""
        return self.reduced(self.maps(model, *inputs, **keywords))

    @contextmanager
    def reading(self, model: nn.Module) -> Iterator[Callable[..., Tensor]]:
        """A function from inputs to maps [B, U, ...] that runs the model no further than the layer.

        In evaluation mode, without gradients; the model is as before after the block.

        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(inplace=True), nn.Linear(7, 7))  # does not fit
        >>> _ = net[0].weight.data.fill_(-1.0)
        >>> with Layer("0").reading(net) as run:
        ...     run(torch.ones(1, 1)).tolist()
        [[-1.0]]
        """
        watch = self.watch(model)
        with stopped_at(model, watch) as run:

            def maps(*inputs: Any, **keywords: Any) -> Tensor:
                return self.arranged(model, watch, run(*inputs, **keywords), inputs, keywords)

            yield maps

    def reduced(self, maps: Tensor) -> Tensor:
        """Maps [B, U, ...] to values [B, U].

        Raises:
            ValueError: ``reduce="cls"`` where the positions are no tokens.
        """
        if maps.dim() == 2:
            return maps
        if self.reduce == "cls":
            if maps.dim() != 3:
                raise ValueError(
                    f"reduce='cls' needs tokens [B, T, C], but layer {self.name!r} has {maps.dim() - 2} axes of "
                    "positions"
                )
            return maps[..., 0]
        return REDUCTIONS[self.reduce](maps.flatten(2))

    def shape(self, model: nn.Module, *inputs: Any, **keywords: Any) -> LayerShape:
        """How many channels and positions these inputs give, and which side was read; runs as :meth:`reading` does."""
        watch = self.watch(model)
        with stopped_at(model, watch) as run:
            value = run(*inputs, **keywords)
            return LayerShape.of(self, watch, self.axes(model, watch, value, inputs, keywords), value)

    def watch(self, model: nn.Module) -> Watch:
        """What reads the layer while the model runs: a context; its values go to :meth:`arranged`."""
        return make_watch(self.module(model), self.side, self.name)

    def arranged(
        self,
        model: nn.Module,
        watch: Watch,
        value: Tensor,
        inputs: tuple[Any, ...],
        keywords: dict[str, Any] | None = None,
    ) -> Tensor:
        """A value as the layer holds it, with samples on axis 0 and channels on axis 1: [B, U, ...]."""
        return self.axes(model, watch, value, inputs, keywords).maps(value)

    def axes(
        self,
        model: nn.Module,
        watch: Watch,
        value: Tensor,
        inputs: tuple[Any, ...],
        keywords: dict[str, Any] | None = None,
        *,
        samples: int | None = None,
    ) -> Axes:
        """Where a value that was read has its samples and channels; ``samples``: how many, if not of the inputs."""
        module, side = watch.point
        if value.dim() == 0:
            raise ValueError(f"layer {self.name!r} puts out one number for the whole batch, so it has no units")
        first = 1 if value.dim() == 3 and batch_axis(module) == 1 else 0
        front = value.movedim(first, 0)
        samples = batch_size_of(inputs, keywords) if samples is None else samples
        if samples is not None and len(front) != samples:
            raise ValueError(
                f"layer {self.name!r} has activations of shape {tuple(front.shape)} for {samples} samples: its first "
                "axis is not the batch (windows of attention, or a layer inside a loop?); name the block around it"
            )
        if value.dim() == 1:
            return Axes(0, None)
        return Axes(first, self._axis(model, module, side, front, inputs, keywords or {}))

    def _axis(
        self,
        model: nn.Module,
        module: nn.Module,
        side: str,
        value: Tensor,
        inputs: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> int:
        if (last := value.dim() - 1) == 1 or self.channels != "auto":
            return 1 if self.channels == "first" else last
        known, key = _KNOWN_ENDS.setdefault(module, {}), (side, last)
        if key not in known:

            def run() -> None:
                with torch.random.fork_rng(devices=[]), torch.no_grad(), keeping_statistics(plain_model(model)):
                    run_model(model, inputs, keywords)

            axis = channel_axis(plain_model(model), module, value, side, run)
            if axis is None:
                raise ValueError(
                    f"layer {self.name!r} has activations of shape {tuple(value.shape)}, and it cannot be told which "
                    f"axis holds the channels: say channels='first' ({value.shape[1]} channels) or channels='last' "
                    f"({value.shape[-1]} channels), as in Layer({self.name!r}, channels='last')"
                )
            known[key] = axis == 1
        return 1 if known[key] else last


@dataclass(frozen=True, init=False, repr=False)
class Unit(Readable):
    """One neuron: channel ``index`` of a layer, before the nonlinearity, at one position or reduced over all.

    Args:
        layer: a :class:`Layer`, or its name; the empty name is the model itself, so ``Unit("", k)`` is logit k.
        index: the channel.
        position: a token (or place in a signal) as a number, a pixel as ``(y, x)``; None: all positions, reduced.
        reduce, channels, side: as in :class:`Layer`, where ``layer`` is a name.
        activation: "pre" is ``side="auto"``, "post" is ``side="output"``.

    Sign: that of the activation: low where the unit is suppressed.

    Raises:
        ValueError, TypeError: a setting that does not exist; when read, an index or position that the layer does not
            have.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    >>> Unit("1", 0).values(net, torch.tensor([[0.0, 3.0]])).tolist()
    [-3.0]
    """

    layer: str
    index: int
    position: Position | None
    reduce: str
    channels: str
    side: str

    def __init__(
        self,
        layer: str | Layer,
        index: int,
        position: Position | None = None,
        *,
        reduce: str | None = None,
        channels: str | None = None,
        side: str | None = None,
        activation: Literal["pre", "post"] | None = None,
    ) -> None:
        if activation not in (None, "pre", "post"):
            raise ValueError(f"activation={activation!r} must be 'pre' or 'post'")
        if activation is not None and side is None:
            side = "output" if activation == "post" else "auto"
        given = {"reduce": reduce, "channels": channels, "side": side}
        at = Layer.of(layer, **{name: value for name, value in given.items() if value is not None})
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise ValueError(f"index={index!r} must be a channel number, 0 or higher")
        parts = position if isinstance(position, tuple) else (position,)
        if position is not None and not all(isinstance(p, int) and not isinstance(p, bool) and p >= 0 for p in parts):
            raise ValueError(f"position={position!r} must be a token's number or a pixel (y, x), 0 or higher")
        values = (at.name, index, position, at.reduce, at.channels, at.side)
        for name, value in zip(("layer", "index", "position", "reduce", "channels", "side"), values, strict=True):
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, text: str, **options: Any) -> Unit:
        """From ``"layer:index"``.

        >>> Unit.parse("features.3:12")
        Unit('features.3', 12)
        """
        layer, separator, index = text.rpartition(":")
        number = read_number(index)
        if not separator or number is None or number < 0:
            raise ValueError(f"unit {text!r} must read LAYER:INDEX, for example features.3:12")
        return cls(layer, number, **options)

    @property
    def at(self) -> Layer:
        """The layer as a :class:`Layer`."""
        return Layer(self.layer, self.channels, self.side, self.reduce)  # type: ignore[arg-type]

    @property
    def activation(self) -> str:
        """The old name of ``side``: "post" where the module's output is read, else "pre"."""
        return "post" if self.side == "output" else "pre"

    def module(self, model: nn.Module) -> nn.Module:
        """The layer's module. Raises ValueError with the nearest names."""
        return self.at.module(model)

    def channel(self, model: nn.Module, *inputs: Any, **keywords: Any) -> Tensor:
        """The unit at every position: inputs [B, ...] -> [B] or [B, ...]."""
        maps = self.at.maps(model, *inputs, **keywords)
        self._check(maps)
        return maps[:, self.index]

    def select(self, maps: Tensor) -> Tensor:
        """The unit's value from its layer's maps: [B, U, ...] -> [B].

        Raises:
            ValueError: the layer has no such channel or position.
        """
        self._check(maps)
        own = maps[:, self.index : self.index + 1]
        return (self.at.reduced(own) if self.position is None else self._placed(own))[:, 0]

    def _placed(self, own: Tensor) -> Tensor:
        position = self.position if isinstance(self.position, tuple) else (self.position,)
        sizes = own.shape[2:]
        if len(position) != len(sizes) or any(p >= size for p, size in zip(position, sizes, strict=True)):  # type: ignore[operator]
            shown = " x ".join(str(size) for size in sizes) or "no"
            raise ValueError(f"position={self.position} does not exist: layer {self.layer!r} has {shown} positions")
        return own[(slice(None), slice(None), *position)]

    def _check(self, maps: Tensor) -> None:
        if self.index >= maps.shape[1]:
            raise ValueError(
                f"layer {self.layer!r} has activations of shape {tuple(maps.shape)}; there is no unit {self.index}: it "
                f"has {maps.shape[1]} channels, 0 to {maps.shape[1] - 1}"
            )

    def describe(self) -> str:
        """The unit in words, the same everywhere.

        >>> Unit("conv3", 12).describe(), Unit("", 3).describe(), Unit("blocks.5", 7, position=0).describe()
        ('unit 12 of conv3', 'output 3', 'unit 7 of blocks.5 at 0')
        """
        name = f"unit {self.index} of {self.layer}" if self.layer else f"output {self.index}"
        return name if self.position is None else f"{name} at {self.position}"

    def __repr__(self) -> str:
        shown = [repr(self.layer), repr(self.index)] + ([] if self.position is None else [repr(self.position)])
        defaults = {"reduce": "mean", "channels": "auto", "side": "auto"}
        shown += [f"{name}={getattr(self, name)!r}" for name, usual in defaults.items() if getattr(self, name) != usual]
        return f"Unit({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; ``Unit(**unit.to_dict())`` is the unit again."""
        names = ("layer", "index", "position", "reduce", "channels", "side")
        return {name: getattr(self, name) for name in names}
