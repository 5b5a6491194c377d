"""``absence-plugins bench zennit``: where Zennit's composites miss a known absence, that ours do not, and what ours
cost.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.scores import (
    SHARE_LIMIT,
    SIGN_LIMIT,
    Score,
    combinations,
    find,
    pooled,
)
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.bench.zennit_works import build_zennit_works
from absence_plugins.core.table import align
from absence_plugins.data.planted import ATTENTION, PROBLEMS
from absence_plugins.data.planted.problem import REACH

SEEDS = (0, 1, 2, 3)
SAMPLES, QUICK_SAMPLES = 25, 4  # images per training seed, of each view
REFERENCES, QUICK_REFERENCES = 4, 2  # per image
LOCAL = "AbsenceGuidedBackprop"
FLAT, WIDE = (
    "Flat",
    ("column_missing", "volume_missing"),
)  # networks whose first layer sees all of a row, much of a volume
BLOCKS: dict[str, Callable[[Score], bool]] = {
    "Zennit's composites, non-target view": lambda one: bool(one.seed),
    "Absence composites, non-target view": lambda one: not one.seed and one.view == "nontarget",
    "Absence composites, reference view": lambda one: not one.seed and one.view == "reference",
}
LEGEND = f"""\
share/sign: what part of the evidence lies within {REACH} pixels of the key, and in what part of the samples its sign is right;
    FAIL: share below {SHARE_LIMIT} or sign below {SIGN_LIMIT}; in brackets: the region is a guess, so nothing fails
non-target view: images with the key, the unit that encodes its absence is explained: relevance below 0 belongs on the key
reference view: images without the key against references with it: relevance above 0, where only the reference has content,
    belongs where the reference has its key
+1, logit: what Zennit's composite is seeded with
{LOCAL} sees only units that are active on the image itself: judged in the non-target view only, and not
    where the unit is dead
composites with {FLAT} spread evenly over what a unit of the first layer sees, so they are not judged on {" and ".join(WIDE)}"""


@dataclass(frozen=True, repr=False)
class ZennitResult:
    """Which composite shows which planted absence, what ours cost, and where it ran.

    Attributes:
        scores: every composite on every problem, in every view.
        costs: the ratios of times; its environment is that of the scores too.
    """

    scores: tuple[Score, ...]
    costs: BenchResult

    @property
    def ok(self) -> bool:
        """Whether every ``Absence*`` composite that is judged shows the absence, and every ratio keeps its limit."""
        return self.costs.ok and not any(one.judged and one.fails for one in self.scores)

    def table(self) -> str:
        """Both tables: scores (a block per view) and costs, with what the names mean."""
        names = list(dict.fromkeys(one.problem for one in self.scores))
        lines: list[str] = []
        for title, belongs in BLOCKS.items():
            scores = [one for one in self.scores if belongs(one)]
            lines += [*_block(title, names, scores), ""]
        problems = [f"{_short(name)}: {_first_line(PROBLEMS[name])}" for name in names]
        return "\n".join([*lines, *problems, LEGEND, "", self.costs.table()])

    def __repr__(self) -> str:
        return f"ZennitResult of {len(self.scores)} scores and {len(self.costs.measurements)} ratios\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"scores": [one.to_dict() for one in self.scores], "costs": self.costs.to_dict(), "ok": self.ok}


def run_zennit_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> ZennitResult:
    """Score Zennit's composites and ours on networks whose absences are known, and measure what ours cost.

    Scores: every problem of :mod:`absence_plugins.data.planted`, four training seeds, on the CPU. Costs: ours against a
    tensor reference next to the same composite of Zennit's, timed as in :func:`~absence_plugins.bench.run_bench`; x and
    its reference both run, so ours may cost 2.2 times as much.

    Args:
        rounds: rounds per measured ratio; short work gets up to eight times as many, long work down to three.
        quick: one training seed, a few samples, tiny sizes, nothing judged: shows that the bench works.
        device: of the costs: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: Zennit or scikit-learn is missing.
    """
    run = Run.start(rounds, quick, device, progress)
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    import absence_plugins.zennit  # noqa: F401  (says what to install where Zennit is missing)

    scores: list[Score] = []
    with steady(), tqdm(list(PROBLEMS), desc="bench zennit: scores", disable=not progress) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            scores += score_problem(name, quick=quick)
            gc.collect()
    costs = run.time("bench zennit: time", build_zennit_works, run.networks)
    return ZennitResult(
        tuple(scores), BenchResult(tuple(costs), describe_environment("zennit", run, run.networks), "Zennit")
    )


def score_problem(name: str, *, quick: bool = False) -> list[Score]:
    """Every composite, seed and view on one problem, by its name in ``PROBLEMS``."""
    planted = [PROBLEMS[name](seed) for seed in (SEEDS[:1] if quick else SEEDS)]
    samples, k = (QUICK_SAMPLES, QUICK_REFERENCES) if quick else (SAMPLES, REFERENCES)
    is_exact = planted[0].is_exact
    scores = []
    for composite, kind, seed, view in combinations():
        found = [find(problem, kind, seed, view, samples, k) for problem in planted]
        judged = not quick and not seed and is_exact and is_promised(name, composite, view)
        scores.append(pooled(name, composite, seed, view, found, is_exact=is_exact, judged=judged))
    return scores


def is_promised(problem: str, composite: str, view: str) -> bool:
    """Whether an Absence composite is to show this absence: the local one cannot where the unit or its evidence is
    dead, one with Flat at the first layer not where that layer sees (nearly) all of the input.
    """
    if composite.endswith(FLAT) and problem in WIDE:
        return False
    return composite != LOCAL or (view == "nontarget" and problem not in {"shape_missing_dead", *ATTENTION})


def _block(title: str, problems: Sequence[str], scores: Sequence[Score]) -> list[str]:
    """One table: a row per composite and seed, a column per problem."""
    cells = {(one.composite, one.seed, one.problem): one for one in scores}
    rows = [(title, *map(_short, problems))]
    for composite, seed in dict.fromkeys((one.composite, one.seed) for one in scores):
        found = [cells[composite, seed, problem] for problem in problems]
        rows.append((f"  {composite} {seed}".rstrip(), *map(_cell, found)))
    failing, exact = _count(scores, True), _count(scores, False)
    return [*align(rows), f"  {failing} of {exact} fail"]


def _count(scores: Iterable[Score], failing: bool) -> int:
    return sum(one.is_exact and (one.fails or not failing) for one in scores)


def _cell(one: Score) -> str:
    text = f"{one.share:.2f}/{one.sign:.2f}"
    return f"{text} FAIL" if one.fails else f"{text}     " if one.is_exact else f"({text})"


def _short(problem: str) -> str:
    return problem.replace("_missing", "")


def _first_line(function: Any) -> str:
    return str(function.__doc__).split("\n", 1)[0]
