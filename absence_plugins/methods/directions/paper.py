"""The published recipes, to compare with: constrained by an augmented Lagrangian, and with weighted penalties.

Source: Doumanoglou et al., arXiv 2509.23926 (TMLR 2026), the appendices on the synthetic experiment and on ResNet-18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.methods.directions import losses
from absence_plugins.methods.directions.estimate import say_long
from absence_plugins.methods.directions.features import Features, batches
from absence_plugins.methods.directions.lagrangian import AugmentedLagrangian
from absence_plugins.methods.directions.recipe import Head, Options, Solution
from absence_plugins.methods.directions.signals import estimate_signals, selected
from absence_plugins.methods.directions.whitening import Whitening

MANY = 8  # directions; up to here CONSTRAINED, beyond PENALIZED
SAMPLED = 20_000  # positions that the signal vectors of step c start from
UPDATE_EVERY = 100  # steps between two updates of the multipliers; the source does not give it
SMALLEST_MARGIN = 1e-3


@dataclass(frozen=True)
class Stage:
    """One published step: what is minimized, what is bounded, for how long, how fast.

    ``patience``: in epochs, of halving the rate on a plateau, and its cooldown; 0: a constant rate. ``steps`` counts
    mini-batches where ``epochs`` is 0.
    """

    name: str
    weights: Mapping[str, float]
    rate: float
    tau: float
    rho: float  # times tau / I
    bounds: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    epochs: int = 0
    patience: int = 0


# uur, cur: unconstrained and constrained uncertainty region alignment
_BOUNDS = {"ma": 0.8, "mm": 8.0, "ic": 0.1}
CONSTRAINED = (
    Stage("a", {"s": 2.6, "uur": 0.25}, 5e-5, 1.0, 1.5, _BOUNDS, steps=20_000),
    Stage("d", {"s": 0.85, "sb": 2.6, "cur": 0.25}, 5e-5, 1.0, 1.5, _BOUNDS | {"eac": 0.1, "fso": 0.1}, steps=20_000),
)
_A = {"s": 2.6, "ma": 2.8, "mm": 0.6, "ic": 5.0, "uur": 0.25}
_B = {"s": 0.85, "sb": 2.6, "ma": 2.8, "mm": 0.6, "ic": 15.0, "uur": 0.25, "eac": 15.0}
_D = {"s": 0.85, "sb": 2.6, "ma": 2.8, "mm": 0.6, "ic": 15.0, "cur": 0.25, "eac": 15.0, "fso": 1.0}
PENALIZED = (
    Stage("a", _A, 1e-3, 0.9, 1.0, epochs=800, patience=10),
    Stage("b", _B, 1e-4, 0.9, 12.0, epochs=2000, patience=50),
    Stage("d", _D, 5e-4, 0.2, 70.0, epochs=2000, patience=50),
)


def paper(features: Features, whitening: Whitening, head: Head | None, options: Options) -> Solution:
    """Train as published, from one random start: ``CONSTRAINED`` up to 8 directions, ``PENALIZED`` from 9 on.

    Step a: orthonormal filters on standardized features; then, without both restrictions, on centered ones: b (only
    ``PENALIZED``), c (signal vectors start at their estimator) and d, where they are free parameters. Margins M are
    learned. The published learning rates, schedules, numbers of steps, weights, bounds, tau, rho and kappa are kept;
    ``options.steps`` above 0 is the number of batches of each stage instead.

    The source does not give, and this is our choice: Adam; the batch of ``CONSTRAINED``, whose "20,000 epochs" are
    that many batches here (of ResNet-18 it says 4,096 positions, to be scaled to the memory; here ``batch_size``
    images); a quadratic weight of 10 and an update of the multipliers each 100 batches; the start (random filters,
    b = 0, M = 1); kappa of ``CONSTRAINED`` (as ``step_range``). The reported encoding directions are those of the
    estimator at the end, since they are closer to the truth than the free signal vectors.
    """
    stages = CONSTRAINED if options.n_directions <= MANY else PENALIZED
    generator = torch.Generator().manual_seed(options.seed)
    n, height, width, dimensions = features.shape
    order = batches(n, options.batch_size, generator)
    epoch = max(1, n // options.batch_size)  # batches
    counts = [options.steps or stage.steps or stage.epochs * epoch for stage in stages]
    state = _State.start(whitening, dimensions, options, generator)
    history: dict[str, float] = {}
    with torch.enable_grad(), tqdm(total=sum(counts), desc="directions", disable=not options.progress) as bar:
        for stage, count in zip(stages, counts, strict=True):
            if stage.name != "a":
                state = state.unstandardized()
            if stage.name == "d":
                some = torch.randperm(n, generator=generator)[: max(1, SAMPLED // (height * width))]
                state.start_signals(features.batch(some))
            history = _train(stage, count, epoch, state, features, order, head, options, generator, bar)
    return state.solution(whitening, history)


class _State:
    """The parameters, and the coordinates that they are in: (x - mean) / scale."""

    def __init__(self, mean: Tensor, scale: Tensor, v: Tensor, t: Tensor, margin: Tensor, orthogonal: bool) -> None:
        self.mean, self.scale, self.orthogonal = mean, scale, orthogonal
        self.v, self.t, self.margin = (one.detach().clone().requires_grad_() for one in (v, t, margin))
        self.s: Tensor | None = None

    @classmethod
    def start(cls, whitening: Whitening, dimensions: int, options: Options, generator: torch.Generator) -> _State:
        """Random orthonormal filters on standardized features."""
        deviations = (whitening.backward**2).sum(0).sqrt()
        scale = torch.where(deviations > 1e-6 * deviations.max(), deviations, deviations.max())
        drawn = torch.randn(dimensions, options.detectors, generator=generator, dtype=torch.float64)
        v = drawn.to(whitening.mean).float()
        zeros = v.new_zeros(options.detectors)
        return cls(whitening.mean, scale, v, zeros, zeros + 1, options.detectors <= dimensions)

    @property
    def filters(self) -> Tensor:
        """v, unit columns [D, I]: orthonormal in step a."""
        if self.orthogonal:
            q, r = torch.linalg.qr(self.v)
            turned: Tensor = q * torch.diagonal(r).sign()
            return turned
        return F.normalize(self.v, dim=0)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.v, self.t, self.margin, *([] if self.s is None else [self.s])]

    def coordinates(self, images: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return ((images.double() - self.mean) / self.scale).float()

    def unstandardized(self) -> _State:
        """The same detectors with unit filters on centered features."""
        w = self.filters.detach() / self.scale[:, None].float()
        norm = w.norm(dim=0)
        t, margin = self.t.detach() / norm, self.margin.detach() / norm
        return _State(self.mean, torch.ones_like(self.scale), w / norm, t, margin, False)

    @torch.no_grad()
    def start_signals(self, images: Tensor) -> None:
        """Step c: signal vectors by their estimator."""
        x = self.coordinates(images).flatten(0, -2)
        logits = x @ self.filters - self.t
        s = estimate_signals(x, logits, selected(logits, "positive"))
        s = torch.where(s.norm(dim=0) > 0, s, self.filters)
        self.s = F.normalize(s, dim=0).clone().requires_grad_()

    def solution(self, whitening: Whitening, history: dict[str, float]) -> Solution:
        """In whitened coordinates."""
        decoding = self.filters.detach().double() / self.scale[:, None]
        turned = whitening.backward @ decoding
        norm = turned.norm(dim=0).clamp(min=1e-12)
        slope = norm / self.margin.detach().double().clamp(min=SMALLEST_MARGIN)
        return Solution((turned / norm).float(), (self.t.detach().double() / norm).float(), slope.float(), history)


def _train(
    stage: Stage,
    count: int,
    epoch: int,
    state: _State,
    features: Features,
    order: Iterator[Tensor],
    head: Head | None,
    options: Options,
    generator: torch.Generator,
    bar: tqdm,  # type: ignore[type-arg,unused-ignore]
) -> dict[str, float]:
    """Run one stage in place; the losses of its last batch, and the multipliers."""
    optimizer = torch.optim.Adam(state.parameters, lr=stage.rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=stage.patience, cooldown=stage.patience
    )
    lagrangian = AugmentedLagrangian(stage.bounds)
    running, terms = 0.0, dict[str, Tensor]()
    low, high = options.step_range
    for step in range(count):
        images = features.batch(next(order))
        kappa = low + (high - low) * float(torch.rand((), generator=generator))
        terms = _terms(stage, images, state, kappa, head, options)
        total = torch.stack([stage.weights[name] * terms[name] for name in stage.weights if name in terms]).sum()
        if stage.bounds:
            total = total + lagrangian.term(terms)
        gradients = torch.autograd.grad(total, state.parameters, allow_unused=True)
        for parameter, gradient in zip(state.parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        with torch.no_grad():
            state.margin.clamp_(min=SMALLEST_MARGIN)
        running += float(total.detach())
        if stage.bounds and (step + 1) % UPDATE_EVERY == 0:
            lagrangian.update()
        if stage.patience and (step + 1) % epoch == 0:
            schedule.step(running / epoch)
            running = 0.0
        bar.update()
        say_long(bar)
    found = {_NAMES[name]: float(value.detach()) for name, value in terms.items()}
    return found | {f"multiplier of {_NAMES[name]}": value for name, value in lagrangian.multipliers.items()}


_NAMES = {
    "s": "sparsity",
    "sb": "sparsity_bound",
    "ma": "max_activation",
    "mm": "max_margin",
    "ic": "inactive",
    "eac": "excessive",
    "fso": "orthogonality",
    "uur": "alignment",
    "cur": "alignment",
}


def _terms(
    stage: Stage, images: Tensor, state: _State, kappa: float, head: Head | None, options: Options
) -> dict[str, Tensor]:
    """The losses of a stage, without their weights."""
    wanted, kept = {*stage.weights, *stage.bounds}, options.n_directions
    margins = state.margin.clamp(min=SMALLEST_MARGIN)
    x = state.coordinates(images)
    decoding = state.filters / margins
    logits = x.flatten(0, -2) @ decoding - state.t / margins
    own = logits[:, :kept]
    log_y, log_q = losses.log_shares(logits, virtual=options.background == "virtual")
    terms = {
        "s": losses.sparsity(log_q),
        "ma": losses.max_activation(log_y, log_q),
        "mm": losses.max_margin(margins),
        "ic": losses.inactive_classifier(own.sigmoid(), stage.tau),
    }
    if "sb" in wanted:
        terms["sb"] = losses.sparsity_bound(log_q)
    if "eac" in wanted:
        terms["eac"] = losses.excessively_active(own.sigmoid(), stage.rho * stage.tau / kept)
    if "fso" in wanted and state.s is not None:
        terms["fso"] = losses.filter_signal_orthogonality(decoding[:, :kept], state.s[:, :kept])
    if head is not None:
        count = min(options.head_batch, len(images))
        few = own[: count * images.shape[1] * images.shape[2]]
        span = state.s[:, :kept] if "cur" in wanted and state.s is not None else None
        shift = losses.region_shift(few, decoding[:, :kept], span) * state.scale.float()
        moved = images[:count] - kappa * shift.reshape(images[:count].shape)
        terms["cur" if "cur" in wanted else "uur"] = losses.uncertainty(head(moved))
    return terms
