"""``absence-plugins bench``: what the adapters cost next to plain Captum, in time and memory, measured in one run.

Both sides do the same work, which is checked on their numbers before anything is timed. Times are those of one
thread: on a busy machine several threads wait for each other at every layer, and a small forward then
costs as much as a large one.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NONTARGET_LIMIT = 1.05
REFERENCES_LIMIT = 1.05
NEUTRAL_LIMIT = 1.02
MEMORY_LIMIT = 1.10
STEPS = 50  # Captum's default
THREADS = 1
SECONDS_PER_WORK = 20.0  # aimed at: short work gets up to MORE_ROUNDS times the rounds, long work fewer
MORE_ROUNDS, FEWEST_ROUNDS = 8, 3
# glibc gives every tensor back at once: otherwise what happens to be reused moves the peak by a third
EXACT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MIB = 2.0**20


@dataclass(frozen=True)
class Measurement:
    """One ratio of the adapter to plain Captum.

    Attributes:
        name: network and question.
        what: what the two sides compute.
        ours: the adapter's median (time) or increase of the peak (memory), in ``unit``.
        plain: the same of plain Captum.
        unit: "ms" or "MiB".
        ratio: median over the rounds of ours / plain; above 1 the adapter costs more.
        limit: what the ratio may be; None where none is promised.
        ok: whether it keeps the limit; None where it is not judged.
        rounds: the ratio of every round, to see the spread.
    """

    name: str
    what: str
    ours: float
    plain: float
    unit: str
    ratio: float
    limit: float | None
    ok: bool | None
    rounds: tuple[float, ...] = ()


@dataclass(frozen=True, repr=False)
class BenchResult:
    """All ratios of one run, and where it ran.

    Attributes:
        measurements: in the order of measuring.
        environment: versions, device, threads, rounds, and a "note" on what was left out.
    """

    measurements: tuple[Measurement, ...]
    environment: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether every ratio that is judged keeps its limit."""
        return all(one.ok is not False for one in self.measurements)

    def table(self) -> str:
        """One line per measurement, limits and verdicts included; below it what the names mean."""
        head = ("", "Captum", "adapter", "ratio", "rounds", "limit", "")
        rows = [head, *(_cells(one) for one in self.measurements)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join((name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:]))).rstrip() for name, *numbers in rows
        ]
        legend = [f"{one.name}: {one.what}" for one in self.measurements]
        where = ", ".join(f"{name} {value}" for name, value in self.environment.items() if name != "note")
        note = self.environment.get("note")
        return "\n".join([*lines, "", *legend, "", where, *([f"note: {note}"] if note else [])])

    def __repr__(self) -> str:
        return f"BenchResult of {len(self.measurements)} measurements\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        rows = [{**asdict(one), "rounds": list(one.rounds)} for one in self.measurements]
        return {"measurements": rows, "environment": dict(self.environment), "ok": self.ok}


@dataclass(frozen=True)
class _Work:
    """One task for both sides.

    same: Captum's numbers where they need more than what is timed.
    forward: a forward whose share of Captum's time is added to the limit.
    judged: whether the limit is a promise.
    """

    what: str
    limit: float | None
    ours: Callable[[], Tensor]
    plain: Callable[[], Tensor]
    same: Callable[[], Tensor] | None = None
    forward: Callable[[], Tensor] | None = None
    judged: bool = True


@dataclass(frozen=True)
class _Size:
    batch: int
    steps: int
    k: int
    reference_steps: int
    pool: int
    pixels: int = 0


