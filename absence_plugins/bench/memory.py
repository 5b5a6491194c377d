"""Ratios of peak memory during one call."""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from absence_plugins.bench.result import Measurement, verdict
from absence_plugins.bench.surroundings import steady
from absence_plugins.bench.works import Work

MEMORY_LIMIT = 1.10
# glibc gives every tensor back at once: otherwise what happens to be reused moves the peak by a third
EXACT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MIB = 2.0**20
BUILDER = "absence_plugins.bench.works:build_works"


def weigh_ratio(
    network: str,
    name: str,
    device: torch.device,
    *,
    judged: bool,
    builder: str = BUILDER,
    limit: float = MEMORY_LIMIT,
    most: int | None = None,
) -> Measurement:
    """Ratio of the increases of the peak during one call, of the full size: small ones hide in what is held anyway.

    builder: "module:function" that makes the works of a network, by name. most: bytes that the increase may have, where
    it is these that are promised, and not a ratio; ``limit`` is then what they are of the host's.
    """
    peak = _peak_cuda if device.type == "cuda" else _peak_fresh
    ours, plain = (peak(builder, network, name, side, device) for side in ("ours", "plain"))
    ratio = ours / plain if plain else math.nan
    what = "increase of the peak during one call"
    if most is not None:
        limit = most / plain if plain else math.nan
        what = f"{what}, which may be {most / MIB:.0f} MiB"
    ok = verdict(ratio, limit if judged and plain else None)
    return Measurement(f"{network} {name}: memory", what, ours / MIB, plain / MIB, "MiB", ratio, limit, ok, (ratio,))


def weigh_sizes(builder: str, network: str, name: str, side: str, device: torch.device) -> list[float]:
    """Bytes by which one call at each size of a work's growth raises the peak, the smallest first."""
    if device.type != "cuda":
        return _measure_fresh("report_peaks", builder, network, name, side)
    growth = _works(builder)(network, False, device)[name].growth
    assert growth is not None
    return [_peak_of(growth.at(size)[0 if side == "ours" else 1], device) for size in growth.sizes]


def _peak_cuda(builder: str, network: str, name: str, side: str, device: torch.device) -> float:
    """Bytes that one call allocates at its peak."""
    work = _works(builder)(network, False, device)[name]
    return _peak_of(work.ours if side == "ours" else work.plain, device)


def _peak_of(call: Callable[[], object], device: torch.device) -> float:
    call()
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return float(torch.cuda.max_memory_allocated(device) - before)


def _peak_fresh(builder: str, network: str, name: str, side: str, chosen_device: torch.device) -> float:
    """Bytes by which one call raises the peak of a new process, which no earlier work has filled or fragmented."""
    return _measure_fresh("report_peak", builder, network, name, side)[0]


def _measure_fresh(function: str, builder: str, network: str, name: str, side: str) -> list[float]:
    """What a function of this module prints in a new process."""
    program = (
        f"from absence_plugins.bench.memory import {function} as f; f({builder!r}, {network!r}, {name!r}, {side!r})"
    )
    environment = {**os.environ, **EXACT_MALLOC, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {network} {name} failed:\n{done.stderr[-2000:]}")
    return [float(one) for one in json.loads(done.stdout.splitlines()[-1])["bytes"]]


def report_peak(builder: str, network: str, name: str, side: str) -> None:
    """What the new process does: a small warm-up of the libraries, then one call."""
    device = torch.device("cpu")
    with steady():
        small = _works(builder)(network, True, device)[name]
        small.ours(), small.plain()
        work = _works(builder)(network, False, device)[name]
        _print_peaks([work.ours if side == "ours" else work.plain])


def report_peaks(builder: str, network: str, name: str, side: str) -> None:
    """The same for the sizes of a work's growth: the smallest to warm up, then one call of each."""
    with steady():
        growth = _works(builder)(network, False, torch.device("cpu"))[name].growth
        assert growth is not None
        calls = [growth.at(size)[0 if side == "ours" else 1] for size in growth.sizes]
        calls[0]()
        _print_peaks(calls)


def _print_peaks(calls: Sequence[Callable[[], object]]) -> None:
    peaks = []
    for call in calls:
        gc.collect()
        before = reset_peak()
        call()
        peaks.append(read_peak() - before)
    print(json.dumps({"bytes": peaks}))


def _works(builder: str) -> Callable[[str, bool, torch.device], dict[str, Work]]:
    module, _, name = builder.partition(":")
    found: Callable[[str, bool, torch.device], dict[str, Work]] = getattr(importlib.import_module(module), name)
    return found


def reset_peak() -> int:
    """Let the peak start from the present state (Linux); returns the peak so far."""
    with suppress(OSError):  # not Linux, or not allowed: the call must then exceed the peak of the imports
        Path("/proc/self/clear_refs").write_text("5")
    return read_peak()


def read_peak() -> int:
    """Bytes of this process's peak resident set."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would carry the parent's peak over
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
