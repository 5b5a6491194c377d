"""Which real images a unit's high images are compared with: such on which it is low."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from absence_plugins import FeatureSpace, ReferenceSet

if TYPE_CHECKING:
    from absence_plugins.report.unit.study import Study

POOL = 400  # images among which the nearest ones are searched
LOW_SHARE = 4  # without classes: among the lowest quarter


@dataclass(frozen=True, eq=False)
class Compared:
    """Images on which the unit is high, each with references on which it is lower.

    Attributes:
        numbers: n of the data set.
        images: [n, C, H, W].
        values: u(x) [n].
        references: [n, k, C, H, W], nearest first.
        reference_values: u(r) [n, k].
        pool: what they were chosen from, in words.
    """

    numbers: tuple[int, ...]
    images: Tensor
    values: Tensor
    references: Tensor
    reference_values: Tensor
    pool: str


def compared(study: Study, unit: int, numbers: list[int]) -> Compared:
    """The nearest references for these images.

    With classes the references are those of one contrast class: of all classes but the image's own that on whose
    images the unit is lowest on average. Without, they come from the lowest quarter of all images. In either case u(r)
    < u(x).

    Raises:
        ValueError: no image on which the unit is lower than on one of these.
    """
    values = study.values(unit)
    found = [study.nearest.of(study, unit, number) for number in numbers]
    fewest = min(len(one.numbers) for one in found)
    named = {one.contrast for one in found} - {None}
    words = "the quarter of the images on which it is lowest" if not named else (
        "the class on which it is lowest" if len(named) == 1 else "the other class on which it is lowest"
    )  # fmt: skip
    return Compared(
        tuple(numbers),
        study.images(numbers),
        values[numbers],
        torch.stack([one.images[:fewest] for one in found]),
        torch.stack([values[one.numbers][:fewest] for one in found]),
        words,
    )


@dataclass(frozen=True, eq=False)
class Near:
    """The references of one image, nearest first.

    Attributes:
        numbers: [k] of the data set.
        images: [k, C, H, W].
        contrast: the class that they are of; None: of any.
    """

    numbers: Tensor
    images: Tensor
    contrast: int | None


@dataclass(eq=False)
class Nearest:
    """The references of the images of one unit's page: what they are chosen from is read once for all sections."""

    unit: int = -1
    found: dict[int, Near] = field(default_factory=dict)

    def of(self, study: Study, unit: int, number: int) -> Near:
        """Of image ``number``. Raises ValueError: there is no image on which the unit is lower."""
        if unit != self.unit:
            self.unit, self.found = unit, {}
        if number not in self.found:
            asked = {number: None, **dict.fromkeys(high_images(study, unit))}
            self.found |= find_nearest(study, unit, [one for one in asked if one not in self.found])
        if number not in self.found:
            raise ValueError("there is no image on which the unit is lower, so nothing to compare with")
        return self.found[number]


def high_images(study: Study, unit: int) -> list[int]:
    """The images on which the unit is highest, of all sections of its page; each once."""
    values, one = study.values(unit), study.settings
    shown = values.argsort(descending=True, stable=True)[: one.examples].tolist()
    scored = values.argsort(stable=True).flip(0)[: one.scored].tolist()  # equal ones in another order
    return list(dict.fromkeys([int(values.argmax()), *shown, *scored]))


def find_nearest(study: Study, unit: int, numbers: Sequence[int]) -> dict[int, Near]:
    """The nearest references by image, without images that have none; every pool is read once."""
    values, labels = study.values(unit), study.labels
    space = FeatureSpace(study.model) if study.settings.nearest_in == "features" else None
    pools: dict[tuple[int, ...], list[int]] = {}
    contrasts: dict[int, int | None] = {}
    for number in numbers:
        allowed = values < values[number]
        contrasts[number] = None
        if labels is None:
            allowed &= values <= values.quantile(1 / LOW_SHARE)
        else:
            contrast = contrasts[number] = _contrast_class(values, labels, int(labels[number]))
            if contrast is not None:
                allowed &= labels == contrast
        pool = allowed.nonzero()[:, 0]
        generator = torch.Generator().manual_seed(study.settings.seed)
        chosen = pool[torch.randperm(len(pool), generator=generator)[:POOL].sort().values]
        pools.setdefault(tuple(chosen.tolist()), []).append(number)
    found: dict[int, Near] = {}
    for members, own in pools.items():
        if not members:
            continue
        images = study.images(members)
        references = ReferenceSet(images, k=min(study.settings.references, len(members)), nearest_in=space)
        for number in own:
            near = references.nearest_indices(study.images([number]))[0]
            found[number] = Near(torch.tensor(members)[near], images[near.to(images.device)], contrasts[number])
    return found


def _contrast_class(values: Tensor, labels: Tensor, own: int) -> int | None:
    """The class of lowest mean, other than the image's own; None if there is no other."""
    means = {one: float(values[labels == one].mean()) for one in sorted(set(labels.tolist())) if one != own}
    return min(means, key=lambda one: (means[one], one)) if means else None