_SIZES = {
    ("digits", False): _Size(batch=16, steps=STEPS, k=4, reference_steps=25, pool=1351),
    ("digits", True): _Size(batch=3, steps=3, k=2, reference_steps=2, pool=200),
    ("resnet18", False): _Size(batch=1, steps=STEPS, k=4, reference_steps=12, pool=64, pixels=224),
    ("resnet18", True): _Size(batch=2, steps=2, k=2, reference_steps=2, pool=6, pixels=32),
}


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
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    where = _device(device)
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    import absence_plugins.captum  # noqa: F401  (says what to install where Captum is missing)

    networks = ["digits", "resnet18"] if _has_torchvision() else ["digits"]
    measurements: list[Measurement] = []
    with _steady():
        works = {(network, name): work for network in networks for name, work in _works(network, quick, where).items()}
        weighed = [key for key in works if key[1] in ("nontarget", "references")]
        weighed = [("digits", "nontarget")] if quick else weighed
        with tqdm(total=len(works) + len(weighed), desc="bench", disable=not progress) as bar:
            for (network, name), work in works.items():
                bar.set_postfix_str(f"{network} {name}: time")
                measurements.append(_timed(f"{network} {name}", work, rounds, where, judged=not quick))
                bar.update()
            for network, name in weighed:
                bar.set_postfix_str(f"{network} {name}: memory")
                measurements.append(_weighed(network, name, where, judged=not quick))
                bar.update()
    return BenchResult(tuple(measurements), _environment(where, rounds, quick, networks))


# -- the work --------------------------------------------------------------------------------------


def _works(network: str, quick: bool, device: torch.device) -> dict[str, _Work]:
    """What is measured on one network, by name."""
    from captum.attr import DeepLift, IntegratedGradients

    from absence_plugins import ReferenceSet
    from absence_plugins.captum import AbsenceDeepLift, AbsenceIntegratedGradients
    from absence_plugins.captum.remedies import nonlinearities
    from absence_plugins.core.hooks import cloned_inputs
    from absence_plugins.core.maps import split_by_content
    from absence_plugins.core.targets import choose_nontarget

    size = _SIZES[network, quick]
    model, images, pool, labels = _resnet18(size) if network == "resnet18" else _digits(size)
    model, images, pool = model.to(device), images.to(device), pool.to(device)
    with torch.no_grad():
        outputs = model(images)
    target = outputs.argmax(1)
    runner_up = choose_nontarget(outputs, target)
    references = ReferenceSet(pool, labels, k=size.k)
    baselines = references.nearest(images, target)
    assert isinstance(baselines, Tensor)
    plain = IntegratedGradients(model)

    def against_each() -> Iterator[tuple[Tensor, Tensor]]:
        for column in range(size.k):
            baseline = baselines[:, column]
            yield (
                plain.attribute(images, baselines=baseline, target=target, n_steps=size.reference_steps).detach(),
                baseline,
            )

    def mean_map() -> Tensor:
        return _summed(signed for signed, _ in against_each()) / size.k

    def absence_part() -> Tensor:
        blank = torch.zeros_like(images)
        parts = (split_by_content(signed, images, baseline, blank)[1] for signed, baseline in against_each())
        return (_summed(parts) / size.k).clamp(min=0)

    def adapter(**options: Any) -> Any:
        return AbsenceIntegratedGradients(model, **options)

    against = f"IntegratedGradients, {size.reference_steps} steps, against {size.k} of {len(pool)} references"
    works = {
        "nontarget": _Work(
            f"IntegratedGradients, {size.steps} steps, batch {size.batch}: choosing the runner-up, and its map",
            NONTARGET_LIMIT,
            lambda: adapter(nontarget="runner_up").attribute(images, target=target, n_steps=size.steps),
            lambda: plain.attribute(images, target=runner_up, n_steps=size.steps),
        ),
        "references": _Work(
            f"{against} each: finding them, and the mean map; Captum is given them",
            REFERENCES_LIMIT,
            lambda: adapter(reference=references).attribute(images, target=target, n_steps=size.reference_steps),
            mean_map,
        ),
    }
    if network == "resnet18":
        return works

    shipped = DeepLift(model)

    def mended() -> Tensor:  # as the adapter: every nonlinearity works on its own copy (Captum issue 1104)
        with cloned_inputs(nonlinearities(model)):
            result: Tensor = shipped.attribute(images, target=runner_up)
        return result

    absence = adapter(reference=references, evidence="absence")
    neutral = adapter(nontarget=None)
    return works | {
        "absence part": _Work(
            f"{against}, evidence='absence': also its absence part",
            None,
            lambda: absence.attribute(images, target=target, n_steps=size.reference_steps),
            mean_map,
            absence_part,
        ),
        "neutral": _Work(
            f"IntegratedGradients, {size.steps} steps, every option off",
            NEUTRAL_LIMIT,
            lambda: neutral.attribute(images, target=target, n_steps=size.steps),
            lambda: plain.attribute(images, target=target, n_steps=size.steps),
        ),
        "DeepLift nontarget": _Work(
            "the limit is one more forward; the adapter also copies inputs so that the map is complete",
            1.0,
            lambda: AbsenceDeepLift(model, nontarget="runner_up").attribute(images, target=target),
            lambda: shipped.attribute(images, target=runner_up),
            mended,
            lambda: model(images),
            judged=False,
        ),
    }


