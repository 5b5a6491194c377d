"""The recipe for many concepts: independent sources, of which the one-sided ones are concepts.

The work grows with the number of directions, not with starts times solutions; no labels take part, and no gradient of
the network's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions.apart import fit_apart, note_apart
from absence_plugins.methods.directions.estimate import say_fit
from absence_plugins.methods.directions.features import Features
from absence_plugins.methods.directions.final_losses import measure_losses
from absence_plugins.methods.directions.histograms import count_values
from absence_plugins.methods.directions.passes import (
    POLISH_ROUNDS,
    ROWS,
    STARTS,
    STEPS,
    Sample,
    Search,
    find_sources,
)
from absence_plugins.methods.directions.polish import ROUNDS, orthogonalize, polish, sum_over
from absence_plugins.methods.directions.recipe import Options, Solution
from absence_plugins.methods.directions.relabel import Mapped, relabel
from absence_plugins.methods.directions.sides import find_open_signs
from absence_plugins.methods.directions.signals import dual_basis
from absence_plugins.methods.directions.thresholds import Thresholds, fit_thresholds, start_thresholds
from absence_plugins.methods.directions.whitened import WhitenedPositions, draw_positions
from absence_plugins.methods.directions.whitening import Whitening

RELABELS, RELABEL_ROUNDS, HALF_ROUNDS = 2, 5, 10
EXPECTED_PASSES = 3
ONE_SIDED = 4.0  # standard errors of the third moment
# A source counts as resolved if, polished in each half of the images from TURN times as much noise as signal, it comes
# back to the same direction: measured, no wrong one did so in 8 sets of data, and 2 of 250 right ones did not.
TURN, STABLE = 0.7, 0.8  # a cosine
COUNTS = ("count", "passes", "fruitless")  # of a search
SHARPNESS = 6.0  # logit of a detector at the typical strength of its concept


@dataclass(frozen=True, eq=False)
class Ranked:
    """Orthonormal filters w [R, R], each with its long tail above: resolved ones first, most one-sided first."""

    w: Tensor
    resolved: Tensor


def scalable(
    features: Features, whitening: Whitening, options: Options, checkpoint: Checkpoint | None = None
) -> Solution:
    """Find sources, rank them, make detectors of the ``n_directions`` most one-sided ones.

    ``checkpoint``: what is found is kept after every pass, so that a killed fit goes on there.
    """
    positions = WhitenedPositions(features, whitening)
    total = EXPECTED_PASSES * POLISH_ROUNDS + ROUNDS + HALF_ROUNDS + RELABELS * RELABEL_ROUNDS
    with torch.no_grad(), tqdm(total=total, desc="directions", disable=not options.progress) as bar:
        say_fit(bar, lambda: estimate_seconds(positions, options.n_directions, total))

        def tick() -> None:
            if bar.n >= bar.total:  # a search takes as many passes as find something
                bar.total += POLISH_ROUNDS
            bar.update()

        work = _Work(positions, options, checkpoint, tick)
        ranked = work.keep("ranked", work.rank)
        made = work.keep("detectors", lambda: work.make_detectors(Ranked(**ranked)))
        bar.total = bar.n
        kept = options.n_directions
        thresholds = Thresholds(made["threshold"][:kept], made["typical"][:kept])
        open_sign = find_open_signs(positions, made["w"][:, :kept], thresholds.threshold)
    slope = SHARPNESS / (thresholds.typical - thresholds.threshold).clamp(min=1e-3)
    notes = note_resolution(int(ranked["resolved"].sum()), kept) + note_apart(made["apart"][:kept])
    if options.background != "none":
        notes += (f"background={options.background!r} has no effect on so many directions",)
    images = features.batch(
        torch.arange(min(features.shape[0], max(1, ROWS // (features.shape[1] * features.shape[2]))))
    )
    signals = dual_basis(made["w"])[:, :kept]
    decoding = (made["w"][:, :kept] * slope, thresholds.threshold * slope)
    return Solution(
        made["w"][:, :kept],
        thresholds.threshold,
        slope,
        measure_losses(images, whitening, decoding, signals, None, options),
        signals=signals,
        notes=notes,
        resolved=ranked["resolved"][:kept].bool(),
        open_sign=open_sign,
    )


def note_resolution(resolved: int, wanted: int) -> tuple[str, ...]:
    """What to say where the data resolve fewer directions than are wanted, or more.

    >>> note_resolution(3, 3), note_resolution(30, 64)[0][:58]
    ((), 'these positions resolve 30 of the 64 directions: the other')
    """
    if resolved == wanted:
        return ()
    if resolved > wanted:
        return (
            f"these positions resolve {resolved} one-sided sources; the directions are the {wanted} most one-sided",
        )
    return (
        f"these positions resolve {resolved} of the {wanted} directions: the others are not one-sided, or not "
        "the same in both halves of the images; do not trust them, pass more images, or "
        "ask for fewer",
    )


def estimate_seconds(positions: WhitenedPositions, wanted: int, rounds: int) -> float:
    """How long the fit takes, from a round of polishing on the first positions."""
    chunk = next(iter(positions))
    rank = chunk.shape[1]
    w = torch.eye(rank, dtype=chunk.dtype, device=chunk.device)
    polish([chunk], w, 1)
    began = time.monotonic()
    polish([chunk], w, 1)
    spent = time.monotonic() - began
    began = time.monotonic()
    _ = chunk @ w
    product = time.monotonic() - began
    n, height, width, _ = positions.features.shape
    parts = n * height * width / len(chunk)
    searches = 2 * STEPS * STARTS * wanted / rank * product * (EXPECTED_PASSES + 1) / 2
    return parts * (rounds * spent + searches)


class _Work:
    """The stages, each kept when it is done."""

    def __init__(
        self,
        positions: WhitenedPositions,
        options: Options,
        checkpoint: Checkpoint | None,
        tick: Callable[[], object],
    ) -> None:
        self.positions, self.options, self.checkpoint, self.tick = positions, options, checkpoint, tick
        self.device = next(iter(positions)).device

    def keep(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What was kept under a name, else what ``make`` returns, which is kept."""
        found = {} if self.checkpoint is None else self.checkpoint.load(name)
        if found:
            return {key: tensor.to(self.device) for key, tensor in found.items()}
        found = make()
        if self.checkpoint is not None:
            self.checkpoint.save(name, found)
        return found

    def search(self) -> Tensor:
        """Filters of sources, [R, R], of a sample of positions."""
        options, whitening = self.options, self.positions.whitening
        sample = Sample.split(draw_positions(self.positions.features, whitening, options.seed))
        kept = {} if self.checkpoint is None else self.checkpoint.load("search")
        known = None
        if kept:
            known = Search(kept["w"].to(self.device), *(int(kept[name]) for name in COUNTS))

        def save(search: Search) -> None:
            if self.checkpoint is not None:
                counts = {name: torch.tensor(getattr(search, name)) for name in COUNTS}
                self.checkpoint.save("search", {"w": search.w, **counts})

        return find_sources(sample, options.n_directions, options.seed, known, keep=save, tick=self.tick).w

    def rank(self) -> dict[str, Tensor]:
        """Polish sources on all positions, see which are one-sided and stable, rank them."""
        w = polish(self.positions, self.search(), tick=self.tick)
        side, error = measure_sides(self.positions, w)
        w, side = w * side.sign(), side.abs()
        resolved = (side > ONE_SIDED * error) & (self.measure_stability(w) > STABLE)
        order = (side + resolved * 1e6).argsort(descending=True, stable=True)
        return {"w": w[:, order], "resolved": resolved[order].to(torch.uint8)}

    def measure_stability(self, w: Tensor) -> Tensor:
        """The cosines [R] of sources polished in one half of the images, and in the other, from filters turned away.

        A source that is in the data comes back from there; what fits chance goes elsewhere.
        """
        generator = torch.Generator().manual_seed(self.options.seed)
        noise = torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w)
        start = orthogonalize(w + TURN * noise / len(w) ** 0.5)
        one, other = (polish(half, start, HALF_ROUNDS, tick=self.tick) for half in self.positions.halves())
        nearest = [half[:, (half.T @ w).abs().argmax(0)] for half in (one, other)]
        return (nearest[0] * nearest[1]).sum(0).abs()

    def make_detectors(self, ranked: Ranked) -> dict[str, Tensor]:
        """Thresholds of all resolved directions, relabelled; the others that are wanted get one by themselves, and no
        say.

        Resolved ones beyond the wanted number take part, so that their positions are not given to others.
        """
        w, count = ranked.w, int(ranked.resolved.sum())
        used = max(count, self.options.n_directions)
        rest = w[:, count:used]
        found, apart = Thresholds(w.new_zeros(0), w.new_zeros(0)), torch.zeros(0, dtype=torch.bool)
        if count:
            found = self.fit(w, count)
            for _ in range(RELABELS):
                known = torch.cat([w[:, :count], w[:, used:]], 1)

                def label(z: Tensor, w: Tensor = w, found: Thresholds = found) -> Tensor:
                    return found.label(z @ w[:, :count])

                known = relabel(self.positions, known, label, rounds=RELABEL_ROUNDS, tick=self.tick)
                w = torch.cat([known[:, :count], rest, known[:, count:]], 1)
                found = self.fit(w, count)
            found, apart = fit_apart(Mapped(self.positions, lambda z: z @ w[:, :count]), found)
        if rest.shape[1]:
            alone = start_thresholds(sum_over(count_values(z @ rest) for z in self.positions))
            found = Thresholds(*(torch.cat(parts) for parts in zip(_pair(found), _pair(alone), strict=True)))
        return {"w": w, "threshold": found.threshold, "typical": found.typical, "apart": apart.to(torch.uint8)}

    def fit(self, w: Tensor, count: int) -> Thresholds:
        """Thresholds of the first directions."""
        return fit_thresholds(Mapped(self.positions, lambda z: z @ w[:, :count]))


def _pair(thresholds: Thresholds) -> tuple[Tensor, Tensor]:
    return thresholds.threshold, thresholds.typical


def measure_sides(chunks: WhitenedPositions, w: Tensor) -> tuple[Tensor, Tensor]:
    """Third moments of the sources [K] and their standard errors [K]: above 0 for a long tail above."""

    def moments(z: Tensor) -> Tensor:
        cubes = (z @ w).double() ** 3
        return torch.stack([torch.ones_like(cubes[0]).mul(len(cubes)), cubes.sum(0), (cubes**2).sum(0)])

    count, total, squares = sum_over(moments(z) for z in chunks)
    mean = total / count
    error = ((squares / count - mean**2).clamp(min=0) / count).sqrt()
    return mean.to(w.dtype), error.to(w.dtype)
