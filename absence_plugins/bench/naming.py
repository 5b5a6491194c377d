"""How often ``label_units`` names a unit rightly, and how often a unit that knows no concept: seeded simulations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from absence_plugins.core.table import align
from absence_plugins.methods.invert import Formula, label_units
from absence_plugins.methods.invert.bits import Array

PLANTED = ("a", "NOT b", "a AND NOT b", "(a OR c) AND NOT b")
EFFECTS = (1.0, 2.0, 4.0)
SAMPLES = (100, 400, 2000)
UNITS = 20  # per planted formula, samples and effect
KINDS = ("dense", "sparse", "tied")
RUNS = {100: 40, 400: 30, 2000: 15}  # of eight units that know nothing
LEVEL = 0.05


@dataclass(frozen=True)
class Recovery:
    """Of units that follow a planted formula the share that is named by it, q <= .05.

    effect: by how much a unit is higher where the formula holds, in standard deviations of its noise.
    """

    samples: int
    effect: float
    planted: str
    rate: float


@dataclass(frozen=True)
class Null:
    """Of units that know no concept those that are named (p <= .05), and those with a NOT that is (p <= .05)."""

    samples: int
    kind: str
    named: int
    nots: int
    asked: int


@dataclass(frozen=True)
class Naming:
    """Both simulations."""

    recoveries: tuple[Recovery, ...]
    nulls: tuple[Null, ...]

    def rows(self) -> Iterator[str]:
        """The table of recoveries as Markdown: a line per number of samples and effect."""
        for samples, effect in dict.fromkeys((one.samples, one.effect) for one in self.recoveries):
            own = {one.planted: one.rate for one in self.recoveries if (one.samples, one.effect) == (samples, effect)}
            rates = " | ".join(f"{100 * own[planted]:.0f} %" for planted in PLANTED if planted in own)
            yield f"| {samples:,} | {effect:g} | {rates} |"

    def lines(self) -> list[str]:
        """Both tables as text."""
        nulls = [("samples", "units that know nothing", "p <= .05", "NOT with p <= .05")]
        nulls += [
            (f"{one.samples:,}", f"{one.asked} {one.kind}", f"{one.named / one.asked:.1%}", f"{one.nots / one.asked:.1%}")
            for one in self.nulls
        ]  # fmt: skip
        head = f"named by the planted formula, q <= .05; samples, effect, {', '.join(PLANTED)}:"
        return [head, *self.rows(), "", *align(nulls)]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"recoveries": [asdict(one) for one in self.recoveries], "nulls": [asdict(one) for one in self.nulls]}


def measure_naming(*, quick: bool = False) -> Naming:
    """All of both simulations, about four minutes of one core; quick: one of each."""
    if quick:
        return Naming((measure_recovery(100, 4.0, "a", units=4),), (measure_null(100, "dense", runs=1),))
    cells = ((samples, effect, planted) for samples in SAMPLES for effect in EFFECTS for planted in PLANTED)
    return Naming(
        tuple(measure_recovery(*cell) for cell in cells),
        tuple(measure_null(samples, kind) for samples in SAMPLES for kind in KINDS),
    )


def measure_recovery(samples: int, effect: float, planted: str, *, units: int = UNITS) -> Recovery:
    """Of 20 concepts, a, b and c on 40 % of the samples, the others on 2 to 50 %."""
    rng = np.random.default_rng([samples, int(10 * effect), PLANTED.index(planted)])
    names = list("abcdefghijklmnopqrst")
    labels = rng.random((samples, 20)) < np.r_[[0.4] * 3, rng.uniform(0.02, 0.5, 17)]
    labels[0, 3:], labels[1, 3:] = True, False  # no concept is constant
    formula = Formula.parse(planted)
    truth = formula.evaluate(labels, names).numpy()
    values = effect * truth[:, None] + rng.normal(size=(samples, units))
    found = label_units(values, labels, names, progress=False)
    named = [one.best.formula == formula and one.best.q is not None and one.best.q <= LEVEL for one in found]
    return Recovery(samples, effect, planted, float(np.mean(named)))


def draw_null(kind: str, samples: int, units: int, rng: np.random.Generator) -> Array:
    """Units that know no concept: normal; 0 on 90 to 99 % of the samples; of few values."""
    if kind == "dense":
        return rng.normal(size=(samples, units))
    if kind == "tied":
        return rng.poisson(0.4, (samples, units)).astype(float)
    quiet = rng.random((samples, units)) < rng.uniform(0.01, 0.1, units)
    return rng.exponential(size=(samples, units)) * quiet


def measure_null(samples: int, kind: str, *, runs: int | None = None) -> Null:
    """Of 12 concepts on 1 to 50 % of the samples, eight units a run."""
    named = nots = asked = 0
    for run in range(RUNS[samples] if runs is None else runs):
        rng = np.random.default_rng([run, samples, KINDS.index(kind)])
        labels = rng.random((samples, 12)) < np.geomspace(0.01, 0.5, 12)
        labels[0], labels[1] = True, False
        units = draw_null(kind, samples, 8, rng)
        for one in label_units(units, labels, [f"c{k}" for k in range(12)], seed=run, top=1, progress=False):
            asked += 1
            named += one.best.p is not None and one.best.p <= LEVEL
            nots += any(each.p is not None and each.p <= LEVEL for each in one.best.negations)
    return Null(samples, kind, named, nots, asked)
