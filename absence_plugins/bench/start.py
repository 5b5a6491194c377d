"""``absence-plugins bench start``: how long the command line takes to answer, and what the import adds to torch's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from absence_plugins.bench.result import BenchResult
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment
from absence_plugins.bench.works import Work

ANSWER = 0.5  # seconds in which help and an error are to be there
IMPORT = 0.1  # seconds that the package may add to the import of torch
COMMANDS = {
    "help": ("--help",),
    "help of explain": ("explain", "--help"),
    "error": ("explain", "no-such-file.jpg", "--model", "digits"),
}


def run_start_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Time fresh processes: ``--help`` and an error next to a wait of half a second, the import next to that of torch.

    Args:
        rounds: rounds per measured ratio.
        quick: one command and the import, nothing judged.
        device: "auto", "cpu" or "cuda": none of these processes uses it.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist.
        RuntimeError: a command does not answer.
    """
    run = Run.start(rounds, quick, device, progress)
    measured = run.time("bench start", build_start_works, ["command line"])
    return BenchResult(tuple(measured), describe_environment("torch", run), "allowed", "package")


def build_start_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """The commands and the import."""
    works = {
        name: Work(
            f"absence-plugins {' '.join(arguments)}, a fresh process, next to a wait of {ANSWER:g} s",
            1.0,
            _command(arguments),
            partial(_wait, ANSWER),
            is_same=False,
        )
        for name, arguments in (list(COMMANDS.items())[:1] if quick else COMMANDS.items())
    }
    works["import"] = Work(
        f"import absence_plugins and torch, next to import torch alone; allowed are {IMPORT:g} s more",
        1.0,
        partial(_python, "import torch, absence_plugins"),
        partial(_python, "import torch"),
        is_same=False,
        forward=partial(_wait, IMPORT),
    )
    return works


def _command(arguments: tuple[str, ...]) -> Callable[[], Tensor]:
    """Run the command line; what it says must be what was asked for."""

    def run() -> Tensor:
        done = _run([sys.executable, "-m", "absence_plugins", *arguments])
        answer = done.stdout if arguments[-1] == "--help" else done.stderr
        wanted = "Usage" if arguments[-1] == "--help" else "no-such-file.jpg"
        if wanted not in answer:
            raise RuntimeError(f"absence-plugins {' '.join(arguments)} does not answer:\n{done.stderr[-2000:]}")
        return torch.zeros(1)

    return run


def _python(program: str) -> Tensor:
    done = _run([sys.executable, "-c", program])
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stderr[-2000:]}")
    return torch.zeros(1)


def _run(call: list[str]) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])  # a checkout that is not installed
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]), "COLUMNS": "120"}
    return subprocess.run(call, capture_output=True, text=True, env=environment, check=False)


def _wait(seconds: float) -> Tensor:
    time.sleep(seconds)
    return torch.zeros(1)
