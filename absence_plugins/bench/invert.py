"""``absence-plugins bench invert``: time to name a unit, next to one AUROC per candidate formula; how often it is
right.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from absence_plugins.bench.growth import Grown
from absence_plugins.bench.million import Large, measure_large, measure_large_growth
from absence_plugins.bench.naming import Naming, measure_naming
from absence_plugins.bench.result import surroundings
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.bench.timing import seconds
from absence_plugins.core.table import align
from absence_plugins.methods.invert import UnitLabel, auroc, label_units
from absence_plugins.methods.invert.bits import Array
from absence_plugins.methods.invert.shapes import PER_SET

UNITS = 16  # named in one call, as a layer is; what is compared is the time per unit
PART = 60  # candidate formulas per level that the straightforward search is timed on
SAME = 1e-12


@dataclass(frozen=True)
class Problem:
    """N samples, K concepts, formulas of up to ``length`` literals, a beam of width ``beam``, and what is promised.

    faster: how many times faster than the straightforward search.
    sorts: how many sorts of one unit's activations a unit may cost.
    """

    samples: int
    concepts: int
    hierarchical: bool = False
    length: int = 3
    beam: int = 3
    faster: float | None = None
    sorts: float | None = None

    @property
    def name(self) -> str:
        """Sizes in words."""
        kind = ", hierarchical" * self.hierarchical
        return f"N={self.samples:,} K={self.concepts:,} L={self.length} B={self.beam}{kind}"


PROBLEMS = (
    Problem(5_000, 200, faster=500),
    Problem(20_000, 200, faster=800),
    Problem(50_000, 1_000, hierarchical=True, sorts=4),
)
QUICK = (Problem(300, 8, faster=500), Problem(400, 200, hierarchical=True, sorts=4))


@dataclass(frozen=True)
class Speed:
    """One problem, measured: milliseconds per unit, and whether the promise is kept (None: not judged).

    Attributes:
        plain: the straightforward search, from the time of ``timed`` of its ``candidates``; None where nothing is
            promised about it.
        ours: ``label_units`` per unit, of 16 in one call, labels prepared and results made included.
        sort: one sort of one unit's activations.
        faster: plain / ours, the median over the rounds.
        sorts: ours / sort, the same.
    """

    problem: Problem
    plain: float | None
    ours: float
    sort: float
    faster: float | None
    sorts: float
    candidates: int
    timed: int
    ok: bool | None


PROVEN, QUICK_PROVEN = Problem(20_000, 200), Problem(300, 12)
LONGER = (Problem(20_000, 50, length=4), Problem(20_000, 200, length=4))  # nothing is promised about these
QUICK_LONGER = (Problem(300, 8, length=4),)
MOST = 0.99  # share of the samples on which a formula may hold, as on the command line
LONGEST = 20.0  # seconds that a proof for one unit may take


@dataclass(frozen=True)
class Proof:
    """``search="certified"`` for one unit: every formula of up to three literals, or four, scored or bounded.

    Attributes:
        problem: samples and concepts.
        seconds: the median over the rounds.
        formulas: of three literals, with four of these too.
        best: the highest AUC found.
        gap: by how much a formula could exceed the best found; 0 if it is proven.
        ok: whether that took at most 20 seconds (None: not judged).
    """

    problem: Problem
    seconds: float
    formulas: int
    best: float
    gap: float
    ok: bool | None

    def line(self) -> str:
        """What was proven, in a sentence."""
        judged = "" if self.ok is None else f"; promised <= {LONGEST:g} s: {'ok' if self.ok else 'TOO SLOW'}"
        p = self.problem
        found = f"best AUC {self.best:.3f}, gap {self.gap:.3f}"
        return f"certified, N={p.samples:,} K={p.concepts:,} L={p.length}, one unit: {self.formulas:,} formulas in {self.seconds:.2f} s, {found}{judged}"  # fmt: skip


@dataclass(frozen=True, repr=False)
class InvertResult:
    """All problems of one run, the proof of a best formula, those of longer ones, how often names are right, and where
    it ran.
    """

    speeds: tuple[Speed, ...]
    proof: Proof
    longer: tuple[Proof, ...]
    naming: Naming
    environment: dict[str, Any]
    large: tuple[Large, ...] = ()
    growth: tuple[Grown, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every promise is kept."""
        verdicts = [*(one.ok for one in self.speeds), self.proof.ok, *(one.ok for one in self.large)]
        return all(one is not False for one in verdicts)

    def table(self) -> str:
        """One line per problem; below it what was compared."""
        rows = [
            ("per unit", "straightforward", "label_units", "faster", "promised", "one sort", "sorts", "promised", "")
        ]
        for one in self.speeds:
            plain = "-" if one.plain is None else f"{one.plain:,.0f} ms"
            faster = "-" if one.faster is None else f"{one.faster:,.0f} x"
            rows.append((one.problem.name, plain, f"{one.ours:.2f} ms", faster, _promise(one.problem.faster, ">= "),
                         f"{one.sort:.2f} ms", f"{one.sorts:.1f}", _promise(one.problem.sorts, "<= "),
                         "" if one.ok is None else "ok" if one.ok else "TOO SLOW"))  # fmt: skip
        extrapolated = ", ".join(f"{one.timed} of {one.candidates:,}" for one in self.speeds if one.candidates)
        return "\n".join(
            [
                *align(rows),
                "",
                "straightforward: one sklearn.metrics.roc_auc_score per candidate formula, same beam, same best AUC; "
                f"its time is extrapolated from that of {extrapolated} candidates",
                f"label_units: {UNITS} units in one call, exact_pairs=False, holdout=0, prefer=auc; labels prepared and results "
                "made included",
                *(one.line() for one in (self.proof, *self.longer)),
                *(one.line() for one in self.large),
                *self._growth(),
                "",
                *self.naming.lines(),
                "",
                *surroundings(self.environment),
            ]
        )

    def _growth(self) -> list[str]:
        """The exponents."""
        if not self.growth:
            return []
        head = ("exponents of growth", "time, sorts", "time, label_units", "memory, sorts", "memory, label_units", "")
        return ["", *align([head, *(one.cells() for one in self.growth)])]

    def __repr__(self) -> str:
        return f"InvertResult of {len(self.speeds)} problems\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {
            "speeds": [asdict(one) for one in self.speeds],
            "proof": asdict(self.proof),
            "longer": [asdict(one) for one in self.longer],
            "naming": self.naming.to_dict(),
            "large": [one.to_dict() for one in self.large],
            "growth": [one.to_dict() for one in self.growth],
            "environment": dict(self.environment),
            "ok": self.ok,
        }


