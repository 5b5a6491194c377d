"""A direction of a layer as a unit: a decoding direction, or a feature of a sparse autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn  # noqa: F401  (examples)

from absence_plugins.core.unit_models import Readable
from absence_plugins.core.units import Layer


@dataclass(frozen=True, eq=False)
class Direction(Readable):
    """A direction of a layer: sum_j vector_j a_j + bias, reduced over positions like a unit.

    A decoding direction of ``DirectionPairs``, or a row of a sparse autoencoder's encoder: the feature before its
    nonlinearity.

    Args:
        layer: a :class:`Layer`, or its name.
        vector: [U], one weight per channel of the layer.
        bias: added at every position.
        name: for texts.

    Sign: positive where the layer's activation points along the vector.

    Raises:
        ValueError, TypeError: a vector that is not one-dimensional or not finite; when read, of another length than the
            layer's channels.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False))
    >>> net[0].weight.data = torch.eye(2)
    >>> Direction("0", torch.tensor([1.0, -1.0]), bias=0.5).values(net, torch.tensor([[3.0, 1.0]])).tolist()
    [2.5]
    """

    layer: str | Layer
    vector: Tensor
    bias: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.vector, Tensor) or self.vector.dim() != 1:
            shown = tuple(self.vector.shape) if isinstance(self.vector, Tensor) else type(self.vector).__name__
            raise TypeError(f"vector must be a tensor [U], one weight per channel, got {shown}")
        if not bool(torch.isfinite(self.vector).all()):
            raise ValueError("the direction's vector holds NaN or infinite values")
        Layer.of(self.layer)

    @property
    def at(self) -> Layer:
        """The layer as a :class:`Layer`."""
        return Layer.of(self.layer)

    def select(self, maps: Tensor) -> Tensor:
        """The direction's value from its layer's maps: [B, U, ...] -> [B]."""
        if maps.shape[1] != len(self.vector):
            raise ValueError(
                f"the direction has {len(self.vector)} weights, but layer {self.at.name!r} has {maps.shape[1]} channels"
            )
        along = torch.einsum("u,bu...->b...", self.vector.to(maps), maps)[:, None] + self.bias
        return self.at.reduced(along)[:, 0]

    def describe(self) -> str:
        """The direction in words."""
        return self.name or f"a direction of {self.at}"

    def __repr__(self) -> str:
        return f"Direction({self.at.name!r}, {len(self.vector)} weights, bias={self.bias})"
