"""The recipe that works: whitened features, many starts at once, then the best ones with slopes that sharpen.

Every number below was measured (see the docs page's table of ablations). No labels take part anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.methods.directions import losses
from absence_plugins.methods.directions.estimate import say_long
from absence_plugins.methods.directions.features import Features, batches
from absence_plugins.methods.directions.signals import Signal, estimate_signals, selected
from absence_plugins.methods.directions.starts import draw_starts
from absence_plugins.methods.directions.whitening import Whitening

Background = Literal["none", "virtual", "detectors"]
Head = Callable[[Tensor], Tensor]

WEIGHTS = {
    "sparsity": 2.6,
    "max_activation": 2.8,
    "inactive": 5.0,
    "alignment": 0.25,
    "excessive": 15.0,
    "orthogonality": 1.0,
}
# what a finished solution is chosen by: whether its detectors explain every position, and the head's use of them
CHOICE = {"sparsity": 1.0, "max_activation": 1.0, "inactive": 5.0, "alignment": 0.25}
# Published .9, which forbids a concept at less than .9/I of the positions: with Zipf's law 2 of 5 data sets were right.
# With .7, 1 of 4 of those with 12 concepts were. So starts take turns, and finalists come from both.
START_TAUS, REFINE_TAU = (0.9, 0.6), 0.5
# At the low slope of the first stage wrong starts score better than right ones where concepts are many: of 7 data sets
# with 12 concepts in 32 dimensions 3 had no right finalist by score. In all 7 at least one of the two best others by
# the share of positions at which exactly one detector fires was right.
EXCLUSIVE_EVERY = 4  # one finalist in so many is chosen by that share
RHO_FACTOR, RHO_TAU = 12.0, 0.9
START_SLOPE, END_SLOPE = 8.0, 64.0
START_RATE, REFINE_RATE = 0.03, 0.01
SAMPLED = 20_000  # positions that starts and choices are made on
MOST_POSITIONS = 2_000  # of a mini-batch, for the losses that need no whole images


@dataclass(frozen=True)
class Options:
    """What a recipe is told; see :class:`~absence_plugins.methods.directions.DirectionPairs` for the meaning."""

    n_directions: int
    background: Background = "none"
    n_background: int = 1
    signal: Signal | None = None
    seed: int = 0
    starts: int = 24
    finalists: int = 8
    steps: int = 400
    batch_size: int = 250
    head_batch: int = 64
    step_range: tuple[float, float] = (0.5, 0.9)
    progress: bool = False

    @property
    def detectors(self) -> int:
        """All that are trained, those for the background included."""
        return self.n_directions + (self.n_background if self.background == "detectors" else 0)


@dataclass(frozen=True, eq=False)
class Solution:
    """Detectors in whitened coordinates: y = sigmoid(slope (x @ v - t)); v [R, I], t and slope [I].

    ``history``: the mean of every loss over the last tenth of each step's iterations, of the chosen start.
    ``signals`` [R, I]: joint encoding directions, if they are not to be the dual basis of v. ``notes``: see ``notes_``.
    """

    v: Tensor
    t: Tensor
    slope: Tensor
    history: dict[str, float] = field(default_factory=dict)
    signals: Tensor | None = None
    notes: tuple[str, ...] = ()


Terms = dict[str, Tensor]


class Objective:
    """The weighted losses of one mini-batch, for many solutions at once."""

    def __init__(self, options: Options, whitening: Whitening, head: Head | None) -> None:
        self.options, self.head, self.whitening = options, head, whitening
        self.backward = whitening.backward.float()
        self.rho = min(RHO_FACTOR * RHO_TAU / options.n_directions, 1.0)

    def terms(
        self,
        images: Tensor,
        x: Tensor,
        v: Tensor,
        t: Tensor,
        slope: float,
        kappa: float,
        *,
        refine: bool,
        tau: float | Tensor = REFINE_TAU,
    ) -> Terms:
        """Every loss, without its weight, [S]: images [B, H, W, D] for the head, positions x [P, R] for the others.

        v [S, R, I] of unit columns, t [S, I]. While ``refine`` is off any detector may become the background's; from
        then on it is the last ones.
        """
        options = self.options
        kept = options.n_directions if refine else options.detectors
        logits = slope * (x @ v - t[:, None])
        own = logits[..., :kept]
        y = own.sigmoid()
        log_y, log_q = losses.log_shares(logits, virtual=options.background == "virtual")
        terms = {
            "sparsity": losses.sparsity(log_q),
            "max_activation": losses.max_activation(log_y, log_q),
            # of 3 detectors as published; of more, an unused one costs as much as it does there
            "inactive": max(1.0, kept / 3) * losses.inactive_classifier(y, tau),
        }
        if refine:
            terms["excessive"] = losses.excessively_active(y, self.rho)
            signals = estimate_signals(x, own, selected(own.detach(), "positive"))
            terms["orthogonality"] = losses.filter_signal_orthogonality(v[..., :kept], signals)
        if self.head is not None:
            terms["alignment"] = self.alignment(images, slope * v[..., :kept], slope * t[:, :kept], kappa)
        return terms

    def alignment(self, images: Tensor, decoding: Tensor, threshold: Tensor, kappa: float) -> Tensor:
        """L_ur of the images with every position moved towards all hyperplanes: [S]."""
        assert self.head is not None
        starts, count = decoding.shape[0], min(self.options.head_batch, len(images))
        some = images[:count]
        logits = self.whitening(some).flatten(0, -2) @ decoding - threshold[:, None]
        shift = losses.region_shift(logits, decoding) @ self.backward.to(logits)
        moved = some - kappa * shift.reshape(starts, *some.shape).to(some)
        outputs = self.head(moved.flatten(0, 1)).float()
        return losses.uncertainty(outputs.reshape(starts, count, -1))


def robust(features: Features, whitening: Whitening, head: Head | None, options: Options) -> Solution:
    """Train many starts at a fixed slope, refine the best, choose one; by the objective alone."""
    generator = torch.Generator().manual_seed(options.seed)
    count, height, width, _ = features.shape
    few = torch.randperm(count, generator=generator)[: max(1, SAMPLED // (height * width))]
    sample_images = features.batch(few)
    sample = whitening(sample_images).flatten(0, -2)
    objective = Objective(options, whitening, head)
    ranks = whitening.ranks(options.detectors)
    v, t, inside = draw_starts(sample, options.starts, options.detectors, ranks, generator)
    start_taus = torch.tensor([START_TAUS[(i // len(ranks)) % len(START_TAUS)] for i in range(options.starts)])
    order = batches(count, options.batch_size, generator)

    def train(v: Tensor, t: Tensor, inside: Tensor, rate: float, *, refine: bool) -> tuple[Tensor, Tensor, Terms]:
        v, t = v.clone().requires_grad_(), t.clone().requires_grad_()
        optimizer = torch.optim.Adam([v, t], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
        tail: list[Terms] = []
        for step in range(options.steps):
            share = step / max(options.steps - 1, 1)
            slope = START_SLOPE * (END_SLOPE / START_SLOPE) ** share if refine else START_SLOPE
            low, high = options.step_range
            kappa = low + (high - low) * float(torch.rand((), generator=generator))
            images = features.batch(next(order))
            positions = images.flatten(0, -2)
            if len(positions) > MOST_POSITIONS:
                drawn = torch.randperm(len(positions), generator=generator)[:MOST_POSITIONS]
                positions = positions[drawn.to(positions.device)]
            x = whitening(positions)
            w = F.normalize(v * inside, dim=1)
            terms = objective.terms(
                images, x, w, t, slope, kappa, refine=refine, tau=REFINE_TAU if refine else start_taus
            )
            v.grad, t.grad = torch.autograd.grad(weighted(terms, WEIGHTS).sum(), [v, t])
            optimizer.step()
            schedule.step()
            bar.update()
            say_long(bar)
            if step >= 0.9 * (options.steps - 1):
                tail.append({name: value.detach() for name, value in terms.items()})
        means = {name: torch.stack([one[name] for one in tail]).mean(0) for name in tail[0]}
        return F.normalize(v.detach() * inside, dim=1), t.detach(), means

    with torch.enable_grad(), tqdm(total=2 * options.steps, desc="directions", disable=not options.progress) as bar:
        v, t, _ = train(v, t, inside, START_RATE, refine=False)
        ranked = scores(objective, sample_images, sample, v, t, START_SLOPE, refine=False, taus=start_taus)
        kinds = torch.stack([inside.sum((1, 2)).cpu(), start_taus], 1)
        exclusive = measure_exclusive_share(sample, v, t, virtual=options.background == "virtual")
        chosen = finalists(ranked, kinds, exclusive, options.finalists)
        v, t, inside = v[chosen], t[chosen], inside[chosen]
        if options.background == "detectors":
            v, t = background_last(sample, v, t, options.n_directions)
        v, t, means = train(v, t, inside, REFINE_RATE, refine=True)
    final = scores(objective, sample_images, sample, v, t, END_SLOPE, refine=True).argmin()
    slope = torch.full_like(t[final], END_SLOPE)
    return Solution(v[final], t[final], slope, {name: float(value[final]) for name, value in means.items()})


def finalists(ranked: Tensor, kinds: Tensor, exclusive: Tensor, count: int) -> Tensor:
    """The starts to refine, [count] numbers: most by score, the last quarter by ``exclusive``.

    ``ranked`` [S]: scores, lower is better; starts are taken in turn from each kind (rows of ``kinds`` [S, ...]).
    ``exclusive`` [S]: see :func:`measure_exclusive_share`; the best starts that are not yet chosen.
    """
    extra = count // EXCLUSIVE_EVERY
    order = ranked.cpu().argsort()
    place = torch.stack([(kinds[order[:i]] == kinds[one]).all(1).sum() for i, one in enumerate(order)])
    by_score = order[place.argsort(stable=True)][: count - extra]
    share = exclusive.cpu().masked_fill(~ranked.cpu().isfinite(), -1.0)
    share[by_score] = -2.0
    by_share = share.argsort(descending=True, stable=True)[:extra]
    return torch.cat([by_score, by_share]).to(ranked.device)


@torch.no_grad()
def measure_exclusive_share(x: Tensor, v: Tensor, t: Tensor, *, virtual: bool = False) -> Tensor:
    """The share of positions x [P, R] at which exactly one detector fires: v [S, R, I], t [S, I] -> [S].

    With ``virtual`` the background's detector fires where no other one does.

    >>> measure_exclusive_share(torch.tensor([[0.0], [2.0], [4.0]]), torch.ones(1, 1, 2), torch.tensor([[1.0, 3.0]]))
    tensor([0.3333])
    """
    counts = [(x @ v[one] > t[one]).sum(1) for one in range(len(v))]  # one start at a time, to keep memory small
    return torch.stack([((n == 1) | ((n == 0) & virtual)).float().mean() for n in counts])


def background_last(x: Tensor, v: Tensor, t: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Order detectors so that those of the background come last: v [S, R, I], t [S, I].

    The background's is the one that every concept's signal pushes down, w . s_j < 0; concepts leave each other alone.
    """
    logits = x @ v - t[:, None]
    signals = F.normalize(estimate_signals(x, logits, selected(logits, "positive")), dim=1)
    products = v.transpose(1, 2) @ signals
    pushed = (products - torch.diag_embed(torch.diagonal(products, dim1=1, dim2=2))).mean(2)
    order = pushed.argsort(1, descending=True)
    return v.gather(2, order[:, None].expand_as(v)), t.gather(1, order)


@torch.no_grad()
def scores(
    objective: Objective,
    images: Tensor,
    x: Tensor,
    v: Tensor,
    t: Tensor,
    slope: float,
    *,
    refine: bool,
    taus: Tensor | None = None,
) -> Tensor:
    """What the best starts are chosen by, lower is better: [S]. One start at a time, to keep memory small."""
    low, high = objective.options.step_range
    found = []
    for one in range(len(v)):
        here = slice(one, one + 1)
        tau = REFINE_TAU if taus is None else taus[here]
        terms = objective.terms(images, x, v[here], t[here], slope, (low + high) / 2, refine=refine, tau=tau)
        found.append(weighted(terms, CHOICE if refine else WEIGHTS))
    result = torch.cat(found)
    return torch.where(result.isnan(), torch.full_like(result, math.inf), result)


def weighted(terms: Terms, weights: dict[str, float]) -> Tensor:
    """The sum of the losses that have a weight: [S]."""
    return torch.stack([weights[name] * value for name, value in terms.items() if name in weights]).sum(0)
