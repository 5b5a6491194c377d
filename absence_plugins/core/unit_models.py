"""A unit or a direction as a model of its own: what they share, and the module that attribution classes take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda values: values.mean(-1),
    "max": lambda values: values.amax(-1),
    "min": lambda values: values.amin(-1),
    "sum": lambda values: values.sum(-1),
}


class Readable:
    """What a unit and a direction share: values of a model, and the model with this value as its only output."""

    at: Any  # the Layer that is read

    def values(self, model: nn.Module, *inputs: Any, **keywords: Any) -> Tensor:
        """The value for every sample: inputs [B, ...] -> [B]. Differentiable; leaves no hook."""
        return self.select(self.at.maps(model, *inputs, **keywords))

    def select(self, maps: Tensor) -> Tensor:
        """The value from the layer's maps: [B, U, ...] -> [B]."""
        raise NotImplementedError

    def of(self, model: nn.Module) -> UnitModel:
        """The model with this value as its only output: what attribution classes take as ``forward_func``."""
        self.at.module(model)
        return UnitModel(model, self)


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
    """A model whose one output is a unit or a direction: inputs [B, ...] -> [B]."""

    def __init__(self, model: nn.Module, unit: Any) -> None:
        super().__init__()
        self.model, self.unit, self.training = model, unit, model.training
        is_channel = getattr(unit, "position", ()) is None  # of a Unit, reduced over all its positions
        self.reduction = Reduction(unit.at.reduce) if is_channel and unit.at.reduce in REDUCTIONS else None

    @property
    def layer(self) -> str:
        """The name of the unit's layer."""
        return str(self.unit.at.name)

    @property
    def index(self) -> int:
        """The unit's channel. Raises AttributeError for a direction, which has none."""
        return int(self.unit.index)

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        """The unit's value: inputs [B, ...] -> [B]."""
        if self.reduction is None:
            value: Tensor = self.unit.values(self.model, *inputs, **keywords)
            return value
        channel = self.unit.channel(self.model, *inputs, **keywords)
        reduced: Tensor = channel if channel.dim() == 1 else self.reduction(channel.flatten(1))
        return reduced
