"""``bench invert`` at a million samples: a fresh process names units of a layer that is larger than its memory may be.

Activations are made as they are read, in the place of a file: 1,000,000 samples by 2,048 units would take 8.2 GB.
Naming ends where the second block of units would be read, after 268 units (67 where a half is held out, as a quarter
is read at a time); from then on all repeats itself. The peak is that of the whole process, imports and the packed
labels included.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from absence_plugins.bench.growth import Grown, measure_growth
from absence_plugins.bench.memory import read_peak
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import steady
from absence_plugins.bench.works import Growth, Work
from absence_plugins.methods.invert import PackedConcepts, label_units
from absence_plugins.methods.invert import units as reading
from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.units import AHEAD

SAMPLES, CONCEPTS, UNITS = 1_000_000, 1_000, 2_048
SMALL = (2_000, 40, 12)  # samples, concepts, units where nothing is judged
SORTS, GIGABYTES = 4.0, 8.0
GROWN = 8  # units of each size
BEAM: dict[str, Any] = {"beam": 3, "top": 3, "exact_pairs": False, "holdout": 0, "min_support": 1, "prefer": "auc", "search": "beam"}  # fmt: skip
DEFAULT: dict[str, Any] = {"exact_pairs": False}  # a half held out, p and q, five formulas, the shortest description
OPTIONS = {
    "beam of 3, nothing held out": (BEAM, AHEAD),
    "the same with all pairs": (BEAM | {"exact_pairs": True}, AHEAD),
    "a half held out, p and q": (DEFAULT, AHEAD // 4),
    "the default: that with all pairs": ({}, AHEAD // 4),
}
DISTINCT = 16  # columns of noise that units share


@dataclass(frozen=True)
class Large:
    """Names at a million samples, by one setting of ``label_units``.

    Attributes:
        setting: in words.
        samples, concepts, units: of the problem.
        block: gigabytes of activations read at a time.
        named: units that were named.
        prepare: seconds of one core before the first block is there: labels read and merged, everything looked at for
            NaN.
        unit: ms of one core per unit after that, reading included.
        sort: ms of one sort of one unit's activations, in the same process.
        gigabytes: the peak of the process.
        ok: whether a unit takes at most 4 sorts, and the process less than 8 GB (None: not judged).
    """

    setting: str
    samples: int
    concepts: int
    units: int
    block: float
    named: int
    prepare: float
    unit: float
    sort: float
    gigabytes: float
    ok: bool | None

    @property
    def sorts(self) -> float:
        """Sorts that a unit costs."""
        return self.unit / self.sort

    def line(self) -> str:
        """In a sentence."""
        judged = "" if self.ok is None else f"; promised <= {SORTS:g} sorts and < {GIGABYTES:g} GB: {'ok' if self.ok else 'TOO MUCH'}"  # fmt: skip
        return (
            f"N={self.samples:,} K={self.concepts:,} U={self.units:,} read in blocks of {self.block:.1f} GB, {self.setting}: {self.unit:.0f} ms per unit "
            f"({self.named} named), {self.sorts:.1f} sorts of {self.sort:.0f} ms, after {self.prepare:.0f} s of one core once; peak of the "
            f"process {self.gigabytes:.2f} GB{judged}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain strings and numbers, ready for JSON."""
        return asdict(self) | {"sorts": self.sorts}


