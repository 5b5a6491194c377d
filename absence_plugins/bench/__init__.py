"""``absence-plugins bench``: what the adapters cost next to their hosts, and what they show, measured in one run.

Against Captum both sides do the same work, which is checked on their numbers before anything is timed. Against Zennit
(:mod:`~absence_plugins.bench.zennit`) they do not: there the first table says which composite is right. Against Lucent
(:mod:`~absence_plugins.bench.lucent`) both make the same picture. The patch search
(:mod:`~absence_plugins.bench.patches`) is compared with the forwards alone and with a plain script, the
insertion test (:mod:`~absence_plugins.bench.insertion`) with a script that runs every pasted image whole, INVERT
(:mod:`~absence_plugins.bench.invert`) with one AUROC per candidate formula. Of direction pairs
(:mod:`~absence_plugins.bench.directions`) the bench says which method recovers known ones. A training step with the
attribution prior (:mod:`~absence_plugins.bench.debias`) is compared with a plain one. The relevance of differences
(:mod:`~absence_plugins.bench.relevance`) is compared with one forward and backward pass of input and reference;
:mod:`~absence_plugins.bench.models` says on which models it and others' methods run, and whether their sums are right.
:mod:`~absence_plugins.bench.kinds` says whether absences are found in tables, texts, signals, volumes and
segmentations. :mod:`~absence_plugins.bench.references` says which references give the truest absence evidence on
photographs. Maps by occlusion and ablation (:mod:`~absence_plugins.bench.perturbations`) are compared with Captum's
loop. :mod:`~absence_plugins.bench.report` compares a report with the forwards and backwards in it,
:mod:`~absence_plugins.bench.explain` compares the page of a photograph with the passes through the network that it
needs. :mod:`~absence_plugins.bench.start` times the command line, :mod:`~absence_plugins.bench.ranks` two processes
that share out a layer's activations, :mod:`~absence_plugins.bench.gpu` what needs a GPU.

Times are those of one thread: on a busy machine several threads wait for each other at every layer, and a small
forward then costs as much as a large one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from absence_plugins.bench.all import AllResult, run_all_benches, write_costs
from absence_plugins.bench.debias import run_debias_bench
from absence_plugins.bench.directions import DirectionsResult, run_directions_bench
from absence_plugins.bench.explain import run_explain_bench
from absence_plugins.bench.gpu import GpuResult, run_gpu_bench
from absence_plugins.bench.insertion import run_insertion_bench
from absence_plugins.bench.invert import InvertResult, run_invert_bench
from absence_plugins.bench.kinds import KindsResult, run_kinds_bench
from absence_plugins.bench.lucent import run_lucent_bench
from absence_plugins.bench.memory import BUILDER, MEMORY_LIMIT
from absence_plugins.bench.models import run_models_bench
from absence_plugins.bench.models_result import ModelScore, ModelsResult
from absence_plugins.bench.patches import run_patches_bench
from absence_plugins.bench.perturbations import run_perturbations_bench
from absence_plugins.bench.planted import PlantedResult, run_planted_bench
from absence_plugins.bench.ranks import run_ranks_bench
from absence_plugins.bench.reading import run_reading_bench
from absence_plugins.bench.references import ReferencesResult, run_references_bench
from absence_plugins.bench.relevance import RelevanceResult, run_relevance_bench
from absence_plugins.bench.report import run_report_bench
from absence_plugins.bench.result import BenchResult, Measurement
from absence_plugins.bench.run import Run
from absence_plugins.bench.start import run_start_bench
from absence_plugins.bench.surroundings import describe_environment
from absence_plugins.bench.works import build_works
from absence_plugins.bench.zennit import ZennitResult, run_zennit_bench

__all__ = [
    "BENCHES",
    "COSTS",
    "KEEPING",
    "AllResult",
    "BenchResult",
    "DirectionsResult",
    "GpuResult",
    "InvertResult",
    "KindsResult",
    "Measurement",
    "ModelScore",
    "ModelsResult",
    "ReferencesResult",
    "RelevanceResult",
    "ZennitResult",
    "run_all_benches",
    "run_bench",
    "run_debias_bench",
    "run_directions_bench",
    "run_explain_bench",
    "run_gpu_bench",
    "run_insertion_bench",
    "run_invert_bench",
    "run_kinds_bench",
    "run_lucent_bench",
    "run_models_bench",
    "run_patches_bench",
    "run_perturbations_bench",
    "run_ranks_bench",
    "run_reading_bench",
    "run_references_bench",
    "run_relevance_bench",
    "run_report_bench",
    "run_start_bench",
    "run_zennit_bench",
    "write_costs",
]


def run_bench(*, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True) -> BenchResult:
    """Measure what the Captum adapters cost next to plain Captum on the same work.

    A round times adapter, Captum, Captum, adapter and takes the ratio of the two sums; the result is the
    median ratio over the rounds. Memory is the increase of the peak during one call: of the resident set
    of a fresh process per side (CPU), or of what the allocator handed out (CUDA).

    Args:
        rounds: rounds per measurement; short work gets up to eight times as many, long work down to three.
        quick: tiny sizes, one memory measurement, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: Captum or scikit-learn is missing.
        RuntimeError: adapter and Captum compute different numbers, so a ratio would mean nothing.
    """
    run = Run.start(rounds, quick, device, progress)
    import absence_plugins.captum  # noqa: F401  (says what to install where Captum is missing)

    measured = run.time("bench captum: time", build_works, run.networks)
    weighed = [(network, name) for network in run.networks for name in ("nontarget", "references")]
    weighed = [("digits", "nontarget")] if quick else weighed
    measured += run.weigh("bench captum: memory", weighed, builder=BUILDER, limit=MEMORY_LIMIT)
    return BenchResult(tuple(measured), describe_environment("captum", run, run.networks))


Result = (
    BenchResult
    | ZennitResult
    | InvertResult
    | DirectionsResult
    | PlantedResult
    | RelevanceResult
    | ModelsResult
    | ReferencesResult
    | KindsResult
    | GpuResult
    | AllResult
)
COSTS: dict[str, Callable[..., Result]] = {
    "captum": run_bench,
    "zennit": run_zennit_bench,
    "lucent": run_lucent_bench,
    "relevance": run_relevance_bench,
    "patches": run_patches_bench,
    "insertion": run_insertion_bench,
    "perturbations": run_perturbations_bench,
    "invert": run_invert_bench,
    "debias": run_debias_bench,
    "reading": run_reading_bench,
    "report": run_report_bench,
    "explain": run_explain_bench,
    "start": run_start_bench,
    "ranks": run_ranks_bench,
    "gpu": run_gpu_bench,
}
BENCHES: dict[str, Callable[..., Result]] = {
    **COSTS,
    "directions": run_directions_bench,
    "planted": run_planted_bench,
    "models": run_models_bench,
    "references": run_references_bench,
    "kinds": run_kinds_bench,
    "all": partial(run_all_benches, COSTS),
}
KEEPING = frozenset(BENCHES) - frozenset(COSTS)  # write their own files
