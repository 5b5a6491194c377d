"""Where a model is."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def device_of(model: nn.Module, inputs: Tensor | None = None) -> torch.device:
    """The device of the model's parameters (or buffers); if it has none that of ``inputs``, or the CPU.

    >>> device_of(nn.Linear(1, 1)), device_of(nn.ReLU())
    (device(type='cpu'), device(type='cpu'))
    """
    found = next(model.parameters(), next(model.buffers(), inputs))
    return torch.device("cpu") if found is None else found.device
