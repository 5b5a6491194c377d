"""What an attributor decides once per call, on the real inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from absence_plugins.core.choices import Choice
from absence_plugins.zennit.scores import weighted


@dataclass
class Plan:
    """What is decided once per call, on the real input x [B, ...]."""

    x: Tensor
    outputs: Tensor  # of x [B, K, ...]
    weights: Tensor  # on the outputs: u = sum of weights * outputs
    choice: Choice | None
    view: Literal["target", "nontarget"]
    references: list[Tensor | None]  # one after the other, each in the shape of x

    @property
    def drawn(self) -> Tensor | None:
        """All references [B, k, ...]; None without."""
        found = [reference for reference in self.references if reference is not None]
        return torch.stack(found, 1) if found else None

    def value(self, outputs: Tensor) -> Tensor:
        """u of every sample [B]."""
        return weighted(self.weights, outputs).reshape(len(outputs), -1).sum(1)
