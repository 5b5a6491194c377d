"""The published recipe: its constraints, its stages, its mini-batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from absence_plugins.data.synthetic_directions import SyntheticDirections, synthetic_directions
from absence_plugins.methods.directions import DirectionPairs, FeatureStore
from absence_plugins.methods.directions.lagrangian import AugmentedLagrangian
from absence_plugins.methods.directions.paper import CONSTRAINED, PENALIZED


@pytest.fixture(scope="module")
def data() -> SyntheticDirections:
    return synthetic_directions(0, images=300)


def minimize(bounds: dict[str, float], *, update: bool = True) -> tuple[Tensor, AugmentedLagrangian]:
    """The least (x - 3)^2 + (y - 3)^2 with x^2 < bounds["x"] and y^2 < bounds["y"]."""
    point = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    lagrangian = AugmentedLagrangian(bounds)
    for _ in range(15):
        for _ in range(20):
            total = ((point - 3) ** 2).sum() + lagrangian.term({"x": point[0] ** 2, "y": point[1] ** 2})
            (gradient,) = torch.autograd.grad(total, point)
            with torch.no_grad():
                point -= 0.03 * gradient
        if update:
            lagrangian.update()
    return point.detach(), lagrangian


def test_a_constraint_that_binds_is_met_and_its_multiplier_is_that_of_the_solution() -> None:
    point, lagrangian = minimize({"x": 1.0, "y": 100.0})
    assert torch.allclose(point, torch.tensor([1.0, 3.0], dtype=torch.float64), atol=0.01)
    # 2 (x - 3) + m 2 x / c = 0 at x = 1, c = 1; a penalty of the same weight alone would stop at x > 1
    assert lagrangian.multipliers["x"] == pytest.approx(2.0, abs=0.05)
    assert lagrangian.multipliers["y"] == 0
    alone, _ = minimize({"x": 1.0, "y": 100.0}, update=False)
    assert float(alone[0]) > 1.05


def test_a_multiplier_falls_again_where_its_constraint_is_met() -> None:
    lagrangian = AugmentedLagrangian({"a": 2.0})
    for value, expected in ((4.0, 10.0), (2.0, 10.0), (1.0, 5.0), (0.0, 0.0), (0.0, 0.0), (2.2, 1.0)):
        lagrangian.term({"a": torch.tensor(value)})
        lagrangian.update()
        assert lagrangian.multipliers["a"] == pytest.approx(expected)
    lagrangian.term({"a": torch.tensor(1.0)})
    lagrangian.term({"a": torch.tensor(3.0)})
    lagrangian.update()  # by the mean of both
    assert lagrangian.multipliers["a"] == pytest.approx(1.0)


def test_published_numbers() -> None:
    a, d = CONSTRAINED
    assert (a.steps, a.rate, a.bounds) == (20_000, 5e-5, {"ma": 0.8, "mm": 8.0, "ic": 0.1})
    assert (d.steps, d.rate, d.bounds["eac"], d.bounds["fso"]) == (20_000, 5e-5, 0.1, 0.1)
    assert [(one.name, one.epochs, one.rate, one.tau, one.rho) for one in PENALIZED] == [
        ("a", 800, 1e-3, 0.9, 1.0),
        ("b", 2000, 1e-4, 0.9, 12.0),
        ("d", 2000, 5e-4, 0.2, 70.0),
    ]


def test_constraints_that_are_violated_raise_their_multipliers(data: SyntheticDirections) -> None:
    pairs = DirectionPairs(3, recipe="paper", steps=150).fit(data.features, head=data.head)
    names = ("max_activation", "max_margin", "inactive", "excessive", "orthogonality")
    assert set(pairs.losses_) == {
        *("sparsity", "sparsity_bound", "alignment", *names),
        *(f"multiplier of {name}" for name in names),
    }
    # M starts at 1, so 1 / M < 8 holds from the beginning; detectors are not sure from the beginning
    assert pairs.losses_["multiplier of max_margin"] == 0
    assert pairs.losses_["max_activation"] > 0.8
    assert pairs.losses_["multiplier of max_activation"] > 0
    assert bool((pairs.gain > 0).all())
    assert bool(pairs.decoding.isfinite().all())
    assert DirectionPairs(3, recipe="paper").options.steps == 0  # as published


def test_mini_batches_from_memory_and_from_disk_are_the_same(data: SyntheticDirections, tmp_path: Path) -> None:
    store = FeatureStore.write(tmp_path, data.features.split(70))
    found = [
        DirectionPairs(3, recipe="paper", steps=12, batch_size=32).fit(source, data.head)
        for source in (data.features, store)
    ]
    assert torch.equal(found[0].decoding, found[1].decoding)
    whole = DirectionPairs(3, recipe="paper", steps=12, batch_size=300).fit(data.features, data.head)
    assert not torch.equal(found[0].decoding, whole.decoding)


def test_weighted_stages_of_many_directions() -> None:
    made = synthetic_directions(0, concepts=9, dimensions=32, images=360)
    pairs = DirectionPairs(9, recipe="paper", steps=15).fit(made.features, made.head)
    assert set(pairs.losses_) == {
        *("sparsity", "sparsity_bound", "max_activation", "max_margin", "inactive", "alignment", "excessive"),
        "orthogonality",
    }
    assert bool(pairs.decoding.isfinite().all())


def test_steps_as_published_survive_a_folder(data: SyntheticDirections, tmp_path: Path) -> None:
    pairs = DirectionPairs(3, recipe="paper", steps=2).fit(data.features)
    pairs.options = replace(pairs.options, steps=0)
    assert DirectionPairs.load(pairs.save(tmp_path)).options == pairs.options
