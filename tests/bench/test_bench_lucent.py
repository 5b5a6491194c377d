"""The bench of ``render_vis``: the same pictures on both sides, nothing left on the models, the command."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from absence_plugins import bench
from absence_plugins.bench import BenchResult, run_lucent_bench
from absence_plugins.bench.lucent import STEP_LIMIT, build_lucent_works
from absence_plugins.cli import app

CPU = torch.device("cpu")


def states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.get_num_threads()


@pytest.fixture(scope="module")
def result() -> BenchResult:
    before = states()
    made = run_lucent_bench(rounds=1, quick=True, device="cpu", progress=False)
    assert states() == before
    return made


def test_both_networks_with_and_without_transforms(result: BenchResult) -> None:
    assert [one.name for one in result.measurements] == [
        f"{network} {name}: time" for network in ("digits", "resnet18") for name in ("plain", "transformed")
    ]
    assert all(one.limit == STEP_LIMIT == 1.05 and one.ok is None and one.ratio > 0 for one in result.measurements)
    assert "Lucent" in result.table().splitlines()[0]
    assert "torch-lucent 0.1" in result.table()


def test_both_sides_make_the_same_picture_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for network in ("digits", "resnet18"):
        for work in build_lucent_works(network, True, CPU).values():
            assert work.is_same
            assert torch.equal(work.ours(), work.plain())


def test_a_network_keeps_no_hook_or_gradient_of_lucents() -> None:
    from absence_plugins.bench.lucent import as_before

    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    kept = model[0].register_forward_hook(lambda *_: None)
    with as_before(model):
        model[0].register_forward_hook(lambda *_: None)
        model(torch.ones(1, 2)).sum().backward()
    assert list(model[0]._forward_hooks) == [kept.id]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bad_options_and_the_command(monkeypatch: pytest.MonkeyPatch, result: BenchResult) -> None:
    with pytest.raises(ValueError, match="rounds=0 must be at least 1"):
        run_lucent_bench(rounds=0)
    slow = replace(result, measurements=(replace(result.measurements[0], ok=False),))
    for answer, code in ((result, 0), (slow, 1)):
        monkeypatch.setitem(bench.BENCHES, "lucent", lambda answer=answer, **options: answer)
        done = CliRunner().invoke(app, ["bench", "lucent"])
        assert done.exit_code == code
        assert answer.table() in done.output
