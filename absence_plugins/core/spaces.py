"""Where a ReferenceSet searches the nearest references, if not among the entries of the inputs themselves."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Metric = Literal["squared", "absolute", "different"]
CHUNK_ELEMENTS = 2**19  # so many differences are held at a time: 2 MB in float32, which a cache holds


@runtime_checkable
class Space(Protocol):
    """Points whose distances rank the references: :class:`~absence_plugins.FeatureSpace`, or one of a kind of data."""

    @property
    def metric(self) -> Metric:
        """Distances are sums of squared or of absolute differences of points, or how many coordinates differ."""
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


def measure_distances(sample: Tensor, points: Tensor, pool: Tensor, metric: Metric = "squared") -> Tensor:
    """Distances of one sample to the points of a pool, in bounded memory, accumulated in float64, on the CPU.

    >>> measure_distances(torch.tensor([1.0]), torch.tensor([[0.0], [3.0]]), torch.tensor([0, 1]))
    tensor([1., 4.], dtype=torch.float64)
    """
    dtype = torch.promote_types(torch.promote_types(sample.dtype, points.dtype), torch.float32)  # uint8 would wrap
    sample = sample.detach().to(device=points.device, dtype=dtype)
    step = max(1, CHUNK_ELEMENTS // max(1, sample.numel()))
    chunks = []
    for part in torch.split(pool.to(points.device), step):
        difference = points.index_select(0, part).to(dtype).sub_(sample).reshape(len(part), -1)
        if metric == "different":
            difference = difference != 0
        else:
            difference = difference.square_() if metric == "squared" else difference.abs_()
        chunks.append(difference.sum(1, dtype=torch.float64))
    return torch.cat(chunks).cpu()
