"""What influence is given: the order of samples, lengths, names, and the global random state."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Subset, TensorDataset, WeightedRandomSampler

from absence_plugins.core.outputs import Logit
from absence_plugins.methods.directions import DirectionPairs, influence
from absence_plugins.methods.directions.inputs import count_samples

QUICK: dict[str, Any] = {"n_permutations": 20}


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 2, 2), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    ).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pairs(net: nn.Sequential, images: Tensor) -> DirectionPairs:
    return DirectionPairs(2, starts=2, steps=3).fit_model(net, "0", images, use_head=False)


def test_groups_and_outputs_per_sample_need_the_order_of_the_data_set(
    net: nn.Sequential, images: Tensor, pairs: DirectionPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, groups = TensorDataset(images), [number // 4 for number in range(40)]
    expected = influence(pairs, net, "0", images, groups=groups, **QUICK)
    found = influence(pairs, net, "0", DataLoader(data, batch_size=16), groups=groups, **QUICK)
    assert torch.equal(found.p, expected.p)
    some = influence(pairs, net, "0", DataLoader(Subset(data, range(30)), batch_size=16), groups=groups[:30], **QUICK)
    whole = DataLoader(data, batch_size=16, drop_last=True)
    assert some.n_samples == 30
    assert influence(pairs, net, "0", whole, groups=groups[:32], **QUICK).n_samples == 32
    monkeypatch.setattr(sys.modules[influence.__module__], "_Run", lambda *_arguments: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=r"one per sample, \[32\]"):
        influence(pairs, net, "0", whole, groups=groups, **QUICK)
    own_order = list(range(39, -1, -1))
    loaders = (
        DataLoader(data, batch_size=16, shuffle=True),
        DataLoader(data, batch_size=16, sampler=own_order),
        DataLoader(data, batch_size=16, sampler=WeightedRandomSampler([1.0] * 40, 40)),
        DataLoader(data, batch_sampler=BatchSampler(own_order, 8, drop_last=False)),
        DataLoader(data, batch_sampler=[own_order]),
        DataLoader(data, batch_size=None, sampler=own_order),
    )
    for loader in loaders:
        with pytest.raises(ValueError, match=r"groups= need the samples in the order .*Subset"):
            influence(pairs, net, "0", loader, groups=groups, **QUICK)
        with pytest.raises(ValueError, match="outputs per sample need"):
            influence(pairs, net, "0", loader, outputs=Logit([0, 1] * 20), **QUICK)


def test_samples_are_counted_as_a_loader_yields_them(images: Tensor) -> None:
    data = TensorDataset(images)
    for loader in (
        DataLoader(data, batch_size=16, drop_last=True),
        DataLoader(data, batch_size=16),
        DataLoader(data, batch_size=16, sampler=range(30)),
        DataLoader(data, batch_size=16, sampler=range(30), drop_last=True),
    ):
        assert count_samples(loader) == sum(len(batch[0]) for batch in loader)
    assert count_samples(DataLoader(data, batch_size=None)) is None
