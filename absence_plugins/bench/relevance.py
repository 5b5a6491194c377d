"""``absence-plugins bench relevance``: what the relevance of differences costs in time and memory."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from absence_plugins.bench.relevance_works import (
    AGAINST,
    BUILDER,
    FAMILIES,
    GRADIENTS,
    QUICK_FAMILIES,
    SumError,
    build_relevance_works,
    measure_gradients,
)
from absence_plugins.bench.result import BenchResult, Measurement, verdict
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment, has_torchvision, steady
from absence_plugins.core.table import align

TIME_LIMITS = {"epsilon": 2.0, "gamma": 3.0, AGAINST: 1 / 20}  # of the median over the families
MEMORY_LIMIT = 2.5
WEIGHED = ("resnet18", "mobilenet_v2", "vit_b_32")


@dataclass(frozen=True, repr=False)
class RelevanceResult:
    """The ratios, and what the sums miss.

    Attributes:
        costs: ratios of time and memory to forward and backward of the batch [x, r].
        errors: of every network.
    """

    costs: BenchResult
    errors: tuple[SumError, ...]

    @property
    def ok(self) -> bool:
        """Whether medians and memory keep their limits."""
        return self.costs.ok

    def table(self) -> str:
        """The ratios, then the errors of the sums."""
        head = ("error of the sum", "relevance", GRADIENTS)
        rows = [(one.network, f"{one.relevance:.1e}", f"{one.gradients:.1e}") for one in self.errors]
        return "\n".join([*align([head, *rows]), "", self.costs.table()])

    def __repr__(self) -> str:
        return f"RelevanceResult of {len(self.costs.measurements)} measurements\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"costs": self.costs.to_dict(), "errors": [asdict(one) for one in self.errors], "ok": self.ok}


def run_relevance_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> RelevanceResult:
    """Measure ``relevance`` (Epsilon, Gamma of the convolutions, lower_gamma) next to forward and backward of [x, r].

    Networks: the digits' and families of torchvision with random weights at 224 pixels, batch 1. Integrated gradients
    at 50 steps are measured in the same run, once per network, with the error of their sum. Judged are the medians over
    the families (Epsilon 2, Gamma 3; Epsilon against integrated gradients: 1/20) and the memory (2.5).

    Args:
        rounds: rounds per measured ratio; short work gets up to eight times as many, long work down to three.
        quick: one family, 32 pixels, one measurement of memory, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: Captum or scikit-learn is missing.
    """
    run = Run.start(rounds, quick, device, progress)
    import absence_plugins.captum  # noqa: F401  (says what to install where Captum is missing)

    families = (QUICK_FAMILIES if quick else FAMILIES) if has_torchvision() else ()
    networks = ("digits", *families)
    measured, errors = _timed(run, networks)
    costs = [*measured, *_medians(run, measured, families)]
    weighed = [(name, "epsilon") for name in (("digits",) if quick or not families else WEIGHED)]
    costs += run.weigh("bench relevance: memory", weighed, builder=BUILDER, limit=MEMORY_LIMIT)
    environment = describe_environment("captum", run, ["digits", "resnet18"] if families else ["digits"])
    return RelevanceResult(BenchResult(tuple(costs), environment, "fwd+bwd", "relevance"), tuple(errors))


def _timed(run: Run, networks: tuple[str, ...]) -> tuple[list[Measurement], list[SumError]]:
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    measured, errors = [], []
    with steady(), tqdm(networks, desc="bench relevance: time", disable=not run.progress) as bar:
        for network in bar:
            for name, work in build_relevance_works(network, run.quick, run.device).items():
                bar.set_postfix_str(f"{network} {name}")
                measured.append(run.measure(build_relevance_works, network, name, work))
            bar.set_postfix_str(f"{network} {GRADIENTS}")
            cost, error = measure_gradients(network, run.quick, run.device)
            measured.append(cost)
            errors.append(error)
    return measured, errors


def _medians(run: Run, measured: list[Measurement], families: tuple[str, ...]) -> list[Measurement]:
    """A row per rule: the median of the families' ratios, judged."""
    rows = []
    for rule in dict.fromkeys(one.name.split(" ", 1)[1].removesuffix(": time") for one in measured):
        own = [one for one in measured if one.name in {f"{family} {rule}: time" for family in families}]
        if not own:
            continue
        ratios = tuple(one.ratio for one in own)
        ratio, limit = statistics.median(ratios), TIME_LIMITS.get(rule)
        ours, plain = (statistics.median(getattr(one, side) for one in own) for side in ("ours", "plain"))
        ok = verdict(ratio, None if run.quick else limit)
        what = f"median over {len(own)} families of torchvision"
        rows.append(Measurement(f"median {rule}: time", what, ours, plain, "ms", ratio, limit, ok, ratios))
    return rows
