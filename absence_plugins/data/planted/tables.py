"""Is one column of a table blank? A residual network on rows."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from absence_plugins.data.planted.networks import Sum
from absence_plugins.data.planted.problem import Drawn, Planted, Problem, Scenes
from absence_plugins.data.planted.training import Recipe

COLUMNS = 24


@cache
def column_missing(seed: int = 0) -> Planted:
    """Is one of 24 columns blank? Logit 1 encodes its absence; a residual MLP on rows [N, 1, 1, 24].

    Region: the column, which depends on the seed. Some 60 % of the other columns hold values of the same size, which do
    not matter; blank is 0.
    """
    return ColumnProblem(seed).solve(_table_network(), Recipe(epochs=8))


@dataclass(frozen=True, eq=False)
class Rows(Scenes):
    """``values`` [N, COLUMNS], and whether they are ``there`` [N, COLUMNS]."""

    values: Tensor
    there: Tensor


class ColumnProblem(Problem[Rows]):
    """Rows of values between .3 and 1, some of them blank."""

    reach = 0

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.key = torch.arange(COLUMNS) == int(self.integers(0, COLUMNS, 1))

    def scenes(self, count: int) -> Rows:
        """The key column is blank."""
        there = (self.uniform(0, 1, count, COLUMNS) < 0.6) & ~self.key
        return Rows(self.uniform(0.3, 1.0, count, COLUMNS), there)

    def with_key(self, scenes: Rows) -> Rows:
        """The key column has a value."""
        return replace(scenes, there=scenes.there | self.key)

    def without_key(self, scenes: Rows) -> Rows:
        """The key column is blank."""
        return replace(scenes, there=scenes.there & ~self.key)

    def jittered(self, scenes: Rows) -> Rows:
        """All values a little larger or smaller."""
        moved = scenes.values + self.uniform(-0.05, 0.05, *scenes.values.shape)
        return replace(scenes, values=moved.clamp(0.3, 1.0))

    def elsewhere(self, scenes: Rows) -> Rows:
        """As they are: a column has one place."""
        return scenes

    def render(self, scenes: Rows) -> Drawn:
        """Rows as images [N, 1, 1, COLUMNS], labels and the key column."""
        images, key = scenes.values * scenes.there, scenes.there & self.key
        return images[:, None, None], (~key.any(1)).long(), key[:, None, None]


class ResidualDense(nn.Module):
    """x plus a linear layer of a rectified linear layer of it: [N, D] to [N, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inwards, self.relu, self.outwards = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        self.sum = Sum()

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both branches."""
        result: Tensor = self.sum(torch.stack([x, self.outwards(self.relu(self.inwards(x)))], -1))
        return result


def _table_network(width: int = 32) -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                stem=nn.Linear(COLUMNS, width),
                relu1=nn.ReLU(),
                block1=ResidualDense(width),
                relu2=nn.ReLU(),
                block2=ResidualDense(width),
                relu3=nn.ReLU(),
                linear=nn.Linear(width, 2),
            )
        )
