"""``absence-plugins bench gpu``: what number types and layouts cost on a GPU, and whether it computes what the CPU
does.

Times are those of one call, in the same run: TF32, bfloat16 and channels last next to float32 of torch's own layout.
What is checked is compared with the CPU in float64: relevance, the scan for patches, direction pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.bench.gpu_checks import Check, compare_with_cpu
from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.subjects import subject
from absence_plugins.bench.surroundings import describe_environment, has_torchvision
from absence_plugins.bench.works import Growth, Work
from absence_plugins.core.table import align
from absence_plugins.relevance import relevance

NEEDED = "bench gpu needs a GPU, and there is none here: nothing was measured (--device cpu shows that it runs)"
SLOWER = 1.05  # a faster type of numbers may not cost more than float32
TARGET = 3
# (network, quick): images, pixels
SIZES = {
    ("digits", False): (256, 0),
    ("digits", True): (4, 0),
    ("resnet18", False): (32, 224),
    ("resnet18", True): (2, 64),
}
LAYERS = {"digits": ("conv3", 12, 4), "resnet18": ("layer3", 64, 32)}  # layer, size and stride of the patches


@dataclass(frozen=True, repr=False)
class GpuResult:
    """Ratios of times to float32, and the distances from the CPU.

    Attributes:
        costs: None without a GPU.
        checks: of relevance, scan and directions.
    """

    costs: BenchResult | None
    checks: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every limit is kept and the numbers are those of the CPU; True where nothing could be measured."""
        return (self.costs is None or self.costs.ok) and all(one.ok for one in self.checks)

    def table(self) -> str:
        """The checks, then the ratios; without a GPU one line that says so."""
        if self.costs is None:
            return NEEDED
        rows = [
            (one.name, f"{one.error:.1e}", f"{one.allowed:.0e}", "ok" if one.ok else "WRONG") for one in self.checks
        ]
        head = ("next to the CPU in float64", "error", "allowed", "")
        return "\n".join([*align([head, *rows]), "", self.costs.table()])

    def __repr__(self) -> str:
        return f"GpuResult of {len(self.checks)} checks\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        costs = {"note": NEEDED} if self.costs is None else self.costs.to_dict()
        return {"costs": costs, "checks": [{**asdict(one), "ok": one.ok} for one in self.checks], "ok": self.ok}


def run_gpu_bench(*, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True) -> GpuResult:
    """Time number types and layouts on a GPU, and compare its results with those of the CPU.

    Args:
        rounds: rounds per measured ratio; short work gets up to eight times as many, long work down to three.
        quick: tiny sizes, nothing judged: shows that the bench works.
        device: "auto" and "cuda" need a GPU; "cpu" runs the same on the CPU, which has no TF32.
        progress: show a progress bar on stderr.

    Returns:
        A :class:`GpuResult`; without a GPU one that says that nothing was measured.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: scikit-learn is missing.
    """
    run = Run.start(rounds, quick, device, progress)
    if run.device.type == "cpu" and device != "cpu":
        return GpuResult(None)
    networks = run.networks if has_torchvision() else ["digits"]
    checks = compare_with_cpu(run.device)
    measured = run.time("bench gpu", build_gpu_works, networks)
    environment = describe_environment("torch", run, networks)
    return GpuResult(BenchResult(tuple(measured), environment, "float32", "other"), checks)


def build_gpu_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """Relevance in TF32 and channels last, gradients under autocast, the scan in bfloat16, by name."""
    count, pixels = SIZES[network, quick]
    sizes = (max(1, count // 4), max(2, count // 2), max(3, count))

    def work(
        what: str, judged: bool, sides: Callable[[int], tuple[Callable[[], Tensor], Callable[[], Tensor]]]
    ) -> Work:
        growth = Growth("images", sizes, sides)
        return Work(what, SLOWER, *sides(count), is_same=False, judged=judged and device.type == "cuda", growth=growth)

    def relevance_of(size: int, layout: torch.memory_format) -> Callable[[], Tensor]:
        model, x, r = _subject(network, size, pixels, device)
        model = model.to(memory_format=layout)
        x, r = (one.contiguous(memory_format=layout) for one in (x, r))
        return lambda: relevance(model, x, r, TARGET).attribution

    def tf32(size: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        call = relevance_of(size, torch.contiguous_format)

        def fast() -> Tensor:
            with tensor_cores():
                return call()

        return fast, call

    def channels_last(size: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        return relevance_of(size, torch.channels_last), relevance_of(size, torch.contiguous_format)

    def autocast(size: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        model, x, _ = _subject(network, size, pixels, device)

        def plain() -> Tensor:
            inputs = x.clone().requires_grad_()
            return torch.autograd.grad(model(inputs)[:, TARGET].float().sum(), inputs)[0]

        def fast() -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                return plain()

        return fast, plain

    def scan(size: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        return _scan(network, size, pixels, device, "bf16"), _scan(network, size, pixels, device, "exact")

    return {
        "relevance, TF32": work("relevance, Epsilon, with tensor cores for float32", True, tf32),
        "relevance, channels last": work("relevance, Epsilon, of a model in channels last", False, channels_last),
        "gradient, bf16 autocast": work("forward and backward under autocast to bfloat16", True, autocast),
        "scan, bf16": work("the scan for patches with precision='bf16', whose candidates are scored again", True, scan),
    }


@contextmanager
def tensor_cores() -> Iterator[None]:
    """TF32 in matrix products and convolutions; what was set before is put back."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        products.allow_tf32 = convolutions.allow_tf32 = True
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def _subject(network: str, count: int, pixels: int, device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    model, x, r, _ = subject(network, count, count, pixels)
    return model.to(device), x.to(device), r.to(device)


def _scan(network: str, count: int, pixels: int, device: torch.device, precision: str) -> Callable[[], Tensor]:
    from absence_plugins.methods.patches import find_extreme_patches

    model, x, _ = _subject(network, count, pixels, device)
    layer, size, stride = LAYERS[network]
    images = x.cpu()

    def run() -> Tensor:
        found = find_extreme_patches(
            model, layer, images, k=4, size=size, stride=stride, mode="crop" if pixels else "mask", precision=precision,
            progress=False,
        )  # fmt: skip
        return found.highest.scores

    return run
