"""Minimal missing sets on networks whose encoded absence is known: the planted thing, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from absence_plugins import Column, ReferenceSet, TableKind
from absence_plugins.data.planted import PROBLEMS, Planted
from absence_plugins.methods.missing import MissingSet, Search, missing_set, sufficient_set
from absence_plugins.methods.regions.segments import connected_pieces

SEARCH = Search(budget=400, proof=400)
IMAGES = 6
WHOLE = [
    "shape_missing", "shape_missing_normalized", "patch_missing", "shape_missing_residual", "shape_missing_dead",
    "conjunction", "hidden_unit", "shape_missing_attention", "green_missing", "segmentation_missing", "transformer_unit",
    "signal_missing", "volume_missing", "column_missing", "negation_missing",
]  # fmt: skip
QUICK = {"column_missing", "signal_missing"}


def asked(planted: Planted) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Images without the key and their nearest references with it, both decided as they should be; the key's region."""
    with torch.no_grad():
        decided = planted.model(planted.images).argmax(1)
    found = []
    for row in ((planted.labels == planted.absence_unit) & (decided == planted.absence_unit)).nonzero().flatten():
        x = planted.images[row][None]
        references = ReferenceSet(planted.pool_images, planted.pool_labels, contrast=planted.presence_unit, k=1)
        number = int(references.nearest_indices(x, planted.absence_unit)[0, 0])
        reference = planted.pool_images[number][None]
        if int(planted.model(reference).argmax()) != planted.absence_unit:
            found.append((x, reference, planted.pool_regions[number, 0]))
    return found[:IMAGES]


def things(name: str, x: Tensor, reference: Tensor) -> Tensor | int | None:
    """The things of a problem: cells of a scene, slots, what is colored; single pixels, columns, tokens elsewhere."""
    if name in ("column_missing", "negation_missing", "green_missing"):
        return None
    if name == "signal_missing":
        return (torch.arange(64) // 8)[None]
    if name == "volume_missing":
        slot = torch.arange(12) // 6
        return (4 * slot[:, None, None] + 2 * slot[:, None] + slot).reshape(144, 12)
    if name == "patch_missing":
        colored = (x - reference).abs()[0].amax(0) > 0.15
        return torch.from_numpy(connected_pieces(colored.numpy().astype(np.int64)))
    return 8


def overlap(found: MissingSet, region: Tensor) -> float:
    mask = found.mask.any(0)
    return float((mask & region).sum()) / float((mask | region).sum())


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] * (one not in QUICK)) for one in WHOLE])
def test_the_smallest_missing_set_is_the_planted_thing(name: str) -> None:
    planted = PROBLEMS[name](0)
    cases = asked(planted)
    assert len(cases) >= 4
    overlaps = []
    for x, reference, region in cases:
        empty = torch.tensor(planted.empty).view(-1, 1, 1) if isinstance(planted.empty, tuple) else planted.empty
        paste = "all" if name in ("patch_missing", "negation_missing") else "content"  # no side of these is blank
        pieces = things(name, x, reference)
        found = missing_set(
            planted.model,
            x,
            reference,
            pieces=pieces,
            empty=empty,
            paste=paste,
            search=SEARCH,  # type: ignore[arg-type]
        )
        assert found.is_smallest
        assert len(found) == 1
        assert found.verify(planted.model)
        overlaps.append(overlap(found, region))
    assert sum(overlaps) / len(overlaps) >= 0.9
    if name not in ("shape_missing_dead", "patch_missing"):
        assert min(overlaps) >= 0.9


@pytest.mark.parametrize("name", ["signal_missing", pytest.param("conjunction", marks=pytest.mark.slow)])
def test_of_single_pixels_all_that_are_needed_lie_in_the_planted_region(name: str) -> None:
    planted = PROBLEMS[name](0)
    for x, reference, region in asked(planted):
        found = missing_set(planted.model, x, reference, empty=planted.empty, search=SEARCH)
        assert 1 <= len(found) <= int(region.sum())
        assert not bool((found.mask.any(0) & ~region).any())
        assert found.is_minimal


@pytest.mark.slow
def test_where_one_of_two_things_is_enough_one_is_named() -> None:
    planted = PROBLEMS["either_missing"](0)
    for x, reference, region in asked(planted):
        found = missing_set(planted.model, x, reference, pieces=8, empty=planted.empty, search=SEARCH)
        assert not bool((found.mask.any(0) & ~region).any())


def test_a_column_by_its_name_and_what_makes_the_other_class() -> None:
    planted = PROBLEMS["column_missing"](0)
    key = int(planted.pool_regions.any(0).flatten().nonzero()[0])
    kind = TableKind(tuple(Column(f"column {place}" if place != key else "the key") for place in range(24)))
    model = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 1, 24)), planted.model).eval()
    for x, reference, _ in asked(planted):
        references = ReferenceSet(reference.flatten(1), kind=kind, k=1)
        found = missing_set(model, x.flatten(1), references)
        assert found.members == (key,)
        assert found.sentence({1: "faulty", 0: "sound"}).startswith(
            "Faulty and not sound because this column is missing: the key (0, there "
        )
        assert sufficient_set(model, reference.flatten(1), x.flatten(1)).members == (key,)