def run_invert_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> InvertResult:
    """Time ``label_units`` next to a straightforward search with the same beam, and next to one sort of the
    activations.

    A round times the three in turn and takes the ratios; the median over the rounds counts. That both searches end at
    the same AUC is checked.

    Args:
        rounds: rounds per problem.
        quick: tiny sizes, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda"; of ``label_units`` and of the sort.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: scikit-learn is missing.
        RuntimeError: the two searches find different AUCs.
    """
    run = Run.start(rounds, quick, device, progress)
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    with steady():
        problems = QUICK if quick else PROBLEMS
        speeds = [measure(problem, run) for problem in tqdm(problems, desc="bench invert", disable=not progress)]
        proof = prove(QUICK_PROVEN if quick else PROVEN, run, LONGEST)
        longer = tuple(prove(problem, run) for problem in (QUICK_LONGER if quick else LONGER))
        naming = measure_naming(quick=quick)
        large, growth = measure_large(run), measure_large_growth(run)
    environment = describe_environment("scikit-learn", run)
    return InvertResult(tuple(speeds), proof, longer, naming, environment, large, growth)


def draw(problem: Problem, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    """Activations [N, 16], labels [N, K] and names: independent concepts, or classes with three levels of kinds."""
    rng = np.random.default_rng(seed)
    n, k = problem.samples, problem.concepts
    if problem.hierarchical:
        classes = k * 4 // 5
        leaf = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
        kinds = [np.eye(classes, dtype=bool)]
        for step in (8, 64):
            groups = np.arange(classes) // step
            kinds.append(groups[:, None] == np.arange(groups[-1] + 1))
        attributes = k - sum(one.shape[1] for one in kinds)
        kinds.append(rng.random((classes, attributes)) < 0.2)
        table = np.concatenate(kinds, 1)
        table[0, -attributes:], table[1, -attributes:] = True, False
        labels = table[leaf]
    else:
        labels = rng.random((n, k)) < rng.uniform(0.05, 0.5, k)
    cause = labels[:, 0].astype(float) - labels[:, 1] + 0.5 * labels[:, 2]
    activations = rng.normal(size=(n, UNITS)) + cause[:, None]
    return torch.from_numpy(activations).float(), torch.from_numpy(labels), [f"concept {i}" for i in range(k)]


def plain_beam(
    activations: Array, labels: Array, *, length: int, beam: int, part: int | None = None, least: float = 0.01
) -> tuple[float, float, int, int]:
    """The straightforward search: one ``roc_auc_score`` per candidate.

    part: how many candidates per level are timed; the others are scored all at once, untimed. None: all are timed.

    Returns:
        The best AUC, seconds (extrapolated to all candidates), number of candidates, number of timed ones.
    """
    from sklearn.metrics import roc_auc_score

    literals = [side for column in labels.T for side in (column, ~column)]
    beams: list[Array] = []
    walked: set[bytes] = set()
    best, seconds, asked, timed = 0.0, 0.0, 0, 0
    for level in range(length):
        makers: list[Callable[[], Array]] = [lambda x=x: x.copy() for x in literals]  # type: ignore[misc]
        if level:
            makers = [lambda f=f, x=x: f & x for f in beams for x in literals]  # type: ignore[misc]
            makers += [lambda f=f, x=x: f | x for f in beams for x in literals]  # type: ignore[misc]
        chosen = np.linspace(0, len(makers) - 1, len(makers) if part is None else min(part, len(makers))).astype(int)
        took = 0.0
        for i in chosen:
            start = time.perf_counter()
            truth = makers[i]()
            if least * len(truth) <= truth.sum() < len(truth):
                roc_auc_score(truth, activations)
            took += time.perf_counter() - start
        asked, timed = asked + len(makers), timed + len(chosen)
        seconds += took * len(makers) / len(chosen)
        truths = np.stack([make() for make in makers], 1)
        count = truths.sum(0)
        truths = truths[:, (count >= least * len(truths)) & (count < len(truths)) & (count > 0)]
        scores = auroc(activations, truths).numpy()
        best, beams = max(best, float(scores.max())), []
        for i in np.argsort(-scores, kind="stable"):
            if len(beams) < beam and truths[:, i].tobytes() not in walked:
                beams.append(truths[:, i])
                walked.add(truths[:, i].tobytes())
    return best, seconds, asked, timed


def measure(problem: Problem, run: Run) -> Speed:
    """Time one problem, after a check that both searches find the same AUC."""
    device = run.device
    activations, labels, names = draw(problem)
    there, unit = activations.to(device), activations[:, 0].contiguous()
    alone, classes = unit.to(device), labels.to(device)

    def ours() -> float:
        found = label_units(there, classes, names, length=problem.length, beam=problem.beam, top=problem.beam,
                            exact_pairs=False, holdout=0, min_support=1, prefer="auc", search="beam", progress=False)  # fmt: skip
        return found[0].best.auc

    def plain() -> tuple[float | None, float, int, int]:
        return plain_beam(unit.numpy(), labels.numpy(), length=problem.length, beam=problem.beam, part=PART)

    wanted, (reached, _, candidates, timed) = ours(), plain() if problem.faster else (None, 0.0, 0, 0)
    if reached is not None and abs(wanted - reached) > SAME:
        raise RuntimeError(f"{problem.name}: label_units finds AUC {wanted}, the straightforward search {reached}; their times cannot be compared")  # fmt: skip
    taken: list[tuple[float, float, float]] = []
    for _ in range(run.rounds):
        own = seconds(ours, device) / UNITS
        plainly = plain()[1] if problem.faster else 0.0
        taken.append((plainly, own, statistics.median(seconds(alone.sort, device) for _ in range(5))))
    faster = statistics.median(plainly / own for plainly, own, _ in taken) if problem.faster else None
    sorts = statistics.median(own / sort for _, own, sort in taken)
    kept = (faster is None or faster >= (problem.faster or 0)) and (problem.sorts is None or sorts <= problem.sorts)
    plainly, own, sort = (1e3 * statistics.median(times) for times in zip(*taken, strict=True))
    known = plainly if problem.faster else None
    return Speed(problem, known, own, sort, faster, sorts, candidates, timed, None if run.quick else kept)


def prove(problem: Problem, run: Run, promised: float | None = None) -> Proof:
    """Time the certified search for one unit; promised: in at most so many seconds."""
    activations, labels, names = draw(problem)
    unit, there = activations[:, 0].contiguous().to(run.device), labels.to(run.device)
    found: list[UnitLabel] = []

    def certify() -> None:
        labels = label_units(unit, there, names, length=problem.length, max_fraction=MOST, prefer="score", holdout=0, search="certified", progress=False)  # fmt: skip
        found.append(labels[0])

    taken = statistics.median(seconds(certify, run.device) for _ in range(min(3, run.rounds)))
    gap = float("nan") if found[0].gap is None else found[0].gap
    formulas = sum(PER_SET[k] * math.comb(problem.concepts, k) for k in range(3, problem.length + 1))
    ok = None if run.quick or promised is None else taken <= promised and gap == 0
    return Proof(problem, taken, formulas, found[0].best.auc, gap, ok)


def _promise(value: float | None, sign: str) -> str:
    return "-" if value is None else f"{sign}{value:g}"
