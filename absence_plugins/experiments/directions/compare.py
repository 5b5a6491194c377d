"""Every method on the same synthetic data: how much of the known directions each recovers, and in what time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core.table import align
from absence_plugins.data.synthetic_directions import SyntheticDirections, synthetic_directions
from absence_plugins.experiments.directions.baselines import BASELINES, baseline
from absence_plugins.experiments.directions.recovery import Recovery, recovery
from absence_plugins.experiments.directions.settings import OURS
from absence_plugins.methods.directions import DirectionPairs


@dataclass(frozen=True)
class MethodResult:
    """One method on all data sets.

    Attributes:
        name: of the method.
        recoveries: one per data seed.
        seconds: one per data seed, of the fit alone.
    """

    name: str
    recoveries: tuple[Recovery, ...]
    seconds: tuple[float, ...]

    @property
    def success(self) -> float:
        """Share of the data sets in which everything was recovered."""
        return sum(one.ok for one in self.recoveries) / len(self.recoveries)

    @property
    def medians(self) -> tuple[float, float, float]:
        """Over the data sets, of the worst concept: IoU, cosine, RMSE."""
        return (
            statistics.median(min(one.iou) for one in self.recoveries),
            statistics.median(min(one.cosine) for one in self.recoveries),
            statistics.median(max(one.rmse) for one in self.recoveries),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {
            "name": self.name,
            "success": self.success,
            "median_worst_iou": self.medians[0],
            "median_worst_cosine": self.medians[1],
            "median_worst_rmse": self.medians[2],
            "seconds": list(self.seconds),
            "recoveries": [one.to_dict() for one in self.recoveries],
        }


@dataclass(frozen=True, repr=False)
class SyntheticResult:
    """All methods on the same data sets."""

    methods: tuple[MethodResult, ...]

    def __getitem__(self, name: str) -> MethodResult:
        return next(one for one in self.methods if one.name == name)

    def table(self) -> str:
        """One line per method: success, and the worst concept's IoU, cosine and RMSE in the median data set."""
        rows = [("", "recovered", "IoU", "cosine", "RMSE", "seconds")]
        for one in self.methods:
            iou, cosine, rmse = (f"{value:.3f}" for value in one.medians)
            seconds = f"{statistics.median(one.seconds):.1f}"
            rows.append((one.name, f"{100 * one.success:.0f} %", iou, cosine, rmse, seconds))
        return "\n".join(align(rows))

    def __repr__(self) -> str:
        return f"SyntheticResult of {len(self.methods)} methods\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"methods": [one.to_dict() for one in self.methods]}


def compare_methods(
    seeds: Sequence[int], *, quick: bool = False, progress: bool = True, names: Sequence[str] | None = None
) -> SyntheticResult:
    """Run every method (or those named) on the synthetic data of every seed.

    Raises:
        ValueError: no seeds, or an unknown method.
    """
    if not seeds:
        raise ValueError("seeds is empty; pass at least one")
    methods = _methods()
    chosen = list(methods) if names is None else list(names)
    unknown = [name for name in chosen if name not in methods]
    if unknown:
        raise ValueError(f"method {unknown[0]!r} is unknown; use some of {', '.join(methods)}")
    found: dict[str, list[tuple[Recovery, float]]] = {name: [] for name in chosen}
    with tqdm(total=len(seeds) * len(chosen), desc="directions-synthetic", disable=not progress) as bar:
        for seed in seeds:
            data = synthetic_directions(seed, images=900 if quick else 3000)
            for name in chosen:
                bar.set_postfix_str(f"{name}, data {seed}")
                began = time.perf_counter()
                made = methods[name](data)
                found[name].append((made, time.perf_counter() - began))
                bar.update()
    return SyntheticResult(
        tuple(
            MethodResult(name, tuple(made for made, _ in results), tuple(took for _, took in results))
            for name, results in found.items()
        )
    )


def _methods() -> dict[str, Callable[[SyntheticDirections], Recovery]]:
    def fitted(data: SyntheticDirections) -> Recovery:
        return recovery(data, DirectionPairs(data.encoding.shape[1]).fit(data.features, data.head))

    return {OURS: fitted, **{name: partial(baseline, name) for name in BASELINES}}
