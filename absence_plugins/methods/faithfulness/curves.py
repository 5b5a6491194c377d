"""Gains of a claim along orders: of maps, at random, transplanted, and the best that was found."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.methods.faithfulness.claims import Claim, area, has_ties, ranks


class Curves:
    """Curves [N, steps + 1] of one claim, all with the same random keys.

    ``random``: the mean of ``draws`` random orders of single cells. ``measured``: per row the best of the orders by effects
    measured on the network.
    """

    def __init__(self, claim: Claim, steps: int, draws: int, seed: int) -> None:
        self.claim, self.seed, self.universe = claim, seed, claim.universe
        self.steps = max(1, min(steps, int(claim.counts.max())))  # finer than the cells says nothing more
        self.generator = torch.Generator().manual_seed(seed)
        self.keys = torch.rand(draws, *self.universe.shape, generator=self.generator, dtype=torch.float64)
        self.random = self._mean(torch.zeros(self.universe.shape), draws)
        self.measured = best_of([self._mean(effects, 1) for effects in claim.effects])

    def of_map(self, score: Tensor) -> Tensor:
        """The curve of an order by ``score`` [N, cells], highest first; the mean over the tie-breakings where there are ties."""
        return self._mean(score, len(self.keys) if has_ties(score, self.universe) else 1)

    def placebo(self, score: Tensor) -> Tensor:
        """The mean curve of the map as it looks, but where it says nothing: another row's map, shifted at random.

        Neighboring cells that change together do more (or less) to a convolutional network than as many scattered ones. So
        a smooth map without any information need not be at 0, where scattered random cells are; it is here.
        """
        generator = torch.Generator().manual_seed(self.seed + 1)
        references = len(self.universe) // (int(self.claim.samples.max()) + 1)
        found = []
        for keys in self.keys:
            shifts = [int(torch.randint(side, (1,), generator=generator)) for side in self.claim.cells.grid]
            grid = score.reshape(-1, *self.claim.cells.grid).roll(references, 0)
            moved = grid.roll(shifts, tuple(range(1, grid.dim()))).reshape(score.shape)
            found.append(self.claim.curve(ranks(moved, self.universe, keys), self.steps))
        return torch.stack(found).mean(0)

    def best(self, maps: list[Tensor]) -> Tensor:
        """Per row the curve with the largest area: measured, random, or one of ``maps``."""
        return best_of([*maps, self.random, self.measured])

    def _mean(self, score: Tensor, draws: int) -> Tensor:
        found = [self.claim.curve(ranks(score, self.universe, keys), self.steps) for keys in self.keys[:draws]]
        return torch.stack(found).mean(0)


def best_of(curves: list[Tensor]) -> Tensor:
    """Per row the curve with the largest area."""
    stacked = torch.stack(curves)
    chosen = torch.stack([area(curve) for curve in curves]).argmax(0)
    return stacked[chosen, torch.arange(stacked.shape[1])]
