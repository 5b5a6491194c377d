"""How a neuron is addressed: layer, index, before or after the nonlinearity, and how space is reduced."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch  # noqa: F401  (examples)
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import capture, overwritten

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold, nn.Hardtanh)
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda values: values.mean(1),
    "max": lambda values: values.amax(1),
    "min": lambda values: values.amin(1),
    "sum": lambda values: values.sum(1),
}


@dataclass(frozen=True)
class Unit:
    """One neuron: channel ``index`` of a layer, by default before the nonlinearity, averaged over space.

    ``activation="pre"`` reads a rectifier's input: after the rectifier the unit is 0, with zero gradient,
    exactly where the concept whose absence it encodes is present. ``layer`` is a name as in
    ``model.named_modules()``; the empty name is the model itself, so ``Unit("", k)`` is logit k.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    >>> Unit("1", 0).values(net, torch.tensor([[0.0, 3.0]])).tolist()
    [-3.0]
    """

    layer: str
    index: int
    activation: Literal["pre", "post"] = "pre"
    reduce: Literal["mean", "max", "min", "sum"] = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str):
            raise TypeError(f"layer must be a name as in model.named_modules(), got a {type(self.layer).__name__}")
        if isinstance(self.index, bool) or not isinstance(self.index, int) or self.index < 0:
            raise ValueError(f"index={self.index!r} must be a channel number, 0 or higher")
        if self.activation not in ("pre", "post"):
            raise ValueError(f"activation={self.activation!r} must be 'pre' or 'post'")
        if self.reduce not in REDUCTIONS:
            raise ValueError(f"reduce={self.reduce!r} must be one of {', '.join(REDUCTIONS)}")

    @classmethod
    def parse(cls, text: str, **options: Any) -> Unit:
        """From ``"layer:index"``.

        >>> Unit.parse("features.3:12")
        Unit(layer='features.3', index=12, activation='pre', reduce='mean')
        """
        layer, separator, index = text.rpartition(":")
        if not separator or not index.isdigit():
            raise ValueError(f"unit {text!r} must read LAYER:INDEX, for example features.3:12")
        return cls(layer, int(index), **options)

    def module(self, model: nn.Module) -> nn.Module:
        """The layer's module. Raises ValueError with the names that exist."""
        modules = dict(model.named_modules())
        if self.layer not in modules:
            names = ", ".join(name for name in modules if name)
            raise ValueError(f"the model has no layer {self.layer!r}; it has: {names}")
        module: nn.Module = modules[self.layer]
        return module

    def values(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The unit's value for every sample: inputs [B, ...] -> [B]. Differentiable; leaves no hook."""
        return self._reduced(self.channel(model, *inputs), Reduction(self.reduce))

    def channel(self, model: nn.Module, *inputs: Tensor) -> Tensor:
        """The unit's activation before it is reduced over space: inputs [B, ...] -> [B] or [B, ...]."""
        module = self.module(model)
        side = "input" if self.activation == "pre" and is_rectifier(module) else "output"
        if side == "input":
            module = _last(module)
        with capture(module, side=side) as seen:
            model(*inputs)
        if not seen:
            raise ValueError(f"layer {self.layer!r} does not run in the model's forward, so it has no activation")
        activation = seen[-1]
        if activation.dim() < 2 or self.index >= activation.shape[1]:
            raise ValueError(
                f"layer {self.layer!r} has activations of shape {tuple(activation.shape)}; there is no unit {self.index} on axis 1"
            )
        return activation[:, self.index]

    @staticmethod
    def _reduced(channel: Tensor, reduction: nn.Module) -> Tensor:
        return channel if channel.dim() == 1 else reduction(channel.flatten(1))

    def of(self, model: nn.Module) -> UnitModel:
        """The model with this unit as its only output: what attribution classes take as ``forward_func``."""
        self.module(model)
        return UnitModel(model, self)

    def to_dict(self) -> dict[str, Any]:
        """The four fields by name."""
        return asdict(self)


class Reduction(nn.Module):
    """A channel's values over space [B, N] to one value [B]; a module, so that relevance rules can see it."""

    def __init__(self, reduce: str) -> None:
        super().__init__()
        self.reduce = reduce

    def forward(self, values: Tensor) -> Tensor:
        """[B, N] -> [B]."""
        return REDUCTIONS[self.reduce](values)

    def winners(self, values: Tensor) -> Tensor:
        """Where the maximum (minimum) stands: [B, N] -> [B]."""
        return values.argmin(1) if self.reduce == "min" else values.argmax(1)


class UnitModel(nn.Module):
    """A model whose one output is a hidden unit: inputs [B, ...] -> [B]."""

    def __init__(self, model: nn.Module, unit: Unit) -> None:
        super().__init__()
        self.model, self.unit, self.training = model, unit, model.training
        self.reduction = Reduction(unit.reduce)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The unit's value: inputs [B, ...] -> [B]."""
        return self.unit._reduced(self.unit.channel(self.model, *inputs), self.reduction)


def is_rectifier(module: nn.Module) -> bool:
    """Whether a module's output is that of a rectifier: itself one, or a container that ends in one.

    >>> is_rectifier(nn.Sequential(nn.Linear(1, 1), nn.ReLU()))
    True
    """
    return isinstance(_last(module), RECTIFIERS)


def _last(module: nn.Module) -> nn.Module:
    """The module whose output is that of a (nested) ``Sequential``; any other module itself."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module


def check_preactivation(layer: nn.Module, forward: Callable[[], Any], *, side: str = "output") -> None:
    """Refuse a layer whose value is rectified, by itself or by an in-place rectifier behind it.

    A post-ReLU neuron has value 0 and gradient 0 exactly where the concept whose absence it encodes is
    present, so every map of it is empty there. ``forward`` runs the model once; ``side="input"`` if the
    layer's input is explained.

    Raises:
        ValueError: with the remedy.
    """
    name = type(layer).__name__
    if side == "output" and is_rectifier(layer):
        raise ValueError(
            f"the neuron's layer ({name}) puts out rectified values: 0, with zero gradient, where the concept is present; "
            "explain the value before it: pass the layer in front of it, or attribute_to_neuron_input=True"
        )
    with capture(layer, side=side) as seen:
        changed = overwritten(layer, forward, side=side)
    if seen and not changed and bool((seen[-1] >= 0).all()) and bool((seen[-1] == 0).any()):
        warnings.warn(
            f"every value of the neuron's layer ({name}) is 0 or more, and some are exactly 0, as behind a ReLU; a neuron that is 0 "
            "there shows no absence. Explain a layer in front of the rectifier, such as a block's last convolution or batch norm",
            AbsenceWarning,
            stacklevel=6,
        )
    if changed:
        raise ValueError(
            f"the {side} of the neuron's layer ({name}) is overwritten in place during the forward (ReLU(inplace=True)?), "
            "so rectified values would be explained; set inplace=False on that module"
        )
