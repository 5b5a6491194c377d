"""How the time and the memory of a work grow with its size: measured at three sizes, as an exponent."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from absence_plugins.bench.memory import MIB, weigh_sizes
from absence_plugins.bench.timing import seconds
from absence_plugins.bench.works import Growth

ROUNDS, FEWEST_ROUNDS, SECONDS = 9, 3, 3.0  # per size: fewer rounds where they would take longer than that
FASTER = 0.15  # by how much an exponent may exceed that of the work: what three sizes cannot tell apart


@dataclass(frozen=True)
class Grown:
    """One work at three sizes. An exponent of 1 means: twice the size, twice the cost.

    Attributes:
        counted: what the sizes count.
        sizes: ascending.
        ours, plain: the medians of the times, in ms.
        exponent, plain_exponent: the slopes of log time over log size.
        ours_memory, plain_memory: increases of the peak, in MiB; () where they were not measured.
        memory_exponent, plain_memory_exponent: their slopes; None where there are none.
    """

    counted: str
    sizes: tuple[int, ...]
    ours: tuple[float, ...]
    plain: tuple[float, ...]
    exponent: float
    plain_exponent: float
    ours_memory: tuple[float, ...] = ()
    plain_memory: tuple[float, ...] = ()
    memory_exponent: float | None = None
    plain_memory_exponent: float | None = None

    @property
    def too_fast(self) -> tuple[str, ...]:
        """What grows faster than its work ("time", "memory"): than its size, and than the same of the other side."""
        pairs = {"time": (self.exponent, self.plain_exponent)}
        if self.memory_exponent is not None:
            other = self.plain_memory_exponent
            pairs["memory"] = (self.memory_exponent, 1.0 if other is None else other)
        return tuple(name for name, (own, other) in pairs.items() if own > max(1.0, other) + FASTER)

    def cells(self) -> tuple[str, ...]:
        """One row of the table of growth, behind the name."""
        sizes = ", ".join(f"{size:,}" for size in self.sizes)
        memory = [_shown(one) for one in (self.plain_memory_exponent, self.memory_exponent)]
        faster = " and ".join(self.too_fast)
        said = f"{faster} faster than the work" if faster else ""
        return (f"{sizes} {self.counted}", f"{self.plain_exponent:.2f}", f"{self.exponent:.2f}", *memory, said)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return plain | {"too_fast": list(self.too_fast)}


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent b of cost = a size^b, by least squares in the logarithms; NaN where a cost is not positive.

    >>> round(slope([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    if min(costs) <= 0:
        return math.nan
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    return statistics.linear_regression(x, y).slope


def measure_growth(
    growth: Growth, device: torch.device, *, address: tuple[str, str, str] | None, quick: bool = False
) -> Grown:
    """Time both sides at every size, interleaved, and weigh them in a fresh process each.

    address: builder ("module:function"), network and name of the work, from which a process makes it again; None: the
    memory is not measured.
    """
    calls = [growth.at(size) for size in growth.sizes]
    for side in calls[0]:
        side()
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in calls]
    planned = 1 if quick else ROUNDS
    while len(times[0][0]) < planned:
        for taken, sides in zip(times, calls, strict=True):
            for own, side in zip(taken, sides, strict=True):
                own.append(1e3 * seconds(side, device))
        round_takes = sum(own[-1] for taken in times for own in taken) / 1e3
        planned = min(planned, max(FEWEST_ROUNDS, int(len(calls) * SECONDS / round_takes)))
    ours, plain = (tuple(statistics.median(taken[side]) for taken in times) for side in (0, 1))
    grown = Grown(growth.counted, growth.sizes, ours, plain, slope(growth.sizes, ours), slope(growth.sizes, plain))
    if address is None or not growth.memory or quick:
        return grown
    mine, others = (tuple(one / MIB for one in weigh_sizes(*address, side, device)) for side in ("ours", "plain"))
    slopes = (slope(growth.sizes, mine), slope(growth.sizes, others))
    known = [None if math.isnan(one) else one for one in slopes]
    return replace(
        grown, ours_memory=mine, plain_memory=others, memory_exponent=known[0], plain_memory_exponent=known[1]
    )


def _shown(exponent: float | None) -> str:
    return "-" if exponent is None else f"{exponent:.2f}"
