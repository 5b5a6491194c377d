"""INVERT: name every unit by the boolean formula of concepts that it detects best, absences included."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.checks import check_choice, check_integer, check_integers, check_number, check_seed
from absence_plugins.core.durations import describe_time
from absence_plugins.core.groups import as_groups
from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.finding import LONGEST, Wanted
from absence_plugins.methods.invert.groups import find_copies
from absence_plugins.methods.invert.judging import HeldOut, judge, with_q, with_scores
from absence_plugins.methods.invert.measures import SCORES
from absence_plugins.methods.invert.near_copies import count_equal_samples, count_near_copies
from absence_plugins.methods.invert.parts import Data
from absence_plugins.methods.invert.rating import Rating
from absence_plugins.methods.invert.results import UnitLabel, UnitLabels
from absence_plugins.methods.invert.scores import CHUNK
from absence_plugins.methods.invert.thresholds import read_concepts
from absence_plugins.methods.invert.units import Units

PREFERENCES = ("short", "auc", "score")
SEARCHES = ("auto", "certified", "beam")
MODES = ("positive", "negative")
TOGETHER = 64  # units named at a time, so that the labels are unpacked once for all of them
MOST = 2**26  # activations of these
HOUR = 3600.0  # seconds from which on a warning says how long the rest takes


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
    score: str = "auc",
    search: str = "auto",
    budget: float = 2e8,
    progress: bool = True,
) -> UnitLabels:
    """Name what every unit responds to: the formulas of AND, OR and NOT whose truth its activation detects best.

    A formula's score is its AUROC (:func:`auroc`), or another one by ``score``. Formulas of up to two literals are
    searched exhaustively, longer ones by ``search``. Of all spellings with the same truth on the samples of the search
    only one is kept: the shortest, with the fewest NOTs, with the earliest concepts. What was found on one part of the
    samples is judged on the other, which took no part: AUC, one-sided permutation p-value of the rank sum
    (:mod:`~absence_plugins.methods.invert.significance`), and Benjamini-Hochberg over the units. For every NOT: by how
    much the AUC falls without it, which is the evidence for an encoded absence.

    Source: INVERT (Bykov et al., NeurIPS 2023). Differences: invariant under increasing maps, one formula per truth
    vector, ``max_fraction=1.0`` so that NOT of a rare concept can be found, and p-values that are valid after the
    search.

    Args:
        activations: [N] or [N, U], one number per sample and unit, before the nonlinearity if absences are to show.
            The search runs on their device. A ``numpy.memmap``, or what has ``shape``, ``dtype`` and slices (datasets
            of h5py and zarr), is read in blocks of units of about 1 GB, so that it may be larger than the memory.
        concepts: [N, K] of 0, 1 and, where unknown, NaN; every concept must hold on some samples and fail on some. A
            sample on which a formula is unknown takes no part in that formula's scores (pairs are then screened, not
            all scored). They are read once, some samples at a time, and kept in a bit each, from an array, a
            ``numpy.memmap``, a sparse matrix of scipy, :class:`~absence_plugins.methods.invert.PackedConcepts`, a
            function of (first, last) that returns the labels of these samples [last - first, K], or an iterator over
            such parts. Or :class:`~absence_plugins.methods.invert.ConceptScores`: a concept's threshold is then chosen
            on the searched samples (``settings["thresholds"]``), and the split is random.
        names: K distinct strings.
        length: most literals of a formula.
        beam: formulas extended per level beyond the exact search.
        min_fraction: least share of the searched samples on which a formula holds, and
        max_fraction: the largest one. 1.0 lets NOT of any concept be found; it also lets formulas win that fail on a
            handful of samples only, where a unit has no better name: 0.99 keeps these out as ``min_fraction`` does
            their complements. A formula that always or never holds is never taken.
        mode: "positive" (the unit is high where the formula holds) or "negative" (it is low; AUCs are then those of the
            negated activation).
        exact_pairs: whether all formulas of two literals are searched; else only the beam. Costs up to 2 R K^2
            operations per unit for R distinct label rows, much less for a unit that a concept fits: pairs that cannot
            be among the best are then excluded by a sample of the rows
            (:mod:`~absence_plugins.methods.invert.screening`).
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
        min_support: least number of independent samples (or groups with such a sample) on which a formula must hold,
            and on which it must fail, in either part, beside the two fractions. The search keeps no other formula. By
            default 5 (of parts of fewer than 50 samples a tenth): with fewer the standard error of an AUC is above
            0.13, and chance alone wins the search.
        prefer: which of the formulas found is the name. "short": every literal must earn its place by description
            length (:mod:`~absence_plugins.methods.invert.choosing`), measured on the searched samples; "score" (or
            "auc", of that score): the highest score, however long.
        score: what is made high on the searched samples: "auc", "auprc" (average precision above chance, (AUPRC -
            share) / (1 - share), as else the widest formula would win), "correlation" (Pearson's, of the activation),
            or "f1" and "iou" of the truth with the unit's firing, at a threshold chosen there
            (:attr:`UnitLabel.threshold`, :mod:`~absence_plugins.methods.invert.measures`). p, q and the worth of NOTs
            are those of AUC whatever the score.
        search: "certified" scores or bounds every formula of up to three literals, or four with ``length=4``, so that
            the highest score is proven; what ``budget`` leaves out is bounded (:attr:`UnitLabel.bound`). AUPRC, and
            labels that are unknown on some samples, are proven up to three literals where all formulas together take
            at most 2^28 samples times formulas; else, and by "beam", which extends the best pairs, nothing is
            certified. "auto" certifies where that costs little (three literals: up to about 100 concepts on 1,000
            distinct label rows; four: 30 concepts), and is a beam elsewhere.
        budget: formulas that "certified" may score per unit; 200 concepts have 84 million of three literals, 50
            concepts 192 million of four.
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

    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> labels = torch.rand(400, 3, generator=generator) < torch.tensor([0.5, 0.5, 0.1])
    >>> unit = 2.0 * (labels[:, 0] & ~labels[:, 2]) + torch.rand(400, generator=generator)
    >>> found = label_units(unit, labels, ["dog", "grass", "leash"], progress=False)
    >>> found[0].best.formula
    Formula('dog AND NOT leash')
    >>> found[0].best.heldout_auc
    1.0
    """
    table = Units(activations)
    check_integers(length=length, beam=beam, top=top)
    check_seed(seed)
    if mode not in MODES:
        raise ValueError(
            f"mode={mode!r} is not known; use 'positive' (high where the formula holds) or 'negative' (low)"
        )
    check_choice("prefer", prefer, PREFERENCES)
    check_choice("score", score, SCORES)
    if prefer == "auc" and score != "auc":
        raise ValueError(
            f"prefer='auc' with score={score!r}: write prefer='score' for the formula of the highest {score}"
        )
    check_choice("search", search, SEARCHES)
    check_number("budget", budget, 1)
    if search == "certified" and (length > LONGEST or not exact_pairs):
        raise ValueError(f"search='certified' proves formulas of up to four literals, with exact_pairs; length={length}, exact_pairs={exact_pairs}")  # fmt: skip
    if score == "correlation" and table.is_infinite:
        raise ValueError("score='correlation' asks for finite activations, and some are infinite; choose another score, or clip them")  # fmt: skip
    _check_shares(min_fraction, max_fraction, holdout)
    if min_support is not None:
        check_integer("min_support", min_support)
    told = as_groups(groups, len(table))
    numbers = None if told is None else told.numpy()
    if numbers is None and holdout > 0:
        numbers = _grouped_copies(table)
    given = read_concepts(concepts, names, len(table), holdout, seed, numbers)
    if numbers is None and holdout > 0:
        _warn_of_copies(table, given.row_of)
    data = Data.of(table, given, holdout, seed, numbers)
    sign = -1.0 if mode == "negative" else 1.0
    wanted = Wanted(length, beam, top, exact_pairs, min_fraction, max_fraction, min_support, prefer, score, search, budget, sign)  # fmt: skip
    found = _searched(data, wanted, progress)
    settings = {"length": length, "beam": beam, "min_fraction": min_fraction, "max_fraction": max_fraction, "mode": mode,
                "exact_pairs": exact_pairs, "holdout": holdout, "top": top, "seed": seed, "min_support": min_support,
                "prefer": prefer, "score": score, "search": search, "budget": budget, "groups": data.groups,
                "thresholds": given.thresholds}  # fmt: skip
    corrected = with_q([one.formulas for one in found])
    units = tuple(replace(one, formulas=formulas) for one, formulas in zip(found, corrected, strict=True))
    return UnitLabels(units, data.searched.size, data.heldout.size, settings)


def _searched(data: Data, wanted: Wanted, progress: bool) -> list[UnitLabel]:
    """All units' labels, q still open."""
    bounds = wanted.bounds(data)
    if wanted.min_support is not None:
        _check_support(data, wanted.min_support)
    found: list[UnitLabel] = []
    table = data.table
    step = max(1, CHUNK // len(table), min(TOGETHER, MOST // len(table)))
    wanted.prepare(data)
    began = time.perf_counter()
    with tqdm(total=table.count, desc="naming units", disable=not progress) as bar:
        for start in range(0, table.count, step):
            block = table.block(start, min(start + step, table.count))
            later = wanted.directed(data.heldout, block) if data.heldout.size else None
            for u, unit in enumerate(wanted.find(data, block, bounds)):
                if not unit.ranked.best.found:
                    raise ValueError(wanted.say_nothing_found(data, unit, bounds))
                formulas = wanted.choose(data, unit, bounds)
                part = None if later is None else HeldOut.of(data.heldout, later[u], data.rows, data.place)
                judged = judge(formulas, unit.score, part)
                rates = [unit.rate(data, formulas) if unit.rating is not None else [one.auc for one in judged]]
                if later is not None and wanted.score != "auc":
                    rating = Rating.of(wanted.score, later[u], unit.threshold)
                    rates.append(rating.score(*data.masks(data.heldout, formulas)).tolist())
                found.append(UnitLabel(
                    len(found),
                    with_scores(judged, *rates),
                    "negative" if wanted.sign < 0 else "positive",
                    unit.ranked.gap,
                    wanted.score,
                    None if unit.threshold is None else wanted.sign * float(unit.threshold),
                ))  # fmt: skip
                bar.update(1)
            if start == 0:
                _warn_of_hours(wanted, len(found), table.count - len(found), time.perf_counter() - began)
    return found


def _warn_of_hours(wanted: Wanted, done: int, left: int, seconds: float) -> None:
    """Say how long naming the units that are left takes, and what shortens it, if that is long."""
    rest = seconds / done * left
    if rest < HOUR:
        return
    remedies = ["name fewer units, or with fewer concepts"]
    if wanted.search == "certified":
        remedies.insert(0, "search='beam' (--search beam) proves nothing, and is faster")
    elif wanted.exact_pairs:
        remedies.insert(0, "exact_pairs=False (--no-exact-pairs) pairs the best concepts only")
    warnings.warn(
        f"naming the {left:,} units that are left takes about {describe_time(rest)}, as the first {done:,} took "
        f"{describe_time(seconds / done)} each; {'; or '.join(remedies)}",
        AbsenceWarning,
        stacklevel=4,
    )


def _check_support(data: Data, support: int) -> None:
    """Raises ValueError for a least number on which no formula can hold, and fail, in one of the parts.

    A group can do both; a single sample does one.
    """
    for part, what in ((data.searched, "searched"), (data.heldout, "held out")):
        most = part.size // 2 if part.groups is None else part.independent
        if part.size and support > min(most, part.size // 2):
            kind, count = ("samples", part.size) if part.groups is None else ("groups", part.independent)
            raise ValueError(
                f"min_support={support} (--min-support): no formula can hold on so many {kind}, and fail on as many, of "
                f"the {count} that are {what}; at most {min(most, part.size // 2)} is possible"
            )


def _grouped_copies(table: Units) -> Array | None:
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


def _warn_of_copies(table: Units, row_of: Array) -> None:
    """Say how many samples are probably copies, which are not grouped without being asked."""
    near, equal = count_near_copies(table), count_equal_samples(table, row_of)
    if near or equal:
        what = "near copies of others" if near else "equal to others in activation and labels"
        warnings.warn(
            f"about {near or equal} of {len(table)} samples are {what}: if they show the same picture, p and q are far too "
            "small. Name the groups in groups= (on the command line --groups auto finds them), or leave copies out",
            AbsenceWarning,
            stacklevel=3,
        )


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
