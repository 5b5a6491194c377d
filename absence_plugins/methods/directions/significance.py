"""Is an effect more than chance? Sign flips, random directions, and a correction for many tests."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from scipy import stats
from torch import Tensor

from absence_plugins.core import AbsenceWarning

Correction = Literal["bh", "bonferroni"]
FLIPS, COLUMNS = 256, 4096  # sign vectors and pairs of direction and output at a time


def flip_signs(
    each: Tensor,
    n_permutations: int,
    generator: torch.Generator,
    tick: Callable[[int], object] = lambda count: None,
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean [I, K] of effects [N, I, K], and two-sided p: how often random signs give a mean as large.

    ``groups`` [N], numbers from 0: images that are not independent have one sign together. In float64, some columns at
    a time; ``tick`` is told of how many columns more are done.

    >>> mean, p = flip_signs(torch.ones(20, 1, 1), 99, torch.Generator().manual_seed(0))
    >>> float(mean), float(p)
    (1.0, 0.01)
    """
    flat = each.flatten(1)
    count = len(flat)
    alone = count if groups is None else int(groups.max()) + 1
    drawn = [
        torch.randint(0, 2, (min(FLIPS, n_permutations - done), alone), generator=generator, dtype=torch.int8) * 2 - 1
        for done in range(0, n_permutations, FLIPS)
    ]
    means, ps = [], []
    for columns in torch.split(flat, COLUMNS, 1):
        part = columns.double()
        close = 1e-12 * part.abs().amax(0)  # sums in another order differ by less
        observed, exceed = part.mean(0), torch.zeros(part.shape[1], dtype=torch.float64, device=part.device)
        if groups is not None:
            part = part.new_zeros(alone, part.shape[1]).index_add_(0, groups.to(part.device), part)
        for signs in drawn:
            exceed += ((signs.to(part) @ part / count).abs() >= observed.abs() - close).sum(0)
        means.append(observed)
        ps.append((1 + exceed) / (1 + n_permutations))
        tick(part.shape[1])
    return torch.cat(means).reshape(each.shape[1:]), torch.cat(ps).reshape(each.shape[1:])


def compare_with_random(scores: Tensor, directions: int) -> tuple[Tensor, Tensor]:
    """Scores [I + permutations, K] -> the directions' own [I, K], and p: how often a random direction scores as
    high.
    """
    effect, null = scores[:directions], scores[directions:]
    exceed = torch.stack([(null.abs() >= row.abs() - 1e-12).sum(0) for row in effect])
    return effect, (1.0 + exceed) / (1.0 + len(null))


def warn_of_few(independent: int, what: str, tests: int, correction: Correction, level: float) -> None:
    """Warn where the signs of so few independent images or groups allow no q at or below the level."""
    factor = tests if correction == "bonferroni" else 1
    least = min(1.0, factor * 2.0 ** (1 - independent))
    if least > level:
        needed = math.ceil(1 + math.log2(factor / level))
        warnings.warn(
            f"{independent} {what} are too few: the least possible q of their sign flips is {least:.2g}, above "
            f"level={level:g}; pass at least {needed} {what}",
            AbsenceWarning,
            stacklevel=3,
        )


def correct(p: Tensor, correction: Correction, level: float, n_permutations: int) -> Tensor:
    """q [I, K] over all tests. Raises ValueError if no p could be small enough."""
    tests = p.numel()
    if correction == "bh":
        return torch.from_numpy(stats.false_discovery_control(p.numpy().ravel()).reshape(p.shape))
    if tests / (n_permutations + 1) > level:
        raise ValueError(
            f"n_permutations={n_permutations} can reject nothing in {tests} tests with Bonferroni's correction; pass "
            f"at least {int(tests / level)}, or correction='bh'"
        )
    return (p * tests).clamp(max=1)
