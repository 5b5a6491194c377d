"""The machine while it is measured: device, threads, versions."""

from __future__ import annotations

import gc
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from absence_plugins.bench.run import Run

THREADS = 1


def chosen_device(name: str) -> torch.device:
    """The device to measure on. Raises ValueError if it cannot be used."""
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


def has_torchvision() -> bool:
    """Whether torchvision can be imported."""
    try:
        import torchvision  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return False
    return True


@contextmanager
def steady() -> Iterator[None]:
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


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe_environment(host: str, run: Run, networks: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, device and threads, for the foot of the table; networks: those measured, where the ResNet is
    optional.
    """
    packages = (host, "torchvision") if "resnet18" in networks else (host,)
    notes = []
    if list(networks) == ["digits"]:
        notes.append("torchvision is missing, so only the digits network was measured")
    if run.quick:
        notes.append("quick: sizes too small to judge by")
    return {
        "torch": str(torch.__version__),
        **{package: metadata.version(package) for package in packages},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "cores": os.cpu_count(),
        "threads": THREADS,
        "rounds": run.rounds,
        "note": "; ".join(notes),
    }
