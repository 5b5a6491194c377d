"""The ranks of one torchrun: how they meet, what one does alone, what the others are told of one that ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import run_ranks
from torch import distributed

from absence_plugins.methods.ranks import alone, from_first, gather, is_first, ranks, wait


def meet() -> dict[str, Any]:
    rank, world = ranks()
    wait()
    found = {"rank": (rank, world), "all": gather(torch.full((2,), rank)), "first": from_first(lambda: f"of {rank}")}
    with alone():
        found |= {"alone": (ranks(), gather(rank), from_first(lambda: rank)), "speaks": is_first()}
    return found


def test_ranks_meet() -> None:
    found = run_ranks(3, meet)
    assert [one["rank"] for one in found] == [(0, 3), (1, 3), (2, 3)]
    for rank, one in enumerate(found):
        assert torch.equal(torch.stack(one["all"]), torch.tensor([[0, 0], [1, 1], [2, 2]]))
        assert one["first"] == "of 0"
        assert one["alone"] == ((0, 1), [rank], rank)
        assert one["speaks"] == (rank == 0)


def test_one_process_is_the_only_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    found = meet()
    assert (found["rank"], found["first"], found["speaks"]) == ((0, 1), "of 0", True)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun with one process
    assert ranks() == (0, 1)
    assert not distributed.is_initialized()


def lose(rank: int, how: int) -> Any:
    own, _ = ranks()
    wait()
    if own == rank:
        os.kill(os.getpid(), how)
    return gather(own)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_rank_ends_the_others_with_a_clear_error(lost: int) -> None:
    found = run_ranks(2, lose, lost, signal.SIGKILL)
    assert found[lost] == -signal.SIGKILL
    assert found[1 - lost].startswith("RankLost: another rank has ended before its work was done")


def test_an_error_of_what_the_first_makes_is_that_of_all() -> None:
    def work() -> Any:
        with pytest.raises(ValueError, match="of rank 0"):
            from_first(lambda: int("of rank 0"))
        return gather(ranks()[0])

    assert run_ranks(2, work) == [[0, 1], [0, 1]]


def of_a_script(value: Any) -> Any:
    """A script that ends its own group, and starts another one, in between."""
    first = gather(value)
    distributed.destroy_process_group()
    rank = first.index(value)
    distributed.init_process_group("gloo", init_method=f"file://{value[1]}", rank=rank, world_size=2)
    return gather(rank)


def test_a_group_that_was_started_anew_is_met_in_anew(tmp_path: Path) -> None:
    def work() -> Any:
        return of_a_script((ranks()[0], str(tmp_path / "again")))

    assert run_ranks(2, work) == [[0, 1], [0, 1]]


WORKER = "from absence_plugins.methods import ranks as r; print(len(r.gather(r.ranks()[0])), flush=True)"


@pytest.mark.slow
def test_torchrun_starts_the_group(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, str(script)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "".join(done.stdout.split()) == "22"  # two processes write into one pipe
