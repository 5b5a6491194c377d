"""``absence-plugins bench perturbations``: what ablation maps in shared forwards cost next to Captum's loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.units import Layer
from absence_plugins.core.weighing import ON_CPU, ON_GPU

LOOP_LIMIT = 1 / 3  # of Captum's time with its default
MOST_BYTES = {"cpu": ON_CPU, "cuda": ON_GPU}  # by which a call may raise the peak: what batches are chosen for
TOGETHER = 16  # perturbations_per_eval of the row that is not judged
COLUMNS, K = 30, 4  # of the table, references of each row
CALLS = {("table", False): 10}  # that are timed together
ORDERS = 5  # of sampled Shapley values
# (network, quick): samples, pixels, window, stride
SIZES = {
    ("digits", False): (16, 32, 3, 1),
    ("digits", True): (2, 32, 8, 8),
    ("resnet18", False): (1, 224, 32, 16),
    ("resnet18", True): (1, 64, 32, 16),
    ("table", False): (16, 0, 0, 0),
    ("table", True): (3, 0, 0, 0),
}
# squares a side of what is exchanged, joins in sampled orders, joins in all orders; (network, quick)
SQUARES = {
    ("digits", False): (8, 8, 2),
    ("digits", True): (2, 2, 1),
    ("resnet18", False): (7, 4, 2),
    ("resnet18", True): (2, 2, 1),
}
GROUPS = {False: 6, True: 3}  # of the table's columns, of exact Shapley values
LAYERS = {"digits": "linear1", "resnet18": "layer4", "table": "1"}
UNITS = {False: 64, True: 4}  # groups of a layer's units
EXCHANGED = {False: 4, True: 2}  # images that features are exchanged between, at least
STRIDES = {False: (32, 24, 16), True: (32, 16, 8)}  # of growing numbers of windows
# Where a third is not reached: all forwards are needed and are large; of the table, fixed costs of a call are too much.
FEWER = {
    ("digits", "permutation"),
    ("digits", "Shapley sampling"),
    ("resnet18", "permutation"),
    ("resnet18", "Shapley sampling"),
    ("table", "permutation"),
}
Side = Callable[[], Tensor]
BUILDER = f"{__name__}:build_perturbation_works"


@dataclass(frozen=True, eq=False)
class _Case:
    """A network and its samples, of which the runner-up is explained, or against references the class.

    model: scores [N, K]. inputs: [N, ...]. pool: references [R, ...]. window, stride: pixels; 0 for a table. times: calls of each
    side that are timed together, where one takes a millisecond.
    """

    model: nn.Module
    inputs: Tensor
    pool: Tensor
    window: int
    stride: int
    times: int = 1

    @classmethod
    def of(cls, network: str, quick: bool, device: torch.device) -> _Case:
        count, pixels, window, stride = SIZES[network, quick]
        if network == "table":
            with _drawing():
                layers = [nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)]
                model: nn.Module = nn.Sequential(*layers).eval()
                inputs, pool = torch.randn(4 * count, COLUMNS), torch.randn(200, COLUMNS)
        else:
            model, inputs, pool, _ = subject(network, max(count, EXCHANGED[quick]), 2 * K, pixels)
        return cls(model.to(device), inputs.to(device), pool.to(device), window, stride, CALLS.get((network, quick), 1))

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
        """The maps of windows, or of a table of columns, by our class and by Captum's."""
        name = "Occlusion" if self.window else "FeatureAblation"
        more = {} if together == 1 else {"perturbations_per_eval": together}
        return self.compare(name, self.call, more=more, has_references=has_references)

    def compare(
        self,
        name: str,
        call: dict[str, Any],
        layer: str | None = None,
        *,
        more: dict[str, Any] | None = None,
        has_references: bool = False,
    ) -> tuple[Side, Side]:
        """The maps by our class and by Captum's, both with the explained outputs, which say how large numbers are, and
        both from the same random state. ``more``: arguments of Captum alone.
        """
        from captum import attr

        import absence_plugins.captum as adapters

        with torch.no_grad():
            outputs = self.model(self.inputs)
        target = outputs.argmax(1)
        explained = target if has_references else choose_nontarget(outputs, target)
        scale = outputs.amax(1)
        references = ReferenceSet(self.pool, k=K) if has_references else None
        baselines: list[dict[str, Any]] = [{}]
        if references is not None:
            drawn = references.nearest(self.inputs, target)
            assert isinstance(drawn, Tensor)
            baselines = [{"baselines": one} for one in drawn.unbind(1)]
        nontarget = "target" if has_references else explained
        modules = () if layer is None else (self.model.get_submodule(layer),)
        options = {} if references is None else {"reference": references}
        method = getattr(adapters, f"Absence{name}")(self.model, *modules, nontarget=nontarget, **options)
        host = getattr(attr, name)(self.model, *modules)
        own = {**call, **(more or {})}

        def ours() -> Tensor:
            for _ in range(self.times):
                with _drawing():
                    found = method.attribute(self.inputs, target=target, **call)
            return torch.cat([found.flatten(), scale])

        def plain() -> Tensor:
            for _ in range(self.times):
                with _drawing():
                    maps: list[Tensor] = [
                        host.attribute(self.inputs, target=explained, **own, **one) for one in baselines
                    ]
            return torch.cat([torch.stack(maps).mean(0).flatten(), scale])

        return ours, plain

    def squares(self, side: int) -> Tensor:
        """The number of the square that each pixel lies in, ``side`` of them along each axis [1, 1, H, W]."""
        pixels = self.inputs.shape[2]
        place = torch.arange(pixels, device=self.inputs.device) * side // pixels
        return (place[:, None] * side + place)[None, None]

    def units(self, layer: str, count: int) -> Tensor:
        """About ``count`` groups of a layer's units or channels, for its values [1, C, ...]."""
        with Layer(layer, side="output").reading(self.model) as run:
            _, channels, *positions = run(self.inputs[:1]).shape
        places = [1] * len(positions)
        groups = torch.arange(channels, device=self.inputs.device) // max(1, channels // count)
        return groups.reshape(1, channels, *places)


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw from one seed, in the time of next to nothing; afterwards from where torch's generator was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def run_perturbations_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time Occlusion on a ResNet-18 and on the digits' network, FeatureAblation on a table of 30 columns, and on all of
    them permuted features, Shapley values and an ablated layer.

    Both sides explain the same output of the same samples, with the same random draws; Captum as it is called by
    default, one perturbation per forward, and in a row that is not judged with ``perturbations_per_eval=16``. Memory is
    judged in bytes: batches are chosen for as many. Random weights and inputs where a
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
        weighed = [(network, name) for network in run.networks for name in ("loop", "Shapley values")]
        most = MOST_BYTES[run.device.type]
        measured += run.weigh("bench perturbations: memory", weighed, builder=BUILDER, most=most)
    return BenchResult(tuple(measured), describe_environment("captum", run, networks))


