"""Which pairs of concepts can be among the best of a unit: from a sample of the label rows, with bounds on its error.

With a and b the truths of two concepts, p the shares of the samples on which they hold, and x = d / N, which add up to
0 over the samples, the sum that scores their four ANDs (and, as complements, ORs) is

    mean(x a b) = mean(x (a - p_a) (b - p_b)) + p_a mean(x b) + p_b mean(x a).

The last two are known from the literals. The first is estimated from m samples, drawn with replacement, by one product
of 8-bit integers, N / m times smaller than that of all samples. How far it can be off is Bernstein's inequality: with
|x (a - p_a) (b - p_b)| <= c and mean square v,

    |estimate - mean| <= t + sqrt(t^2 + 2 L v / m), t = L c / (3 m),    except with probability 2 exp(-L).

L = 50 makes that 4e-22 per pair, below 1e-12 for all pairs of 1,000 concepts and 2,048 units together: less than what
equal digests of different truth vectors are trusted with. c and v are bounds that hold for any unit: how often both
hold is counted once, exactly, and at worst the largest |x| meet the largest (a - p_a) (b - p_b). A pair whose upper
bound is below the worst formula that is kept already is left out; all others are scored exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.drawn import LEVELS
from absence_plugins.methods.invert.ranking import Bounds
from absence_plugins.methods.invert.table import Columns

LOG = 50.0  # L
ROUNDING = 4e-6  # of sums in float32, of numbers up to 1
ACROSS = 128  # columns screened at a time
LISTED = 2**18  # pairs of a list screened at a time
LOOKED = 2**12  # pairs of which the share that will be left is estimated


@dataclass(frozen=True, eq=False)
class Margins:
    """Of a table of pairs [k, l] or a list of them [P], in shares of N and N^2: the same for all units.

    Attributes:
        need: 2 p (1 - p) of the four ANDs [4, ...], infinite where neither it nor its complement is allowed.
        scale: from a sum over the sample to the estimate; 0 where 0 is the better estimate.
        error: how far the estimate can be off, for |x| up to 1.
        first, second: p of the columns, [k, 1] and [1, l], or [P].
    """

    need: Tensor
    scale: Tensor
    error: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, columns: Columns, a: Tensor, b: Tensor, both: Tensor, bounds: Bounds, samples: int) -> Margins:
        """Of columns a and b, of shapes that go together, that hold on ``both`` samples, from so many drawn."""
        n = columns.samples
        count, sides = count_cells(both, columns.count[a], columns.count[b], n)
        allowed = bounds.allow(count) | bounds.allow(n - count)
        for side in sides:
            allowed &= count < side
        allowed &= count > 0
        share = count / n
        need = torch.where(allowed, 2 * share * (1 - share), torch.inf).float()
        p, q = columns.count[a] / n, columns.count[b] / n
        apart = torch.stack([(1 - p) * (1 - q), (1 - p) * q, p * (1 - q), p * q])  # |(a - p) (b - q)| in the cells
        largest, order = apart.sort(0, descending=True)
        upto = share.gather(0, order).cumsum(0).clamp(max=1)
        squares = (1 - (1 - upto) ** 3) / 3  # of so large a part of the samples, those of the largest |x|
        worst = (squares.diff(dim=0, prepend=torch.zeros_like(squares[:1])) * largest.square()).sum(0)
        mean = (share * apart).sum(0)
        root = worst.sqrt() + (share * apart.square()).sum(0).sqrt() / (2 * LEVELS)  # x is rounded
        tail = largest[0] * LOG / (3 * samples)
        error = tail + (tail.square() + root.square() * 2 * LOG / samples).sqrt() + mean / (2 * LEVELS)
        is_drawn = error < mean
        scale = is_drawn / (LEVELS * samples)
        error = torch.where(is_drawn, error, mean) + ROUNDING
        return cls(need, scale.float(), error.float(), p.float(), q.float())

    def reach(self, drawn: Tensor, edges: tuple[Tensor, Tensor, Tensor], literals: tuple[Tensor, Tensor], floor: float) -> Tensor:  # fmt: skip
        """Which pairs can have a score of ``floor``, above 0.

        Args:
            drawn: sums of x over the sample, in levels, where both columns hold; overwritten.
            edges: the same where the first holds, where the second does, and of all.
            literals: means of x where one holds, of all samples.
            floor: the score asked for.
        """
        (one, other, all_of), (left, right) = edges, literals
        drawn.sub_(one * self.second).sub_(self.first * (other - self.second * all_of)).mul_(self.scale)
        drawn.add_(left * self.second).add_(self.first * right)
        best = drawn.abs().sub_(self.need[0], alpha=floor)
        for cell, total in ((1, left - drawn), (2, right - drawn), (3, drawn - left - right)):
            torch.maximum(best, total.abs_().sub_(self.need[cell], alpha=floor), out=best)
        return best.add_(self.error) >= 0


def count_cells(both: Tensor, a: Tensor, b: Tensor, samples: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Samples in the cells a AND b, a AND NOT b, NOT a AND b, NOT a AND NOT b, [4, ...], and on the cells' two sides."""
    count = torch.stack([both, a - both, b - both, samples - a - b + both])
    first = torch.stack([one.expand(both.shape) for one in (a, a, samples - a, samples - a)])
    second = torch.stack([one.expand(both.shape) for one in (b, samples - b, b, samples - b)])
    return count, (first, second)


