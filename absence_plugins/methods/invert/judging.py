"""What a formula found on the searched samples is worth on the held-out ones: AUC, p, q, and the same of every NOT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.stats import false_discovery_control, norm

from absence_plugins.methods.invert.bits import Array, Bits
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.groups import average, center_ranks, collapse, strata_of
from absence_plugins.methods.invert.inputs import Truth
from absence_plugins.methods.invert.parts import Part, Score
from absence_plugins.methods.invert.results import Negation, ScoredFormula
from absence_plugins.methods.invert.significance import Distinct, permutation_p


@dataclass(frozen=True, eq=False)
class HeldOut:
    """One unit on the held-out samples.

    Attributes:
        part: which samples these are.
        ranks: their rank numbers d [n].
        rows: truth of the concepts per label row.
        place: a concept's column.
    """

    part: Part
    ranks: Array
    rows: Bits
    place: dict[str, int]
    truths: dict[Formula, Truth] = field(default_factory=dict)
    moved: dict[Formula, Array] = field(default_factory=dict)

    def truth(self, formula: Formula) -> Truth:
        """Per sample [n]."""
        if formula not in self.truths:
            self.truths[formula] = self.part.truth(self.rows.fold(formula, self.place))
        return self.truths[formula]

    @cached_property
    def collapsed(self) -> Array:
        """Rank numbers of the groups."""
        return collapse(self.ranks, self.part.groups)

    @cached_property
    def levels(self) -> tuple[Array, int]:
        """The place of every sample's rank number among the distinct ones [n], and how many these are."""
        whole = (self.ranks + len(self.ranks)).astype(np.int64)  # from 1 to 2 n - 1
        occurs = np.bincount(whole, minlength=2 * len(whole)) > 0
        return (occurs.cumsum() - 1).take(whole), int(occurs.sum())

    @cached_property
    def everyone(self) -> Distinct:
        """The rank numbers of all."""
        return Distinct.of(self.collapsed)

    def rank_again(self, chosen: Array) -> Distinct:
        """Rank numbers of some of the samples [n] bool, among these: as :func:`center_ranks`, by counting."""
        place, count = self.levels
        own = place[chosen]
        counts = np.bincount(own, minlength=count)
        centered = (2 * counts.cumsum() - counts - len(own)).astype(np.float64)
        occurs = counts > 0
        return Distinct(centered.take(own), centered[occurs], counts[occurs])

    def p_of(self, truth: Truth, among: Array | None = None) -> float:
        """Permutation p-value of "higher where it is true than where it is false" among some samples [n] bool."""
        chosen = truth.known if among is None else truth.known & among
        groups = self.part.groups
        if bool(chosen.all()):
            return permutation_p(self.everyone, average(truth.true, groups), strata_of(groups))
        if not chosen.any():
            return 1.0
        if groups is None:
            return permutation_p(self.rank_again(chosen), truth.true[chosen])
        groups = np.unique(groups[chosen], return_inverse=True)[1]
        values = center_ranks(average(self.ranks[chosen], groups))
        return permutation_p(values, average(truth.true[chosen], groups), strata_of(groups))

    def auc(self, truth: Truth) -> tuple[float | None, float]:
        """AUC (None without a sample on either side) and share of the known samples on which it holds."""
        n1, n0 = int(truth.true.sum()), int(truth.false.sum())
        share = n1 / max(1, n1 + n0)
        if not n1 or not n0:
            return None, share
        if n1 + n0 == len(self.ranks):
            total = float(self.ranks @ truth.true)
        else:
            total = float(self.rank_again(truth.known).values @ truth.true[truth.known])
        return (total + n1 * n0) / (2 * n1 * n0), share

    def influence(self, formula: Formula) -> Array:
        """How much every sample moves the AUC [n]: DeLong's components; 0 where the formula is unknown."""
        if formula not in self.moved:
            self.moved[formula] = self._move(self.truth(formula))
        return self.moved[formula]

    def _move(self, truth: Truth) -> Array:
        known = truth.known
        is_whole = bool(known.all())
        place, holds = (self.levels[0], truth.true) if is_whole else (self.levels[0][known], truth.true[known])
        counts = np.bincount(place, minlength=self.levels[1])
        held = np.bincount(place[holds], minlength=self.levels[1])
        failed = counts - held
        n1, n0 = held.sum(), failed.sum()
        beaten = (failed.cumsum() - failed / 2) / n0  # share of the false that a sample is above
        below = 1 - (held.cumsum() - held / 2) / n1  # share of the true that are above it
        part = np.concatenate([below / n0, beaten / n1]).take(place + len(counts) * holds)
        score = (part * holds).sum()
        moved: Array = part - np.where(holds, score * (1 / n1), score * (1 / n0))
        if is_whole:
            return moved
        result = np.zeros(len(known))
        result[known] = moved
        return result

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
        without = self.truth(rest)
        one, two = self.auc(truth)[0], self.auc(without)[0]
        if one is None or two is None:
            return 1.0
        moved = self.influence(formula) - self.influence(rest)
        if self.part.groups is not None:
            moved = np.bincount(self.part.groups, weights=moved)
        deviation = float(np.sqrt((moved**2).sum()))
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
    later = {} if heldout is None else {formula: heldout.auc(heldout.truth(formula)) for formula in asked}

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
