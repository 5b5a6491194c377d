"""Directions that may be the absence of a concept are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.methods.directions.sides import find_open_signs


def made(strength_of_absence: float, frequent: float) -> tuple[Tensor, Tensor]:
    """Features of 10 concepts, the first at a share ``frequent`` of the positions, the others at .15, and encodings."""
    generator = torch.Generator().manual_seed(2)
    encoding = F.normalize(torch.randn(32, 10, generator=generator), dim=0)
    shares = torch.tensor([frequent] + [0.15] * 9)
    present = torch.rand(6000, 10, generator=generator) < shares
    strength = torch.rand(6000, 10, generator=generator)
    a = torch.where(present, 2.5 + 2.5 * strength, strength_of_absence * strength)
    return (a @ encoding.T + 0.1 * torch.randn(6000, 32, generator=generator)).reshape(-1, 2, 2, 32), encoding


def test_a_frequent_concept_that_is_found_as_its_absence_is_named(tmp_path: Path) -> None:
    x, encoding = made(2.5, 0.8)
    pairs = DirectionPairs(10).fit(x)
    cosine = encoding[:, 0] @ pairs.encoding
    found = int(cosine.abs().argmax())
    assert float(cosine[found]) < -0.99
    assert pairs.report_.open_sign is not None
    assert pairs.report_.open_sign[found]
    assert any("leave open" in note for note in pairs.notes_)
    assert DirectionPairs.load(pairs.save(tmp_path)).report_.open_sign == pairs.report_.open_sign


@pytest.mark.parametrize(("flipped", "expected"), [(False, [False, False]), (True, [True, True])])
def test_the_spread_tells_presence_from_absence(flipped: bool, expected: list[bool]) -> None:
    """Second writing: standard deviations of both groups."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 2, generator=generator) * 0.1
    z[:600] += 1 + torch.rand(600, 2, generator=generator)
    z = -z if flipped else z
    threshold = torch.full((2,), -0.6 if flipped else 0.6)
    above = [z[z[:, k] > threshold[k], k].std() for k in range(2)]
    below = [z[z[:, k] <= threshold[k], k].std() for k in range(2)]
    assert [bool(a < 1.1 * b) for a, b in zip(above, below, strict=True)] == expected
    assert find_open_signs(z.split(700), torch.eye(2), threshold).tolist() == expected
