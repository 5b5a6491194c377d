"""INVERT: name every unit by the boolean formula of concepts that it detects best, absences included."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.checks import check_choice, check_integer, check_integers, check_number, check_seed
from absence_plugins.core.groups import as_groups
from absence_plugins.methods.invert.certified import certify_all, cost_of
from absence_plugins.methods.invert.choosing import description_length
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.groups import find_copies
from absence_plugins.methods.invert.inputs import as_activations, as_truth, check_names
from absence_plugins.methods.invert.judging import HeldOut, judge, with_q
from absence_plugins.methods.invert.parts import Data, Part, Score
from absence_plugins.methods.invert.results import ScoredFormula, UnitLabel, UnitLabels
from absence_plugins.methods.invert.scores import CHUNK, check_lengths
from absence_plugins.methods.invert.search import Bounds, Ranked
from absence_plugins.methods.invert.search import search as search_beam
from absence_plugins.methods.invert.table import Array
from absence_plugins.methods.invert.unknown import Literals, search_known

PREFERENCES = ("short", "auc")
SEARCHES = ("auto", "certified", "beam")
QUICK = 2e8  # multiplications per unit up to which "auto" enumerates
MODES = ("positive", "negative")


def label_units(
    activations: Any,
    concepts: Any,
    names: Sequence[str],
    *,
    length: int = 3,
    beam: int = 5,
    min_fraction: float = 0.01,
    max_fraction: float = 1.0,
    mode: str = "positive",
    exact_pairs: bool = True,
    holdout: float = 0.5,
    top: int = 5,
    seed: int = 0,
    groups: Any = None,
    min_support: int | None = None,
    prefer: str = "short",
    search: str = "auto",
    budget: float = 1e8,
    progress: bool = True,
) -> UnitLabels:
    """Name what every unit responds to: the formulas of AND, OR and NOT whose truth its activation detects best.

    A formula's score is its AUROC (:func:`auroc`). Formulas of up to two literals are searched exhaustively, longer
    ones with a beam that starts from the best pairs and, beside it, one that starts from the best literals. Of all
    spellings with the same truth on the samples of the search only one is kept: the shortest, with the fewest NOTs,
    with the earliest concepts. What was found on one part of the samples is judged on the other, which took no part:
    AUC, one-sided permutation p-value of the rank sum (:mod:`~absence_plugins.methods.invert.significance`), and
    Benjamini-Hochberg over the units. For every NOT: by how much the AUC falls
    without it, which is the evidence for an encoded absence.

    Source: INVERT (Bykov et al., NeurIPS 2023). Differences: invariant under increasing maps, one formula per truth
    vector, ``max_fraction=1.0`` so that NOT of a rare concept can be found, and p-values that are valid after the
    search.

    Args:
        activations: [N] or [N, U], one number per sample and unit, before the nonlinearity if absences are to show.
            The search runs on their device.
        concepts: [N, K] of 0, 1 and, where unknown, NaN; every concept must hold on some samples and fail on some. A
            sample on which a formula is unknown takes no part in that formula's scores (pairs are then screened, not
            all scored).
        names: K distinct strings.
        length: most literals of a formula.
        beam: formulas extended per level beyond the exact search.
        min_fraction: least share of the searched samples on which a formula holds, and
        max_fraction: the largest one. 1.0 lets NOT of any concept be found; it also lets formulas win that fail on a
            handful of samples only, where a unit has no better name: 0.99 keeps these out as ``min_fraction`` does
            their complements. A formula that always or never holds is never taken.
        mode: "positive" (the unit is high where the formula holds) or "negative" (it is low; AUCs are then those of the
            negated activation).
        exact_pairs: whether all formulas of two literals are searched; else only the beam. Costs 2 R K^2 operations per
            unit for R distinct label rows.
        holdout: share of the samples that is held out, 0 for none (then p and q are None). The split is random, by
            ``seed``, and shares out every concept, rare ones first (:func:`split`); it does not look at the
            activations. A concept that is constant on the searched part is left out of the search.
        top: formulas per unit.
        seed: of the split. The global random state is neither used nor changed.
        groups: [N] integers or strings, equal for samples that are not independent: copies, crops, frames of one video,
            pictures of one patient. A group is never split between search and held-out part, and counts once in p and
            q: with its mean rank, and the share of its samples on which the formula holds. None: every sample is
            independent, but for exact copies, which are found by their activations (three units or more, not integers),
            reported by an :class:`~absence_plugins.core.AbsenceWarning` and grouped.
        min_support: least number of independent samples on which a formula must hold, and on which it must fail, in
            either part, beside the two fractions. By default 5 (of parts of fewer than 50 samples a tenth): with fewer
            the standard error of an AUC is above 0.13, and chance alone wins the search.
        prefer: which of the formulas found is the name. "short": every literal must earn its place by description
            length (:mod:`~absence_plugins.methods.invert.choosing`), measured on the searched samples; "auc": the
            highest AUC, however long.
        search: "certified" scores every formula of up to three literals, so that the highest AUC is proven, or bounds
            those that ``budget`` leaves out (:attr:`UnitLabel.gap`); "beam" extends the best pairs; "auto" certifies
            where that costs little (up to about 100 concepts on 1,000 distinct label rows), and is a beam elsewhere.
        budget: formulas that "certified" may score per unit; 200 concepts have 84 million.
        progress: show a progress bar on stderr.

    Returns:
        :class:`UnitLabels`, a sequence of one :class:`UnitLabel` per unit.

    Sign: an AUC above 0.5 says that the unit is higher where the formula holds. ``NOT c`` with a positive worth says
    that the unit is higher where c is absent.

    Raises:
        ValueError: activations that are NaN, labels other than 0, 1 and NaN, a concept that is constant, lengths that
            differ, names that are not distinct, an unknown mode, a number out of its range, or bounds within which no
            formula lies.
        TypeError: non-numeric input, or a name that is not a string.

    >>> generator = torch.Generator().manual_seed(0)
    >>> labels = torch.rand(400, 3, generator=generator) < torch.tensor([0.5, 0.5, 0.1])
    >>> unit = 2.0 * (labels[:, 0] & ~labels[:, 2]) + torch.rand(400, generator=generator)
    >>> found = label_units(unit, labels, ["dog", "grass", "leash"], progress=False)
    >>> found[0].best.formula
    Formula('dog AND NOT leash')
    >>> found[0].best.heldout_auc
    1.0
    """
    values, truth = as_activations(activations), as_truth(concepts)
    check_lengths(values, truth.true)
    names = check_names(names, truth.true.shape[1])
    check_integers(length=length, beam=beam, top=top)
    check_seed(seed)
    if mode not in MODES:
        raise ValueError(
            f"mode={mode!r} is not known; use 'positive' (high where the formula holds) or 'negative' (low)"
        )
    check_choice("prefer", prefer, PREFERENCES)
    check_choice("search", search, SEARCHES)
    check_number("budget", budget, 1)
    if search == "certified" and (length > 3 or not exact_pairs):
        raise ValueError(f"search='certified' proves formulas of up to three literals, with exact_pairs; length={length}, exact_pairs={exact_pairs}")  # fmt: skip
    _check_shares(min_fraction, max_fraction, holdout)
    if min_support is not None:
        check_integer("min_support", min_support)
    table = values[:, None] if values.dim() == 1 else values
    told = as_groups(groups, len(table))
    numbers = None if told is None else told.numpy()
    if numbers is None and holdout > 0:
        numbers = _grouped_copies(table)
    data = Data.of(table, truth, names, holdout, seed, numbers)
    found, gaps = _searched(
        data,
        Wanted(length, beam, top, exact_pairs, min_fraction, max_fraction, min_support, prefer, search, budget, -1.0 if mode == "negative" else 1.0),
        progress,
    )  # fmt: skip
    settings = {"length": length, "beam": beam, "min_fraction": min_fraction, "max_fraction": max_fraction, "mode": mode,
                "exact_pairs": exact_pairs, "holdout": holdout, "top": top, "seed": seed, "min_support": min_support,
                "prefer": prefer, "search": search, "budget": budget, "groups": data.groups}  # fmt: skip
    units = tuple(UnitLabel(u, formulas, mode, gaps[u]) for u, formulas in enumerate(with_q(found)))
    return UnitLabels(units, data.searched.size, data.heldout.size, settings)


@dataclass(frozen=True)
class Wanted:
    """How formulas are searched and chosen; as the arguments of :func:`label_units`. sign: -1 in the negative mode."""

    length: int
    beam: int
    top: int
    exact_pairs: bool
    min_fraction: float
    max_fraction: float
    min_support: int | None
    prefer: str
    search: str
    budget: float
    sign: float

    def bounds(self, part: Part) -> Bounds:
        """On how many samples of the searched part."""
        return Bounds.of(self.min_fraction, self.max_fraction, part.fewest(self.min_support), part.size)

    def certifies(self, data: Data) -> bool:
        """Whether formulas of three literals are enumerated."""
        if self.search == "beam" or not self.exact_pairs or self.length > 3:
            return False
        return self.search == "certified" or cost_of(data.columns) <= QUICK

    def find(self, data: Data, block: Tensor, bounds: Bounds) -> list[tuple[Ranked, Tensor, Any]]:
        """Every unit's formulas, its variance of ranks, and what scores its formulas: of a block [U, N]."""
        options: dict[str, Any] = {"length": self.length, "beam": self.beam, "top": self.top, "bounds": bounds, "exact_pairs": self.exact_pairs}  # fmt: skip
        sums, squares = data.searched.sums(block, self.sign)
        if data.columns.fails is None:
            kept = sums if data.present is None else sums[:, data.present]
            found = search_beam(data.columns, kept, **options)
            if self.certifies(data):
                certify_all(data.columns, kept, bounds, found, self.budget if self.length == 3 else 0.0)
            return [(one, squares[u], sums[u]) for u, one in enumerate(found)]
        literals = Literals.of(data.columns, data.column_row)
        result: list[tuple[Ranked, Tensor, Any]] = []
        for u, order in enumerate(data.searched.orders(block, self.sign)):
            own = torch.from_numpy(data.searched.ranks(block[u : u + 1], self.sign)[0]).to(block.device)
            result.append(
                (search_known(literals, own, order, is_certified=self.certifies(data), **options), squares[u], order)
            )
        return result

    def choose(self, data: Data, ranked: Ranked, score: Score, spread: float) -> list[Formula]:
        """The formulas of a unit, the one that names it first."""
        found = ranked.best.found if self.prefer == "auc" and not data.heldout.size else ranked.found
        candidates = list(dict.fromkeys(data.shorten(one.formula) for one in found))
        supported = [one for one in candidates if data.supports(one, self.min_support)] or candidates
        best = supported[: len(ranked.best.found)]
        if self.prefer == "auc":
            return best
        first = {one.length: one for one in reversed(supported)}  # the best of every length; they are in order of AUC
        scores = dict(zip(first.values(), score(list(first.values())), strict=True))
        lengths = {
            one: description_length(
                *scores[one], samples=data.known(one), spread=spread, length=one.length, concepts=len(data.columns)
            )
            for one in first.values()
        }
        chosen = min(sorted(lengths, key=lambda one: one.length), key=lambda one: lengths[one])
        return [chosen, *(one for one in best if one != chosen)][: self.top]


