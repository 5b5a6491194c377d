"""A report next to its forwards and backwards: what is recorded is what is run again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from absence_plugins.bench.replay import Call, recording, replay
from absence_plugins.bench.report import QUICK, _Case, run_report_bench
from absence_plugins.core.units import Layer


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.LazyLinear(2)).eval()


def test_forwards_and_backwards_are_recorded_and_run_again() -> None:
    net, layer = small(), Layer("2")
    x = torch.rand(2, 3, 8, 8)
    net(x)
    with recording(net) as calls:
        with torch.no_grad():
            net(x)
        with torch.no_grad(), layer.reading(net) as run:
            run(x[:1])  # finds out that the layer runs once, and stops there from here on
            run(x[:1].contiguous(memory_format=torch.channels_last))
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(net(leaf).sum(), leaf)
        net(leaf).sum().backward()
    plain, last = torch.contiguous_format, torch.channels_last
    assert calls == [
        Call((2, 3, 8, 8), plain, True, False), Call((1, 3, 8, 8), plain, True, False),
        Call((1, 3, 8, 8), last, False, False),
        Call((2, 3, 8, 8), plain, True, True, 1), Call((2, 3, 8, 8), plain, True, True, 1),
    ]  # fmt: skip
    assert not net._forward_hooks
    with recording(net) as again:
        replay(net, layer, calls)
    assert [(call.shape, call.layout, call.pulls) for call in again] == [
        (call.shape, call.layout, call.pulls) for call in calls
    ]
    assert torch.autograd.grad.__name__ == "grad"


def test_a_report_is_recorded_with_what_a_patch_changes(tmp_path: Path) -> None:
    case = _Case.of("digits", QUICK, torch.device("cpu"))
    skip = ("faithfulness", "pictures", "name")
    _, plain = case.sides(8, 1, 0, skip)
    calls = plain.args[2]
    assert sum(call.pulls for call in calls) >= 6  # maps of two examples on either side, and of the reasons
    assert {call.keeps for call in calls} == {False, True}
    with recording(case.loaded.model) as again:
        plain()
    assert sum(call.shape[0] for call in again) == sum(call.shape[0] for call in calls)
    assert sum(call.pulls for call in again) == sum(call.pulls for call in calls)


@pytest.mark.slow
def test_the_bench_runs() -> None:
    found = run_report_bench(rounds=1, quick=True, progress=False)
    assert found.ok
    assert [one.name for one in found.measurements] == ["digits units: time", "digits images: time"]
    for one in found.measurements:
        assert one.growth is not None
        assert one.ours > one.plain > 0
    assert found.measurements[0].limit == 1.5