def _summed(maps: Iterator[Tensor]) -> Tensor:
    total = next(maps)
    for one in maps:
        total = total + one
    return total


def _digits(size: _Size) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """Network, images, references and their labels."""
    from absence_plugins.data import digits_cnn, load_digits

    data = load_digits()
    return digits_cnn(), data.test_images[: size.batch], data.train_images[: size.pool], data.train_labels[: size.pool]


def _resnet18(size: _Size) -> tuple[nn.Module, Tensor, Tensor, None]:
    """As :func:`_digits`, with random weights and images, which cost what real ones do."""
    from torchvision.models import resnet18  # type: ignore[import-untyped,unused-ignore]

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = resnet18(weights=None).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size.batch + size.pool, 3, size.pixels, size.pixels, generator=generator)
    return model, images[: size.batch], images[size.batch :], None


# -- time ------------------------------------------------------------------------------------------


def _timed(name: str, work: _Work, rounds: int, device: torch.device, *, judged: bool) -> Measurement:
    """Ratio of times, adapter and Captum interleaved."""
    _check_same(name, work)  # also the warm-up
    limit = work.limit
    if limit is not None and work.forward is not None:
        limit += _share(work.forward, work.plain, device)
    sides = (work.ours, work.plain)
    times: tuple[list[float], list[float]] = ([], [])
    ratios: list[float] = []
    planned = rounds
    while len(ratios) < planned:
        first = len(ratios) % 2  # every other round begins with the other side
        seconds = [0.0, 0.0]
        gc.collect()
        for side in (first, 1 - first, 1 - first, first):
            took = _seconds(sides[side], device)
            seconds[side] += took
            times[side].append(took)
        ratios.append(seconds[0] / seconds[1])
        if len(ratios) == 1 and judged:
            fits = int(SECONDS_PER_WORK / sum(seconds))
            planned = max(min(rounds, FEWEST_ROUNDS), min(rounds * MORE_ROUNDS, fits))
    ratio = statistics.median(ratios)
    ours, plain = (1e3 * statistics.median(taken) for taken in times)
    ok = _verdict(ratio, limit if judged and work.judged else None)
    return Measurement(f"{name}: time", work.what, ours, plain, "ms", ratio, limit, ok, tuple(ratios))


def _seconds(call: Callable[[], Tensor], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


def _share(forward: Callable[[], Tensor], call: Callable[[], Tensor], device: torch.device) -> float:
    """What a forward without gradients costs, as a share of ``call``."""

    def quiet() -> Tensor:
        with torch.no_grad():
            return forward()

    quiet()
    return statistics.median(_seconds(quiet, device) / _seconds(call, device) for _ in range(9))


def _check_same(name: str, work: _Work) -> None:
    """Both sides must compute the same numbers.

    Raises:
        RuntimeError: they do not.
    """
    ours, plain = work.ours(), (work.same or work.plain)()
    if ours.shape != plain.shape or not torch.allclose(ours, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max())):
        far = float((ours - plain).abs().max()) if ours.shape == plain.shape else math.inf
        raise RuntimeError(f"{name}: adapter and Captum differ by {far:.2g}; their times cannot be compared")
    work.plain()


def _verdict(ratio: float, limit: float | None) -> bool | None:
    return None if limit is None else ratio <= limit


