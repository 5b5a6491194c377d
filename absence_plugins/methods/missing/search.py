"""A small set of pieces that crosses the bound: from an order, reduced until no member can go, then exchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.checks import check_choice, check_integer
from absence_plugins.core.memory_layout import PLAIN, Way
from absence_plugins.methods.missing.pasting import Pasting

SMALL = 32  # members from which on several are removed at once
ORDERS = ("relevance", "effects")
POOL, WIDTH = 48, 4  # of the search forward: pieces that are tried, and sets that are kept
PARTS = 12  # after each of which an order is asked for again
SWAPS = 12  # members, and pieces beside them, of which all pairs are exchanged
CHUNK = 1024  # sets that are held at a time


@dataclass(frozen=True, eq=False)
class Search:
    """How long the search for a small set goes on.

    Attributes:
        order: "relevance" (relevance of differences, summed over every piece), "effects" (what every piece does alone
            and as the last one: no gradient is needed), or evidence of your own shaped like x [1, ...], highest first.
        budget: images that the network may be asked about to make a 1-minimal set smaller (other orders, a beam search
            forward, exchanges); 0: relevance and reduction alone.
        proof: images spent on trying *all* sets of one piece, of two, and so on: finds smaller ones, or proves that
            there are none of that size; 0: nothing is proven.
        batch_size: images per forward, at most.
        way: how the network runs while sets are searched (:func:`~absence_plugins.core.memory_layout.find_way`); the
            certificate is read from the network as it is.
    """

    order: Any = "relevance"
    budget: int = 4096
    proof: int = 2048
    batch_size: int = 64
    way: Way = PLAIN

    def __post_init__(self) -> None:
        for name, least in (("budget", 0), ("proof", 0), ("batch_size", 1)):
            check_integer(name, getattr(self, name), least)
        if not isinstance(self.order, Tensor):
            check_choice("order", self.order, ORDERS)


USUAL = Search()


@dataclass(eq=False)
class Budget:
    """How many images may still be asked about."""

    pasting: Pasting
    most: int
    start: int = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.pasting.forwards[0]

    @property
    def left(self) -> int:
        """What is left; below 0 where the last step went beyond."""
        return self.most - (self.pasting.forwards[0] - self.start)


def find_prefix(pasting: Pasting, scores: Tensor) -> Tensor:
    """The shortest prefix of the order by ``scores`` [P], highest first, that crosses the bound: boolean [P].

    All prefixes are asked about, shortest first, as longer ones may cross it back. All pieces together must cross it.
    """
    order = scores.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    for lengths in torch.split(torch.arange(1, len(order) + 1), pasting.batch_size):
        prefixes = rank[None] < lengths[:, None]
        reached = pasting.is_reached(pasting.slack(prefixes))
        if bool(reached.any()):
            return prefixes[int(reached.int().argmax())]
    return torch.ones(len(order), dtype=torch.bool)


def reduce_set(pasting: Pasting, members: Tensor, scores: Tensor) -> Tensor:
    """Leave members [P] out, alone or (of large sets) in groups, until none can go: 1-minimal.

    A group is of the members with the lowest ``scores``; of those that can go, the one that costs least goes first.
    """
    size = max(1, int(members.sum()) // 4)
    while True:
        inside = members.nonzero().flatten()
        cheapest = inside[scores[inside].argsort(stable=True)]
        size = min(size, max(1, len(inside) // 4))
        groups = torch.split(cheapest, size)
        trials = members.expand(len(groups), -1).clone()
        for row, group in enumerate(groups):
            trials[row, group] = False
        slack = pasting.slack(trials)
        reached = pasting.is_reached(slack)
        if bool(reached.any()):
            members = _remove_several(pasting, members, trials, slack.masked_fill(~reached, -torch.inf))
        elif size == 1:
            return members
        else:
            size = size // 2


def _remove_several(pasting: Pasting, members: Tensor, trials: Tensor, slack: Tensor) -> Tensor:
    """The members without the best removal; of a large set without as many of the best as can go together."""
    order = slack.argsort(descending=True, stable=True)
    order = order[torch.isfinite(slack[order])]
    if int(members.sum()) <= SMALL or len(order) < 2:
        return trials[order[0]]
    together = trials[order[:SMALL]].int().cummin(0).values.bool()
    reached = pasting.is_reached(pasting.slack(together))
    reached[0] = True  # the best alone was asked about already
    return together[int(reached.nonzero().max())]


def measure_effects(pasting: Pasting) -> list[Tensor]:
    """What every piece does alone, and as the last one [P]: two orders, and their mean. 2 P images."""
    one = torch.eye(pasting.count, dtype=torch.bool)
    none, whole = pasting.slack(torch.stack([torch.zeros_like(one[0]), torch.ones_like(one[0])])).tolist()
    alone, last = pasting.slack(one) - none, whole - pasting.slack(~one)
    return [alone, last, (alone + last) / 2]


def rescore_set(
    pasting: Pasting, score: Callable[[Tensor], Tensor], most: int, budget: Budget
) -> tuple[Tensor, Tensor] | None:
    """A set of at most ``most`` pieces in an order that is asked for again after every twelfth of them.

    Args:
        pasting: the input and its pieces.
        score: of a half-pasted input [1, ...] the scores of the pieces [P].
        most: pieces.
        budget: images.

    Returns:
        The members [P] and the scores of the last step; None where no such set crosses the bound.
    """
    members = torch.zeros(pasting.count, dtype=torch.bool)
    step = max(1, most // PARTS)
    while int(members.sum()) < min(most, pasting.count) and budget.left > step:
        scores = score(pasting.paste(members[None])).masked_fill(members, -torch.inf)
        pasting.forwards[0] += 2
        order = scores.argsort(descending=True, stable=True)[: min(step, int((~members).sum()))]
        grown = members.expand(len(order), -1).clone()
        for row in range(len(order)):
            grown[row, order[: row + 1]] = True
        reached = pasting.is_reached(pasting.slack(grown))
        if bool(reached.any()):
            return grown[int(reached.int().argmax())], scores
        members = grown[-1]
    return None


def grow_sets(pasting: Pasting, scores: Tensor, most: int, budget: Budget) -> Tensor | None:
    """A set of at most ``most`` pieces that crosses the bound, by a beam search forward; None where there is none.

    The pieces are those with the highest scores; the sets that are kept, those that come nearest to the bound.
    """
    pool = scores.argsort(descending=True, stable=True)[:POOL]
    kept = torch.zeros(1, pasting.count, dtype=torch.bool)
    for _ in range(most):
        grown = kept.repeat_interleave(len(pool), 0)
        pieces = pool.repeat(len(kept))
        fresh = ~grown[torch.arange(len(grown)), pieces]
        grown[torch.arange(len(grown)), pieces] = True
        grown = torch.unique(grown[fresh], dim=0)
        if not len(grown) or len(grown) > budget.left:
            return None
        slack = pasting.slack(grown)
        reached = pasting.is_reached(slack)
        if bool(reached.any()):
            best: Tensor = grown[int(slack.argmax())]
            return best
        kept = grown[slack.argsort(descending=True, stable=True)[:WIDTH]]
    return None


def exchange(pasting: Pasting, members: Tensor, scores: Tensor, budget: Budget) -> Tensor:
    """Exchange members for pieces beside them while that leads further beyond the bound, and leave out what can go.

    Smaller sets always win; the result is 1-minimal.
    """
    slack = float(pasting.slack(members[None]))
    while int(members.sum()) > 1:
        inside, outside = members.nonzero().flatten(), (~members).nonzero().flatten()
        if not len(outside) or len(inside) + len(outside) + SWAPS**2 > budget.left:
            return members
        outside = outside[scores[outside].argsort(descending=True, stable=True)][: max(POOL, 4 * len(inside))]
        added = members.expand(len(outside), -1).clone()
        added[torch.arange(len(outside)), outside] = True
        joining = outside[pasting.slack(added).argsort(descending=True, stable=True)[:SWAPS]]
        leaving = inside[pasting.slack(pasting.without_each(members)).argsort(descending=True, stable=True)[:SWAPS]]
        trials = members.expand(len(joining) * len(leaving), -1).clone()
        rows = torch.arange(len(trials))
        trials[rows, leaving.repeat_interleave(len(joining))] = False
        trials[rows, joining.repeat(len(leaving))] = True
        found = pasting.slack(trials)
        best = trials[int(found.argmax())]
        if float(found.max()) <= slack:
            return members
        fewer = reduce_set(pasting, best, scores)
        members, slack = fewer, float(pasting.slack(fewer[None]))
    return members


def find_smaller(pasting: Pasting, most: int, budget: int) -> tuple[Tensor | None, int]:
    """The smallest set of at most ``most`` pieces, of all there are, as far as ``budget`` images go.

    Returns:
        The set [P], or None, and the size below which no set crosses the bound.
    """
    for size in range(1, most + 1):
        if math.comb(pasting.count, size) > budget:
            return None, size
        budget -= math.comb(pasting.count, size)
        for sets in _all_sets(pasting.count, size):
            slack = pasting.slack(sets)
            if bool(pasting.is_reached(slack).any()):
                return sets[int(slack.argmax())], size
    return None, most + 1


def _all_sets(count: int, size: int) -> Iterator[Tensor]:
    every = combinations(range(count), size)
    while chunk := list(islice(every, CHUNK)):
        sets = torch.zeros(len(chunk), count, dtype=torch.bool)
        yield sets.scatter_(1, torch.tensor(chunk), True)
