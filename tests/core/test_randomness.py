"""All global random states are put back, also after a failure, and a seed decides what is drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from absence_plugins.core.randomness import seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_states_are_as_before(seed: int | None, fails: bool) -> None:
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draw()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    try:
        with seeded(seed):
            inside = draw()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert draw() == expected
    assert (inside == expected) == (seed is None)


def test_a_seed_decides() -> None:
    found = []
    for seed in (1, 1, 2):
        with seeded(seed):
            found.append(draw())
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[1], found[2], strict=True))
