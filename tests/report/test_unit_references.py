"""The references of a unit's images: chosen as one by one, and read once for all sections of a page."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from unit_subjects import SMALL, images, linear_maps, net

from absence_plugins import FeatureSpace, ReferenceSet
from absence_plugins.report.unit import report_of, study_of
from absence_plugins.report.unit.recent import RecentImages
from absence_plugins.report.unit.references import compared, high_images
from absence_plugins.report.unit.study import Study


class Read(torch.utils.data.Dataset[Any]):
    """Images that count how often they are read."""

    def __init__(self) -> None:
        self.pixels, self.block = images()
        self.pixels = self.pixels + 0.01 * torch.rand(self.pixels.shape, generator=torch.Generator().manual_seed(1))
        self.times: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> Tensor:
        self.times[number] += 1
        return self.pixels[number]


def study(data: Read, labels: Tensor | None, **options: Any) -> Study:
    settings = {**SMALL, "examples": 2, "scored": 3, **options}
    return study_of(net(), "conv", [0, 1, 2], data, labels=labels, maps=linear_maps, pictures=None, **settings)


def one_by_one(study: Study, unit: int, number: int) -> tuple[Tensor, Tensor]:
    """A second writing: pool, references and values of one image."""
    values, labels, pixels = study.values(unit), study.labels, study.dataset.pixels
    allowed = values < values[number]
    if labels is None:
        allowed &= values <= values.quantile(0.25)
    else:
        means = {c: float(values[labels == c].mean()) for c in set(labels.tolist()) - {int(labels[number])}}
        allowed &= labels == min(means, key=lambda c: (means[c], c))
    pool = allowed.nonzero()[:, 0]
    pool = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))[:400].sort().values]
    space = FeatureSpace(study.model) if study.settings.nearest_in == "features" else None
    references = ReferenceSet(pixels[pool], k=min(study.settings.references, len(pool)), nearest_in=space)
    near = references.nearest_indices(pixels[[number]])[0]
    return pixels[pool[near]], values[pool[near]]


@pytest.mark.parametrize("nearest_in", ["pixels", "features"])
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_references_are_those_of_each_image_alone(classes: int, nearest_in: str) -> None:
    data = Read()
    found = study(data, torch.arange(60) % classes if classes else None, nearest_in=nearest_in)
    for unit in (0, 2, 0):
        numbers = high_images(found, unit)[:3]
        many = compared(found, unit, numbers)
        for row, number in enumerate(numbers):
            theirs, values = one_by_one(found, unit, number)
            assert torch.equal(many.references[row], theirs)
            assert torch.equal(many.reference_values[row], values)
        assert torch.equal(many.images, data.pixels[numbers])
        assert torch.equal(compared(found, unit, numbers[1:2]).references[0], many.references[1])


def test_an_image_without_references_says_so_and_the_others_have_theirs() -> None:
    found = study(Read(), None)
    lowest = int(found.values(0).argmin())
    with pytest.raises(ValueError, match="no image on which the unit is lower"):
        compared(found, 0, [lowest])
    assert len(compared(found, 0, high_images(found, 0)).references) >= 3


def test_every_image_is_read_once_per_page() -> None:
    """By all sections together; with room for all of them once for all pages."""
    data = Read()
    found = study(data, None)
    assert len(found.tested) == 3
    found.peaks(0)
    data.times.clear()
    for unit in (0, 1):
        report_of(found, unit)
        assert max(data.times.values()) == 1
    assert found.recent.read == len(data.times)


def test_what_is_kept_is_bounded() -> None:
    data = Read()
    size = data.pixels[0].numel() * 4
    kept = RecentImages(data, most=5 * size)
    for number in [*range(10), 9, 8, 0]:
        assert torch.equal(kept[number], data.pixels[number])
        assert kept.bytes <= 5 * size
    assert (kept.read, data.times[9], data.times[0]) == (11, 1, 2)
    with pytest.raises(ValueError, match="NaN"):
        RecentImages(torch.full((1, 1, 2, 2), torch.nan))[0]