def build_perturbation_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """Against Captum's loop, with several perturbations per forward, and against references."""
    case = _Case.of(network, quick, device)
    count = SIZES[network, quick][0]
    one = case.first(count)
    what = f"FeatureAblation, {COLUMNS} columns, {count} rows"
    if case.window:
        what = f"Occlusion, windows of {case.window} pixels, stride {case.stride}, batch {count}"
    works = {
        "loop": Work(what, LOOP_LIMIT, *one.sides(), growth=_growth(network, case, count, quick=quick)),
        f"{TOGETHER} at once": Work(
            f"{what}; Captum with perturbations_per_eval={TOGETHER}", None, *one.sides(together=TOGETHER), judged=False
        ),
    }
    if network == "table":
        single = case.first(1)
        works["one row"] = Work(f"FeatureAblation, {COLUMNS} columns, 1 row", LOOP_LIMIT, *single.sides())
        against = f"{what}, against {K} references each"
        works["references"] = Work(against, LOOP_LIMIT, *one.sides(has_references=True))
    return works | _draw_works(network, case, count, quick=quick)


def _draw_works(network: str, case: _Case, count: int, *, quick: bool) -> dict[str, Work]:
    """What Captum's other perturbations cost: exchanged between samples, joined in orders, at a layer."""
    if network == "table":
        exchanged: dict[str, Any] = {}
        sampled: dict[str, Any] = {"n_samples": ORDERS}
        groups = torch.arange(COLUMNS, device=case.inputs.device)[None] * GROUPS[quick] // COLUMNS
        joined: dict[str, Any] = {"feature_mask": groups}
    else:
        squares = [case.squares(side) for side in SQUARES[network, quick]]
        exchanged = {"feature_mask": squares[0]}
        sampled = {"feature_mask": squares[1], "n_samples": ORDERS}
        joined = {"feature_mask": squares[2]}
    layer = LAYERS[network]
    at_layer = {"layer_mask": case.units(layer, UNITS[quick])}
    kinds: list[tuple[str, str, str, dict[str, Any], str | None]] = [
        ("permutation", "FeaturePermutation", "features", exchanged, None),
        ("Shapley sampling", "ShapleyValueSampling", f"{ORDERS} orders", sampled, None),
        ("Shapley values", "ShapleyValues", "all orders", joined, None),
        ("layer", "LayerFeatureAblation", f"at {layer}", at_layer, layer),
    ]
    works = {}
    for name, host, what, call, place in kinds:
        samples = max(count, EXCHANGED[quick]) if host == "FeaturePermutation" else count

        def at(
            size: int, host: str = host, call: dict[str, Any] = call, place: str | None = place
        ) -> tuple[Side, Side]:
            return case.first(size).compare(host, call, place)

        sizes = sorted({max(2, samples // 4), max(3, samples // 2), max(4, samples)})
        grown = len(sizes) == 3 and network != "resnet18"
        works[name] = Work(
            f"{host}, {what}, batch {samples}",
            LOOP_LIMIT,
            *at(samples),
            judged=(network, name) not in FEWER,
            growth=Growth("samples", (sizes[0], sizes[1], sizes[2]), at) if grown else None,
        )
    return works


def _growth(network: str, case: _Case, count: int, *, quick: bool) -> Growth:
    """Over the windows on the ResNet, over the samples elsewhere."""
    if network == "resnet18":
        one = case.first(count)
        room = SIZES[network, quick][1] - case.window
        strides = {(room // stride + 1) ** 2: stride for stride in STRIDES[quick]}
        first, second, third = sorted(strides)
        return Growth("windows", (first, second, third), lambda size: replace(one, stride=strides[size]).sides())
    sizes = [max(1, count // 4), max(2, count // 2), max(3, count)]
    if network == "table":
        sizes = [count, 2 * count, 4 * count]
    return Growth("samples", (sizes[0], sizes[1], sizes[2]), lambda size: case.first(size).sides())
