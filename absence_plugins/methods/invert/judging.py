"""What a formula found on the searched samples is worth on the held-out ones: AUC, p, q, and the same of every NOT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.stats import false_discovery_control, norm
from torch import Tensor

from absence_plugins.methods.invert.bits import Array, Bits, unpack
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.groups import average, center_ranks, collapse, strata_of
from absence_plugins.methods.invert.inputs import Truth
from absence_plugins.methods.invert.parts import Part, Score
from absence_plugins.methods.invert.results import Negation, ScoredFormula
from absence_plugins.methods.invert.scores import rank_ties
from absence_plugins.methods.invert.significance import Distinct, permutation_p, ranks_p
from absence_plugins.methods.invert.ties import Ties


@dataclass(frozen=True, eq=False)
class HeldOut:
    """One unit on the held-out samples.

    Attributes:
        part: which samples these are.
        order: their numbers, in rising order of the unit's activation [n]. Everything below is in this order.
        ranks: their rank numbers d [n].
        rows: truth of the concepts per label row.
        place: a concept's column.
    """

    part: Part
    order: Array
    ranks: Array
    rows: Bits
    place: dict[str, int]
    truths: dict[Formula, Truth] = field(default_factory=dict)
    moved: dict[Formula, Array] = field(default_factory=dict)
    scored: dict[Formula, tuple[float | None, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, part: Part, values: Tensor, rows: Bits, place: dict[str, int]) -> HeldOut:
        """Of activations [n], which are high where a formula should hold."""
        order, centered, counts = (one.cpu().numpy() for one in rank_ties(values))
        return cls(part, order, np.repeat(centered, counts), rows, place)

    @cached_property
    def row_of(self) -> Array:
        """The label row of each [n]."""
        return self.part.own_rows.take(self.order)

    @cached_property
    def groups(self) -> Array | None:
        """The group of each [n]."""
        return None if self.part.groups is None else self.part.groups[self.order]

    def truth(self, formula: Formula) -> Truth:
        """Per sample [n]; of concepts that are looked up once."""
        if formula not in self.truths:
            if formula.length == 1 and not formula.negations:
                self.truths[formula] = self._look_up(formula.name)
            else:
                folded: Truth = formula.fold(lambda name: self.truth(Formula(name)))
                self.truths[formula] = replace(folded, complete=self.rows.false is None)
        return self.truths[formula]

    def _look_up(self, name: str) -> Truth:
        """A concept's truth."""
        k, size = self.place[name], self.rows.size
        true = unpack(self.rows.true[k], size).take(self.row_of)
        if self.rows.false is None:
            return Truth(true, ~true, complete=True)
        return Truth(true, unpack(self.rows.false[k], size).take(self.row_of))

    @cached_property
    def collapsed(self) -> Array:
        """Rank numbers of the groups."""
        return collapse(self.ranks, self.groups)

    @cached_property
    def ties(self) -> Ties:
        """Which samples have the same rank number."""
        return Ties.of(self.ranks)

    @cached_property
    def middle(self) -> Array:
        """How many samples are below each, those of its tie counted half [n]."""
        middle: Array = (self.ranks + len(self.ranks)) / 2
        return middle

    @cached_property
    def everyone(self) -> Distinct:
        """The rank numbers of all."""
        if self.groups is not None:
            return Distinct.of(self.collapsed)
        return Distinct(self.ranks, self.ranks[self.ties.starts], self.ties.counts)

    def rank_again(self, chosen: Array) -> Distinct:
        """Rank numbers of some of the samples [n] bool, among these: as :func:`center_ranks`, by counting."""
        own = self.ties.place(chosen).below[chosen]
        centered = (own - len(own)).astype(np.float64)
        ties = Ties.of(centered)
        return Distinct(centered, centered[ties.starts], ties.counts)

    def p_of(self, truth: Truth, among: Array | None = None) -> float:
        """Permutation p-value of "higher where it is true than where it is false" among some samples [n] bool."""
        chosen = truth.known if among is None else truth.known & among
        groups = self.groups
        if bool(chosen.all()):
            return permutation_p(self.everyone, average(truth.true, groups), strata_of(groups))
        if not chosen.any():
            return 1.0
        if groups is None:
            p = None if among is None else self._p_of_many(truth, chosen)
            return permutation_p(self.rank_again(chosen), truth.true[chosen]) if p is None else p
        groups = np.unique(groups[chosen], return_inverse=True)[1]
        values = center_ranks(average(self.ranks[chosen], groups))
        return permutation_p(values, average(truth.true[chosen], groups), strata_of(groups))

    def _p_of_many(self, truth: Truth, chosen: Array) -> float | None:
        """The same of so many samples that their moments say it, without a rank number per sample; else None."""
        placed, holds = self.ties.place(chosen), truth.true & chosen
        size, drawn = int(np.count_nonzero(chosen)), int(np.count_nonzero(holds))
        return ranks_p(size, placed.level - size, placed.tied, drawn, placed.sum(holds) - drawn * size)

    def auc(self, truth: Truth) -> tuple[float | None, float]:
        """AUC (None without a sample on either side) and share of the known samples on which it holds."""
        n1, n0 = int(np.count_nonzero(truth.true)), int(np.count_nonzero(truth.false))
        share = n1 / max(1, n1 + n0)
        if not n1 or not n0:
            return None, share
        if n1 + n0 == len(self.ranks):
            total = float(self.ranks @ truth.true)
        else:
            total = float(self.ties.place(truth.known).sum(truth.true) - n1 * (n1 + n0))
        return (total + n1 * n0) / (2 * n1 * n0), share

    def auc_of(self, formula: Formula) -> tuple[float | None, float]:
        """The same of a formula, computed once."""
        if formula not in self.scored:
            self.scored[formula] = self.auc(self.truth(formula))
        return self.scored[formula]

    def influence(self, truth: Truth) -> Array:
        """How much every sample moves the AUC [n]: DeLong's components; 0 where the formula is unknown."""
        known, holds = truth.known, truth.true
        is_whole = truth.complete or bool(known.all())
        above = self.ties.place(holds).below / 2  # of the true, those a sample is above, those of its tie counted half
        beaten = self.middle.copy() if is_whole else self.ties.place(known).below / 2
        if not is_whole:
            above, beaten, holds = above[known], beaten[known], holds[known]
        held = holds.astype(np.float64)
        n1 = float(np.count_nonzero(holds))
        n0 = len(holds) - n1
        beaten -= above
        beaten /= n0  # share of the false that a sample is above
        above /= n1
        below = np.subtract(1, above, out=above)  # share of the true that are above it
        beaten /= n1
        below /= n0
        beaten *= held
        below *= 1 - held
        part = np.add(beaten, below, out=beaten)
        score = float(part @ held)
        part -= np.array([score / n0, score / n1]).take(holds.view(np.int8))
        if is_whole:
            return part
        result = np.zeros(len(known))
        result[known] = part
        return result

    def influence_of(self, formula: Formula) -> Array:
        """The same of a formula, computed once."""
        if formula not in self.moved:
            self.moved[formula] = self.influence(self.truth(formula))
        return self.moved[formula]

    def not_p(self, formula: Formula, index: int) -> float:
        """p-value of "the NOT at literal ``index`` is worth nothing": the larger one of two.

        A permutation test among the samples whose truth that literal decides, of "no higher where the concept is
        absent"; and DeLong's test of the two AUCs with and without it, on the same samples (or groups of samples).
        """
        truth, rest, context = self.truth(formula), formula.without(index), formula.context(index)
        name, negated = formula.literals[index]
        literal = self.truth(Formula(name, negated))
        if rest is None:
            return self.p_of(truth)
        p = self.p_of(literal, None if context is None else self.truth(context).true)
        one, two = self.auc_of(formula)[0], self.auc_of(rest)[0]
        if one is None or two is None:
            return 1.0
        moved = self.influence_of(formula) - self.influence_of(rest)
        if self.groups is not None:
            moved = np.bincount(self.groups, weights=moved)
        deviation = float(np.sqrt(moved @ moved))
        if deviation == 0:
            return p if one > two else 1.0
        return max(p, float(norm.sf((one - two) / deviation)))


