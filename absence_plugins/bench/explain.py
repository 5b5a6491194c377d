"""``absence-plugins bench explain``: what a photograph's page costs next to the passes through the network that it
needs.
"""

from __future__ import annotations

import inspect
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.bench.result import BenchResult, Measurement
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment
from absence_plugins.bench.works import Growth, Work
from absence_plugins.core.hooks import counting
from absence_plugins.methods.regions.measure import choose_batch

BUDGET = 6.0  # CPU seconds of one photograph, on one core of a server
LIMITS = {"command": 1.5, "references": 1.6, "photographs": 1.4}
SIDE, QUICK_SIDE = 224, 72
SHOWN = ("coffee", "cat", "rocket", "astronaut")
REFERENCES = ("astronaut", "cat", "clock", "coins", "horse", "motorcycle", "rocket")


def run_explain_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Measure ``explain`` of photographs with EfficientNet-Lite0 next to a script that only runs the network as often.

    That script starts Python, imports torch, loads the network, and runs as many images forward (in the layout and the
    batches that are fastest), and as many forward and backward, as ``explain`` does, which is counted. It runs them as
    torch does: with batch norms of their own, 1 x 1 convolutions of one thread by matrix products, and memory that goes
    back to the system, each of which ``explain`` does otherwise, so that a ratio can be below 1. The ratio is judged.
    The CPU seconds of the command (user and system, with all imports and the page) are measured beside it, against 6 s:
    they depend on the processor and on who else uses its caches, so they are reported and not judged.

    Args:
        rounds: rounds per measured ratio; long work gets fewer.
        quick: 72 pixels, no fresh processes, nothing judged: shows that the bench works.
        device: "auto", "cpu" or "cuda": the command uses the CPU.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        ImportError: the extra ``photos`` is missing.
        RuntimeError: the command fails.
    """
    run = Run.start(rounds, quick, device, progress)
    measured = run.time("bench explain", build_explain_works, ["EfficientNet-Lite0"])
    if not quick:
        measured += [_measure_budget(name, max(3, rounds)) for name in ("command", "references")]
    return BenchResult(tuple(measured), describe_environment("torch", run), "passes alone", "explain")


def build_explain_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """One photograph in the running process, and as commands; with growth over their number."""
    case = _Case(QUICK_SIDE if quick else SIDE)
    works = {
        "photographs": Work(
            f"maps, tests and page of a photograph, next to its {case.passes} alone",
            LIMITS["photographs"],
            partial(case.explain, 1),
            partial(case.run_alone, 1),
            is_same=False,
            growth=Growth("photographs", (1, 2, 3) if quick else (1, 2, 4), case.at),
        )
    }
    if quick:
        return works
    for name, what in (("command", "one photograph"), ("references", "one photograph and seven references")):
        works[name] = Work(
            f"absence-plugins explain of {what}, a fresh process, next to one that imports torch, loads the network and "
            "runs the same passes",
            LIMITS[name],
            partial(case.command, name),
            partial(case.script, name),
            is_same=False,
        )
    return works


class Passes:
    """Images that go through a whole network, to its last layer: ``forward`` alone, and ``gradient`` with a graph."""

    def __init__(self) -> None:
        self.forward = self.gradient = 0

    def tick(self, samples: int) -> None:
        """Count a forward."""
        if torch.is_grad_enabled():
            self.gradient += samples
        else:
            self.forward += samples

    def __str__(self) -> str:
        return f"{self.forward} forwards and {self.gradient} with backwards"


def run_passes(model: Any, side: int, at_once: int, forward: int, gradient: int) -> None:
    """So many images of ``side`` pixels forward, ``at_once`` together, and so many forward and backward."""
    images = torch.rand(at_once, 3, side, side).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for start in range(0, forward, at_once):
            model(images[: forward - start])
    one = torch.rand(1, 3, side, side).requires_grad_()
    for _ in range(gradient):
        torch.autograd.grad(model(one).sum(), one)


class _Case:
    """Photographs in files, the network, and what one photograph takes."""

    def __init__(self, side: int) -> None:
        from absence_plugins.commands.models import load_model

        self._folder = tempfile.TemporaryDirectory(prefix="absence-explain-")  # goes with this object
        self.folder, self.side = Path(self._folder.name), side
        save_photographs(self.folder / "shown", SHOWN)
        save_photographs(self.folder / "references", REFERENCES)
        self.loaded = load_model("efficientnet-lite0", size=side)
        self.passes = self._count(lambda: self.explain(1))

    def _count(self, call: Callable[[], object]) -> Passes:
        found = Passes()
        with counting(self.loaded.model.get_submodule("classifier"), found.tick):
            call()
        return found

    def at(self, size: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """Both sides for so many photographs."""
        return partial(self.explain, size), partial(self.run_alone, size)

    def explain(self, count: int) -> Tensor:
        """Maps, tests and page of so many photographs."""
        from absence_plugins.commands.explain import explain_images
        from absence_plugins.commands.references import make_references

        images = [self.folder / "shown" / f"{name}.png" for name in SHOWN[:count]]
        made = make_references(self.loaded)
        explain_images(images, self.loaded, self.folder / "page", references=made, progress=False)
        return torch.zeros(1)

    def run_alone(self, count: int) -> Tensor:
        """The passes of so many."""
        at_once = choose_batch(torch.empty(3, self.side, self.side))
        run_passes(self.loaded.model, self.side, at_once, count * self.passes.forward, count * self.passes.gradient)
        return torch.zeros(1)

    def command(self, name: str) -> Tensor:
        """``absence-plugins explain`` in a fresh process."""
        self.run_command(name)
        return torch.zeros(1)

    def run_command(self, name: str) -> None:
        """Run it. Raises RuntimeError where it fails."""
        words = ["explain", str(self.folder / "shown" / "coffee.png"), "--model", "efficientnet-lite0", "--quiet"]
        if name == "references":
            words += ["--references", str(self.folder / "references")]
        _run(["-m", "absence_plugins", *words, "--out", str(self.folder / "page")])

    def script(self, name: str) -> Tensor:
        """The passes that the command makes, in a fresh process."""
        passes = self.passes if name == "command" else self.with_references
        at_once = choose_batch(torch.empty(3, self.side, self.side))
        program = (
            "from typing import Any\nimport torch\nfrom absence_plugins.data.photographs import efficientnet_lite0\n"
            f"{inspect.getsource(run_passes)}\n"
            f"run_passes(efficientnet_lite0(), {self.side}, {at_once}, {passes.forward}, {passes.gradient})"
        )
        _run(["-c", program])
        return torch.zeros(1)

    @property
    def with_references(self) -> Passes:
        """What one photograph and its references take."""
        if not hasattr(self, "_with_references"):
            self._with_references = self._count(self._explain_with_references)
        return self._with_references

    def _explain_with_references(self) -> None:
        from absence_plugins.commands.explain import explain_images
        from absence_plugins.commands.references import load_references

        references = load_references(self.folder / "references", self.loaded)
        shown = [self.folder / "shown" / "coffee.png"]
        explain_images(shown, self.loaded, self.folder / "page", references=references, progress=False)


def save_photographs(folder: Path, names: tuple[str, ...]) -> None:
    """Write photographs of scikit-image as PNG files of 224 x 224 pixels. Raises ImportError without the extra."""
    from PIL import Image

    from absence_plugins.data.photographs import MEAN, STD, photograph

    folder.mkdir(parents=True)
    for name in names:
        pixels = (photograph(name)[0] * STD + MEAN).round().clamp(0, 255).byte()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")


def _measure_budget(name: str, rounds: int) -> Measurement:
    """The CPU seconds of a command, user and system, of one thread."""
    case = _Case(SIDE)
    taken = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        case.run_command(name)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    found = statistics.median(taken)
    allowed = BUDGET if name == "command" else 1.5 * BUDGET
    what = (
        f"CPU seconds of absence-plugins explain ({name}), the median of {rounds} runs, the least of them {min(taken):.2f}; "
        f"aimed at {allowed:g} s on an idle core"
    )
    ratios = tuple(one / allowed for one in taken)
    return Measurement(f"{name}: CPU", what, 1e3 * found, 1e3 * allowed, "ms", found / allowed, None, None, ratios)


def _run(words: list[str]) -> None:
    root = str(Path(__file__).parents[2])  # a checkout that is not installed
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)[:200]} failed:\n{done.stderr[-2000:]}")
