"""Pairs of a few concepts: clusters as starts, each made exact by itself, the likeliest one sharpened.

No labels take part anywhere, and no gradient of the network's: the head chooses between sets of directions that explain
the positions equally well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.methods.directions.apart import INDEPENDENT, measure_dispersion, note_apart, split_thresholds
from absence_plugins.methods.directions.features import Features
from absence_plugins.methods.directions.final_losses import measure_losses
from absence_plugins.methods.directions.likelihood import log_likelihood
from absence_plugins.methods.directions.passes import start_skewed
from absence_plugins.methods.directions.polish import polish
from absence_plugins.methods.directions.ranking import measure_effects
from absence_plugins.methods.directions.recipe import Head, Options, Solution
from absence_plugins.methods.directions.relabel import RIDGE, regress_labels, relabel
from absence_plugins.methods.directions.sharpen import SLOPE, sharpen
from absence_plugins.methods.directions.sides import find_open_signs
from absence_plugins.methods.directions.signals import dual_basis
from absence_plugins.methods.directions.starts import kmeans
from absence_plugins.methods.directions.thresholds import Thresholds, fit_thresholds
from absence_plugins.methods.directions.whitening import Whitening

MOST = 8  # directions
SAMPLED = 30_000  # positions that all is made on
START_POSITIONS, START_PER_DIRECTION = 2_000, 700  # of these, at least, for the starts
DISCRIMINANTS, START_ROUNDS, ROUNDS, STABILITY_ROUNDS = 2, 1, 3, 2
SOURCES, SOURCE_STARTS, ONE_SIDED = 2, 4, 5.0  # per direction; per direction; standard errors of the third moment
ALIKE = 0.9  # cosine of filters that stand for the same direction
# How much less likely a rival may be, in nats per direction and position: one that has nothing in common with the best
# (no filters with a cosine of APART), and one that mixes the same concepts. Wrong ones were at least .07 below.
BESIDE, MIXED, APART = 0.1, 0.02, 0.5
ENOUGH_STARTS = 24  # so that right directions are found more than once
STARTS_BESIDE = 6  # at least, or a third of the starts
IMPROVED = 4  # rivals, at most, that are relabelled on all positions
STAYS = 0.9  # cosine of a sharpened filter with what it was made from


@dataclass(frozen=True, eq=False)
class Candidate:
    """Filters w [R, I] of unit length in whitened coordinates, their thresholds, and how likely they make a position.

    ``rank``: the number of leading coordinates that they read. ``times``: how many starts ended there.
    """

    w: Tensor
    thresholds: Thresholds
    likelihood: float
    rank: int
    times: int = 1

    def is_like(self, other: Candidate) -> bool:
        """Whether both are the same directions, in any order."""
        alike = (self.w.T @ other.w) > ALIKE
        return bool(alike.any(0).all() and alike.any(1).all())

    def steps(self, z: Tensor, whitening: Whitening) -> Tensor:
        """From a typical position z [P, R] without a concept to one with it, in the features' units: [D, I]."""
        u = z @ self.w
        fires = (u > self.thresholds.threshold).to(u.dtype)
        on = (u * fires).sum(0) / fires.sum(0).clamp(min=1)
        off = (u * (1 - fires)).sum(0) / (1 - fires).sum(0).clamp(min=1)
        return whitening.backward.T @ (dual_basis(self.w) * (on - off)).double()


