"""``absence-plugins bench ranks``: what two ranks of a ``torchrun`` save, with the activations of ``label`` as the
work.

The ranks are processes that stay, so that loading torch is not measured. Two times are compared with those of one
process: the time until the values are there, which needs two cores that are free, and the CPU time of the busier rank,
which does not. Where the images do not share the processor's memory bandwidth, as on several GPUs or hosts, both are
the same.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from absence_plugins.bench.result import BenchResult, Measurement, verdict
from absence_plugins.bench.run import Run
from absence_plugins.bench.subjects import subject
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.bench.works import Growth, Work
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.layer_values import layer_values

RANKS = 2
LIMIT = 0.7  # of the time of one process; 0.5 would be all of it shared out at no cost
LAYERS = {"digits": "linear1", "resnet18": "layer4.1.conv2"}
SIZE = 8  # images of a batch
LOOK, LEAVE = 0.5, 10.0  # seconds


def run_ranks_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> BenchResult:
    """Compare the values of a layer's units on a data set, by two ranks and by one process: the same bits.

    The time is judged where two cores (or GPUs) are free when the bench begins.

    Args:
        rounds: rounds per measured ratio.
        quick: a small network and few images, nothing judged.
        device: "auto" and "cuda" take two GPUs where there are, else "auto" the CPU.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, a device that does not exist, fewer than two GPUs for "cuda".
        RuntimeError: the ranks compute other numbers, or have ended.
    """
    if device == "auto" and torch.cuda.device_count() < RANKS:
        device = "cpu"
    run = Run.start(rounds, quick, device, progress)
    if run.device.type == "cuda" and torch.cuda.device_count() < RANKS:
        raise ValueError(f"device={device!r}: {RANKS} ranks need {RANKS} GPUs, and there is one; use device='cpu'")
    network = "digits" if quick else run.networks[-1]
    team = Team(network, run.device)
    try:
        measured = run.time("bench ranks", team.build, [network])
        measured.append(_measure_shares(team, run))
    finally:
        team.end()
    return BenchResult(tuple(measured), describe_environment("torch", run), "one process", "two ranks")


def compute_values(model: nn.Module, network: str, images: int) -> Tensor:
    """A layer's values on images that are drawn batch by batch, as a folder is read: [N, U]."""
    shape = (1, 32, 32) if network == "digits" else (3, 64, 64)

    def read(wanted: Sequence[range]) -> Iterator[Tensor]:
        for numbers in wanted:
            yield torch.randn(len(numbers), *shape, generator=torch.Generator().manual_seed(numbers.start))

    return layer_values(model, LAYERS[network], Batches(images, SIZE, read), progress=False)


class Team:
    """Ranks that wait for work, and a model in this process for the same work by itself."""

    def __init__(self, network: str, device: torch.device) -> None:
        self.network, self.model = network, _load(network, device)
        context, self.folder = multiprocessing.get_context("spawn"), tempfile.TemporaryDirectory()
        self.ends: list[Connection] = []
        processes = []
        for rank in range(RANKS):
            own, theirs = context.Pipe()
            where = torch.device("cuda", rank) if device.type == "cuda" else device
            file = str(Path(self.folder.name) / "store")
            process = context.Process(target=_serve, args=(rank, file, theirs, network, where), daemon=True)
            process.start()
            theirs.close()
            self.ends.append(own)
            processes.append(process)
        self.end = weakref.finalize(self, _end, processes, self.ends)

    def build(self, network: str, quick: bool, device: torch.device) -> dict[str, Work]:
        """The values on a data set, by the ranks and by one process."""
        count = 16 if quick else 96
        is_free = device.type == "cuda" or count_idle_cores() >= RANKS - 0.5

        def sides(images: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
            return partial(self.values, images), partial(compute_values, self.model, network, images)

        growth = Growth("images", (4, 8, 16) if quick else (24, 48, 96), sides, memory=False)
        words = f"values of {LAYERS[network]} on {count} images, {RANKS} ranks next to one process"
        words += "" if is_free else f"; not judged, as {RANKS} cores are not free"
        return {"values": Work(words, LIMIT, *sides(count), judged=is_free, growth=growth)}

    def ask(self, images: int) -> list[tuple[Tensor, float]]:
        """The values that every rank has (of the others than the first: [0, U]), and the CPU seconds that it took."""
        try:
            for end in self.ends:
                end.send(images)
            found = [end.recv() for end in self.ends]
        except (EOFError, OSError) as error:
            raise RuntimeError("a rank of the bench has ended; its message is above") from error
        return [(torch.from_numpy(values), seconds) for values, seconds in found]

    def values(self, images: int) -> Tensor:
        """Those of rank 0."""
        return self.ask(images)[0][0]


def count_idle_cores() -> float:
    """Cores that this process may use and that nobody uses, over half a second; by the load where the system does not
    tell.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        before = _read_ticks()
        time.sleep(LOOK)
        idle, total = (after - earlier for after, earlier in zip(_read_ticks(), before, strict=True))
    except (OSError, ValueError):
        return usable - os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return min(float(usable), (os.cpu_count() or 1) * idle / max(total, 1))


def _read_ticks() -> tuple[int, int]:
    """Idle ones, and all, of all cores."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _measure_shares(team: Team, run: Run) -> Measurement:
    """The CPU time of the busier rank next to that of one process."""
    images = 16 if run.quick else 96
    taken: list[tuple[float, float]] = []
    with steady():
        team.ask(images)
        for _ in range(run.rounds):
            start = time.process_time()
            compute_values(team.model, team.network, images)
            alone = time.process_time() - start
            taken.append((max(seconds for _, seconds in team.ask(images)), alone))
    ratios = tuple(busier / max(alone, 1e-9) for busier, alone in taken)
    ours, plain = (1e3 * statistics.median(each) for each in zip(*taken, strict=True))
    ratio = statistics.median(ratios)
    limit = LIMIT if not run.quick and run.device.type == "cpu" else None
    what = f"CPU time of the busier of {RANKS} ranks next to that of one process, {images} images"
    return Measurement(
        f"{team.network} values: CPU", what, ours, plain, "ms", ratio, LIMIT, verdict(ratio, limit), ratios
    )


def _load(network: str, device: torch.device) -> nn.Module:
    return subject(network, 1, 1, 64)[0].to(device)


def _serve(rank: int, store: str, end: Connection, network: str, device: torch.device) -> None:
    """A rank: computes what it is asked for until nobody asks any more."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    model = _load(network, device)
    while True:
        try:
            images = end.recv()
        except (EOFError, KeyboardInterrupt):
            distributed.destroy_process_group()
            return
        start = time.process_time()
        found = compute_values(model, network, images)
        end.send((found[: 0 if rank else None].numpy(), time.process_time() - start))


def _end(processes: list[Any], ends: list[Connection]) -> None:
    for end in ends:
        end.close()
    for process in processes:
        process.join(LEAVE)
        process.kill()
        process.join()
