"""The search for formulas of highest score: exact for up to two literals, a beam beyond, one formula per truth
vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.candidates import Extensions, Found, Literals
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.measures import Measure
from absence_plugins.methods.invert.pairs import Problem, Rows, search_pairs
from absence_plugins.methods.invert.ranking import Bounds, Ranked, Ranking, rank_distinct
from absence_plugins.methods.invert.scores import CHUNK
from absence_plugins.methods.invert.table import Columns

WIDE = 4  # times as many extensions are scored together as numbers are held elsewhere: labels are unpacked once for all


def search(
    columns: Columns, sums: Tensor, measure: Measure, *, length: int, beam: int, top: int, bounds: Bounds, exact_pairs: bool
) -> list[Ranked]:  # fmt: skip
    """The best distinct formulas of every unit: ``sums`` [U, R] of numbers d per distinct row -> ``top`` each.

    Level 1 is every literal. Level 2 with ``exact_pairs`` is every formula of two literals. A beam extends the best
    ``beam`` formulas that were not extended before by ``AND c``, ``AND NOT c``, ``OR c``, ``OR NOT c``; beside it runs
    a second one that starts from the best pairs, so that the result is never below the first beam's.
    """
    best = [Ranked(top) for _ in sums]
    pool = [Ranking(top + 2 * beam) for _ in sums]
    literal = columns.products(sums, is_whole=measure.is_whole)
    _literals(columns, literal, measure, bounds, pool)
    plain = [ranking.found[:beam] for ranking in pool]
    seeded: list[list[Found]] = [[] for _ in sums]
    walked: list[set[bytes]] = [set() for _ in sums]
    extended: list[set[bytes]] = [set() for _ in sums]
    pairs = [Ranking(top + 2 * beam) for _ in sums] if exact_pairs and length > 1 else []
    for u, ranking in enumerate(pairs):
        ranking.add(pool[u].found)
    rows: Rows = {}
    if pairs:
        rows = search_pairs(Problem(columns, sums, literal, measure, bounds, pairs), beam)
    for u, ranked in enumerate(best):
        ranked.add(pool[u].found)  # on their own: as many pairs can be better by chance, and then push all literals out
        if pairs:
            ranked.add(pairs[u].found)
    if pairs and length == 2:
        return best
    for level in range(2, length + 1):
        wanted = [
            top if level == length else max(top, 3 * beam + len(a) + len(b))
            for a, b in zip(walked, extended, strict=True)
        ]
        sides = [*plain, *seeded] if any(seeded) else plain
        both = _extensions(Problem(columns, sums, literal, measure, bounds, pairs), sides, wanted, rows)
        grown, aside = both[: len(sums)], both[len(sums) :] or [[] for _ in sums]
        for u, ranked in enumerate(best):
            ranked.add((*grown[u], *aside[u]))
            extended[u] |= {one.truth for one in seeded[u]}
            walked[u] |= {one.truth for one in plain[u]}
            plain[u] = [one for one in grown[u] if one.truth not in walked[u]][:beam]
            if pairs:
                following = pairs[u].found if level == 2 else (*grown[u], *aside[u])
                fresh, done = Ranking(beam), extended[u] | walked[u]
                fresh.add(one for one in following if one.truth not in done)
                already = {one.truth for one in plain[u]}
                seeded[u] = [one for one in fresh.found if one.truth not in already]
    return best


def _literals(columns: Columns, total: Tensor, measure: Measure, bounds: Bounds, rankings: Sequence[Ranking]) -> None:
    """Every concept and its NOT."""
    count = torch.cat([columns.count, columns.samples - columns.count])
    values = measure.values(torch.cat([total, -total], 1), count, measure.fired[:, None], bounds.allow(count))
    candidates = Literals(columns)
    for ranking, own in zip(rankings, values, strict=True):
        ranking.add(rank_distinct(columns, own, bounds, -torch.inf, ranking.limit, candidates))


def _extensions(
    problem: Problem, beams: Sequence[Sequence[Found]], wanted: Sequence[int], rows: Rows
) -> list[list[Found]]:
    """The best distinct extensions of formulas by a literal of another concept, if it changes anything.

    Args:
        problem: the units.
        beams: formulas of every unit; or of every unit, and others of every unit.
        wanted: how many, of every unit.
        rows: sums of single concepts, as far as they are known.
    """
    columns, measure, literal = problem.columns, problem.measure, problem.literal
    result: list[list[Found]] = []
    widest = max(1, max(map(len, beams)))
    step = max(1, WIDE * CHUNK // (8 * widest * len(columns)))
    for start in range(0, len(beams), step):
        part = beams[start : start + step]
        if not any(part):
            result += [[] for _ in part]
            continue
        packed = np.stack([np.frombuffer(one.truth, np.uint8) for beam in part for one in beam])
        units = [(start + place) % len(wanted) for place, beam in enumerate(part) for _ in beam]
        owner = torch.tensor(units, device=literal.device)
        formulas = [one.formula for beam in part for one in beam]
        joint = _known(problem, list(zip(units, formulas, strict=True)), rows)
        if joint is None:
            joint = columns.joint(packed, problem.sums, owner, is_whole=measure.is_whole)
        (count, n), (total, s) = ((one[:, :-1], one[:, -1:]) for one in joint)
        c, sc = columns.count, literal[owner]
        counts = torch.stack([count, n - count, n + c - count, columns.samples - c + count], 1)
        totals = torch.stack([total, s - total, s + sc - total, total - sc], 1)
        allowed = problem.bounds.allow(counts) & (counts != n[:, :, None])
        allowed &= ~columns.repeats(formulas)[:, None]
        values = measure.values(totals, counts, measure.fired[owner][:, None, None], allowed)
        at = 0
        for place, own in enumerate(part):
            size, limit = len(own), wanted[(start + place) % len(wanted)]
            candidates = Extensions(columns, own, packed[at : at + size])
            scores = values[at : at + size].flatten()
            result.append(rank_distinct(columns, scores, problem.bounds, -torch.inf, limit, candidates) if own else [])
            at += size
    return result


def _known(problem: Problem, asked: Sequence[tuple[int, Formula]], rows: Rows) -> tuple[Tensor, Tensor] | None:
    """What :meth:`Columns.joint` says of units' formulas, if all are single concepts of which the sums are known."""
    columns = problem.columns
    sides = [(u, columns.column_of[one.name], one) if one.length == 1 else (u, -1, one) for u, one in asked]
    if not all((u, c) in rows for u, c, _ in sides):
        return None
    owner, chosen = (torch.tensor(one, device=problem.sums.device) for one in list(zip(*sides, strict=True))[:2])
    turned = [one != columns.spelled[0][c] for _, c, one in sides]
    made = []
    for joint, single, whole in (
        (columns.shared[chosen].double(), columns.count.expand(len(owner), -1), columns.samples),
        (torch.stack([rows[u, c] for u, c, _ in sides]), problem.literal[owner], 0),
    ):
        own = torch.cat([joint, single.gather(1, chosen[:, None])], 1)
        everything = torch.cat([single, torch.full_like(single[:, :1], whole)], 1)
        made.append(torch.where(torch.tensor(turned, device=owner.device)[:, None], everything - own, own))
    return made[0], made[1]
