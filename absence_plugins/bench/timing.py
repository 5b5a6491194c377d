"""Ratios of times, measured so that what else the machine does hits both sides alike."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from absence_plugins.bench.result import Measurement, verdict
from absence_plugins.bench.surroundings import synchronize
from absence_plugins.bench.works import Work

SECONDS_PER_WORK = 20.0  # aimed at: short work gets up to MORE_ROUNDS times the rounds, long work fewer
MORE_ROUNDS, FEWEST_ROUNDS = 8, 3


def timed(name: str, work: Work, rounds: int, device: torch.device, *, judged: bool) -> Measurement:
    """Ratio of times, adapter and host interleaved."""
    warm_up(name, work)
    limit = work.limit
    if limit is not None and work.forward is not None:
        limit += _share(work.forward, work.plain, device)
    sides = (work.ours, work.plain)
    times: tuple[list[float], list[float]] = ([], [])
    ratios: list[float] = []
    planned = rounds
    while len(ratios) < planned:
        first = len(ratios) % 2  # every other round begins with the other side
        spent = [0.0, 0.0]
        gc.collect()
        for side in (first, 1 - first, 1 - first, first):
            took = seconds(sides[side], device)
            spent[side] += took
            times[side].append(took)
        ratios.append(spent[0] / spent[1])
        if len(ratios) == 1 and judged:
            fits = int(SECONDS_PER_WORK / sum(spent))
            planned = max(min(rounds, FEWEST_ROUNDS), min(rounds * MORE_ROUNDS, fits))
    ratio = statistics.median(ratios)
    ours, plain = (1e3 * statistics.median(taken) for taken in times)
    ok = verdict(ratio, limit if judged and work.judged else None)
    return Measurement(f"{name}: time", work.what, ours, plain, "ms", ratio, limit, ok, tuple(ratios))


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """How long one call takes, the device's work included."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def _share(forward: Callable[[], Tensor], call: Callable[[], Tensor], device: torch.device) -> float:
    """What a forward without gradients costs, as a share of ``call``."""

    def quiet() -> Tensor:
        with torch.no_grad():
            return forward()

    quiet()
    return statistics.median(seconds(quiet, device) / seconds(call, device) for _ in range(9))


def warm_up(name: str, work: Work) -> None:
    """One call of each side; where both do the same work they must compute the same numbers.

    Raises:
        RuntimeError: they do not.
    """
    ours, plain = work.ours(), (work.same or work.plain)()
    if work.is_same and not _is_close(ours, plain):
        far = float((ours - plain).abs().max()) if ours.shape == plain.shape else math.inf
        raise RuntimeError(f"{name}: adapter and host differ by {far:.2g}; their times cannot be compared")
    if work.same is not None:
        work.plain()


def _is_close(ours: Tensor, plain: Tensor) -> bool:
    allowed = 1e-5 * float(plain.abs().max())
    return ours.shape == plain.shape and torch.allclose(ours, plain, rtol=1e-4, atol=allowed)
