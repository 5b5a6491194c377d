"""Gains of a claim along orders: of maps, at random, transplanted, and the best that was found."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.methods.faithfulness.claims import Claim, area, fractions, has_ties, ranks

PEAK_POINTS = 48  # of the full range, at which the peak of an order is looked for
REACHED = 0.9  # of that peak, where curves end: the way from there to the peak takes up to 20 times as many cells


class Curves:
    """Curves [N, steps + 1] of one claim, all with the same random keys.

    They end where the measured order that gets furthest has reached 90 % of its peak: from there on little is left that
    moves the unit the claimed way, and the order of the rest says nothing about the claim. (Up to the peak itself there
    may be hundreds of cells with tiny effects; then any order that changes the key in the first fifth scores well.)

    ``random``: the mean of ``draws`` random orders of single cells. ``measured``: per row the best of the orders by
    effects measured on the network.
    """

    def __init__(self, claim: Claim, steps: int, draws: int, seed: int) -> None:
        self.claim, self.seed, self.universe = claim, seed, claim.universe
        generator = torch.Generator().manual_seed(seed)
        self.keys = torch.rand(draws, *self.universe.shape, generator=generator, dtype=torch.float64)
        orders = [ranks(effects, self.universe, self.keys[0]) for effects in claim.effects]
        self.counts = self._counts(orders)
        self.steps = max(1, min(steps, int(self.counts.max())))  # finer than the cells says nothing more
        self.random = self._mean(torch.zeros(self.universe.shape), draws)
        self.measured = best_of([self._curve(order) for order in orders])

    def _counts(self, orders: list[Tensor]) -> Tensor:
        """The cells up to 90 % of the highest peak of the orders, of every row [N]; all where none gains anything; at
        least one.
        """
        whole = self.universe.sum(1)
        limits = fractions(whole, max(1, min(PEAK_POINTS, int(whole.max()))))
        gains = torch.stack([self.claim.along(order, limits) for order in orders])  # [orders, N, points]
        best = gains.amax(2).argmax(0)
        row = torch.arange(len(whole))
        furthest = gains[best, row]
        peak = furthest.amax(1)
        point = (furthest >= REACHED * peak[:, None]).int().argmax(1)  # the first such point
        tiny = 1e-9 + 1e-6 * (self.claim.start.abs().max() + gains.abs().max())
        return torch.where(peak > tiny, limits[row, point], whole).clamp(min=1)

    def of_map(self, score: Tensor) -> Tensor:
        """The curve of an order by ``score`` [N, cells], highest first; the mean over the tie-breakings where there are
        ties.
        """
        return self._mean(score, len(self.keys) if has_ties(score, self.universe) else 1)

    def placebo(self, score: Tensor) -> Tensor:
        """The mean curve of the map as it looks, but where it says nothing: another row's map, shifted at random.

        Neighboring cells that change together do more (or less) to a convolutional network than as many scattered ones.
        So a smooth map without any information need not be at 0, where scattered random cells are; it is here.
        """
        generator = torch.Generator().manual_seed(self.seed + 1)
        references = len(self.universe) // (int(self.claim.samples.max()) + 1)
        found = []
        for keys in self.keys:
            shifts = [int(torch.randint(side, (1,), generator=generator)) for side in self.claim.cells.grid]
            grid = score.reshape(-1, *self.claim.cells.grid).roll(references, 0)
            moved = grid.roll(shifts, tuple(range(1, grid.dim()))).reshape(score.shape)
            found.append(self._curve(ranks(moved, self.universe, keys)))
        return torch.stack(found).mean(0)

    def best(self, maps: list[Tensor]) -> Tensor:
        """Per row the curve with the largest area: measured, random, or one of ``maps``."""
        return best_of([*maps, self.random, self.measured])

    def _mean(self, score: Tensor, draws: int) -> Tensor:
        return torch.stack([self._curve(ranks(score, self.universe, keys)) for keys in self.keys[:draws]]).mean(0)

    def _curve(self, order: Tensor) -> Tensor:
        gains = self.claim.along(order, fractions(self.counts, self.steps))
        return torch.cat([gains.new_zeros(len(gains), 1), gains], 1)


def best_of(curves: list[Tensor]) -> Tensor:
    """Per row the curve with the largest area."""
    stacked = torch.stack(curves)
    chosen = torch.stack([area(curve) for curve in curves]).argmax(0)
    return stacked[chosen, torch.arange(stacked.shape[1])]
