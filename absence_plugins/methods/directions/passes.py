"""Sources one after another: what is significant on held-out positions is kept and taken out, and the rest is searched.

All in whitened coordinates z, where the filters of independent sources are orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.methods.directions.histograms import bin_centers, count_values, find_bins
from absence_plugins.methods.directions.polish import fit_scores, orthogonalize, polish, sum_over

SIGNIFICANT = 5.0  # standard errors
HELD_OUT = 0.2  # share of the positions
STARTS, FARTHEST = 4, 4  # searches per wanted direction and pass, drawn from so many times as many positions
STEPS = 12  # of a search
ALIKE = 0.5  # cosine of two filters that found the same
CUBIC_ROUNDS, POLISH_ROUNDS = 20, 10
MOST_PASSES = 20
ROWS = 8192


@dataclass(frozen=True, eq=False)
class Sample:
    """Whitened positions to search in, [P, R], and held-out ones [Q, R]."""

    train: Tensor
    held: Tensor

    @classmethod
    def split(cls, positions: Tensor) -> Sample:
        """The first ones are held out."""
        held = max(1, int(HELD_OUT * len(positions)))
        return cls(positions[held:], positions[:held])


@dataclass(frozen=True, eq=False)
class Search:
    """How far a search has come.

    Attributes:
        w: orthonormal filters [R, R], those of significant sources first.
        count: the number of significant sources.
        passes: so far.
        fruitless: how many of the last ones found no further source.
    """

    w: Tensor
    count: int = 0
    passes: int = 0
    fruitless: int = 0

    @property
    def is_done(self) -> bool:
        """All sources are found, or nothing more is."""
        return self.count == len(self.w) or self.passes >= MOST_PASSES or self.fruitless >= 2


def find_sources(
    sample: Sample,
    wanted: int,
    seed: int,
    search: Search | None = None,
    *,
    keep: Callable[[Search], object] = lambda search: None,
    tick: Callable[[], object] = lambda: None,
) -> Search:
    """Filters of all sources that are significant on the held-out positions, and the best ones for the rest.

    Every pass fills what the known sources leave with new starts, polishes all together, and sees whose score functions
    beat that of a normal distribution on the held-out positions.

    Args:
        sample: of whitened positions.
        wanted: directions; the more, the more searches a pass begins.
        seed: the same seed gives the same bits, also where a search is resumed.
        search: to go on from.
        keep: is called after every pass.
        tick: is called after every round of polishing.
    """
    train = torch.split(sample.train, ROWS)
    if search is None:
        search = Search(torch.eye(sample.train.shape[1], dtype=sample.train.dtype, device=sample.train.device))
    while not search.is_done:
        generator = torch.Generator().manual_seed(seed * MOST_PASSES + search.passes)
        known = search.w[:, : search.count]
        basis = find_complement(known)
        y = sample.train @ basis
        start = start_cubic(y, generator) if search.passes % 2 else start_skewed(y, STARTS * wanted, generator)
        w = polish(train, orthogonalize(torch.cat([known, basis @ start], 1)), POLISH_ROUNDS, tick=tick)
        gains = measure_gains(sample.train @ w, sample.held @ w)
        count = int((gains > SIGNIFICANT).sum())
        fruitless = 0 if count > search.count else search.fruitless + 1
        search = Search(w[:, gains.argsort(descending=True, stable=True)], count, search.passes + 1, fruitless)
        keep(search)
    return search


def find_complement(w: Tensor) -> Tensor:
    """An orthonormal basis [R, R - k] of what orthonormal filters [R, k] leave."""
    rank, known = w.shape
    full = torch.cat([w, torch.eye(rank, dtype=w.dtype, device=w.device)], 1).double()
    basis: Tensor = torch.linalg.qr(full).Q[:, known:rank]
    return basis.to(w.dtype)


def start_skewed(y: Tensor, starts: int, generator: torch.Generator) -> Tensor:
    """Orthonormal filters [r, r], first those of the largest third moments that searches in whitened y [P, r] find."""
    far = y.norm(dim=1).topk(min(len(y), FARTHEST * starts)).indices
    drawn = torch.randperm(len(far), generator=generator)[:starts]
    w = climb_skewness(y, F.normalize(y[far[drawn.to(far.device)]].T, dim=0))
    w = choose_distinct(w, sum_over((part @ w).double().pow(3).sum(0) for part in torch.split(y, ROWS)))
    return orthogonalize(torch.cat([w, find_complement(orthogonalize(w))], 1))


def start_cubic(y: Tensor, generator: torch.Generator) -> Tensor:
    """Orthonormal filters [r, r] of extreme fourth moments in whitened y [P, r], from a random turn: all at once."""
    size = y.shape[1]
    w = orthogonalize(torch.randn(size, size, generator=generator, dtype=torch.float64).to(y))
    for _ in range(CUBIC_ROUNDS):
        pulled = sum_over(part.T @ (part @ w) ** 3 for part in torch.split(y, ROWS)) / len(y)
        w = orthogonalize(pulled - 3 * w)
    return w


def climb_skewness(y: Tensor, w: Tensor) -> Tensor:
    """w <- E[y (w.y)^2] - 2 w E[w.y], normalized, some steps: whitened y [P, r], w [r, k] of unit norm."""
    for _ in range(STEPS):
        sums = [_second(part, w) for part in torch.split(y, ROWS)]
        pulled, means = (sum_over(part) / len(y) for part in zip(*sums, strict=True))
        w = F.normalize(pulled - 2 * w * means, dim=0)
    return w


def _second(y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    u = y @ w
    return y.T @ (u * u), u.sum(0)


def choose_distinct(w: Tensor, size: Tensor) -> Tensor:
    """Columns of w [r, k], those of the largest ``size`` [k] first, each once, at most r."""
    order = size.argsort(descending=True, stable=True)
    alike = ((w[:, order].T @ w[:, order]) > ALIKE).cpu()
    chosen: list[int] = []
    for number in range(len(order)):
        if len(chosen) < len(w) and not bool(alike[number, chosen].any()):
            chosen.append(number)
    return w[:, order[chosen]]


def measure_gains(train: Tensor, held: Tensor) -> Tensor:
    """By how much score functions fitted on u [P, k] beat that of a normal distribution on held-out u [Q, k].

    In standard errors, per column. The gain is E[g'] - E[g^2]/2 - 1/2, 0 for g(u) = u.
    """
    scores, _ = fit_scores(count_values(train))
    slopes = torch.diff(scores, dim=1) / torch.diff(bin_centers(train))
    slopes = torch.cat([slopes, slopes[:, -1:]], 1)
    bins = find_bins(held).T
    gains = slopes.gather(1, bins) - scores.gather(1, bins) ** 2 / 2 - 0.5
    significance: Tensor = gains.mean(1) / (gains.std(1) / bins.shape[1] ** 0.5)
    return significance.to(held.dtype)
