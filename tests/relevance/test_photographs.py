"""A trained network and real photographs: what the map names moves the output further than random regions do."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.data.photographs import PHOTOGRAPHS, efficientnet_lite0, photograph
from absence_plugins.relevance import relevance

CELL, SIDE, STEPS, RANDOM = 16, 14, 8, 6
RULE = "lower_gamma"  # the recommended one
NAMES = ["coffee", "cat", "astronaut", "rocket", "motorcycle", "camera"]


@lru_cache
def network() -> nn.Module:
    return efficientnet_lite0()


def cells(attribution: Tensor) -> Tensor:
    """[1, 3, 224, 224] -> sums over cells of 16 x 16 pixels [196]."""
    return attribution.sum(1).reshape(SIDE, CELL, SIDE, CELL).sum((1, 3)).flatten()


@torch.no_grad()
def mean_output(x: Tensor, fill: Tensor, order: Tensor, output: int) -> float:
    """The output's mean while the cells of x are replaced by those of fill in this order."""
    changed = []
    for step in range(1, STEPS):
        mask = torch.zeros(SIDE * SIDE)
        mask[order[: step * SIDE * SIDE // STEPS]] = 1
        mask = mask.reshape(SIDE, 1, SIDE, 1).expand(-1, CELL, -1, CELL).reshape(1, 1, 224, 224)
        changed.append(x * (1 - mask) + fill * mask)
    return float(network()(torch.cat(changed))[:, output].mean())


def random_orders() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randperm(SIDE * SIDE, generator=generator) for _ in range(RANDOM)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_suppresses_the_runner_up_suppresses_it(name: str) -> None:
    x = photograph(name)
    blank = torch.zeros_like(x)
    with torch.no_grad():
        runner_up = int(network()(x)[0].topk(2).indices[1])
    found = relevance(network(), x, blank, runner_up, rule=RULE)
    assert float(found.conservation_error.max()) < 1e-5
    rise = mean_output(x, blank, cells(found.attribution).argsort(), runner_up)
    assert rise > max(mean_output(x, blank, order, runner_up) for order in random_orders())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_lowers_the_output_when_it_comes(name: str) -> None:
    x, other = photograph(name), photograph(NAMES[(NAMES.index(name) + 1) % len(NAMES)])
    with torch.no_grad():
        target = int(network()(x)[0].argmax())
    found = relevance(network(), x, other, target, rule=RULE)
    fall = mean_output(x, other, cells(found.attribution).argsort(descending=True), target)
    assert fall < min(mean_output(x, other, order, target) for order in random_orders())


def test_unknown_photographs_are_named() -> None:
    with pytest.raises(ValueError, match="no photograph 'tea'; there are: astronaut"):
        photograph("tea")
    assert set(NAMES) <= set(PHOTOGRAPHS)
