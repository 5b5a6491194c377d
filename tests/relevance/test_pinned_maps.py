"""The engine gives the maps that module hooks gave before it, on every planted convolutional network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))

from pin_zennit_maps import NAMES, VIEWS, Pinned

from absence_plugins.relevance import relevance
from absence_plugins.relevance.secants.redistribution import AlphaBeta, Gamma, Redistribution, ZPlus

OF_CONVOLUTIONS: dict[str, Redistribution] = {
    "AbsenceEpsilonGamma": Gamma(0.25),
    "AbsenceEpsilonGammaBox": Gamma(0.25),
    "AbsenceEpsilonPlus": ZPlus(),
    "AbsenceEpsilonAlpha2Beta1": AlphaBeta(1.0),
    "AbsenceExcitationBackprop": ZPlus(),
}
WITH_LINEAR = {"AbsenceExcitationBackprop"}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("problem", NAMES)
@pytest.mark.parametrize("composite", OF_CONVOLUTIONS)
def test_the_engine_gives_the_same_map(composite: str, problem: str, view: str) -> None:
    pinned = Pinned(problem, view)
    modules = dict(pinned.model.named_modules())
    linear: tuple[type, ...] = (nn.Linear,) if composite in WITH_LINEAR else ()

    def rule(name: str) -> Redistribution | None:
        return OF_CONVOLUTIONS[composite] if isinstance(modules[name], (nn.Conv2d, *linear)) else None

    found = relevance(pinned.model, pinned.x, pinned.r, pinned.unit, rule=rule).attribution
    want = pinned.maps[composite]
    assert torch.linalg.vector_norm(want) > 0
    torch.testing.assert_close(found, want, rtol=0, atol=1e-10 * float(want.abs().max()))
