"""Fixed linear combinations of a model's outputs, for hosts that can only select one output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.outputs import as_columns, class_sums


def combine(outputs: Tensor, weights: Tensor) -> Tensor:
    """Linear combinations along the class axis: [B, K, ...] and [M, K] -> [B, M, ...].

    Outputs whose weight is 0 in every row, or in rows of at most two weights, take no part: classes that are masked
    with -inf leave the others as they are.

    >>> combine(torch.tensor([[3.0, 1.0, -torch.inf]]), torch.tensor([[1.0, -1.0, 0.0]])).tolist()
    [[2.0]]
    """
    used = (weights != 0).sum(1)
    if int(used.max()) > 2:
        return torch.einsum("mk,bk...->bm...", weights.to(device=outputs.device, dtype=outputs.dtype), outputs)
    # a row of one weight reads its column twice, the second time as 0
    found = weights.abs().topk(min(2, weights.shape[1]), dim=1).indices
    columns = torch.where(weights.gather(1, found) != 0, found, found[:, :1])
    terms = []
    for place in range(int(used.max())):
        factor = weights.gather(1, columns[:, place : place + 1])[:, 0]
        if place:
            factor = factor.where(columns[:, place] != columns[:, 0], factor.new_zeros(()))
        factor = factor.to(device=outputs.device, dtype=outputs.dtype).reshape(-1, *[1] * (outputs.dim() - 2))
        terms.append(outputs.index_select(1, columns[:, place].to(outputs.device)) * factor)
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def others_weights(classes: int, of: Tensor | None = None) -> Tensor:
    """Rows that average all outputs but one: [K, K], row t = mean of the others of class t; or only the rows ``of``.

    In float64, so that 1 / (K - 1) is exact enough for every model.

    >>> others_weights(3)[0].tolist()
    [0.0, 0.5, 0.5]
    """
    rows = torch.arange(classes) if of is None else of.cpu()
    weights = torch.full((len(rows), classes), 1 / (classes - 1), dtype=torch.float64)
    return weights.scatter_(1, rows[:, None], 0.0)


class CombinedOutputs(nn.Module):
    """A model whose outputs are fixed linear combinations of another's: [B, K, ...] -> [B, M, ...].

    weights: [M, K]; None: the outputs as they are. ``is_summed``: first each class is summed over the image,
    [B, K, H, W] -> [B, K]. Lets a host that can only select one output explain a mean of outputs, a margin, or -z.
    """

    weights: Tensor | None

    def __init__(self, forward_func: Callable[..., Tensor], weights: Tensor | None, *, is_summed: bool = False) -> None:
        super().__init__()
        self.explained = forward_func
        self.is_summed = is_summed
        self.register_buffer("weights", weights, persistent=False)
        self.training = bool(getattr(forward_func, "training", False))
        if hasattr(forward_func, "device_ids"):
            self.device_ids = forward_func.device_ids

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The combined outputs of the explained model's outputs [B, K, ...] -> [B, M, ...]."""
        outputs = self.explained(*args, **kwargs)
        columns = class_sums(outputs) if self.is_summed else as_columns(outputs)
        return columns if self.weights is None else combine(columns, self.weights)