class Drawn:
    """Activations [N, U] that are made as they are read; the second block of units ends the naming.

    A unit is the sum of three concepts and one of 16 columns of noise.
    """

    def __init__(self, samples: int, units: int, concepts: PackedConcepts) -> None:
        rng = np.random.default_rng(1)
        self.shape, self.dtype = (samples, units), np.dtype(np.float32)
        first = (
            concepts.read(0, samples)[:, :3]
            if samples < 10_000
            else np.unpackbits(concepts.packed[:, :1], axis=1, count=3)
        )
        cause = first.astype(np.float32) @ np.array([1, -1, 0.5], np.float32)
        self.noise = rng.standard_normal((samples, DISTINCT), np.float32) + cause[:, None]
        self.begun: list[tuple[int, float]] = []

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        rows, columns = index
        first, last = columns.start, columns.stop
        if last - first < self.shape[1] and rows.start == 0:
            self.begun.append((first, time.process_time()))
            if first > 0:
                raise EnoughError
        shift = first % DISTINCT
        times = -(-(shift + last - first) // DISTINCT)
        return np.tile(self.noise[rows], (1, times))[:, shift : shift + last - first]


class EnoughError(Exception):
    """The second block of units begins."""


def draw_packed(samples: int, concepts: int) -> PackedConcepts:
    """Independent concepts, on 13 to 50 % of the samples, eight a byte."""
    rng = np.random.default_rng(0)
    width = -(-concepts // 8)
    rare = rng.integers(0, 256, (2, width), np.uint8)
    packed = rng.integers(0, 256, (samples, width), np.uint8)
    for mask in rare:
        packed &= rng.integers(0, 256, (samples, width), np.uint8) | mask
    if concepts % 8:
        packed[:, -1] &= 0xFF << (8 - concepts % 8) & 0xFF
    return PackedConcepts(packed, concepts)


def measure_large(run: Run) -> tuple[Large, ...]:
    """Every setting, in a fresh process each."""
    return tuple(_measure_fresh(setting, run) for setting in OPTIONS)


def _measure_fresh(setting: str, run: Run) -> Large:
    program = f"from absence_plugins.bench.million import report_large as f; f({setting!r}, {run.quick!r})"
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # numpy's threads, too
    environment = {**os.environ, **one, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"naming units at a million samples failed:\n{done.stderr[-2000:]}")
    found = Large(**json.loads(done.stdout.splitlines()[-1]), ok=None)
    kept = found.sorts <= SORTS and found.gigabytes < GIGABYTES
    return found if run.quick else Large(**{**asdict(found), "ok": kept})


def report_large(setting: str, quick: bool) -> None:
    """What the fresh process does."""
    samples, count, units = SMALL if quick else (SAMPLES, CONCEPTS, UNITS)
    options, reading.AHEAD = OPTIONS[setting]
    with steady():
        concepts = draw_packed(samples, count)
        drawn = Drawn(samples, units, concepts)
        alone = torch.from_numpy(drawn.noise[:, 0].copy())
        sorts = [_cpu_seconds(alone.sort) for _ in range(5)]
        start = time.process_time()
        try:
            label_units(drawn, concepts, [f"concept {k}" for k in range(count)], progress=False, **options)
            named, end = units, time.process_time()
        except EnoughError:
            named, end = drawn.begun[-1]
        began = drawn.begun[0][1] if drawn.begun else start
        sorts += [_cpu_seconds(alone.sort) for _ in range(5)]
        print(json.dumps({
            "setting": setting, "samples": samples, "concepts": count, "units": units, "block": 4 * min(reading.AHEAD, samples * units) / 1e9, "named": named,
            "prepare": began - start, "unit": 1e3 * (end - began) / named, "sort": 1e3 * statistics.median(sorts),
            "gigabytes": read_peak() / 1e9,
        }))  # fmt: skip


def _cpu_seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure_large_growth(run: Run) -> tuple[Grown, ...]:
    """How ``label_units`` grows with the samples, and with the concepts, next to as many sorts."""
    works = build_large_works("", run.quick, torch.device("cpu"))
    address = f"{__name__}:{build_large_works.__name__}"
    return tuple(
        measure_growth(work.growth, torch.device("cpu"), address=(address, "", name), quick=run.quick)
        for name, work in works.items()
        if work.growth is not None
    )


def build_large_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """Growth over samples, and over concepts; no networks."""
    samples, concepts = (200, 16) if quick else (SAMPLES, CONCEPTS)

    def prepare(count: int, k: int) -> tuple[Any, Any]:
        labels = draw_packed(count, k)
        values = torch.from_numpy(Drawn(count, GROWN, labels).noise[:, :GROWN].copy())
        names = [f"concept {i}" for i in range(k)]
        return lambda: label_units(values, labels, names, progress=False, **BEAM), lambda: values.T.contiguous().sort(1)

    along = {
        "samples": Growth("samples", _thirds(samples), lambda size: prepare(size, concepts)),
        "concepts": Growth("concepts", _thirds(concepts), lambda size: prepare(samples // 4, size)),
    }
    return {name: Work(name, None, *one.at(one.sizes[0]), growth=one) for name, one in along.items()}


def _thirds(most: int) -> tuple[int, int, int]:
    return most // 4, most // 2, most
