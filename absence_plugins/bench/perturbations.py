"""``absence-plugins bench perturbations``: what ablation maps in shared forwards cost next to Captum's loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.subjects import subject
from absence_plugins.bench.surroundings import describe_environment
from absence_plugins.bench.works import Growth, Work
from absence_plugins.core.choices import choose_nontarget
from absence_plugins.core.randomness import seeded
from absence_plugins.core.references import ReferenceSet

LOOP_LIMIT = 1 / 3  # of Captum's time with its default
MEMORY_LIMIT = 64.0  # times one forward of Captum's; a budget of bytes bounds it, so small networks have large ratios
TOGETHER = 16  # perturbations_per_eval of the row that is not judged
COLUMNS, K = 30, 4  # of the table, references of each row
# (network, quick): samples, pixels, window, stride
SIZES = {
    ("digits", False): (16, 32, 3, 1),
    ("digits", True): (2, 32, 8, 8),
    ("resnet18", False): (1, 224, 32, 16),
    ("resnet18", True): (1, 64, 32, 16),
    ("table", False): (16, 0, 0, 0),
    ("table", True): (3, 0, 0, 0),
}
STRIDES = {False: (32, 24, 16), True: (32, 16, 8)}  # of growing numbers of windows
Side = Callable[[], Tensor]
BUILDER = f"{__name__}:build_perturbation_works"


@dataclass(frozen=True, eq=False)
class _Case:
    """A network and its samples, of which the runner-up is explained, or against references the class.

    model: scores [N, K]. inputs: [N, ...]. pool: references [R, ...]. window, stride: pixels; 0 for a table.
    """

    model: nn.Module
    inputs: Tensor
    pool: Tensor
    window: int
    stride: int

    @classmethod
    def of(cls, network: str, quick: bool, device: torch.device) -> _Case:
        count, pixels, window, stride = SIZES[network, quick]
        if network == "table":
            with seeded(0):
                layers = [nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)]
                model: nn.Module = nn.Sequential(*layers).eval()
                inputs, pool = torch.randn(4 * count, COLUMNS), torch.randn(200, COLUMNS)
        else:
            model, inputs, pool, _ = subject(network, count, 2 * K, pixels)
        return cls(model.to(device), inputs.to(device), pool.to(device), window, stride)

    def first(self, count: int) -> _Case:
        """The same with the first samples."""
        return replace(self, inputs=self.inputs[:count])

    @property
    def call(self) -> dict[str, Any]:
        """The arguments of both sides that say what is ablated."""
        if not self.window:
            return {}
        channels = self.inputs.shape[1]
        shape = (channels, self.window, self.window)
        return {"sliding_window_shapes": shape, "strides": (channels, self.stride, self.stride)}

    def sides(self, *, has_references: bool = False, together: int = 1) -> tuple[Side, Side]:
        """The maps by our class and by Captum's, both with the explained outputs, which say how large numbers are."""
        from captum import attr

        import absence_plugins.captum as adapters

        name = "Occlusion" if self.window else "FeatureAblation"
        with torch.no_grad():
            outputs = self.model(self.inputs)
        target = outputs.argmax(1)
        explained = target if has_references else choose_nontarget(outputs, target)
        scale = outputs.amax(1)
        references = ReferenceSet(self.pool, k=K) if has_references else None
        baselines: list[Any] = [None]
        if references is not None:
            drawn = references.nearest(self.inputs, target)
            assert isinstance(drawn, Tensor)
            baselines = list(drawn.unbind(1))
        nontarget = "target" if has_references else explained
        method = getattr(adapters, f"Absence{name}")(self.model, nontarget=nontarget, reference=references)
        host = getattr(attr, name)(self.model)
        more = {} if together == 1 else {"perturbations_per_eval": together}

        def ours() -> Tensor:
            return torch.cat([method.attribute(self.inputs, target=target, **self.call).flatten(), scale])

        def plain() -> Tensor:
            maps = [host.attribute(self.inputs, baselines=r, target=explained, **self.call, **more) for r in baselines]
            return torch.cat([torch.stack(maps).mean(0).flatten(), scale])

        return ours, plain


def run_perturbations_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time Occlusion on a ResNet-18 and on the digits' network, and FeatureAblation on a table of 30 columns.

    Both sides explain the same output of the same samples; Captum as it is called by default, one perturbation per
    forward, and in a row that is not judged with ``perturbations_per_eval=16``. Random weights and inputs where a
    network is not the digits', which cost what real ones do.

    Args:
        rounds: rounds per measured ratio; long work gets as few as three.
        quick: tiny sizes, nothing judged: shows that the bench works.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: Captum or scikit-learn is missing.
        RuntimeError: the two maps differ, so a ratio would mean nothing.
    """
    run = Run.start(rounds, quick, device, progress)
    import absence_plugins.captum  # noqa: F401  (says what to install where Captum is missing)

    networks = [*run.networks, "table"]
    measured = run.time("bench perturbations: time", build_perturbation_works, networks)
    if not quick:
        weighed = [(network, "loop") for network in run.networks]
        measured += run.weigh("bench perturbations: memory", weighed, builder=BUILDER, limit=MEMORY_LIMIT)
    return BenchResult(tuple(measured), describe_environment("captum", run, networks))


def build_perturbation_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """Against Captum's loop, with several perturbations per forward, and against references."""
    case = _Case.of(network, quick, device)
    count = SIZES[network, quick][0]
    one = case.first(count)
    what = f"FeatureAblation, {COLUMNS} columns, {count} rows"
    if case.window:
        what = f"Occlusion, windows of {case.window} pixels, stride {case.stride}, batch {count}"
    is_judged = bool(case.window)  # of a small table the adapter's checks cost as much as the loop
    works = {
        "loop": Work(
            what,
            LOOP_LIMIT,
            *one.sides(),
            judged=is_judged,
            growth=_growth(network, case, count, quick=quick),
        ),
        f"{TOGETHER} at once": Work(
            f"{what}; Captum with perturbations_per_eval={TOGETHER}", None, *one.sides(together=TOGETHER), judged=False
        ),
    }
    if network == "table":
        against = f"{what}, against {K} references each"
        works["references"] = Work(against, LOOP_LIMIT, *one.sides(has_references=True), judged=is_judged)
    return works


def _growth(network: str, case: _Case, count: int, *, quick: bool) -> Growth:
    """Over the windows on the ResNet, over the samples elsewhere."""
    if network == "resnet18":
        room = SIZES[network, quick][1] - case.window
        strides = {(room // stride + 1) ** 2: stride for stride in STRIDES[quick]}
        first, second, third = sorted(strides)
        return Growth("windows", (first, second, third), lambda size: replace(case, stride=strides[size]).sides())
    sizes = [max(1, count // 4), max(2, count // 2), max(3, count)]
    if network == "table":
        sizes = [count, 2 * count, 4 * count]
    return Growth("samples", (sizes[0], sizes[1], sizes[2]), lambda size: case.first(size).sides())
