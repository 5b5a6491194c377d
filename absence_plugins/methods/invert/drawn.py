"""Some of the samples, drawn at random, and the columns' truths on them: what a sum over all samples is estimated from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.digits import multiplies_digits

LEVELS = 127  # of numbers from 0 to 1, in 8 bits


@dataclass(frozen=True, eq=False)
class Drawn:
    """Some samples, drawn with replacement.

    Attributes:
        index: their label rows [m].
        truths: of the columns, and one that always holds, int8 [J + 1, m].
    """

    index: Tensor
    truths: Tensor

    @classmethod
    def of(cls, packed: Array, weight: Tensor, samples: int) -> Drawn:
        """So many, the same ones every time, by the ``weight`` [R] of the rows; ``packed`` [J, bytes] truths over
        these.
        """
        upto = weight.cpu().numpy().cumsum()
        places = np.random.default_rng(samples).integers(0, int(upto[-1]), samples)
        rows = np.sort(np.searchsorted(upto, places, side="right"))
        shift = (7 - (rows & 7)).astype(np.uint8)
        truths = np.ones((len(packed) + 1, samples), np.int8)
        for own, plane in zip(truths, packed, strict=False):
            own[:] = plane[rows >> 3] >> shift & 1
        return cls(torch.from_numpy(rows).to(weight.device), torch.from_numpy(truths).to(weight.device))

    def __len__(self) -> int:
        return len(self.index)

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """Numbers int8 [M, m] times truths int8 [J, m]: float32 [M, J], exact below 2^24."""
        if multiplies_digits(left.device):
            return torch._int_mm(left, right.T).float()
        return left.float() @ right.float().T
