"""Where a ReferenceSet searches the nearest references, if not among the entries of the inputs themselves."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

Metric = Literal["squared", "absolute"]


@runtime_checkable
class Space(Protocol):
    """Points whose distances rank the references: :class:`~absence_plugins.FeatureSpace`, or one of a kind of data.

    Attributes:
        metric: distances are sums of squared, or of absolute differences of points.
    """

    @property
    def metric(self) -> Metric:
        """How the differences of points add up."""
        ...

    def points(self, *inputs: Tensor) -> Tensor:
        """Inputs [N, ...] as points [N, F] on the CPU."""
        ...

    def state(self) -> Any:
        """A value that compares equal as long as the points stay the same."""
        ...


def check_space(nearest_in: Any) -> Space | None:
    """The space as it is.

    Raises:
        TypeError: no space.
    """
    if nearest_in is None or (isinstance(nearest_in, Space) and not isinstance(nearest_in, type)):
        return nearest_in
    raise TypeError(
        f"nearest_in must be a FeatureSpace, TableSpace or TokenSpace, got a {type(nearest_in).__name__}; write "
        "nearest_in=FeatureSpace(model, layer)"
    )
