"""The planted problems are what they say: the key holds the absence unit down, and the same seed gives the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from absence_plugins.data import planted
from absence_plugins.data.planted import PROBLEMS, Planted, Sum, dilate

EXACT = [name for name in PROBLEMS if name != "stroke_missing"]


def erased(problem: Planted, images: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """The images with the key's pixels blank."""
    blank = torch.tensor(problem.empty).reshape(1, -1, 1, 1).expand_as(images)
    return torch.where(regions, blank, images)


def test_at_least_five_have_known_regions() -> None:
    assert len(EXACT) >= 5
    assert all(PROBLEMS[name](0).is_exact == (name in EXACT) for name in PROBLEMS)


@pytest.mark.parametrize("name", PROBLEMS)
def test_labels_regions_and_pixels_fit(name: str) -> None:
    problem = PROBLEMS[name](0)
    low, high = problem.pixels
    for images, labels, regions in (
        (problem.images, problem.labels, problem.regions),
        (problem.pool_images, problem.pool_labels, problem.pool_regions),
    ):
        assert images.shape[0] == len(labels) == len(regions)
        assert regions.shape == (len(images), 1, *images.shape[2:])
        assert regions.dtype == torch.bool
        assert images.min() >= low
        assert images.max() <= high
        with_key = labels == problem.presence_unit
        assert not regions[~with_key].any()
        if problem.is_exact:
            assert regions[with_key].flatten(1).any(1).all()
    assert problem.accuracy >= 0.95
    assert not problem.model.training
    assert "key missing" in repr(problem)


@pytest.mark.parametrize("name", EXACT)
def test_removing_the_key_raises_the_absence_unit(name: str) -> None:
    """The definition (METHODS 1), checked without any attribution; away from the key erasing does not."""
    problem = PROBLEMS[name](0)
    rows = problem.labels == problem.presence_unit
    images, regions = problem.images[rows], problem.regions[rows]
    with torch.no_grad():
        before, after, elsewhere = (
            problem.model(changed)[:, problem.absence_unit]
            for changed in (images, erased(problem, images, regions), erased(problem, images, regions.roll(12, 3)))
        )
    assert (after > before).float().mean() >= 0.99
    assert (after - before).mean() > 4 * (elsewhere - before).mean()


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train: Any = planted.shape_missing_dead.__wrapped__
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(train(7))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    one, two = found
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.pool_images, two.pool_images)
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, two.model.state_dict()[name]), name
    assert not torch.equal(one.images, planted.shape_missing_dead(0).images)


def test_sum_adds_up_the_last_axis() -> None:
    assert torch.equal(Sum()(torch.tensor([[1.0, 2.0], [3.0, -3.0]])), torch.tensor([3.0, 0.0]))


def test_dilate_grows_in_all_directions() -> None:
    one = torch.zeros(1, 1, 7, 7, dtype=torch.bool)
    one[0, 0, 3, 3] = True
    assert dilate(one, 2).sum() == 25
    assert dilate(one, 0).sum() == 1
