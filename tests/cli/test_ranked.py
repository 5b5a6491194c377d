"""Commands under torchrun: which are shared out, which rank speaks, when it says an error."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins.cli import app, ranked
from absence_plugins.commands.models import load_model, to_own_gpu
from absence_plugins.methods.ranks import RankLost, own_share


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """As rank 1 of 2, whose waits are noted."""
    found: list[float] = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(ranked.time, "sleep", found.append)
    return found


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.output


@pytest.mark.parametrize("words", ["explain a.png", "demo", "check digits", "experiment reichardt", "bench captum"])
def test_a_command_that_is_not_shared_out_rejects_torchrun(words: str, waited: list[float]) -> None:
    code, output = run(*words.split())
    assert code == 2
    name = " ".join(words.split()[:2]) if words.startswith(("experiment", "bench")) else words.split()[0]
    assert f"rank 1: error: {name} is not shared out by torchrun, which started 2 processes; start one" in output
    assert waited == [6.5]  # rank 0 says it first, and torchrun ends the others


def test_one_process_of_torchrun_may_do_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    ranked.check_shared("explain", {})
    monkeypatch.setenv("WORLD_SIZE", "4")
    for command, options in (("label", {}), ("bench", {"host": "models"}), ("experiment", {"name": "digits"})):
        ranked.check_shared(command, options)


def test_a_lost_rank_is_said_after_everything_else(waited: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    ranked.wait_for_turn(RankLost("another rank has ended"))
    ranked.wait_for_turn(ValueError("image 4"))
    monkeypatch.setenv("RANK", "0")
    ranked.wait_for_turn(RankLost("another rank has ended"))
    ranked.wait_for_turn(ValueError("image 4"))
    assert waited == [18.5, 6.5, 12.0, 0]


def test_other_ranks_speak_of_their_share_only(waited: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ranked.is_speaking()
    with own_share():
        assert ranked.is_speaking()
    monkeypatch.delitem(sys.modules, "absence_plugins.methods.ranks")  # a command that has not loaded it yet
    assert (ranked.is_speaking(), ranked.mark_rank()) == (False, "rank 1: ")
    monkeypatch.setenv("RANK", "0")
    assert (ranked.is_speaking(), ranked.mark_rank()) == (True, "")


def test_under_torchrun_each_process_takes_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model("digits")
    assert to_own_gpu(loaded) is loaded
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert to_own_gpu(loaded) is loaded
    taken: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: taken.append(device) or self)
    assert to_own_gpu(loaded).model is loaded.model
    assert taken == [3, torch.device("cuda", 3)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        ValueError, match="has 2 GPUs and torchrun started a process for GPU 3; start --nproc_per_node=2"
    ):
        to_own_gpu(loaded)
