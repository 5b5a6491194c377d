"""Every Absence composite gives the maps that it gave when they were pinned (pin_zennit_maps.py), with any mechanism."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

pytest.importorskip("zennit")

from pin_zennit_maps import NAMES, VIEWS, Pinned, zennit_map

from absence_plugins.bench.scores import built, composites

OURS = composites(absence=True)
PIXELS = cast(Any, SimpleNamespace(pixels=(0.0, 1.0)))  # no composite of ours reads them
COMPOSITES = sorted(Pinned(NAMES[0], VIEWS[0]).maps)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("problem", NAMES)
def test_the_maps_are_those_of_the_file(problem: str, view: str) -> None:
    pinned = Pinned(problem, view)
    assert sorted(pinned.maps) == COMPOSITES
    for name, want in pinned.maps.items():
        found = zennit_map(pinned.model, built(OURS[name], PIXELS), pinned.x, pinned.r, pinned.unit)
        difference = float((found - want).abs().max())
        assert difference <= 1e-10 * float(want.abs().max()), name
        assert torch.isfinite(found).all()


def test_every_composite_is_pinned() -> None:
    assert sorted(OURS) == COMPOSITES
