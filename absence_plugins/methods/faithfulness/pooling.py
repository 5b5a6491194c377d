"""From kept answers of a method, per training seed, to its score on a problem."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from absence_plugins.methods.faithfulness.result import View
from absence_plugins.methods.faithfulness.table import PlantedScore

IMAGES = "(images)"  # the name under which what holds for all methods is kept
TINY = 1e-6


def pool_answers(problem: str, method: str, view: View, found: Sequence[dict[str, Any]]) -> PlantedScore:
    """One score of all training seeds; found: per seed, name -> answer, and what all have in common under ``IMAGES``.

    The best order of a row is the best of all answers that are known, the controls and the measured orders.
    """
    common = [one[IMAGES] for one in found]
    exact = all(one["is_exact"] for one in common)
    answers = [one[method] for one in found]
    notes = [one["note"] for one in answers if "note" in one]
    if notes:
        return PlantedScore(problem, method, view, None, None, None, None, 0, exact, notes[0])
    columns = {
        name: [value for one in answers for value in one[name]] for name in ("share", "key_sign", "pointing", "sign")
    }
    rows = [_sum_by_sample(one, method) for one in found]
    own, best, samples = (sum(row[name] for row in rows) for name in ("own", "best", "samples"))
    unseen = {name: sum(row[name] for row in rows) for name in common[0]["areas"] if name != "measured"}
    control = max(unseen, key=lambda name: unseen[name])  # random, or an order that is better without the network
    random, chance = unseen["random"], unseen[control]
    tiny = TINY * max(one["largest"] for one in common) + TINY * abs(best)
    has_score = best > tiny * samples and best - chance > tiny
    return PlantedScore(
        problem=problem,
        method=method,
        view=view,
        share=mean(columns["share"]),
        sign=mean(columns["sign"]) if columns["sign"] else None,
        pointing=mean(columns["pointing"]),
        faithfulness=(own - chance) / (best - (chance if own > chance else random)) if has_score else None,
        samples=int(samples),
        is_exact=exact,
        note="",
        key_sign=mean(columns["key_sign"]),
        over_random=(own - random) / (best - random) if has_score else None,
        control=control,
        control_score=(chance - random) / (best - random) if has_score else None,
    )


def _sum_by_sample(answers: dict[str, Any], method: str) -> dict[str, float]:
    """Mean gains along the method's order ("own"), the best one and those that need no method, summed over samples."""
    common = answers[IMAGES]
    samples, changeable = torch.tensor(common["samples"]), torch.tensor(common["changeable"])
    counts = torch.bincount(samples[changeable], minlength=int(samples.max()) + 1)

    def add(areas: Tensor) -> float:
        summed = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, samples, areas * changeable)
        return float((summed / counts.clamp(min=1)).sum())

    every = {name: torch.tensor(values, dtype=torch.float64) for name, values in common["areas"].items()}
    known = [torch.tensor(one["areas"], dtype=torch.float64) for one in answers.values() if isinstance(one.get("areas"), list)]  # fmt: skip
    best = torch.stack([*every.values(), *known]).amax(0)
    own = torch.tensor(answers[method]["areas"], dtype=torch.float64)
    found = {name: add(areas) for name, areas in {**every, "own": own, "best": best}.items()}
    return {**found, "samples": float((counts > 0).sum())}