def judge(formulas: Sequence[Formula], score: Score, heldout: HeldOut | None) -> tuple[ScoredFormula, ...]:
    """A unit's formulas with their scores on both parts, q still open.

    score: formulas -> (AUC, share) of each on the searched samples.
    """
    shorter = [[(i, name, one.without(i)) for i, (name, negated) in enumerate(one.literals) if negated] for one in formulas]  # fmt: skip
    asked = list(dict.fromkeys([*formulas, *(rest for each in shorter for _, _, rest in each if rest is not None)]))
    found = dict(zip(asked, score(asked), strict=True))
    later = {} if heldout is None else {formula: heldout.auc_of(formula) for formula in asked}

    def negation(formula: Formula, index: int, concept: str, rest: Formula | None) -> Negation:
        without = 0.5 if rest is None or np.isnan(found[rest][0]) else found[rest][0]
        worth = found[formula][0] - without
        if heldout is None:
            return Negation(concept, worth, None)
        before, after = later[formula][0], 0.5 if rest is None else later[rest][0]
        lost = None if before is None or after is None else before - after
        return Negation(concept, worth, lost, heldout.not_p(formula, index))

    result = []
    for formula, nots in zip(formulas, shorter, strict=True):
        auc, share = found[formula]
        p = None
        if heldout is not None:
            p = heldout.p_of(heldout.truth(formula))
        after, on = later.get(formula, (None, None))
        negations = tuple(negation(formula, *one) for one in nots)
        result.append(ScoredFormula(formula, auc, share, after, on, p, None, negations))
    return tuple(result)


def with_scores(
    formulas: Sequence[ScoredFormula], searched: Sequence[float], heldout: Sequence[float] | None = None
) -> tuple[ScoredFormula, ...]:
    """With the scores by which they were chosen; without ``heldout`` the held-out one is the AUC. NaN becomes None."""
    later = (
        [one.heldout_auc for one in formulas]
        if heldout is None
        else [None if np.isnan(one) else one for one in heldout]
    )
    return tuple(
        replace(one, score=own, heldout_score=other) for one, own, other in zip(formulas, searched, later, strict=True)
    )


def with_q(found: Sequence[tuple[ScoredFormula, ...]]) -> list[tuple[ScoredFormula, ...]]:
    """Benjamini-Hochberg over the units' formulas of each rank, and over all their NOTs."""
    result = [list(formulas) for formulas in found]
    for rank in range(max(map(len, found))):
        units = [u for u, formulas in enumerate(found) if rank < len(formulas)]
        own = [found[u][rank] for u in units]
        names = _corrected([one.p for one in own])
        nots = iter(_corrected([one.p for formula in own for one in formula.negations]))
        for u, one, q in zip(units, own, names, strict=True):
            negations = tuple(replace(each, q=next(nots)) for each in one.negations)
            result[u][rank] = replace(one, q=q, negations=negations)
    return [tuple(formulas) for formulas in result]


def _corrected(p: Sequence[float | None]) -> list[float | None]:
    known = [one for one in p if one is not None]
    if not known or len(known) < len(p):
        return [None] * len(p)
    return [float(q) for q in np.atleast_1d(false_discovery_control(known))]