def few(features: Features, whitening: Whitening, head: Head | None, options: Options) -> Solution:
    """Find at most 8 directions.

    Every start takes k-means clusters of whitened positions as filters, finds thresholds, and relabels once
    (:func:`~absence_plugins.methods.directions.relabel.relabel`); the most one-sided independent sources are
    candidates, too. The likeliest sets of directions are relabelled on all positions, and one is chosen: the likeliest,
    or, of those that differ by little, the one whose concepts the head uses most. Where its concepts exclude each other
    its detectors are then separated better; its encoding directions stay those of the strengths.
    """
    generator = torch.Generator().manual_seed(options.seed)
    count, height, width, _ = features.shape
    drawn = torch.randperm(count, generator=generator)[: max(1, SAMPLED // (height * width))]
    images = features.batch(drawn)
    z = whitening(images).flatten(0, -2)
    ranks = whitening.ranks(options.n_directions)
    clusters = search(z, ranks, options, generator)
    found = clusters + search_beside(z, clusters[0], options, generator)
    # trained networks, whose components have no clear end, have likely sources that are no concepts
    if len(ranks) == 1 or clusters[0].times == 1:
        found += search_sources(z, clusters[0].rank, options, generator)
    found = distinct(found)
    likely = distinct([settle(z, one) for one in find_rivals(found)[:IMPROVED]])
    rivals = find_rivals(likely)
    chosen = find_one_sided(z, rivals) if head is None else choose(rivals, images, z, whitening, head, options)
    chosen, clear = part(z, chosen)
    w, threshold, open_sign = chosen.w, chosen.thresholds.threshold, None
    if len(clear):
        open_sign = find_open_signs([z], w, threshold)
    else:
        separated, moved = sharpen(z, w, chosen.thresholds)
        if bool(((separated * w).sum(0) >= STAYS).all()):
            w, threshold = separated, moved
    stability = measure_stability(z, chosen, whitening)
    signals = dual_basis(chosen.w)
    history = measure_losses(images, whitening, (SLOPE * w, SLOPE * threshold), signals, head, options)
    history["log_likelihood"] = log_likelihood(z, w, threshold)
    notes = note_rivals(rivals, head) + note_chance(chosen, options.starts) + note_apart(clear)
    if options.background != "none":
        notes += (
            f"background={options.background!r} has no effect: positions without a concept are allowed for anyway",
        )
    slope = torch.full_like(threshold, SLOPE)
    return Solution(w, threshold, slope, history, signals, notes, stability=stability, open_sign=open_sign)


def find_rivals(found: list[Candidate]) -> list[Candidate]:
    """The likeliest one, which comes first in ``found``, and all others that explain the positions about as well.

    Sets that have nothing in common with it may be a little less likely; sets that mix the same concepts may not.
    """
    best = found[0]
    margins = [(BESIDE if float((best.w.T @ one.w).abs().max()) < APART else MIXED) * one.w.shape[1] for one in found]
    return [one for one, most in zip(found, margins, strict=True) if one.likelihood >= best.likelihood - most]


def search(z: Tensor, ranks: tuple[int, ...], options: Options, generator: torch.Generator) -> list[Candidate]:
    """The sets of directions at which the starts end, the likeliest first: z [P, R].

    With several ``ranks`` only those at which several starts end, at least half as many as anywhere, if there are any.
    """
    count = max(START_POSITIONS, START_PER_DIRECTION * options.n_directions)
    some = z[torch.randperm(len(z), generator=generator)[:count].to(z.device)]
    turns = [ranks[start % len(ranks)] for start in range(options.starts)]
    found = [
        start_at(some, rank, options, generator)
        for rank in tqdm(turns, desc="directions", disable=not options.progress)
    ]
    kept = distinct(found)
    if len(ranks) == 1:
        return kept
    # Likelihoods of different ranks do not compare well: small components of trained networks are far from normal, and a
    # set that claims one by chance looks likely. But such a set is found seldom.
    if kept[0].times == 1:
        kept = distinct(kept + [start_at(some, kept[0].rank, options, generator) for _ in range(options.starts)])
    most = max(one.times for one in kept)
    return [one for one in kept if one.times > 1 and 2 * one.times >= most] or kept


def start_at(z: Tensor, rank: int, options: Options, generator: torch.Generator) -> Candidate:
    """Where one start ends, in the first ``rank`` coordinates of z [P, R]."""
    w = torch.zeros(z.shape[1], options.n_directions, dtype=z.dtype, device=z.device)
    w[:rank] = F.normalize(kmeans(z[:, :rank], options.n_directions, generator), dim=1).T
    w, thresholds = discriminate(z, w, rank)
    return improve(z, Candidate(w, thresholds, 0.0, rank), START_ROUNDS)


def discriminate(z: Tensor, w: Tensor, rank: int) -> tuple[Tensor, Thresholds]:
    """Label and take Fisher's discriminants of the labels, in turns: filters [R, I] and their thresholds.

    Centers of clusters point at mixtures of concepts; from there alone, relabelling can go to a wrong solution.
    """
    inside, w = z[:, :rank], w.clone()
    thresholds = fit_thresholds([z @ w])
    for _ in range(DISCRIMINANTS):

        def label(x: Tensor, w: Tensor = w, thresholds: Thresholds = thresholds) -> Tensor:
            return thresholds.label(x @ w[:rank])

        shifts, covariance = regress_labels([inside], label)
        eye = torch.eye(rank, dtype=covariance.dtype, device=covariance.device)
        found = torch.linalg.solve(covariance + RIDGE * eye, shifts[:-1].T)
        w = torch.cat([F.normalize(found, dim=0).to(w.dtype), w[rank:]])
        thresholds = fit_thresholds([z @ w])
    return w, thresholds


def search_beside(z: Tensor, best: Candidate, options: Options, generator: torch.Generator) -> list[Candidate]:
    """Sets of directions that have nothing in common with the best one, where there is room for as many: z [P, R].

    Concepts that vary by themselves would otherwise be found by luck only: clusters are those of the larger spread.
    """
    axes = torch.linalg.svd(best.w.double(), full_matrices=True).U[:, options.n_directions :].to(z.dtype)
    room = axes.shape[1]
    if room < options.n_directions:
        return []
    starts = min(options.starts, max(STARTS_BESIDE, options.starts // 3))
    found = search(z @ axes, (room,), replace(options, starts=starts), generator)
    return [replace(one, w=axes @ one.w, rank=z.shape[1]) for one in found]


def search_sources(z: Tensor, rank: int, options: Options, generator: torch.Generator) -> list[Candidate]:
    """The most one-sided independent sources in the first ``rank`` coordinates of z [P, R], as they are and relabelled.

    Concepts that are present independently of each other are such sources; clusters seldom lead there.
    """
    inside, count = z[:, :rank], options.n_directions
    w = start_skewed(inside, SOURCE_STARTS * count, generator)[:, : SOURCES * count]
    w = polish([inside], w)
    cubes = (inside @ w).double() ** 3
    order = cubes.mean(0).abs().argsort(descending=True, stable=True)[:count]
    sides, errors = cubes.mean(0)[order], cubes.std(0)[order] / len(z) ** 0.5
    w = w[:, order] * sides.sign().to(w.dtype)
    found = fit_thresholds([inside @ w])
    w = torch.cat([w, w.new_zeros(z.shape[1] - rank, count)])
    if not bool((sides.abs() > ONE_SIDED * errors).all()):
        return []  # a likely set may be chance, as the small components of trained networks are far from normal
    return [
        improve(z, Candidate(w, thresholds, 0.0, rank, times=2), START_ROUNDS)
        for thresholds in (found, split_thresholds([z @ w], found)[0])
    ]


def part(z: Tensor, one: Candidate) -> tuple[Candidate, Tensor]:
    """Thresholds of each direction's own values, where concepts do not exclude each other, and which have an edge
    there.

    The side with the long tail, which is the rarer one, counts as presence: nothing else tells it.
    """
    u = z @ one.w
    if measure_dispersion([u], split_thresholds([u], one.thresholds)[0]) < INDEPENDENT:
        return one, torch.zeros(0, dtype=torch.bool)
    w = one.w * (u.double() ** 3).mean(0).sign().to(one.w)
    one = settle(z, replace(one, w=w, thresholds=split_thresholds([z @ w], fit_thresholds([z @ w]))[0]))
    thresholds, clear = split_thresholds([z @ one.w], one.thresholds)
    return replace(one, thresholds=thresholds), clear


def settle(z: Tensor, one: Candidate) -> Candidate:
    """Improved on all positions, unless labels that do not fit the concepts make it less likely by that."""
    before, after = (improve(z, one, rounds) for rounds in (0, ROUNDS))
    return after if after.likelihood > before.likelihood - MIXED else before


def improve(z: Tensor, one: Candidate, rounds: int) -> Candidate:
    """Relabel and fit thresholds in turns, inside the candidate's coordinates."""
    inside, w, thresholds = z[:, : one.rank], one.w[: one.rank], one.thresholds
    for _ in range(rounds):

        def label(x: Tensor, w: Tensor = w, thresholds: Thresholds = thresholds) -> Tensor:
            return thresholds.label(x @ w)

        w = relabel([inside], w, label)
        thresholds = thresholds.refit([inside @ w])
    w = torch.cat([w, one.w[one.rank :]])
    return replace(one, w=w, thresholds=thresholds, likelihood=log_likelihood(z, w, thresholds.threshold))


def distinct(found: list[Candidate]) -> list[Candidate]:
    """One of each set of directions, the likeliest first, with how many starts ended there."""
    kept: list[Candidate] = []
    for one in sorted(found, key=lambda one: -one.likelihood):
        same = next((i for i, other in enumerate(kept) if one.is_like(other)), None)
        if same is None:
            kept.append(one)
        else:
            kept[same] = replace(kept[same], times=kept[same].times + one.times)
    return kept


def choose(
    rivals: list[Candidate], images: Tensor, z: Tensor, whitening: Whitening, head: Head, options: Options
) -> Candidate:
    """The one with the largest mean effect on the head's logits."""
    if len(rivals) == 1:
        return rivals[0]
    some = images[: options.head_batch]
    effects = []
    for one in rivals:
        strength = whitening(some) @ one.w - one.thresholds.threshold
        effects.append(float(measure_effects(head, some, strength, one.steps(z, whitening)).mean()))
    return rivals[effects.index(max(effects))]


def find_one_sided(z: Tensor, rivals: list[Candidate]) -> Candidate:
    """Of those that are about as likely as the first, the one whose least one-sided direction is the most one-sided.

    Distractors may be as independent as concepts are; concepts that are rarely there have a long tail.
    """
    least = rivals[0].likelihood - MIXED * rivals[0].w.shape[1]
    alike = [one for one in rivals if one.likelihood >= least]
    return max(alike, key=lambda one: float(((z @ one.w).double() ** 3).mean(0).abs().min()))


def measure_stability(z: Tensor, one: Candidate, whitening: Whitening) -> Tensor:
    """How alike each encoding direction is in two halves of the images: cosines [I]. z [P, R], images in random order.

    Both halves begin at the same directions and relabel by themselves. Directions that positions do not determine, for
    example of concepts that always come together, or of none, go different ways.
    """
    halves = (improve(half, one, STABILITY_ROUNDS) for half in z.tensor_split(2))
    first, second = (F.normalize(whitening.backward.T @ dual_basis(half.w).double(), dim=0) for half in halves)
    return (first * second).sum(0)


def note_rivals(rivals: list[Candidate], head: Head | None) -> tuple[str, ...]:
    """What must be known of other sets of directions that explain the positions as well as those chosen."""
    if len(rivals) == 1:
        return ()
    said = "1 other set" if len(rivals) == 2 else f"{len(rivals) - 1} other sets"
    by = "those whose concepts the network uses most were taken" if head is not None else "pass a head to choose"
    return (f"the positions alone do not decide: {said} of directions explain them as well; {by}",)


def note_chance(chosen: Candidate, starts: int) -> tuple[str, ...]:
    """That no two of several starts ended at the same directions."""
    if chosen.times > 1 or starts < ENOUGH_STARTS:
        return ()
    return (
        f"only one of {starts} starts ended at these directions: they may be chance; the layer may hold fewer concepts",
    )
