"""The insertion test with images that are not independent: the number of groups decides, not that of images."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from insertion_nets import Noisy, scenes
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.groups import as_groups
from absence_plugins.methods.insertion import InsertionResult, insertion_test
from absence_plugins.methods.insertion.copies import drop_copies, find_members
from absence_plugins.methods.invert import label_units
from absence_plugins.methods.patches import find_extreme_patches, halves


def noise(images: int, seed: int) -> Tensor:
    return torch.rand(images, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def run(model: nn.Module, images: Tensor, groups: object = None, **options: object) -> InsertionResult:
    half = halves(images, groups=groups)[0]
    found = find_extreme_patches(model, "", images, k=4, size=4, stride=2, images=half, progress=False)
    return insertion_test(model, "", images, found, images_per_unit=40, groups=groups, progress=False, **options)  # type: ignore[arg-type]


def network(seed: int, units: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, units, 3, padding=1), nn.ReLU(), nn.Conv2d(units, units, 3, padding=1))


def test_halves_keep_groups_whole() -> None:
    groups = torch.arange(30) // 3
    first, second = halves(range(30), 1, groups)
    assert sorted(first + second) == list(range(30))
    assert not set(groups[first].tolist()) & set(groups[second].tolist())
    assert len(first) == 15
    assert halves(range(30), 1) == halves(range(30), 1, torch.arange(30) + 7)  # each alone: as without groups
    with pytest.raises(ValueError, match=r"groups have shape \(2,\); pass one per sample, \[30\]"):
        halves(range(30), groups=[0, 1])
    with pytest.raises(TypeError, match="groups are float; pass one integer or string per sample"):
        halves(range(2), groups=[0.5, 1.0])


def test_groups_are_read_as_by_label_units() -> None:
    """Patients by name, in a list or an array, and what is rejected."""
    named = [f"patient {number // 3}" for number in range(30)]
    numbers = as_groups(named, 30)
    assert numbers is not None
    assert halves(range(30), 1, named) == halves(range(30), 1, np.array(named)) == halves(range(30), 1, numbers)
    images, model = noise(24, 0), network(0)
    by_name, by_number = ["abcdefgh"[n // 3] for n in range(24)], torch.arange(24) // 3
    assert torch.equal(run(model, images, by_name).images, run(model, images, by_number).images)
    a, c = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), torch.arange(30)[:, None] % 2 == 0
    for groups, error, said in (
        (["x"] * 30, ValueError, "all 30 samples are of one group, 'x'; two groups are the least"),
        ([[1, 2]] * 30, ValueError, r"groups have shape \(30, 2\); pass one per sample, \[30\]"),
        (7, ValueError, "groups have shape"),
        (["x", 1] * 15, TypeError, "groups are int and str; pass one integer or string"),
    ):
        with pytest.raises(error, match=said):
            halves(range(30), groups=groups)
        with pytest.raises(error, match=said):
            find_members(range(30), groups)
        with pytest.raises(error, match=said):
            label_units(a, c, ["even"], groups=groups, progress=False)


def test_copies_change_nothing() -> None:
    images, model = noise(24, 0), network(0)
    once = run(model, images)
    groups = torch.arange(24).repeat(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = run(model, images.repeat(5, 1, 1, 1), groups)
    assert many.images.shape == once.images.shape == (8, 12)
    assert set(groups[many.images].flatten().tolist()) == set(once.images.flatten().tolist())
    for one in many:
        assert one.images == 12
        assert one.patches <= 4  # from so many independent images


def test_copies_in_a_tensor_are_found() -> None:
    images = noise(12, 1).repeat(4, 1, 1, 1)
    patches = find_extreme_patches(network(1), "", images, k=4, size=4, stride=2, progress=False)
    with pytest.warns(AbsenceWarning, match="36 of 48 images are exact copies of others.*12 independent images"):
        tested = insertion_test(network(1), "", images, patches, progress=False)
    assert tested.images.shape[1] == 6  # of the other half, one image of each group
    with pytest.warns(AbsenceWarning), pytest.raises(ValueError, match="2 independent images are left to test on"):
        insertion_test(network(1), "", noise(4, 1).repeat(9, 1, 1, 1), patches, progress=False)


def test_members() -> None:
    assert find_members([0, 1, 2], None).tolist() == [0, 1, 2]
    blank = torch.zeros(3, 1, 2, 2)
    assert find_members(blank, None).tolist() == [0, 1, 2]  # blank images say nothing of copying
    assert drop_copies([5, 4, 3, 2], torch.tensor([0, 0, 1, 1, 2, 0]), {2}) == [5, 3]


def test_patches_of_one_group_are_one_sample() -> None:
    """Four low patches from copies of one image are one low patch: by chance 1 of 17 is the lowest, not 4 of 20."""
    images = noise(20, 3)
    images[:4] = noise(1, 9)
    groups = torch.tensor([0, 0, 0, 0, *range(1, 17)])
    model = nn.Conv2d(1, 1, 4)
    patches = find_extreme_patches(model, "", images[:12], k=4, size=4, stride=4, images=range(8), progress=False)
    options = {"images_per_unit": 4, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsenceWarning)
        alone = insertion_test(model, "", images[:12], patches, groups=torch.arange(12), **options)
        told = insertion_test(model, "", images[:12], patches, groups=groups[:12], **options)
    assert torch.equal(alone.values, told.values)  # the same images are tested, none of which was scanned
    assert told[0].patches < alone[0].patches


def count_flagged(seeds: range, copies: int) -> int:
    """Flagged units of nets that are noise, on scenes that are repeated, with groups."""
    found = 0
    for seed in seeds:
        images = scenes(30, seed).repeat(copies, 1, 1, 1)
        groups = torch.arange(30).repeat(copies)
        patches = find_extreme_patches(
            Noisy(8, seed), "", images, k=4, size=8, stride=8, images=halves(images, 0, groups)[0], progress=False
        )
        tested = insertion_test(Noisy(8, seed), "", images, patches, groups=groups, progress=False)
        found += len(tested.flagged)
    return found


@pytest.mark.parametrize(("seeds", "copies"), [(range(2), 4), pytest.param(range(10), 6, marks=pytest.mark.slow)])
def test_copies_of_scenes_flag_no_unit_that_is_noise(seeds: range, copies: int) -> None:
    assert count_flagged(seeds, copies) <= len(seeds) // 10  # 5 % of the seeds are expected to have any
