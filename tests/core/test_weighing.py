"""What a forward takes: weights are there once, whatever the number of samples."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from absence_plugins.core import weighing
from absence_plugins.core.weighing import Weighing, count_fitting

CPU = torch.device("cpu")


def test_weights_are_not_what_a_sample_takes() -> None:
    model, x = nn.Sequential(nn.Conv2d(1, 256, 3), nn.Flatten(), nn.Linear(256, 300)), torch.rand(2, 1, 3, 3)
    with torch.no_grad(), Weighing() as found:
        model(x)
    assert found.largest == 4 * 2 * (256 + 300)  # of the linear layer; its weights are 300 kB
    assert found.total > 4 * 256 * 300
    assert found.marked == 0


def test_a_mark_tells_what_is_behind_it() -> None:
    x = torch.rand(100)
    Weighing.mark_running()  # nothing runs
    with Weighing() as found:
        x.exp()
        Weighing.mark_running()
        x[:10].exp()
    assert found.marked == 4 * 200
    assert found.largest_behind < found.largest == 4 * 200


def test_sparse_tensors_are_weighed() -> None:
    x = torch.eye(3).to_sparse()
    with Weighing() as found:
        x @ torch.ones(3, 2)
    assert found.largest >= 4 * (9 + 6 + 6)


@pytest.mark.parametrize(
    ("mebibytes", "in_cache", "expected"),
    [(1 / 1024, True, 4096), (1, True, 8), (2, True, 8), (4, True, 8), (8, True, 4), (1, False, 32), (1000, True, 1)],
)
def test_a_cpu_gets_what_its_cache_holds_or_a_few_samples(mebibytes: float, in_cache: bool, expected: int) -> None:
    assert count_fitting(mebibytes * 2**20, CPU, in_cache=in_cache) == expected
    assert expected == 1 or expected * weighing.HELD * mebibytes * 2**20 <= weighing.ON_CPU
