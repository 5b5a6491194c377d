"""``precision="bf16"``: the candidates that a fast scan found, scored again in full precision, and what may be missing."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.patches.images import image_at
from absence_plugins.methods.patches.scoring import Scorer
from absence_plugins.methods.patches.shards import SIDES, State, gather_states
from absence_plugins.methods.patches.windows import NOWHERE, RunningExtremes, positions_of
from absence_plugins.methods.ranks import ranks

RESCORED = 64  # candidates per unit and side that precision="bf16" scores again
SHOWN = 6  # units in a warning


def rescore(scorer: Scorer, state: State, dataset: Any, k: int) -> None:
    """Put the k best of the candidates in their place, by their values in full precision; the ranks share the
    images. Warns of units of which a window that was left out may belong to them.
    """
    scorer.is_fast = False
    rough = {side: getattr(state, side) for side in SIDES}
    for side, sign in SIDES.items():
        setattr(state, side, _score_again(scorer, rough[side].take(rough[side].width - 1), dataset, sign))
    gather_states(state)
    unsure: dict[int, float] = {}
    for side in SIDES:
        found = getattr(state, side)
        off, rounding = may_miss(rough[side], found, k)
        for row in off.nonzero()[:, 0].tolist():
            unsure[scorer.units[row]] = max(unsure.get(scorer.units[row], 0.0), float(rounding[row]))
        setattr(state, side, found.take(k))
    if unsure and ranks()[0] == 0:
        _warn_unsure(unsure, len(scorer.units))


def _score_again(scorer: Scorer, part: RunningExtremes, dataset: Any, sign: int) -> RunningExtremes:
    """This rank's share of the candidates, by their values in full precision."""
    rank, world = ranks()
    best = RunningExtremes(len(scorer.units), part.width, scorer.device)
    wanted = part.keys.cpu()
    keys = torch.unique(wanted[wanted != NOWHERE])
    images = positions_of(keys)[:, 0]
    for number in torch.unique(images).tolist()[rank::world]:
        own = keys[images == number]
        values = scorer.values([image_at(dataset, number)], [positions_of(own)[:, 1:]])[:, list(scorer.units)].T * sign
        is_wanted = (wanted[:, :, None] == own).any(1)
        values = values.masked_fill(~is_wanted.to(values.device), -torch.inf)
        best.update(values, torch.where(is_wanted, own, NOWHERE))
    return best


def may_miss(rough: RunningExtremes, exact: RunningExtremes, k: int) -> tuple[Tensor, Tensor]:
    """Units of which a window that was not scored again may belong to the k best, and how far values were rounded: both
    [units].

    A window that was left out has at most the rounded score of the first of them, plus a rounding. Where the k-th exact
    score is higher than that, with the largest rounding of the unit's candidates, none is missing.

    Args:
        rough: the best windows by rounded scores; the last of them is the first that was left out.
        exact: those but the last one, by exact scores.
        k: that are wanted.

    >>> rough, exact = RunningExtremes(1, 3), RunningExtremes(1, 2)
    >>> rough.update(torch.tensor([[4.0, 2.0, 1.5]]), torch.arange(3))
    >>> exact.update(torch.tensor([[4.1, 2.0]]), torch.arange(2))
    >>> may_miss(rough, exact, 1)[0].tolist(), may_miss(rough, exact, 2)[0].tolist()
    ([False], [False])
    >>> exact.scores[0, 1] = 1.55  # which was rounded by 0.45
    >>> may_miss(rough, exact, 2)[0].tolist()
    [True]
    """
    left_out, candidates = rough.scores[:, -1], rough.take(rough.width - 1)
    by_key = (part.keys.sort(dim=1) for part in (candidates, exact))
    before, after = (part.scores.gather(1, order) for part, (_, order) in zip((candidates, exact), by_key, strict=True))
    rounding = torch.where(before > -torch.inf, before - after, 0.0).abs().amax(1)
    worst = exact.scores[:, k - 1]
    is_safe = (left_out == -torch.inf) | (worst > left_out + rounding) | ((rounding == 0) & (worst >= left_out))
    return ~is_safe, rounding


def _warn_unsure(unsure: dict[int, float], count: int) -> None:
    """unsure: units and the largest rounding of their values."""
    shown = ", ".join(map(str, list(unsure)[:SHOWN])) + (", ..." if len(unsure) > SHOWN else "")
    warnings.warn(
        f"precision='bf16': of {len(unsure)} of {count} units ({shown}) a patch that was not scored again may belong to "
        f"the best: it lies closer to them than bf16 rounds (by up to {max(unsure.values()):.2g}). Their scores are right, "
        "but others may be missing; scan these units with precision='exact'",
        AbsenceWarning,
        stacklevel=4,
    )
