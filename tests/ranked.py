"""Several ranks in a test: forked processes of a gloo group, so that torch is imported once."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed


def run_ranks(world: int, work: Callable[..., Any], *args: Any, seconds: float = 60) -> list[Any]:
    """What ``work(*args)`` returns in each rank; a text where it failed, -9 where it was killed. One: in this process."""
    if world == 1:
        return [work(*args)]
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        started = [
            context.Process(target=_run, args=(rank, world, Path(folder), work, args), daemon=True)
            for rank in range(world)
        ]
        for process in started:
            process.start()
        found: list[Any] = []
        for rank, process in enumerate(started):
            process.join(seconds)
            if process.exitcode is None:
                process.kill()
                found.append("it hung")
                continue
            file = Path(folder) / f"{rank}.pickle"
            found.append(pickle.loads(file.read_bytes()) if file.exists() else process.exitcode)
        return found


def _run(rank: int, world: int, folder: Path, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    try:
        found = work(*args)
    except BaseException as error:
        found = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    draft = folder / f"{rank}.draft"
    draft.write_bytes(pickle.dumps(found))
    draft.rename(folder / f"{rank}.pickle")
    os._exit(0)  # the parent's exit handlers are not this process's
