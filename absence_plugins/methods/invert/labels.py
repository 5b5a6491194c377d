"""INVERT: name every unit by the boolean formula of concepts that it detects best, absences included."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import false_discovery_control
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.checks import check_integers
from absence_plugins.methods.invert.candidates import Found
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.groups import as_groups, average, collapse, find_copies, split
from absence_plugins.methods.invert.inputs import as_activations, as_truth, check_names, refuse_constant
from absence_plugins.methods.invert.results import Negation, ScoredFormula, UnitLabel, UnitLabels
from absence_plugins.methods.invert.scores import CHUNK, auc_of, check_lengths, rank_sums
from absence_plugins.methods.invert.search import Bounds, search
from absence_plugins.methods.invert.significance import permutation_p
from absence_plugins.methods.invert.table import Array, columns_of, merge_rows

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
        concepts: [N, K] of 0 and 1; every concept must hold on some samples and not on all.
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
        progress: show a progress bar on stderr.

    Returns:
        :class:`UnitLabels`, a sequence of one :class:`UnitLabel` per unit.

    Sign: an AUC above 0.5 says that the unit is higher where the formula holds. ``NOT c`` with a positive worth says
    that the unit is higher where c is absent.

    Raises:
        ValueError: NaN, labels other than 0 and 1, a concept that is constant over all samples, lengths that differ,
            names that are not distinct, an unknown mode, a number out of its range, or bounds within which no formula
            lies.
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
    values, told = as_activations(activations), as_truth(concepts)
    labels = told.true
    check_lengths(values, labels)
    if not bool(told.known.all()):
        row, column = (~told.known).nonzero()[0].tolist()
        raise ValueError(
            f"concepts[{row}, {column}] is nan; labels must be 0 or 1 here: leave out that sample or concept"
        )
    names = check_names(names, labels.shape[1])
    check_integers(length=length, beam=beam, top=top)
    _check_shares(min_fraction, max_fraction, holdout)
    if mode not in MODES:
        raise ValueError(
            f"mode={mode!r} is not known; use 'positive' (high where the formula holds) or 'negative' (low)"
        )
    table = values[:, None] if values.dim() == 1 else values

    rows, row_of = merge_rows(labels.cpu().numpy())
    if not rows.any(0).all() or rows.all(0).any():
        refuse_constant(told, names)
    numbers = as_groups(groups, len(table))
    if numbers is None and holdout > 0:
        numbers = _grouped_copies(table)
    is_heldout = split(rows, row_of, holdout, seed, numbers)
    searched, heldout = (
        _part(table.device, row_of, chosen, len(rows), numbers) for chosen in (~is_heldout, is_heldout)
    )
    if searched.independent < 2 or (holdout > 0 and heldout.independent < 2):
        raise ValueError(f"holdout={holdout} leaves {searched.size} samples to search and {heldout.size} held out of {len(values)}; both need two")  # fmt: skip
    present = searched.weight.cpu().numpy() > 0
    columns = columns_of(
        rows[present] if not present.all() else rows, searched.weight.cpu().numpy()[present], names, table.device
    )
    bounds = _bounds(min_fraction, max_fraction, searched.size)
    if columns is None:
        raise ValueError(f"no concept varies among the {searched.size} samples of the search; hold out less, or pass more samples")  # fmt: skip
    kept = torch.from_numpy(present.nonzero()[0]).to(table.device)
    sign = -1.0 if mode == "negative" else 1.0
    options: dict[str, Any] = {"length": length, "beam": beam, "top": top, "bounds": bounds, "exact_pairs": exact_pairs}

    found: list[tuple[ScoredFormula, ...]] = []
    step = max(1, CHUNK // len(table))
    with tqdm(total=table.shape[1], desc="naming units", disable=not progress) as bar:
        for start in range(0, table.shape[1], step):
            block = table[:, start : start + step].T
            sums = searched.sums(block, sign)
            best = search(columns, sums if present.all() else sums[:, kept], **options)
            if not all(best):
                raise ValueError(
                    f"no formula of up to {length} literals holds on between {bounds.least} and {bounds.most} of the "
                    f"{searched.size} searched samples; widen min_fraction={min_fraction} and "
                    f"max_fraction={max_fraction}"
                )
            judged = heldout.ranks(block, sign) if heldout.size else None
            for u, formulas in enumerate(best):
                found.append(
                    _score(
                        formulas, rows, columns.place, searched, sums[u], heldout, None if judged is None else judged[u]
                    )
                )
            bar.update(len(best))
    settings = {"length": length, "beam": beam, "min_fraction": min_fraction, "max_fraction": max_fraction, "mode": mode,
                "exact_pairs": exact_pairs, "holdout": holdout, "top": top, "seed": seed}  # fmt: skip
    units = tuple(UnitLabel(u, formulas, mode) for u, formulas in enumerate(_with_q(found)))
    return UnitLabels(units, searched.size, heldout.size, settings)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the samples: their numbers, the row and the group of each, how many there are per row [R]."""

    index: Tensor
    row_of: Tensor
    weight: Tensor
    groups: Array | None

    @property
    def size(self) -> int:
        return len(self.index)

    @property
    def independent(self) -> int:
        """Number of groups, or of samples where every one is alone."""
        return self.size if self.groups is None else int(self.groups.max(initial=-1)) + 1

    def block(self, block: Tensor) -> Tensor:
        """Of [U, N] the part's samples."""
        return block if len(self.index) == block.shape[1] else block[:, self.index]

    def sums(self, block: Tensor, sign: float) -> Tensor:
        """Rank sums per row [U, R] of a block [U, N]."""
        return rank_sums(self.block(block), self.row_of, len(self.weight))[0] * sign

    def ranks(self, block: Tensor, sign: float) -> Array:
        """The rank number d of every sample [U, n] of a block [U, N]."""
        own = torch.arange(self.size, device=block.device)
        return (rank_sums(self.block(block), own, self.size)[0] * sign).cpu().numpy()