class Screen:
    """Screens the pairs of all columns for a block of units.

    Args:
        columns: the concepts searched.
        sums: [U, R] rank numbers d per distinct label row, and their sums over the columns,
        literal: [U, J].
        bounds: on how many samples a formula must hold.
        samples: m.
    """

    def __init__(self, columns: Columns, sums: Tensor, literal: Tensor, bounds: Bounds, samples: int) -> None:
        self.columns, self.bounds = columns, bounds
        self.drawn = columns.draw(samples)
        n = columns.samples
        means = sums[:, self.drawn.index] / columns.weight[self.drawn.index]
        self.levels = (means * (LEVELS / n)).round().to(torch.int8)
        self.edges = self.drawn.multiply(self.levels, self.drawn.truths)
        self.literal = (literal / float(n) ** 2).float()

    def expect(self, unit: int, pairs: Tensor | None, floor: float) -> float:
        """About which share of a unit's pairs [2, P] (None: of all) would be left, were they as their literals say."""
        if pairs is None:
            j, rng = len(self.columns), np.random.default_rng(0)
            pairs = torch.from_numpy(rng.integers(0, j, (2, LOOKED))).to(self.levels.device)
        a, b = pairs[:, :: max(1, pairs.shape[1] // LOOKED)]
        margins = self._margins(a, b)
        blind = replace(margins, scale=torch.zeros_like(margins.scale))
        return float(self._reach(unit, blind, torch.zeros_like(margins.error), a, b, floor).float().mean())

    def pairs(self, units: Sequence[int], floors: Sequence[float]) -> list[Tensor]:
        """Of units the columns [2, P] of pairs, the first one earlier, that can reach their floor, above 0."""
        j = len(self.columns)
        found: list[list[Tensor]] = [[] for _ in floors]
        everything = torch.arange(j, device=self.levels.device)
        for start in range(0, j - 1, ACROSS):
            a, b = everything[start : start + ACROSS, None], everything[None, start:]
            margins = self._margins(a, b)
            margins.need.masked_fill_(a >= b, torch.inf)
            truths, later = self.drawn.truths[start : start + len(a)], self.drawn.truths[start:j]
            for own, u, floor in zip(found, units, floors, strict=True):
                product = self.drawn.multiply(truths * self.levels[u], later)
                own.append(self._reach(u, margins, product, a, b, floor).nonzero().T + start)
        return [torch.cat(parts, 1) for parts in found]

    def among(self, unit: int, pairs: Tensor, cover: Sequence[int], floor: float) -> Tensor:
        """Of a unit's pairs [2, P] those that can reach the floor; cover: columns of which every pair has one."""
        rows = torch.tensor(sorted(cover), device=pairs.device)
        is_row = torch.zeros(len(self.columns), dtype=torch.bool, device=pairs.device)
        is_row[rows] = True
        row, other = torch.where(is_row[pairs[0]], pairs, pairs.flip(0))
        met = torch.unique(other)
        truths, levels = self.drawn.truths, self.levels[unit]
        right = truths.index_select(0, met)
        parts = [rows[at : at + ACROSS] for at in range(0, len(rows), ACROSS)]
        product = torch.cat([self.drawn.multiply(truths.index_select(0, own).mul_(levels), right) for own in parts])
        drawn = product[torch.searchsorted(rows, row), torch.searchsorted(met, other)]
        kept = []
        for at in range(0, pairs.shape[1], LISTED):
            part, own = pairs[:, at : at + LISTED], drawn[at : at + LISTED]
            first, second = part
            kept.append(part[:, self._reach(unit, self._margins(first, second), own, first, second, floor)])
        return torch.cat([pairs[:, :0], *kept], 1)

    def _margins(self, a: Tensor, b: Tensor) -> Margins:
        return Margins.of(self.columns, a, b, self.columns.shared[a, b].double(), self.bounds, len(self.drawn))

    def _reach(self, unit: int, margins: Margins, product: Tensor, a: Tensor, b: Tensor, floor: float) -> Tensor:
        edge, literal = self.edges[unit], self.literal[unit]
        return margins.reach(product, (edge[a], edge[b], edge[-1]), (literal[a], literal[b]), floor)
