"""The augmented Lagrangian of inequality constraints, for training by gradient steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

WEIGHT = 10.0  # of the quadratic term; the source does not give it


class AugmentedLagrangian:
    """Constraints L_k < c_k as a term to be minimized, with a multiplier for each that grows while it is violated.

    With g_k = L_k / c_k - 1 the term is sum_k (relu(m_k + p g_k)^2 - m_k^2) / (2 p); :meth:`update` sets m_k to
    relu(m_k + p g_k), with the mean of g_k since the last update. At a solution m_k is 0 where a constraint does not
    bind, and above 0 where it does.

    Source: Bertsekas, Constrained Optimization and Lagrange Multiplier Methods (1982), section 3.1.

    Args:
        bounds: c_k, above 0.
        weight: p, above 0.

    Attributes:
        multipliers: m_k.

    Example:
        >>> lagrangian = AugmentedLagrangian({"load": 2.0})
        >>> lagrangian.term({"load": torch.tensor(4.0)})  # g = 1
        tensor(5.)
        >>> lagrangian.update()
        >>> lagrangian.multipliers
        {'load': 10.0}
    """

    def __init__(self, bounds: Mapping[str, float], weight: float = WEIGHT) -> None:
        self.bounds, self.weight = dict(bounds), weight
        self.multipliers = dict.fromkeys(bounds, 0.0)
        self._sums = dict.fromkeys(bounds, 0.0)
        self._count = 0

    def term(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The term of these losses, differentiable; counted for the next update."""
        parts = []
        self._count += 1
        for name, bound in self.bounds.items():
            violation = losses[name] / bound - 1
            self._sums[name] += float(violation.detach())
            multiplier = self.multipliers[name]
            parts.append(((multiplier + self.weight * violation).relu() ** 2 - multiplier**2) / (2 * self.weight))
        return torch.stack(parts).sum()

    def update(self) -> None:
        """New multipliers, from the mean violations since the last update."""
        for name, total in self._sums.items():
            mean = total / max(self._count, 1)
            self.multipliers[name] = max(0.0, self.multipliers[name] + self.weight * mean)
            self._sums[name] = 0.0
        self._count = 0
