"""From a solution in whitened coordinates to directions in the features' own, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.methods.directions.features import Features, chunks
from absence_plugins.methods.directions.ranking import measure_effects
from absence_plugins.methods.directions.recipe import Head, Options, Solution
from absence_plugins.methods.directions.report import ALONE_BELOW, STABLE, DirectionReport, describe, mark_unresolved
from absence_plugins.methods.directions.signals import FEWEST, Moments, dual_basis, selected
from absence_plugins.methods.directions.whitening import Whitening


@dataclass(frozen=True, eq=False)
class Directions:
    """What a fit is read as, in the order of the numbering; see the attributes of ``DirectionPairs``."""

    decoding: Tensor
    threshold: Tensor
    encoding: Tensor
    typical: Tensor
    report: DirectionReport


def read_solution(
    source: Features,
    whitening: Whitening,
    solution: Solution,
    head: Head | None,
    options: Options,
    signal: str,
    given: Features,
) -> Directions:
    """All positions are read, in float64; background detectors are left out.

    The numbering does not show which start was chosen: directions that move the head's logits most come first; without
    a head those that fire most often. The head gets the features as they were ``given``.
    """
    detectors = _Detectors(whitening, solution, options.n_directions)
    fires, alone, typical, positions = _count(source, detectors)
    if signal == "joint":
        signals = (dual_basis(solution.v) if solution.signals is None else solution.signals)[:, : len(fires)].double()
        used = torch.full_like(fires, positions)
    else:
        signals, used = _regress(source, detectors, signal, alone < ALONE_BELOW * fires)
    decoding = whitening.forward @ (detectors.v * detectors.slope)
    threshold = detectors.slope * detectors.t + whitening.mean @ decoding
    encoding = F.normalize(whitening.backward.T @ signals, dim=0)
    effect, order = None, fires.argsort(descending=True, stable=True)
    if head is not None:
        some = torch.arange(min(options.head_batch, source.shape[0]))
        step = (typical[1] - typical[0]) / (decoding * encoding).sum(0)
        strength = source.batch(some).double() @ decoding - threshold
        effect = measure_effects(head, given.batch(some), strength, encoding * step)
        order = effect.argsort(descending=True, stable=True)
        effect = effect[order].cpu()
    encoding = encoding[:, order]
    fires, alone, used = (count[order].cpu() for count in (fires, alone, used))
    stability = None if solution.stability is None else solution.stability[: len(order)][order].cpu()
    spread = whitening.backward.norm(dim=0).clamp(min=1e-12)  # of each feature: large ones make all directions alike
    alike = F.normalize(encoding / spread[:, None], dim=0).float()
    report = describe(fires, alone, used, alike.cpu(), positions, effect, stability)
    resolved = None if solution.resolved is None else solution.resolved[order].cpu()
    if resolved is None and whitening.kept_noise and stability is not None:
        resolved = stability >= STABLE
    report = mark_unresolved(report, resolved)
    if solution.open_sign is not None:
        report = replace(report, open_sign=tuple(solution.open_sign[order].tolist()))
    return Directions(
        decoding[:, order].float(), threshold[order].float(), encoding.float(), typical[:, order].float(), report
    )


class _Detectors:
    """Logits of a chunk of features, in float64."""

    def __init__(self, whitening: Whitening, solution: Solution, kept: int) -> None:
        self.whitening = whitening
        self.v, self.t = solution.v[:, :kept].double(), solution.t[:kept].double()
        self.slope = solution.slope[:kept].double()
        self.ignored = None if solution.resolved is None else ~solution.resolved  # their firing is no other concept

    def __call__(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened positions [P, R] and logits [P, I] of features [n, H, W, D]."""
        x = ((chunk.double() - self.whitening.mean) @ self.whitening.forward).flatten(0, -2)
        return x, self.slope * (x @ self.v - self.t)


def _count(source: Features, detectors: _Detectors) -> tuple[Tensor, Tensor, Tensor, int]:
    """Positions where each detector fires and fires alone, its mean logits where silent and firing, all positions."""
    positions, zero = 0, torch.zeros_like(detectors.t)
    fires, alone, total, above = zero.long(), zero.long(), zero, zero
    for chunk in chunks(source):
        _, z = detectors(chunk)
        fires, alone = fires + (z > 0).sum(0), alone + selected(z, "exclusive", detectors.ignored).sum(0)
        total, above = total + z.sum(0), above + z.relu().sum(0)
        positions += len(z)
    silent = (total - above) / (positions - fires).clamp(min=1)
    return fires, alone, torch.stack([silent, above / fires.clamp(min=1)]), positions


def _regress(source: Features, detectors: _Detectors, signal: str, extra: Tensor) -> tuple[Tensor, Tensor]:
    """One regression per direction: signals [R, I] and the number of positions behind each.

    ``extra`` [I]: does not count as another concept. Of a detector that hardly fires all positions count.
    """
    chosen, everywhere = Moments(), Moments()
    for chunk in chunks(source):
        x, z = detectors(chunk)
        chosen.add(x, z, selected(z, "positive" if signal == "positive" else "exclusive", extra))
        everywhere.add(x, z, torch.ones_like(z))
    signals, used = chosen.signals()
    usable = (used >= FEWEST) & (signals.norm(dim=0) > 0)
    return torch.where(usable, signals, everywhere.signals()[0]), used * usable