# -- memory ----------------------------------------------------------------------------------------


def _weighed(network: str, name: str, device: torch.device, *, judged: bool) -> Measurement:
    """Ratio of the increases of the peak during one call, of the full size: small ones hide in what is held anyway."""
    peak = _peak_cuda if device.type == "cuda" else _peak_fresh
    ours, plain = (peak(network, name, side, device) for side in ("ours", "plain"))
    ratio = ours / plain if plain else math.nan
    ok = _verdict(ratio, MEMORY_LIMIT if judged and plain else None)
    what = "increase of the peak during one call"
    return Measurement(
        f"{network} {name}: memory", what, ours / MIB, plain / MIB, "MiB", ratio, MEMORY_LIMIT, ok, (ratio,)
    )


def _peak_cuda(network: str, name: str, side: str, device: torch.device) -> float:
    """Bytes that one call allocates at its peak."""
    work = _works(network, False, device)[name]
    call = work.ours if side == "ours" else work.plain
    call()
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return float(torch.cuda.max_memory_allocated(device) - before)


def _peak_fresh(network: str, name: str, side: str, _device: torch.device) -> float:
    """Bytes by which one call raises the peak of a new process, which no earlier work has filled or fragmented."""
    program = f"from absence_plugins.experiments.bench import _report_peak as f; f({network!r}, {name!r}, {side!r})"
    environment = {**os.environ, **EXACT_MALLOC, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {network} {name} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["bytes"])


def _report_peak(network: str, name: str, side: str) -> None:
    """What the new process does: a small warm-up of the libraries, then one call."""
    device = torch.device("cpu")
    with _steady():
        small = _works(network, True, device)[name]
        small.ours(), small.plain()
        work = _works(network, False, device)[name]
        call = work.ours if side == "ours" else work.plain
        gc.collect()
        before = _reset_peak()
        call()
        print(json.dumps({"bytes": _peak() - before}))


def _reset_peak() -> int:
    """Let the peak start from the present state (Linux); returns the peak so far."""
    with suppress(OSError):  # not Linux, or not allowed: the call must then exceed the peak of the imports
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Bytes of this process's peak resident set."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would carry the parent's peak over
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# -- the surroundings ------------------------------------------------------------------------------


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        device = torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name!r} cannot be used: {str(error).splitlines()[0]}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name!r} is not measured; use 'auto', 'cpu' or 'cuda'")
    return device


def _has_torchvision() -> bool:
    try:
        import torchvision  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return False
    return True


@contextmanager
def _steady() -> Iterator[None]:
    """A fixed number of threads, no garbage collection on its own, no warnings; all put back afterwards."""
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    try:
        torch.set_num_threads(THREADS)
        gc.disable()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        if collecting:
            gc.enable()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _environment(device: torch.device, rounds: int, quick: bool, networks: Sequence[str]) -> dict[str, Any]:
    packages = ("captum", "torchvision") if "resnet18" in networks else ("captum",)
    notes = []
    if "resnet18" not in networks:
        notes.append("torchvision is missing, so only the digits network was measured")
    if quick:
        notes.append("quick: sizes too small to judge by")
    return {
        "torch": str(torch.__version__),
        **{package: metadata.version(package) for package in packages},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": os.cpu_count(),
        "threads": THREADS,
        "rounds": rounds,
        "note": "; ".join(notes),
    }


def _cells(one: Measurement) -> tuple[str, ...]:
    digits = 1 if one.plain < 1000 else 0
    count = len(one.rounds)
    spread = f"{count} x {min(one.rounds):.2f}..{max(one.rounds):.2f}" if count > 1 else ""
    verdict = "" if one.ok is None else "ok" if one.ok else "TOO HIGH"
    limit = "-" if one.limit is None else f"{one.limit:.2f}"
    costs = (f"{value:.{digits}f} {one.unit}" for value in (one.plain, one.ours))
    return (one.name, *costs, f"{one.ratio:.3f}", spread, limit, verdict)


if __name__ == "__main__":
    print(run_bench().table())
