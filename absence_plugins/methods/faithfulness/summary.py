"""From curves to scores: rows of one sample averaged, areas put between random and best, intervals over the samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from absence_plugins.methods.faithfulness.claims import area
from absence_plugins.methods.faithfulness.curves import Curves
from absence_plugins.methods.faithfulness.intervals import RESAMPLES, Ratio, bound_ratio
from absence_plugins.methods.faithfulness.result import AbsenceScores, View


def summarize(
    view: View,
    curves: Curves,
    found: dict[str, Tensor],
    best: dict[str, Tensor],
    controls: dict[str, Tensor] | None = None,
) -> AbsenceScores:
    """Scores from curves [rows, steps + 1].

    found: of "map", and if there are any, of "placebo" and "standard"; best: of "map" and of "standard", the best order
    that each is measured by; controls: of orders that never saw the network. Samples without anything to change do not
    count.

    Raises:
        ValueError: there is nothing to change in any sample.
    """
    claim = curves.claim
    total = int(claim.samples.max()) + 1
    changeable = curves.universe.any(1)
    counts = torch.bincount(claim.samples[changeable], minlength=total)
    kept = counts > 0
    if not bool(kept.any()):
        thing = "pixel" if claim.cells.kind is None else claim.cells.thing
        what = f"{thing} where only its reference has content"
        if view == "nontarget":
            what = "content that differs from blank" if claim.cells.kind is None else f"{thing} that differs from blank"
        raise ValueError(
            f"no sample has a {what}, so there is nothing to change; is `empty` the value of a blank {thing}?"
        )

    def by_sample(curve: Tensor) -> Tensor:
        curve = curve * changeable[:, None]
        summed = curve.new_zeros(total, curve.shape[1]).index_add_(0, claim.samples, curve)
        return summed[kept] / counts[kept, None]

    every = {name: by_sample(curve) for name, curve in {**found, "random": curves.random, "best": best["map"]}.items()}
    areas = {name: area(curve) for name, curve in every.items()}
    tiny = 1e-9 + 1e-6 * max(float(claim.start.abs().max()), *(float(part.abs().max()) for part in areas.values()))
    generator = torch.Generator().manual_seed(curves.seed)
    drawn = torch.randint(int(kept.sum()), (RESAMPLES, int(kept.sum())), generator=generator)

    def score(own: Tensor, top: Tensor) -> Ratio:
        # where even the best order does not move the unit the claimed way, nothing can be said of any
        room = torch.where(top.sum() > tiny * len(top), top - areas["random"], torch.nan)
        return bound_ratio(own - areas["random"], room, drawn, tiny, top=1.0)

    own = score(areas["map"], areas["best"])
    other = score(areas["standard"], area(by_sample(best["standard"]))) if "standard" in areas else None
    placebo = score(areas["placebo"], areas["best"]) if "placebo" in areas else None
    unseen = {name: score(area(by_sample(curve)), areas["best"]).value for name, curve in (controls or {}).items()}
    control = max(unseen, key=lambda name: unseen[name]) if unseen and not math.isnan(own.value) else None
    room = areas["best"] - areas["random"]
    per_sample = torch.full((total,), torch.nan, dtype=torch.float64)
    per_sample[kept] = torch.where(room > tiny, (areas["map"] - areas["random"]) / room, torch.nan)
    return AbsenceScores(
        view=view,
        score=own.value,
        interval=(own.low, own.high),
        placebo_score=None if placebo is None else placebo.value,
        control=control,
        control_score=None if control is None else unseen[control],
        standard_score=None if other is None else other.value,
        standard_interval=None if other is None else (other.low, other.high),
        over_random=bound_ratio(areas["map"], areas["random"], drawn, tiny),
        over_standard=bound_ratio(areas["map"], areas["standard"], drawn, tiny) if "standard" in areas else None,
        per_sample=per_sample,
        areas=areas,
        curves={name: curve.mean(0) for name, curve in every.items()},
        samples=int(kept.sum()),
        empty_samples=tuple((~kept).nonzero().flatten().tolist()),
        cell=claim.cells.size,
        seed=curves.seed,
        thing=claim.cells.thing,
    )
