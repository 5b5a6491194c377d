"""The search where labels are unknown on some samples, or the score is AUPRC: every formula is scored by itself.

With everything known the other scores follow from sums, and one matrix product scores all formulas. With unknown
samples every formula has ranks of its own, and AUPRC is no such sum at all. Candidates are screened by what is one
(:meth:`Rating.screen`), and the best of them scored exactly. Where all candidates of a level together cost little, all
are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.candidates import Found
from absence_plugins.methods.invert.inputs import Truth
from absence_plugins.methods.invert.ranking import Bounds, Ranked, Ranking
from absence_plugins.methods.invert.rating import Rating
from absence_plugins.methods.invert.scores import CHUNK
from absence_plugins.methods.invert.table import ACROSS, Columns

SCREENED = 1024  # candidates of a level that are scored exactly
CHEAP = 2**26  # of so many samples times candidates all are
MOST = 2**28  # and to certify the best
SLOW = 2**23  # AUPRC, without being asked


@dataclass(frozen=True, eq=False)
class Literals:
    """2 J literals per sample: every column, then every complement.

    Attributes:
        columns: as they are spelled.
        holds: [2 J, n] bool, where a literal is known to hold; it fails where its opposite holds.
    """

    columns: Columns
    holds: Tensor

    @classmethod
    def of(cls, columns: Columns, row_of: Tensor) -> Literals:
        """row_of: the label row of each sample [n]."""
        fails = ~columns.values if columns.fails is None else columns.fails
        return cls(columns, torch.cat([columns.values, fails])[:, row_of])

    @property
    def fails(self) -> Tensor:
        """[2 J, n]."""
        return self.holds.roll(len(self.columns), 0)

    def found(self, index: int, value: float) -> Found:
        """One literal, with its score."""
        side, c = divmod(index, len(self.columns))
        return Found.of(self.columns, self.columns.spelled[side][c], self.columns.sides[side, c].tobytes(), value)

    def truth_of(self, found: Sequence[Found]) -> Truth:
        """Of formulas, per sample [M, n], from their literals."""
        side = {one: (k, c) for k, row in enumerate(self.columns.spelled) for c, one in enumerate(row)}
        names = {one.name: (k, c) for one, (k, c) in side.items() if not one.negated}
        names |= {one.name: (1 - k, c) for one, (k, c) in side.items() if one.negated and one.name not in names}

        def column(name: str) -> Truth:
            k, c = names[name]
            j = len(self.columns)
            return Truth(self.holds[k * j + c], self.holds[(1 - k) * j + c])

        truths = [one.formula.fold(column) for one in found]
        return Truth(torch.stack([one.true for one in truths]), torch.stack([one.false for one in truths]))


def search_known(
    literals: Literals,
    rating: Rating,
    *,
    affords: float = 0.0,
    length: int,
    beam: int,
    top: int,
    bounds: Bounds,
    exact_pairs: bool,
) -> Ranked:
    """The best distinct formulas of one unit.

    affords: samples times formulas up to which all formulas of up to three literals are scored; the gap is then 0.
    """
    best = Ranked(top)
    scores = rating.score(literals.holds, literals.fails)
    allowed = bounds.allow_known(literals.holds.sum(1), literals.fails.sum(1))
    singles = Ranking(2 * len(literals.columns))
    within = (literals.found(i, float(scores[i])) for i in allowed.nonzero()[:, 0].tolist())
    singles.add(one for one in within if bounds.admit(one.formula))
    best.add(singles.found)
    everything = Ranking(2 * len(literals.columns))
    everything.add(literals.found(i, float(scores[i].nan_to_num())) for i in range(len(scores)))
    bases = everything.found if exact_pairs else singles.found[:beam]
    size = literals.holds.shape[1]
    least = (2 * len(literals.columns)) ** min(length, 3) / 4 * size  # at the least, so as not to list pairs in vain
    pairs = everything.found if length < 3 else _all_pairs(literals) if length == 3 and least <= affords else []
    is_proven = bool(pairs) and exact_pairs and len(pairs) * 2 * len(literals.holds) * size <= affords
    best.gap = 0.0 if is_proven else None
    for level in range(2, length + 1):
        if is_proven and level == 3:
            bases = pairs  # whether or not one of them is within the bounds
        if not bases:
            break
        most = affords if is_proven else CHEAP
        grown = extend(literals, bases, rating, bounds, max(top, 4 * beam), most)
        best.add(grown)
        bases = [one for one in grown if one.formula.length == level][: 2 * beam]
    return best


def extend(literals: Literals, bases: Sequence[Found], rating: Rating, bounds: Bounds, wanted: int, most: float) -> list[Found]:  # fmt: skip
    """The best ``wanted`` distinct formulas f AND l, f OR l of ``bases`` f and literals l not in f, scored exactly.

    ``c OR NOT c`` holds wherever c is known: with unknown labels it would filter samples, and say nothing of them.
    Where they are more than ``most`` samples times formulas, only the best ones of a screening are scored.
    """
    truth = literals.truth_of(bases)
    size = literals.holds.shape[1]
    screened, allowed = _screen(literals, truth, rating, bounds)
    allowed &= ~literals.columns.repeats([one.formula for one in bases]).repeat(1, 2)
    index = allowed.flatten().nonzero()[:, 0]
    if len(index) * size > most and len(index) > SCREENED:
        index = index[screened.flatten()[index].topk(SCREENED).indices]
    ranking = Ranking(wanted)
    step = max(1, CHUNK // size)
    for at in range(0, len(index), step):
        part = index[at : at + step]
        op, f, i = _place(part, len(bases), len(literals.holds))
        opposite = (i + len(literals.columns)) % len(literals.holds)
        one, other = truth[f], Truth(literals.holds[i], literals.holds[opposite])
        either = (op == 1)[:, None]
        true = torch.where(either, one.true | other.true, one.true & other.true)
        false = torch.where(either, one.false & other.false, one.false | other.false)
        values = rating.score(true, false).cpu().numpy()
        floor = ranking.found[-1].value if len(ranking.found) == wanted else -np.inf
        _add(ranking, literals, bases, bounds, (op.cpu().numpy(), f.cpu().numpy(), i.cpu().numpy()), values, floor)
    return ranking.found


def _all_pairs(literals: Literals) -> list[Found]:
    """Every formula of two different concepts, once per truth vector; without values."""
    columns = literals.columns
    sides = [(k, c) for k in (0, 1) for c in range(len(columns))]
    found: dict[bytes, Found] = {}
    for (k, c), (m, d) in itertools.combinations(sides, 2):
        if c == d:
            continue
        one, other = columns.spelled[k][c], columns.spelled[m][d]
        first, second = columns.sides[k, c], columns.sides[m, d]
        for formula, truth in ((one & other, first & second), (one | other, first | second)):
            found.setdefault(truth.tobytes(), Found.of(columns, formula, truth.tobytes(), 0.0))
    return list(found.values())


def _add(
    ranking: Ranking, literals: Literals, bases: Sequence[Found], bounds: Bounds, place: tuple[Array, Array, Array], values: Array, floor: float
) -> None:  # fmt: skip
    """Spell the candidates that reach ``floor``, have support, and are not what a literal or their base says
    already.
    """
    columns, j = literals.columns, len(literals.columns)
    kept: dict[bytes, Found] = {}
    for n in np.argsort(-values, kind="stable"):
        if values[n] < floor:
            break
        op, base, i = int(place[0][n]), bases[place[1][n]], int(place[2][n])
        side, c = divmod(i, j)
        own, literal = np.frombuffer(base.truth, np.uint8), columns.sides[side, c]
        truth = (own | literal if op else own & literal).tobytes()
        if truth in (base.truth, literal.tobytes()):
            continue
        formula = base.formula | columns.spelled[side][c] if op else base.formula & columns.spelled[side][c]
        made = Found.of(columns, formula, truth, float(values[n]))
        if (truth not in kept or made.key < kept[truth].key) and bounds.admit(made.formula):
            kept[truth] = made
        if len(kept) == ranking.limit:
            floor = max(floor, float(values[n]))
    ranking.add(kept.values())


def _place(index: Tensor, bases: int, literals: int) -> tuple[Tensor, Tensor, Tensor]:
    """Operator (0 AND, 1 OR), base and literal of candidates by number."""
    return index // (bases * literals), index // literals % bases, index % literals


def _screen(literals: Literals, truth: Truth, rating: Rating, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Of all candidates [2, M, 2 J]: what they are screened by, and whether they lie within the bounds."""
    j, bases = len(literals.columns), len(truth.true)
    single = [one[:, 0][None] for one in _sum_shared(literals.holds, rating.numbers)]
    shared = _sum_shared(torch.cat([truth.true, truth.false]), rating.numbers, literals.holds)
    both = {}
    for name, part in (("true", slice(0, bases)), ("false", slice(bases, None))):
        count, total = (one[part, :-1] for one in shared)
        own = [one[part, -1:] for one in shared]
        either = own[0] + single[0] - count, own[1] + single[1] - total
        both[name] = (count, total), either
    # AND holds where both hold and fails where either fails, that is, where the opposite literal holds; OR the other
    # way
    (and_true, or_true), (or_false, and_false) = both["true"], both["false"]
    turned = [tuple(one.roll(j, 1) for one in pair) for pair in (and_false, or_false)]
    counts = torch.stack([and_true[0], or_true[0]]), torch.stack([turned[0][0], turned[1][0]])
    totals = torch.stack([and_true[1], or_true[1]]), torch.stack([turned[0][1], turned[1][1]])
    return rating.screen(counts, totals), bounds.allow_known(*counts)


def _sum_shared(mask: Tensor, numbers: Tensor, holds: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Samples on which masks [M, n] and literals [2 J, n] hold, and their sum of numbers [n]: [M, 2 J + 1] each, the
    last column that of the mask alone.
    """
    count = torch.zeros(len(mask), 1 + (0 if holds is None else len(holds)), dtype=torch.float64, device=mask.device)
    total = torch.zeros_like(count)
    for at in range(0, mask.shape[1], ACROSS):
        part = slice(at, at + ACROSS)
        one = mask[:, part].double()
        others = torch.ones_like(one[:1]) if holds is None else holds[:, part].double()
        if holds is not None:
            others = torch.cat([others, torch.ones_like(others[:1])])
        count += one @ others.T
        own = numbers[part]
        total += (one * own) @ others.T if len(one) <= len(others) else one @ (others * own).T
    return count, total