def _part(device: torch.device, row_of: Array, chosen: Array, rows: int, groups: Array | None) -> _Part:
    own = row_of[chosen]
    weight = np.bincount(own, minlength=rows).astype(np.float64)
    index = chosen.nonzero()[0]
    numbers = None if groups is None else np.unique(groups[chosen], return_inverse=True)[1].reshape(-1)
    there = [torch.from_numpy(array).to(device) for array in (index, own, weight)]
    return _Part(there[0], there[1], there[2], numbers)


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


def _score(
    found: Sequence[Found],
    rows: Array,
    place: dict[str, int],
    searched: _Part,
    sums: Tensor,
    heldout: _Part,
    judged: Array | None,
) -> tuple[ScoredFormula, ...]:
    """One unit's formulas with their scores on both parts, q still open."""

    def truth(formula: Formula) -> Array:
        result: Array = formula.fold(lambda name: rows[:, place[name]])
        return result

    formulas = [_shorten(one.formula, truth, searched) for one in found]
    shorter = [
        [(name, formula.without(i)) for i, (name, negated) in enumerate(formula.literals) if negated]
        for formula in formulas
    ]
    asked = [*formulas, *(rest for each in shorter for _, rest in each if rest is not None)]
    holds = torch.from_numpy(np.stack([truth(formula) for formula in asked])).to(sums.device).double()
    count, total = (holds @ torch.stack([searched.weight, sums], 1)).unbind(1)
    auc = dict(zip(asked, auc_of(total, count, searched.size).tolist(), strict=True))
    share = (count / searched.size).tolist()
    later: dict[Formula, float | None] = dict.fromkeys(asked)
    p: list[float | None] = [None] * len(asked)
    later_share: list[float | None] = [None] * len(asked)
    if judged is not None:
        own = holds.cpu().numpy()[:, heldout.row_of.cpu().numpy()]
        n1, s1 = torch.from_numpy(own.sum(1)), torch.from_numpy(own @ judged)
        scores = auc_of(s1, n1, heldout.size).tolist()
        later = {formula: None if np.isnan(score) else score for formula, score in zip(asked, scores, strict=True)}
        values = collapse(judged, heldout.groups)
        p = [permutation_p(values, average(one, heldout.groups)) for one in own[: len(formulas)]]
        later_share = (n1 / heldout.size).tolist()

    def negation(formula: Formula, concept: str, rest: Formula | None) -> Negation:
        without = 0.5 if rest is None or np.isnan(auc[rest]) else auc[rest]
        before, after = later[formula], 0.5 if rest is None else later[rest]
        lost = None if judged is None or before is None or after is None else before - after
        return Negation(concept, auc[formula] - without, lost)

    return tuple(
        ScoredFormula(
            formula=formula,
            auc=auc[formula],
            fraction=share[i],
            heldout_auc=later[formula],
            heldout_fraction=later_share[i],
            p=p[i],
            q=None,
            negations=tuple(negation(formula, concept, rest) for concept, rest in shorter[i]),
        )
        for i, formula in enumerate(formulas)
    )


def _shorten(formula: Formula, truth: Any, searched: _Part) -> Formula:
    """Without literals that change nothing on the searched samples; the exact search leaves none of up to three."""
    if formula.length < 3:
        return formula
    weight = searched.weight.cpu().numpy() > 0
    holds = truth(formula)[weight]
    index = formula.length - 1
    while index >= 0 and formula.length > 1:
        rest = formula.without(index)
        if rest is not None and np.array_equal(truth(rest)[weight], holds):
            formula, index = rest, rest.length
        index -= 1
    return formula


def _with_q(found: Sequence[tuple[ScoredFormula, ...]]) -> list[tuple[ScoredFormula, ...]]:
    """Benjamini-Hochberg over the units, for every rank."""
    result = [list(formulas) for formulas in found]
    for rank in range(max(map(len, found))):
        units = [u for u, formulas in enumerate(found) if rank < len(formulas)]
        p = [found[u][rank].p for u in units]
        if any(one is None for one in p):
            continue
        for u, q in zip(units, np.atleast_1d(false_discovery_control(p)), strict=True):
            result[u][rank] = replace(result[u][rank], q=float(q))
    return [tuple(formulas) for formulas in result]


def _bounds(least: float, most: float, samples: int) -> Bounds:
    slack = 1e-9 * samples  # 0.07 * 100 is 7.000000000000001
    low, high = int(np.ceil(least * samples - slack)), int(np.floor(most * samples + slack))
    return Bounds(max(1, low), min(samples - 1, high))


def _check_shares(least: float, most: float, holdout: float) -> None:
    if not 0 <= least <= most <= 1:
        raise ValueError(
            f"min_fraction={least} and max_fraction={most} must satisfy 0 <= min_fraction <= max_fraction <= 1"
        )
    if not 0 <= holdout < 1:
        raise ValueError(
            f"holdout={holdout} must be a share of the samples, at least 0 and below 1; 0.5 holds out half"
        )
