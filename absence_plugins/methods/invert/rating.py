"""A unit's score of formulas from where these hold and fail on single samples, unknown ones left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.methods.invert.measures import FIRING, standardize
from absence_plugins.methods.invert.scores import CHUNK, Order, known_auc, rank_sums


@dataclass(frozen=True, eq=False)
class Rating:
    """One unit on some samples, and by what formulas are scored.

    Attributes:
        name: "auc", "auprc", "f1", "iou" or "correlation".
        order: the samples in the order of their activations.
        numbers: [n] float64, of which a mean is high where a good formula holds: whether the unit fires ("f1", "iou"),
            its standardized activation ("correlation"), or its rank numbers d.
        threshold: at or above which the unit fires; None for the other scores.
    """

    name: str
    order: Order
    numbers: Tensor
    threshold: float | None = None

    @classmethod
    def of(cls, name: str, values: Tensor, threshold: Tensor | None = None) -> Rating:
        """Of activations [n], which are high where a formula should hold."""
        if name in FIRING and threshold is not None:
            return cls(name, Order.of(values), (values >= threshold).double(), float(threshold))
        if name == "correlation":
            return cls(name, Order.of(values), standardize(values[None])[0])
        own = torch.arange(len(values), device=values.device)
        return cls(name, Order.of(values), rank_sums(values[None], own, len(values))[0][0])

    def score(self, true: Tensor, false: Tensor) -> Tensor:
        """Of formulas that hold on ``true`` [M, n], fail on ``false`` [M, n], and are unknown elsewhere: float64 [M].

        AUPRC is that above chance, (AUPRC - share) / (1 - share), as its chance is the share of the samples on which a
        formula holds, and the widest formula would win every search. NaN where a formula holds, or fails, nowhere.
        """
        if self.name == "auc":
            return known_auc(self.order, true, false)
        if self.name == "auprc":
            share = true.sum(1).double() / (true | false).sum(1)
            return (known_auprc(self.order, true, false) - share) / (1 - share)
        if self.name == "correlation":
            return self.correlation(true, false)
        n1, n0 = true.sum(1).double(), false.sum(1).double()
        score = self._agreement(n1, true.double() @ self.numbers, false.double() @ self.numbers)
        return torch.where((n1 > 0) & (n0 > 0), score, torch.nan)

    def correlation(self, true: Tensor, false: Tensor) -> Tensor:
        """Pearson's, of :attr:`numbers` with the truth, over the samples on which it is known; 0 if they do not
        vary.
        """
        n1, n0 = true.sum(1).double(), false.sum(1).double()
        one, other = true.double(), false.double()
        s1, s0 = one @ self.numbers, other @ self.numbers
        squares = (one + other) @ self.numbers.square()
        n = n1 + n0
        spread = (squares - (s1 + s0) ** 2 / n).clamp(min=0)
        scale = (n1 * n0 / n * spread).sqrt()
        score = torch.where(spread > 1e-12 * squares, (s1 - n1 * (s1 + s0) / n) / scale, 0.0)
        return torch.where((n1 > 0) & (n0 > 0), score, torch.nan)

    def screen(self, count: tuple[Tensor, Tensor], total: tuple[Tensor, Tensor]) -> Tensor:
        """What orders formulas much as their score does, from the samples on which they hold and fail, and the sums of
        :attr:`numbers` over these. F1 and IoU are exact.
        """
        n1, n0 = (one.clamp(min=1) for one in count)
        if self.name in FIRING:
            return self._agreement(n1, *total)
        apart = total[0] / n1 - total[1] / n0
        return apart if self.name == "auc" else apart * (n1 * n0).sqrt() / (n1 + n0)

    def _agreement(self, n1: Tensor, h1: Tensor, h0: Tensor) -> Tensor:
        """F1 or IoU: h1 and h0 samples that fire where a formula holds, and fails."""
        if self.name == "f1":
            return 2 * h1 / (n1 + h1 + h0).clamp(min=1)
        return h1 / (n1 + h0).clamp(min=1)


def known_auprc(order: Order, true: Tensor, false: Tensor) -> Tensor:
    """Average precision of formulas that hold on ``true`` [M, N] and fail on ``false`` [M, N], unknown elsewhere.

    Samples of equal activation are taken together. NaN where a formula holds, or fails, nowhere. Costs O(M N).

    >>> masks = torch.tensor([[False, True, True]]), torch.tensor([[True, False, False]])
    >>> known_auprc(Order.of(torch.tensor([1.0, 2.0, 0.0])), *masks).round(decimals=4)
    tensor([0.8333], dtype=torch.float64)
    """
    n1, n0 = true.sum(1).double(), false.sum(1).double()
    total = torch.empty_like(n1)
    step = max(1, CHUNK // max(1, true.shape[1]))
    for at in range(0, len(true), step):
        holds = true[at : at + step, order.samples]
        known = holds | false[at : at + step, order.samples]
        hits, fired = (torch.nn.functional.pad(one.cumsum(1, dtype=torch.float64), (1, 0)) for one in (holds, known))
        above = hits[:, -1:] - hits[:, order.first]
        asked = fired[:, -1:] - fired[:, order.first]
        total[at : at + step] = (holds * above / asked.clamp(min=1)).sum(1)
    return torch.where((n1 > 0) & (n0 > 0), total / n1, torch.nan)