def _searched(data: Data, wanted: Wanted, progress: bool) -> tuple[list[tuple[ScoredFormula, ...]], list[float | None]]:
    """All units' formulas, q still open, and their gaps."""
    bounds = wanted.bounds(data.searched)
    found: list[tuple[ScoredFormula, ...]] = []
    gaps: list[float | None] = []
    table, size = data.table, data.searched.size
    step = max(1, CHUNK // len(table))
    with tqdm(total=table.shape[1], desc="naming units", disable=not progress) as bar:
        for start in range(0, table.shape[1], step):
            block = table[:, start : start + step].T
            judged = data.heldout.ranks(block, wanted.sign) if data.heldout.size else None
            for u, (ranked, squares, own) in enumerate(wanted.find(data, block, bounds)):
                if not ranked.best.found:
                    raise ValueError(
                        f"no formula of up to {wanted.length} literals holds on between {bounds.least} and {bounds.most} of the "
                        f"{size} searched samples; widen min_fraction={wanted.min_fraction} and "
                        f"max_fraction={wanted.max_fraction}, or lower min_support={bounds.support}"
                    )
                score = data.score_of(own)
                formulas = wanted.choose(data, ranked, score, float(squares) / (4.0 * size**3))
                part = None if judged is None else HeldOut(data.heldout, judged[u], data.rows, data.place)
                found.append(judge(formulas, score, part))
                gaps.append(ranked.gap)
                bar.update(1)
    return found, gaps


def _grouped_copies(table: Tensor) -> Array | None:
    """Groups of exact copies, with a warning; None without any."""
    numbers = find_copies(table)
    if numbers is not None:
        distinct = int(numbers.max()) + 1
        warnings.warn(
            f"{len(numbers) - distinct} of {len(numbers)} samples are exact copies of others, by their activations: "
            f"copies stay on one side of the held-out split and count once in p and q ({distinct} independent samples). "
            "Leave copies out, or name the groups of crops, frames or near copies in groups=",
            AbsenceWarning,
            stacklevel=3,
        )
    return numbers


def _check_shares(least: float, most: float, holdout: float) -> None:
    for name, share in {"min_fraction": least, "max_fraction": most, "holdout": holdout}.items():
        check_number(name, share, 0, 1)
    if not 0 <= least <= most <= 1:
        raise ValueError(
            f"min_fraction={least} and max_fraction={most} must satisfy 0 <= min_fraction <= max_fraction <= 1"
        )
    if not 0 <= holdout < 1:
        raise ValueError(
            f"holdout={holdout} must be a share of the samples, at least 0 and below 1; 0.5 holds out half"
        )
